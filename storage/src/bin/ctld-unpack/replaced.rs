//! Contents that a later entry of the same layer replaced.
//!
//! The recipe refers to contents by path. A file that loses its path is moved to `replaced/<inode>`
//! until the end, when its bytes go into the recipe itself.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use storage::layer_tar::open_content;
use storage::recipe::{RecipeReader, RecipeWriter, Record};

use crate::failure::Failure;

/// What was put aside.
#[derive(Default)]
pub struct Replaced {
    directory: Option<OwnedFd>,
    /// Whether a path may mean something else than when its content was written.
    pub any: bool,
    /// Bytes of regular files that are gone from the tree.
    pub bytes: u64,
}

fn in_replaced(inode: u64) -> String {
    format!("replaced/{inode}")
}

impl Replaced {
    /// Takes an entry out of the tree; whether it was a directory.
    pub fn put_aside(&mut self, parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
        self.any = true;
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                if stat.st_nlink == 1 {
                    self.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                self.keep(parent, name, stat.st_ino)?;
                Ok(false)
            }
            FileType::Directory => {
                self.put_tree_aside(parent, name)?;
                Ok(true)
            }
            _ => rustix::fs::unlinkat(parent, name, AtFlags::empty()).map(|()| false),
        }
    }

    fn directory(&mut self) -> rustix::io::Result<&OwnedFd> {
        if self.directory.is_none() {
            rustix::fs::mkdirat(CWD, "replaced", Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.directory = Some(rustix::fs::openat(CWD, "replaced", flags, Mode::empty())?);
        }
        Ok(self.directory.as_ref().expect("made above"))
    }

    /// Makes sure that a file is found by its inode at the end: its path leads through a symbolic link,
    /// which a later entry may replace while the file stays.
    pub fn watch(&mut self, parent: &OwnedFd, name: &[u8], inode: u64) -> rustix::io::Result<()> {
        let directory = self.directory()?;
        rustix::fs::linkat(parent, name, directory, inode.to_string(), AtFlags::empty())
    }

    fn keep(&mut self, parent: &OwnedFd, name: &[u8], inode: u64) -> rustix::io::Result<()> {
        let directory = self.directory()?;
        rustix::fs::renameat(parent, name, directory, inode.to_string())?;
        // Renaming one hard link over another of the same file does nothing.
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Empties and removes a directory, with a stack of its own: depth is up to the layer.
    fn put_tree_aside(&mut self, parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut path = vec![name.to_vec()];
        while let Some(current) = path.last() {
            // Descriptors are limited, so that each level is opened again from the top.
            let mut at = rustix::fs::openat(parent, ".", flags, Mode::empty())?;
            for part in &path[..path.len() - 1] {
                at = rustix::fs::openat(&at, part.as_slice(), flags, Mode::empty())?;
            }
            let here = rustix::fs::openat(&at, current.as_slice(), flags, Mode::empty())?;
            let mut deeper = None;
            for entry in Dir::read_from(&here)? {
                let entry = entry?;
                let child = entry.file_name().to_bytes();
                if child == b"." || child == b".." {
                    continue;
                }
                let stat = rustix::fs::statat(&here, child, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    deeper = Some(child.to_vec());
                    break;
                }
                self.put_aside(&here, child)?;
            }
            match deeper {
                Some(child) => path.push(child),
                None => {
                    rustix::fs::unlinkat(&at, current.as_slice(), AtFlags::REMOVEDIR)?;
                    path.pop();
                }
            }
        }
        Ok(())
    }

    /// Writes the recipe again where paths of it lost their contents, and removes what was put aside.
    /// `inodes` are those of the contents, in the order of the recipe.
    pub fn finish(self, root: &OwnedFd, inodes: &[u64]) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::local(format!("completing the recipe: {error}"));
        if self.any {
            rewrite(root, inodes).map_err(failed)?;
        }
        if self.directory.is_some() {
            remove_replaced().map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }
}

fn rewrite(root: &OwnedFd, inodes: &[u64]) -> io::Result<()> {
    let root = File::from(root.try_clone()?);
    let old = BufReader::new(File::open("tar.zst")?);
    let mut reader = RecipeReader::new(zstd::stream::read::Decoder::with_buffer(old)?)?;
    let new = BufWriter::new(crate::unpack::create_private("tar.zst.new")?);
    let mut writer = RecipeWriter::new(zstd::stream::write::Encoder::new(new, crate::unpack::RECIPE_LEVEL)?)?;
    let mut inodes = inodes.iter();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.next_record()? {
            Record::Raw(bytes) => writer.raw(&bytes)?,
            Record::File { path, segments, sparse } => {
                let inode = *inodes.next().ok_or_else(|| io::Error::other("more files than were written"))?;
                let there = open_content(&root, &path)
                    .is_ok_and(|file| file.metadata().is_ok_and(|m| m.ino() == inode));
                if there {
                    let size = segments.iter().map(|segment| segment.length).sum();
                    writer.file(&path, size, sparse.then_some(&segments))?;
                    continue;
                }
                let file = File::open(in_replaced(inode))?;
                for segment in segments {
                    let (mut at, end) = (segment.offset, segment.offset + segment.length);
                    while at < end {
                        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                        file.read_exact_at(&mut buffer[..most], at)?;
                        writer.raw(&buffer[..most])?;
                        at += most as u64;
                    }
                }
            }
            Record::End { sha256, size_bytes } => {
                writer.finish(&sha256, size_bytes)?.finish()?.into_inner()?;
                rustix::fs::renameat(CWD, "tar.zst.new", CWD, "tar.zst")?;
                return Ok(());
            }
        }
    }
}

fn remove_replaced() -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, "replaced", flags, Mode::empty())?;
    loop {
        let mut left = false;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
                left = true;
            }
        }
        if !left {
            return rustix::fs::unlinkat(CWD, "replaced", AtFlags::REMOVEDIR);
        }
    }
}
