//! Waiting for a log file to change.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// An inotify watch on a log's directory, which sees writes, rotations and the first file.
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Starts to watch: what changes after this returns is not missed.
    pub fn new(log: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let dir = log.parent().unwrap_or(Path::new("/"));
        let changes =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, changes)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; an `OwnedFd` stays open for as long as `AsyncFd` has it"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Waits for a change and swallows all there are.
    pub async fn changed(&mut self) {
        let Ok(mut ready) = self.fd.readable().await else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
        while reader.next().is_ok() {}
        ready.clear_ready();
    }
}
