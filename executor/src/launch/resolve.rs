//! Paths that the container controls, resolved to file descriptors inside its root (R1): the kernel
//! does it in one go and never leaves the root, whatever links there are and however they change.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// How often a look-up is repeated that the kernel gave up because of a rename elsewhere.
const RETRIES: usize = 200;

/// How many dangling symbolic links are followed to make what they point to.
const MAX_LINKS: usize = 16;

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn resolve(root: &OwnedFd, path: &str, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
    for _ in 0..RETRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens what `path` means inside `root`.
pub(super) fn open(root: &OwnedFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, flags, INSIDE)
}

/// The same as a path descriptor (O_PATH).
pub(super) fn find(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    resolve(root, path, OFlags::PATH, INSIDE)
}

/// What a mount point has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Directory,
    File,
}

/// Finds a mount point and makes it where it does not exist.
pub(super) fn ensure(root: &OwnedFd, path: &str, want: Want) -> io::Result<OwnedFd> {
    let mut links = 0;
    let mut path = path.to_owned();
    loop {
        match find(root, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match make(root, &path, want)? {
            Made::Found(fd) => return Ok(fd),
            Made::Link(target) if links < MAX_LINKS => {
                links += 1;
                path = target;
            }
            Made::Link(_) => return Err(Errno::LOOP.into()),
        }
    }
}

enum Made {
    Found(OwnedFd),
    /// A dangling link is in the way; this is the path with its target instead.
    Link(String),
}

fn make(root: &OwnedFd, path: &str, want: Want) -> io::Result<Made> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut directory = find(root, "/")?;
    let mut done = String::new();
    for (index, part) in parts.iter().enumerate() {
        let here = format!("{done}/{part}");
        let last = index + 1 == parts.len();
        match find(root, &here) {
            Ok(fd) => directory = fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound && *part != ".." => {
                let made = if last && want == Want::File {
                    let flags =
                        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(&directory, *part, flags, Mode::from_raw_mode(0o644)).map(drop)
                } else {
                    mkdirat(&directory, *part, Mode::from_raw_mode(0o755))
                };
                match made {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        // Either somebody was faster, or it is a link to nothing.
                        if let Ok(target) = readlinkat(&directory, *part, vec![]) {
                            let target = target.to_str().map_err(|_| Errno::ILSEQ)?.to_owned();
                            let rest = parts[index + 1..].join("/");
                            let base =
                                if target.starts_with('/') { String::new() } else { format!("{done}/") };
                            return Ok(Made::Link(
                                format!("{base}{target}/{rest}").trim_end_matches('/').to_owned(),
                            ));
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
                // By the directory's fd, so that it is the one just made or one of the same kind.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                directory = openat(&directory, *part, flags, Mode::empty())?;
            }
            Err(error) => return Err(error),
        }
        done = here;
    }
    Ok(Made::Found(directory))
}

/// Finds (or makes) a directory whose path must not lead over any symbolic link: `/proc`, `/sys`
/// and `/dev`, which are no places for an image to play with.
pub(super) fn ensure_plain_directory(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mut directory = find(root, "/")?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let open = |directory: &OwnedFd| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, part, flags, Mode::empty())
        };
        let next = match open(&directory) {
            Err(Errno::NOENT) => {
                mkdirat(&directory, part, Mode::from_raw_mode(0o755))?;
                open(&directory)?
            }
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&next)?.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        directory = next;
    }
    Ok(directory)
}

/// Splits an absolute path into the directory that holds it and its last name.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/')?;
    (!matches!(name, "" | "." | "..")).then_some((if parent.is_empty() { "/" } else { parent }, name))
}

/// Whether a descriptor is that of a directory.
pub(super) fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}
