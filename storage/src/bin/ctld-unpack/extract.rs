//! From entries to files.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use storage::layer_tar::open_in;
use storage::tar::{Entry, Kind, Segment, TarReader, shown};

use crate::failure::Failure;
use crate::pipeline::TarStream;
use crate::tree::{Metadata, Tree, is_whiteout, split};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Where the content of an entry went.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Into a file of the tree, whose inode it is.
    Kept { inode: u64 },
    /// Nowhere yet: it is still to be read, as there is no file.
    Unread,
}

impl Tree {
    /// Applies one entry.
    pub fn apply(&mut self, entry: &Entry, tar: &mut TarReader<TarStream>) -> Result<Content, Failure> {
        let (parent_path, name) = split(&entry.path);
        if entry.path.is_empty() {
            // The root's own metadata is not the layer's to set, as in Docker.
            return Ok(Content::Unread);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.whiteout(entry, parent_path, hidden)?;
            return Ok(Content::Unread);
        }
        if parent_path.split(|b| *b == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(Failure::corrupt(format!("the entry {} is below a whiteout", shown(&entry.path))));
        }
        check_xattrs(entry)?;
        let parent = self.directory(parent_path)?;
        let metadata = Metadata::of(entry);
        match &entry.kind {
            Kind::File { size, segments } => {
                let file = self.create_file(&parent, name, entry, &metadata)?;
                let inode = file.metadata().map_err(|error| failed(entry, error))?.ino();
                write_content(&file, *size, segments.as_deref(), entry, tar)?;
                finish_file(&file, entry, &metadata).map_err(|error| failed(entry, error))?;
                if self.through_link {
                    self.replaced.watch(&parent, name, inode).map_err(|error| failed(entry, error))?;
                }
                return Ok(Content::Kept { inode });
            }
            Kind::Directory => {
                self.enter_directory(&parent, name, &entry.path)?;
                if !entry.xattrs.is_empty() {
                    let fd = self.existing_directory(&entry.path).map_err(|error| failed(entry, error))?;
                    set_xattrs(entry, |name, value| {
                        rustix::fs::fsetxattr(&fd, name, value, XattrFlags::empty())
                    })
                    .map_err(|error| failed(entry, error))?;
                }
                self.remember(&entry.path, metadata)?;
            }
            Kind::HardLink(target) => self.hard_link(&parent, name, entry, target)?,
            Kind::Symlink(target) => {
                self.make(&parent, name, entry, || rustix::fs::symlinkat(target.as_slice(), &parent, name))?;
                finish_special(&parent, name, entry, &metadata, false)
                    .map_err(|error| failed(entry, error))?;
            }
            Kind::CharDevice(major, minor) => {
                self.device(&parent, name, entry, FileType::CharacterDevice, (*major, *minor))?;
            }
            Kind::BlockDevice(major, minor) => {
                self.device(&parent, name, entry, FileType::BlockDevice, (*major, *minor))?;
            }
            Kind::Fifo => self.device(&parent, name, entry, FileType::Fifo, (0, 0))?,
        }
        Ok(Content::Unread)
    }

    /// Makes something; what is in its place goes first.
    fn make<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, name, &entry.path)?;
                make().map_err(|error| failed(entry, error))
            }
            other => other.map_err(|error| failed(entry, error)),
        }
    }

    fn create_file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        metadata: &Metadata,
    ) -> Result<File, Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if late_mode(metadata) { 0o600 } else { metadata.mode };
        self.make(parent, name, entry, || rustix::fs::openat(parent, name, flags, Mode::from(mode)))
            .map(File::from)
    }

    fn device(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), Failure> {
        let metadata = Metadata::of(entry);
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from(metadata.mode);
        self.make(parent, name, entry, || rustix::fs::mknodat(parent, name, kind, mode, device))?;
        finish_special(parent, name, entry, &metadata, true).map_err(|error| failed(entry, error))
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), Failure> {
        let (target_parent, target_name) = split(target);
        let failed = |error: Errno| {
            let what = format!("linking {} to", shown(&entry.path));
            Failure::entry(&what, target, error)
        };
        if target == entry.path {
            return Err(Failure::corrupt(format!(
                "the entry {} is a hard link to itself",
                shown(&entry.path)
            )));
        }
        // Looked up only: a link makes no directories for its target.
        let find = |tree: &Self| {
            let source = tree.existing_parent(target_parent).map_err(failed)?;
            let stat = rustix::fs::statat(&source, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if is_whiteout(&stat) || target_name.is_empty() {
                return Err(failed(Errno::NOENT));
            }
            Ok((source, stat))
        };
        let (source, stat) = find(self)?;
        let link = |source: &OwnedFd| rustix::fs::linkat(source, target_name, parent, name, AtFlags::empty());
        match link(&source) {
            Err(Errno::EXIST) => {
                // Another name of the same file stays as it is.
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                if there.st_ino == stat.st_ino {
                    return Ok(());
                }
                self.clear(parent, name, &entry.path)?;
                let (source, _) = find(self)?;
                link(&source).map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    fn existing_parent(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        use rustix::fs::ResolveFlags;
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        open_in(self.root(), path, flags, resolve)
    }

    /// `.wh.x` hides `x` of the layers below, `.wh..wh..opq` all that its directory has there. Other names
    /// of that form are bookkeeping of aufs and mean nothing.
    fn whiteout(&mut self, entry: &Entry, parent_path: &[u8], hidden: &[u8]) -> Result<(), Failure> {
        if parent_path.split(|b| *b == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(Failure::corrupt(format!("the entry {} is below a whiteout", shown(&entry.path))));
        }
        if split(&entry.path).1 == OPAQUE {
            let parent = self.directory(parent_path)?;
            return self.make_opaque(&parent, b".", &entry.path);
        }
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Failure::corrupt(format!("the whiteout {} hides no name", shown(&entry.path))));
        }
        let parent = self.directory(parent_path)?;
        let device = FileType::CharacterDevice;
        match rustix::fs::mknodat(&parent, hidden, device, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // A whiteout is about the layers below: what this layer has under the name stays. A directory
            // would be merged with theirs, all else hides it anyway.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, hidden, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| failed(entry, error))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.make_opaque(&parent, hidden, &entry.path)?;
                }
                Ok(())
            }
            Err(error) => Err(failed(entry, error)),
        }
    }
}

