//! A client that is attached to a process: frames out, stdin in.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use executor::log::Stream;
use executor::shims::Streams;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

/// With more than this waiting for a client, nothing more is read from the process: a slow client
/// slows the container down, as with Docker, and never fills the memory.
const MOST_WAITING_BYTES: usize = 64 << 10;

/// One attached client.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    streams: Streams,
    /// Docker's frames of eight bytes before each piece; without, raw bytes (of a terminal).
    framed: bool,
    waiting: Vec<u8>,
    /// Whether its stdin has ended.
    input_ended: bool,
    /// Both directions are closed; what it sent before may still be there to read.
    hung_up: bool,
}

impl Client {
    pub fn new(socket: OwnedFd, streams: Streams, framed: bool) -> Self {
        Self { socket, streams, framed, waiting: vec![], input_ended: !streams.stdin, hung_up: false }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to wait for; `None` is nothing, not even its hanging up, which is known.
    pub fn interest(&self, input_wanted: bool) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        if input_wanted && !self.input_ended {
            flags |= PollFlags::IN;
        }
        if self.hung_up && flags.is_empty() {
            return None;
        }
        if !self.waiting.is_empty() && !self.hung_up {
            flags |= PollFlags::OUT;
        }
        Some(flags)
    }

    /// Whether it can take more output.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MOST_WAITING_BYTES
    }

    /// Whether everything was handed over.
    pub fn is_flushed(&self) -> bool {
        self.waiting.is_empty() || self.hung_up
    }

    /// It has gone. Its stdin, sent before it left, still counts.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
        self.waiting = vec![];
    }

    /// Whether it has gone.
    pub fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether nothing more can come of it.
    pub fn is_done(&self) -> bool {
        self.hung_up && self.input_ended
    }

    /// Reads stdin. `Ok(None)` is its end, an empty piece says that there is nothing at the moment.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.input_ended = true;
                None
            }
            Ok((length, _)) => Some(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => Some(&[]),
            Err(_) => {
                self.input_ended = true;
                self.hang_up();
                None
            }
        }
    }

    /// Hands over a piece of output, if it wants that stream. What it cannot take now is kept.
    pub fn output(&mut self, stream: Stream, piece: &[u8]) {
        let (wanted, number) = match stream {
            Stream::Stdout => (self.streams.stdout, 1),
            Stream::Stderr => (self.streams.stderr, 2),
        };
        if !wanted || self.hung_up {
            return;
        }
        let [a, b, c, d] = u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes();
        let header = [number, 0, 0, 0, a, b, c, d];
        let header = if self.framed { &header[..] } else { &[] };
        let mut sent = 0;
        if self.waiting.is_empty() {
            match self.send(&[IoSlice::new(header), IoSlice::new(piece)]) {
                Ok(length) => sent = length,
                Err(()) => return,
            }
        }
        let of_header = sent.min(header.len());
        self.waiting.extend_from_slice(&header[of_header..]);
        self.waiting.extend_from_slice(&piece[sent - of_header..]);
    }

    /// Sends what waits, as far as the client takes it.
    pub fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        if let Ok(sent) = self.send(&[IoSlice::new(&waiting)]) {
            self.waiting = waiting;
            self.waiting.drain(..sent);
            if self.waiting.is_empty() {
                self.waiting = vec![];
            }
        }
    }

    /// The process has ended: everything goes into the socket's own buffer, where it stays for the
    /// client after the shim has gone.
    pub fn flush_for_good(&mut self) {
        if !self.waiting.is_empty() {
            // The kernel counts its own overhead against this size; it is not allocated.
            setsockopt(&self.socket, sockopt::SndBufForce, &(4 * self.waiting.len() + (256 << 10))).ok();
            self.flush();
        }
    }

    /// The number of bytes that were taken; an error where the client has gone.
    fn send(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, ()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.socket, pieces, &mut SendAncillaryBuffer::default(), flags) {
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(_) => {
                self.hang_up();
                Err(())
            }
        }
    }
}

impl Drop for Client {
    /// Shuts both directions down, and takes what the client still had sent: unread bytes at the
    /// close would read as a reset connection on the other side.
    fn drop(&mut self) {
        rustix::net::shutdown(&self.socket, Shutdown::Both).ok();
        let mut scratch = [0; 4096];
        while let Ok((1.., _)) = rustix::net::recv(&self.socket, &mut scratch[..], RecvFlags::DONTWAIT) {}
    }
}

/// Makes the shim's own end of a pipe or terminal non-blocking.
pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
