//! A connection of the daemon: one request with its file descriptors, one answer.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use executor::protocol::{Answer, MAX_FDS, Request, encode, message_length};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};

/// What somebody with an open question waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The end of process 1.
    Init,
    /// The end of an exec'd process.
    Exec(String),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// Its question is put, and the answer is still to come.
    pub awaited: Option<Awaited>,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, received: vec![], fds: vec![], awaited: None }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what is there, or, with `block`, waits for some. A whole request comes with its file
    /// descriptors; `None` is an unfinished one.
    pub fn read(&mut self, block: bool) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        loop {
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut flags = RecvFlags::CMSG_CLOEXEC;
            flags.set(RecvFlags::DONTWAIT, !block);
            let message = match rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                flags,
            ) {
                Ok(message) => message,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            if message.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.fds.len() > MAX_FDS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many file descriptors"));
            }
            self.received.extend_from_slice(&buffer[..message.bytes]);
            let Some((prefix, body)) = self.received.split_first_chunk::<4>() else { continue };
            let length = message_length(*prefix)?;
            if body.len() >= length {
                let request = serde_json::from_slice(&body[..length])?;
                self.received = vec![];
                return Ok(Some((request, std::mem::take(&mut self.fds))));
            }
        }
    }

    /// Sends the answer. It is small, and nothing else is ever sent here, so the socket's buffer
    /// takes all of it; a daemon that has gone is no error.
    pub fn answer(self, answer: &Answer) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = encode(answer).and_then(|bytes| Ok(rustix::net::send(&self.socket, &bytes, flags)?));
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            eprintln!("an answer was lost: {error}");
        }
    }
}
