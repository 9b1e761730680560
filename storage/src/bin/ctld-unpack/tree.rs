//! The tree under `fs/`: directories by descriptor, parents made where they are missing, what is in the
//! way put aside, and the metadata of directories kept for the end.
//!
//! A path of the layer is only ever resolved by `openat2` with `RESOLVE_IN_ROOT`: symbolic links in it
//! lead to where they would lead inside a container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use storage::layer_tar::open_in;
use storage::tar::{Entry, Time};

use crate::failure::Failure;
use crate::replaced::Replaced;

/// Bytes of memory for directories whose metadata waits for the end.
const MAX_DIRECTORY_BYTES: usize = 64 << 20;
/// What one of them costs besides its name.
const DIRECTORY_BYTES: usize = 128;

/// Permissions of directories that no entry describes.
const IMPLIED: u32 = 0o755;

pub struct Tree {
    root: Rc<OwnedFd>,
    /// The directory that was used last: entries come directory by directory.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Whether a symbolic link led to it.
    pub through_link: bool,
    directories: BTreeMap<Vec<u8>, Metadata>,
    directory_bytes: usize,
    pub replaced: Replaced,
}

/// Owner, permissions and times of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Metadata {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub atime: Time,
}

impl Metadata {
    pub fn of(entry: &Entry) -> Self {
        let Entry { mode, uid, gid, mtime, .. } = *entry;
        Self { mode, uid, gid, mtime, atime: entry.atime.unwrap_or(mtime) }
    }

    pub fn times(&self) -> Timestamps {
        let time = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
        Timestamps { last_access: time(self.atime), last_modification: time(self.mtime) }
    }

    pub fn owned(&self) -> bool {
        (self.uid, self.gid) != (0, 0)
    }

    pub fn owner(&self) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
        (Some(rustix::fs::Uid::from_raw(self.uid)), Some(rustix::fs::Gid::from_raw(self.gid)))
    }
}

/// Splits a path into its directory and its last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl Tree {
    /// Makes `fs` in the staging directory, which is `/`.
    pub fn create() -> Result<Self, Failure> {
        let make = || -> rustix::io::Result<OwnedFd> {
            rustix::fs::mkdirat(rustix::fs::CWD, "fs", Mode::from(IMPLIED))?;
            rustix::fs::openat(rustix::fs::CWD, "fs", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        };
        let root = make().map_err(|error| Failure::local(format!("making fs: {error}")))?;
        Ok(Self {
            root: Rc::new(root),
            last: None,
            through_link: false,
            directories: BTreeMap::new(),
            directory_bytes: 0,
            replaced: Replaced::default(),
        })
    }

    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        open_in(&self.root, path, flags, resolve)
    }

    /// A directory for use as the parent of an entry (an `O_PATH` descriptor); made with its parents
    /// where it is missing.
    pub fn directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Failure> {
        if path.is_empty() {
            self.through_link = false;
            self.last = None;
            return Ok(Rc::clone(&self.root));
        }
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let straight = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        self.through_link = false;
        let fd = match open_in(&self.root, path, flags, straight) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_parents(path)?;
                self.open(path, flags)
            }
            Err(Errno::LOOP) => {
                self.through_link = true;
                self.make_parents(path)?;
                self.open(path, flags)
            }
            other => other,
        };
        let fd = Rc::new(fd.map_err(|error| Failure::entry("opening the directory", path, error))?);
        self.last = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// An existing directory, for listing or attributes.
    pub fn existing_directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<(), Failure> {
        let mut parent = Rc::clone(&self.root);
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = match self.open(prefix, flags) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let (_, name) = split(prefix);
                    self.make_directory(&parent, name, prefix)?;
                    self.open(prefix, flags)
                }
                other => other,
            };
            parent = Rc::new(opened.map_err(|error| Failure::entry("opening the directory", prefix, error))?);
        }
        Ok(())
    }

    /// Makes a directory where nothing or only a whiteout is; where a whiteout was, it is opaque.
    fn make_directory(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Failure> {
        let make = || rustix::fs::mkdirat(parent, name, Mode::from(IMPLIED));
        match make() {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Failure::entry("making the directory", path, error)),
        }
        if !self.take_whiteout(parent, name)? {
            return Err(Failure::entry("making the directory", path, Errno::NOTDIR));
        }
        make().map_err(|error| Failure::entry("making the directory", path, error))?;
        self.make_opaque(parent, name, path)
    }

    fn take_whiteout(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<bool, Failure> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(|error| Failure::entry("removing the whiteout", name, error))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Marks a directory as hiding what lower layers have under its name.
    pub fn make_opaque(&self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mark = || {
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            rustix::fs::fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        };
        mark().map_err(|error| Failure::entry("marking as opaque", path, error))
    }

    /// The entry of a directory: makes it, or takes the one that is there.
    pub fn enter_directory(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Failure> {
        match rustix::fs::mkdirat(parent, name, Mode::from(IMPLIED)) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Failure::entry("making the directory", path, error)),
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Failure::entry("reading", path, error))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        if is_whiteout(&stat) {
            return self.make_directory(parent, name, path);
        }
        self.clear(parent, name, path)?;
        self.make_directory(parent, name, path)
    }

    /// Puts aside what has the place of an entry. Contents stay reachable for the recipe.
    pub fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Failure> {
        if self.take_whiteout(parent, name)? {
            return Ok(());
        }
        self.last = None;
        let was_directory = self
            .replaced
            .put_aside(parent, name)
            .map_err(|error| Failure::entry("replacing", path, error))?;
        if was_directory {
            let below = [path, b"/"].concat();
            let gone: Vec<Vec<u8>> = self
                .directories
                .range(below.clone()..)
                .take_while(|(name, _)| name.starts_with(&below))
                .map(|(name, _)| name.clone())
                .chain([path.to_vec()])
                .collect();
            for name in gone {
                if self.directories.remove(&name).is_some() {
                    self.directory_bytes -= name.len() + DIRECTORY_BYTES;
                }
            }
        }
        Ok(())
    }

    /// Keeps the metadata of a directory until nothing is written into it any more.
    pub fn remember(&mut self, path: &[u8], metadata: Metadata) -> Result<(), Failure> {
        if self.directories.insert(path.to_vec(), metadata).is_none() {
            self.directory_bytes += path.len() + DIRECTORY_BYTES;
        }
        if self.directory_bytes > MAX_DIRECTORY_BYTES {
            return Err(Failure::budget(format!(
                "over budget: the layer's directories need more than {MAX_DIRECTORY_BYTES} bytes of memory"
            )));
        }
        Ok(())
    }

    /// Applies what was remembered.
    pub fn finish_directories(&mut self) -> Result<(), Failure> {
        for (path, metadata) in std::mem::take(&mut self.directories) {
            let apply = || {
                let fd = self.existing_directory(&path)?;
                if metadata.owned() {
                    let (uid, gid) = metadata.owner();
                    rustix::fs::fchown(&fd, uid, gid)?;
                }
                rustix::fs::fchmod(&fd, Mode::from(metadata.mode))?;
                rustix::fs::futimens(&fd, &metadata.times())
            };
            match apply() {
                // Reached through a link that an entry replaced later: there is no such directory now.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(Failure::entry("finishing the directory", &path, error)),
            }
        }
        Ok(())
    }
}