fn failed(entry: &Entry, error: impl Into<std::io::Error>) -> Failure {
    Failure::entry("writing", &entry.path, error)
}

/// Whether the permissions are set at the end: `chown` takes setuid bits away, and writing may.
fn late_mode(metadata: &Metadata) -> bool {
    metadata.owned() || metadata.mode & 0o7000 != 0
}

fn write_content(
    mut file: &File,
    size: u64,
    segments: Option<&[Segment]>,
    entry: &Entry,
    tar: &mut TarReader<TarStream>,
) -> Result<(), Failure> {
    let Some(segments) = segments else {
        loop {
            let piece = tar.content()?;
            if piece.is_empty() {
                return Ok(());
            }
            file.write_all(piece).map_err(|error| failed(entry, error))?;
            let length = piece.len();
            tar.consume(length);
        }
    };
    for segment in segments {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let piece = tar.content()?;
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            file.write_all_at(&piece[..most], at).map_err(|error| failed(entry, error))?;
            tar.consume(most);
            at += most as u64;
        }
    }
    file.set_len(size).map_err(|error| failed(entry, error))
}

fn finish_file(file: &File, entry: &Entry, metadata: &Metadata) -> rustix::io::Result<()> {
    if metadata.owned() {
        let (uid, gid) = metadata.owner();
        rustix::fs::fchown(file, uid, gid)?;
    }
    if late_mode(metadata) {
        rustix::fs::fchmod(file, Mode::from(metadata.mode))?;
    }
    set_xattrs(entry, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
    rustix::fs::futimens(file, &metadata.times())
}

/// Owner, attributes and times of what is not opened. `has_mode` is false for symbolic links.
fn finish_special(
    parent: &OwnedFd,
    name: &[u8],
    entry: &Entry,
    metadata: &Metadata,
    has_mode: bool,
) -> rustix::io::Result<()> {
    if metadata.owned() {
        let (uid, gid) = metadata.owner();
        rustix::fs::chownat(parent.as_fd(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if has_mode && metadata.mode & 0o7000 != 0 {
            // Not a link: it was made just now.
            rustix::fs::chmodat(parent, name, Mode::from(metadata.mode), AtFlags::empty())?;
        }
    }
    if !entry.xattrs.is_empty() {
        // There is no call that takes a directory: this thread alone uses the working directory.
        rustix::process::fchdir(parent)?;
        let result = set_xattrs(entry, |attribute, value| {
            rustix::fs::lsetxattr(name, attribute, value, XattrFlags::empty())
        });
        let root =
            rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::process::fchdir(&root)?;
        result?;
    }
    rustix::fs::utimensat(parent, name, &metadata.times(), AtFlags::SYMLINK_NOFOLLOW)
}

/// Overlayfs' own attributes would make a layer that reads what it likes of the layers below.
fn check_xattrs(entry: &Entry) -> Result<(), Failure> {
    for (name, _) in &entry.xattrs {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            return Err(Failure::corrupt(format!(
                "the entry {} has the attribute {}, which no layer may set",
                shown(&entry.path),
                shown(name)
            )));
        }
    }
    Ok(())
}

/// Sets the attributes that mean something on another machine: not the labels of its security modules.
fn set_xattrs(entry: &Entry, set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    for (name, value) in &entry.xattrs {
        let user = name.starts_with(b"user.");
        let wanted = user
            || name == b"security.capability"
            || name.starts_with(b"system.posix_acl_")
            || name.starts_with(b"trusted.");
        if !wanted {
            continue;
        }
        match set(name, value) {
            // The kernel has no user attributes on links and devices, and a file system may have none.
            Err(Errno::PERM) if user => {}
            Err(Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}
