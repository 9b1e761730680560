//! The tar of a tree behind a directory descriptor.
//!
//! Every step is one name within an open directory, without following links: what changes meanwhile may
//! be missed, but nothing outside the tree is ever read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::ArchiveStream;
use super::channel::stream_of;
use super::writer::{Header, TarWriter};
use crate::tar::{MAX_PATH_DEPTH, Time, shown};

/// Longest list of attribute names, and longest value, that is read.
const MAX_XATTR_BYTES: usize = 64 << 10;
const OPAQUE: &str = "trusted.overlay.opaque";

/// The tree below a directory as tar: `export` of a mounted root, or `cp` out of one. Names are relative
/// to the directory, with `prefix` before them, and the directory itself is not among them. No path leaves
/// the directory: everything is read over descriptors, without following links. Sockets are left out, a
/// file that shrinks while it is read is filled up with zeros. Needs a tokio runtime.
pub fn tree_tar(directory: OwnedFd, prefix: &str) -> ArchiveStream {
    let prefix = prefix.trim_end_matches('/').as_bytes().to_vec();
    stream_of(move |out| write_tree(&directory, prefix, Form::Plain, out))
}

/// What the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As a container sees it.
    Plain,
    /// An upper directory of overlayfs: whiteouts become `.wh.` files again.
    Layer,
}

/// Writes the tree, in the order of its names, and the end marker.
pub(super) fn write_tree(
    directory: &OwnedFd,
    prefix: Vec<u8>,
    form: Form,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut walk = Walk { tar: TarWriter::new(out), form, links: HashMap::new() };
    let root = rustix::fs::openat(directory, ".", DIRECTORY, Mode::empty())?;
    walk.directory(&root, &prefix, 0)?;
    walk.tar.finish()
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Walk<W> {
    tar: TarWriter<W>,
    form: Form,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl<W: Write> Walk<W> {
    fn directory(&mut self, directory: &OwnedFd, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_PATH_DEPTH {
            return Err(io::Error::other(format!(
                "{} is deeper than {MAX_PATH_DEPTH} directories",
                shown(path)
            )));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let full = if path.is_empty() { name.clone() } else { [path, &name].join(&b'/') };
            self.entry(directory, &name, &full, depth)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", shown(&full))))?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8], depth: usize) -> io::Result<()> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed since the directory was listed.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.form == Form::Layer {
            if name.starts_with(b".wh.") {
                return Err(io::Error::other("the name is reserved for whiteouts"));
            }
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                return self.marker(path, &[b".wh.", name].concat());
            }
        }
        let mut header = header_of(&stat, path);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            // The casts differ by architecture.
            #[expect(clippy::useless_conversion, reason = "st_dev has other types elsewhere")]
            let key = (u64::from(stat.st_dev), u64::from(stat.st_ino));
            if let Some(first) = self.links.get(&key) {
                return self.tar.entry(&Header { kind: b'1', link: &first.clone(), size: 0, ..header });
            }
            self.links.insert(key, path.to_vec());
        }
        match kind {
            FileType::Directory => {
                let opened = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())?;
                let (xattrs, opaque) = self.xattrs(&opened)?;
                let name = [path, b"/"].concat();
                self.tar.entry(&Header { kind: b'5', name: &name, size: 0, xattrs: &xattrs, ..header })?;
                if opaque {
                    self.marker(&[path, b"/x"].concat(), b".wh..wh..opq")?;
                }
                self.directory(&opened, path, depth + 1)
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(io::Error::other("it changed while it was read"));
                }
                let (xattrs, _) = self.xattrs(&file)?;
                header.size = metadata.len();
                header.xattrs = &xattrs;
                self.tar.copy(&header, file, true)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes();
                self.tar.entry(&Header { kind: b'2', link: &target, size: 0, ..header })
            }
            FileType::CharacterDevice => self.tar.entry(&Header { kind: b'3', size: 0, ..header }),
            FileType::BlockDevice => self.tar.entry(&Header { kind: b'4', size: 0, ..header }),
            FileType::Fifo => self.tar.entry(&Header { kind: b'6', size: 0, ..header }),
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    /// An empty file beside `path`.
    fn marker(&mut self, path: &[u8], name: &[u8]) -> io::Result<()> {
        let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..=at]);
        let name = [parent, name].concat();
        self.tar.entry(&Header { name: &name, mode: 0, ..Header::default() })
    }

    /// Attributes that an archive keeps, and whether a directory is opaque.
    fn xattrs(&self, fd: impl AsFd) -> io::Result<(Xattrs, bool)> {
        let mut buffer = vec![0; MAX_XATTR_BYTES];
        let length = match rustix::fs::flistxattr(&fd, &mut buffer) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        let names: Vec<Vec<u8>> =
            buffer[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
        let (mut kept, mut opaque) = (Vec::new(), false);
        for name in names {
            let overlay = name.starts_with(b"trusted.overlay.");
            let wanted = name == b"security.capability" || name.starts_with(b"user.");
            let marks = self.form == Form::Layer && overlay;
            if !(wanted || marks) {
                continue;
            }
            let length = match rustix::fs::fgetxattr(&fd, name.as_slice(), &mut buffer) {
                Ok(length) => length,
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(error.into()),
            };
            let value = &buffer[..length];
            match name.as_slice() {
                _ if wanted => kept.push((name, value.to_vec())),
                b"trusted.overlay.redirect" | b"trusted.overlay.metacopy" => {
                    return Err(io::Error::other(
                        "it was renamed by overlayfs' redirect_dir, which has no tar form",
                    ));
                }
                other => opaque |= other == OPAQUE.as_bytes() && value == b"y",
            }
        }
        Ok((kept, opaque))
    }
}

fn header_of<'a>(stat: &Stat, path: &'a [u8]) -> Header<'a> {
    Header {
        name: path,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        ..Header::default()
    }
}
