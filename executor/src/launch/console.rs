//! The container's terminal: a pair of its own devpts, opened by descriptor, its slave bound onto
//! `/dev/console`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{mounts, resolve};

const DEVPTS_SUPER_MAGIC: rustix::fs::FsWord = 0x1cd1;

/// Master and slave.
pub(super) struct Pair {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// Opens a new pair of the devpts mounted at `/dev/pts` inside `root`.
pub(super) fn open(root: &OwnedFd, size: Option<(u16, u16)>) -> io::Result<Pair> {
    let pts = resolve::find(root, "/dev/pts")?;
    if fstatfs(&pts)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other("/dev/pts is not a devpts file system"));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = openat(&pts, "ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if let Some((ws_row, ws_col)) = size {
        tcsetwinsize(&slave, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
    }
    Ok(Pair { master, slave })
}

/// Shows the slave as `/dev/console`.
pub(super) fn bind(root: &OwnedFd, pair: &Pair) -> io::Result<()> {
    let dev = resolve::ensure_plain_directory(root, "/dev")?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&dev, "console", create, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // Never through a link that an image may have put there.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(&dev, "console", flags, Mode::empty())?;
    mounts::place(&mounts::clone_of(&pair.slave, false)?, &target)
}
