//! Stream framing of the Engine API ("application/vnd.docker.multiplexed-stream").
//!
//! Without a terminal, stdout and stderr of a container share one connection. Each piece is
//! preceded by eight bytes: the stream's number, three zeros, and the length of the payload as a
//! big-endian `u32`. With a terminal there is one stream only and no framing at all.

use bytes::{Buf, Bytes, BytesMut};

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 8;

/// The largest payload that [`Demux`] accepts, in bytes. Docker writes at most 32 KiB at a time;
/// the bound is there so that a broken peer cannot make us allocate 4 GiB.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Which of a process' standard streams a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// Standard input; never sent by a server.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the server itself, as text.
    SystemError = 3,
}

impl StreamKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::SystemError),
            _ => None,
        }
    }
}

/// The header of a frame with `payload_bytes` of payload.
pub fn header(kind: StreamKind, payload_bytes: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = payload_bytes.to_be_bytes();
    [kind as u8, 0, 0, 0, a, b, c, d]
}

/// One whole frame: header and payload.
///
/// # Panics
/// Where the payload is 4 GiB or more; callers frame what one `read` returned.
pub fn frame(kind: StreamKind, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("a frame's payload is below 4 GiB");
    let mut out = BytesMut::with_capacity(HEADER_LEN + payload.len());
    out.extend_from_slice(&header(kind, length));
    out.extend_from_slice(payload);
    out.freeze()
}

/// Why a framed stream could not be taken apart.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The first byte of a header is none of the known streams.
    #[error("unrecognized stream: {0}")]
    UnknownStream(u8),
    /// A payload above [`MAX_PAYLOAD_BYTES`].
    #[error("frame of {0} bytes is larger than {MAX_PAYLOAD_BYTES}")]
    TooLarge(usize),
}

/// Takes a framed stream apart, however its bytes were cut into pieces on the way.
#[derive(Debug, Default)]
pub struct Demux {
    buffer: BytesMut,
}

impl Demux {
    /// Adds bytes as they came from the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` where more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<(StreamKind, Bytes)>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let kind = StreamKind::from_byte(head[0]).ok_or(FrameError::UnknownStream(head[0]))?;
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_PAYLOAD_BYTES {
            return Err(FrameError::TooLarge(length));
        }
        if self.buffer.len() < HEADER_LEN + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        Ok(Some((kind, self.buffer.split_to(length).freeze())))
    }

    /// Whether bytes of an unfinished frame are left.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            cut in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for (kind, payload) in &frames {
                wire.extend_from_slice(&frame(StreamKind::from_byte(*kind).unwrap(), payload));
            }
            let mut demux = Demux::default();
            let mut got = Vec::new();
            for piece in wire.chunks(cut) {
                demux.push(piece);
                while let Some((kind, payload)) = demux.next_frame().unwrap() {
                    got.push((kind as u8, payload.to_vec()));
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(demux.is_empty());
        }
    }

    #[test]
    fn an_unknown_stream_is_an_error() {
        let mut demux = Demux::default();
        demux.push(&[9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(demux.next_frame(), Err(FrameError::UnknownStream(9)));
    }

    #[test]
    fn a_huge_payload_is_an_error_and_not_an_allocation() {
        let mut demux = Demux::default();
        demux.push(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(demux.next_frame(), Err(FrameError::TooLarge(0xffff_ffff)));
    }
}
