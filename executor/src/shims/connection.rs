//! One request and one answer over a Unix socket, with file descriptors.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{Answer, MAX_FDS, Request, SOCKET_FILE, encode, message_length};

/// Longest path of a socket address, without its end.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Connects to the socket in a shim's directory, however long its path is.
pub(super) async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let path = directory.join(SOCKET_FILE);
    if path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return UnixStream::connect(path).await;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
    UnixStream::connect(format!("/proc/self/fd/{number}/{SOCKET_FILE}")).await
}

/// Puts a question. The descriptors are duplicated to the shim and closed here.
pub(super) async fn ask(stream: &mut UnixStream, request: &Request, fds: Vec<OwnedFd>) -> io::Result<Answer> {
    let message = encode(request)?;
    let sent = send_with_fds(stream, &message, fds).await?;
    stream.write_all(&message[sent..]).await?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await?;
    let mut body = vec![0; message_length(prefix)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Sends the beginning of a message with the descriptors, and says how many bytes that were.
async fn send_with_fds(stream: &UnixStream, message: &[u8], fds: Vec<OwnedFd>) -> io::Result<usize> {
    if fds.is_empty() {
        return Ok(0);
    }
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many clients at once"));
    }
    stream
        .async_io(Interest::WRITABLE, || {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::Error::other("too many file descriptors"));
            }
            let pieces = [IoSlice::new(message)];
            Ok(rustix::net::sendmsg(stream, &pieces, &mut ancillary, SendFlags::NOSIGNAL)?)
        })
        .await
}
