//! What the new process tells its parent before it becomes the user's program.
//!
//! A close-on-exec SOCK_SEQPACKET pair: each packet is one report, and its end without a failure
//! means that `execve` has succeeded.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::LaunchError;

/// The new process' end.
#[derive(Debug)]
pub(super) struct Reporter(OwnedFd);

/// The parent's end.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// A report.
#[derive(Debug)]
pub(super) enum Report {
    /// The terminal's master.
    Console(OwnedFd),
    /// Something that was tolerated.
    Warning(String),
    /// The end.
    Failure(LaunchError),
}

/// Longer texts are cut.
const MAX_BYTES: usize = 8192;

pub(super) fn channel() -> io::Result<(Listener, Reporter)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Listener(ours), Reporter(theirs)))
}

impl Reporter {
    fn send(&self, kind: u8, text: &str, fd: Option<&OwnedFd>) -> io::Result<()> {
        let mut end = text.len().min(MAX_BYTES - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd.as_fd()]);
        if let Some(fds) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(&text.as_bytes()[..end])];
        sendmsg(&self.0, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    pub(super) fn console(&self, master: &OwnedFd) -> io::Result<()> {
        self.send(b'C', "", Some(master))
    }

    /// A lost warning is no reason to fail.
    pub(super) fn warn(&self, text: &str) {
        self.send(b'W', text, None).ok();
    }

    pub(super) fn fail(&self, error: &LaunchError) {
        self.send(b'F', &format!("{} {}", error.exit_code, error.message), None).ok();
    }

    /// Whether the parent is gone already.
    pub(super) fn is_orphan(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::empty())];
        let polled = rustix::event::poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok_and(|ready| ready > 0) && fds[0].revents().contains(rustix::event::PollFlags::HUP)
    }
}

impl Listener {
    /// The next report; `None` at the end.
    pub(super) fn next(&self) -> io::Result<Option<Report>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0u8; MAX_BYTES];
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?.bytes,
            }
        };
        let Some((kind, text)) = bytes[..received].split_first() else { return Ok(None) };
        let text = String::from_utf8_lossy(text).into_owned();
        Ok(Some(match kind {
            b'C' => {
                let mut fds = ancillary.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                    _ => None,
                });
                Report::Console(fds.next().ok_or_else(|| io::Error::other("no terminal was passed"))?)
            }
            b'W' => Report::Warning(text),
            _ => {
                let (code, message) = text.split_once(' ').unwrap_or(("125", &text));
                Report::Failure(LaunchError {
                    exit_code: code.parse().unwrap_or(125),
                    message: message.to_owned(),
                })
            }
        }))
    }
}
