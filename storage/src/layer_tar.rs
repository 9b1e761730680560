//! The exact tar of an unpacked layer, streamed from its tree and its recipe.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use crate::recipe::{RecipeReader, Record};
use crate::tar::{Segment, shown};

/// Streams the tar of a layer. Reading blocks on the file system; the last read fails with
/// `InvalidData` where the bytes do not have the layer's diff id.
pub struct LayerTar {
    directory: PathBuf,
    root: File,
    recipe: RecipeReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    current: Current,
    hasher: Sha256,
    size_bytes: u64,
}

enum Current {
    Raw { bytes: Vec<u8>, at: usize },
    File { file: File, segments: std::vec::IntoIter<Segment>, now: Segment, path: Vec<u8> },
    Next,
    Done,
}

impl std::fmt::Debug for LayerTar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerTar").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl LayerTar {
    /// Opens a layer's directory, which holds `fs` and `tar.zst`.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = BufReader::new(File::open(directory.join("tar.zst"))?);
        Ok(Self {
            directory: directory.to_owned(),
            root: File::open(directory.join("fs"))?,
            recipe: RecipeReader::new(zstd::stream::read::Decoder::with_buffer(file)?)?,
            current: Current::Next,
            hasher: Sha256::new(),
            size_bytes: 0,
        })
    }

    /// Size of a layer's tar in bytes. Reads the recipe through, which is small.
    pub fn size_bytes(directory: &Path) -> io::Result<u64> {
        let file = BufReader::new(File::open(directory.join("tar.zst"))?);
        let mut recipe = RecipeReader::new(zstd::stream::read::Decoder::with_buffer(file)?)?;
        loop {
            if let Record::End { size_bytes, .. } = recipe.next_record()? {
                return Ok(size_bytes);
            }
        }
    }

    fn damaged(&self, why: &str) -> io::Error {
        let text = format!("layer {} is damaged: {why}", self.directory.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    fn next_record(&mut self) -> io::Result<()> {
        self.current = match self.recipe.next_record()? {
            Record::Raw(bytes) => Current::Raw { bytes, at: 0 },
            Record::File { path, segments, .. } => {
                let file = open_content(&self.root, &path)
                    .map_err(|error| self.damaged(&format!("{}: {error}", shown(&path))))?;
                let now = Segment { offset: 0, length: 0 };
                Current::File { file, segments: segments.into_iter(), now, path }
            }
            Record::End { sha256, size_bytes } => {
                let got: [u8; 32] = std::mem::take(&mut self.hasher).finalize().into();
                if got != sha256 || size_bytes != self.size_bytes {
                    return Err(self.damaged("its tar has another digest than its diff id"));
                }
                Current::Done
            }
        };
        Ok(())
    }
}

/// How often a lookup is tried again before it is an error.
const MAX_TRIES: usize = 10_000;

/// `openat2`. The kernel gives `EAGAIN` for a path with `..` while anything on the machine is renamed: it
/// is tried again.
pub fn open_in(
    root: impl AsFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    for _ in 0..MAX_TRIES {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
    Err(rustix::io::Errno::AGAIN)
}

/// Opens the content that a recipe names. Symbolic links are followed inside the tree, as they were
/// when it was made.
pub fn open_content(root: &File, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(open_in(root, path, flags, resolve)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.current {
                Current::Done => return Ok(0),
                Current::Next => 0,
                Current::Raw { bytes, at } => {
                    let count = buffer.len().min(bytes.len() - *at);
                    buffer[..count].copy_from_slice(&bytes[*at..*at + count]);
                    *at += count;
                    count
                }
                Current::File { file, segments, now, path } => {
                    while now.length == 0
                        && let Some(segment) = segments.next()
                    {
                        *now = segment;
                    }
                    let most = buffer.len().min(usize::try_from(now.length).unwrap_or(usize::MAX));
                    let count = if most == 0 { 0 } else { file.read_at(&mut buffer[..most], now.offset)? };
                    if most > 0 && count == 0 {
                        let text = format!("{} is shorter than it was", shown(path));
                        return Err(self.damaged(&text));
                    }
                    now.offset += count as u64;
                    now.length -= count as u64;
                    count
                }
            };
            if count > 0 {
                self.hasher.update(&buffer[..count]);
                self.size_bytes += count as u64;
                return Ok(count);
            }
            self.next_record()?;
        }
    }
}
