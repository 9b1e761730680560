//! The raw stream of `attach` and `exec`, after the HTTP exchange is over.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// What a chunk read from the stream may hold, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// An upgraded connection in its two directions.
#[derive(Debug)]
pub struct Hijacked {
    /// Output of the process; framed unless it has a terminal.
    pub reader: HijackedReader,
    /// Input of the process. Shutting it down or dropping it is the end of its input; the other
    /// direction stays open.
    pub writer: OwnedWriteHalf,
    /// The answer's content type, which says whether the output is framed (API 1.42 and newer).
    pub content_type: Option<String>,
}

/// The reading direction.
#[derive(Debug)]
pub struct HijackedReader {
    /// Bytes that arrived together with the answer's head.
    early: Bytes,
    half: OwnedReadHalf,
}

impl Hijacked {
    pub(super) fn new(stream: UnixStream, early: Bytes, content_type: Option<String>) -> Self {
        let (half, writer) = stream.into_split();
        Self { reader: HijackedReader { early, half }, writer, content_type }
    }
}

impl HijackedReader {
    /// Appends what is there to `buffer` and returns its length; 0 at the end of the stream.
    /// Can be cancelled: what was not returned is returned by the next call.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> std::io::Result<usize> {
        if self.early.has_remaining() {
            let early = std::mem::take(&mut self.early);
            buffer.extend_from_slice(&early);
            return Ok(early.len());
        }
        buffer.reserve(CHUNK_BYTES);
        self.half.read_buf(buffer).await
    }
}
