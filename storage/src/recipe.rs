//! The recipe of a layer: what its tar has besides the contents of files.
//!
//! A layer is kept unpacked. With the recipe (`tar.zst` beside `fs`) the exact tar comes back, bit by
//! bit, without keeping the contents twice. It is a zstd stream of
//!
//! ```text
//! "ctl recipe 1\n"
//! 'R' length:u32 bytes                            bytes of the tar
//! 'F' path length:u16 path size:u64               the content of fs/path
//! 'S' path length:u16 path n:u32 (offset:u64 length:u64)*n   the same, segments of a sparse file
//! 'E' sha256 of the tar:32 bytes, size of the tar:u64        the end
//! ```
//!
//! with all numbers little-endian. The hash makes a changed or damaged tree an error, never another tar.

use std::io::{self, Read, Write};

use crate::tar::Segment;

const MAGIC: &[u8] = b"ctl recipe 1\n";
/// Longest `R` record; longer runs become several.
const MAX_RAW: usize = 1 << 20;

/// Writes a recipe.
#[derive(Debug)]
pub struct RecipeWriter<W: Write> {
    output: W,
    raw: Vec<u8>,
}

impl<W: Write> RecipeWriter<W> {
    /// Starts a recipe; `output` compresses.
    pub fn new(mut output: W) -> io::Result<Self> {
        output.write_all(MAGIC)?;
        Ok(Self { output, raw: Vec::with_capacity(64 << 10) })
    }

    /// Bytes of the tar.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(MAX_RAW) {
            if self.raw.len() + part.len() > MAX_RAW {
                self.flush_raw()?;
            }
            self.raw.extend_from_slice(part);
        }
        Ok(())
    }

    /// The content of a file; `segments` for a sparse one.
    pub fn file(&mut self, path: &[u8], size: u64, segments: Option<&[Segment]>) -> io::Result<()> {
        self.flush_raw()?;
        self.output.write_all(if segments.is_some() { b"S" } else { b"F" })?;
        let length = u16::try_from(path.len()).map_err(io::Error::other)?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(path)?;
        let Some(segments) = segments else { return self.output.write_all(&size.to_le_bytes()) };
        self.output.write_all(&u32::try_from(segments.len()).map_err(io::Error::other)?.to_le_bytes())?;
        for segment in segments {
            self.output.write_all(&segment.offset.to_le_bytes())?;
            self.output.write_all(&segment.length.to_le_bytes())?;
        }
        Ok(())
    }

    /// Ends the recipe and gives the output back.
    pub fn finish(mut self, sha256: &[u8; 32], size_bytes: u64) -> io::Result<W> {
        self.flush_raw()?;
        self.output.write_all(b"E")?;
        self.output.write_all(sha256)?;
        self.output.write_all(&size_bytes.to_le_bytes())?;
        Ok(self.output)
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.output.write_all(b"R")?;
            let length = u32::try_from(self.raw.len()).map_err(io::Error::other)?;
            self.output.write_all(&length.to_le_bytes())?;
            self.output.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }
}

/// One step of making the tar again.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// These bytes.
    Raw(Vec<u8>),
    /// The content of `fs/path`, these segments of it in order.
    File {
        /// As in [`crate::tar::Entry::path`].
        path: Vec<u8>,
        /// One from 0 to the size for a file without holes.
        segments: Vec<Segment>,
        /// Whether it was written as sparse.
        sparse: bool,
    },
    /// The end: hash and size of the whole tar.
    End {
        /// The diff id.
        sha256: [u8; 32],
        /// Size of the tar in bytes.
        size_bytes: u64,
    },
}

/// Reads a recipe.
#[derive(Debug)]
pub struct RecipeReader<R> {
    input: R,
}

impl<R: Read> RecipeReader<R> {
    /// Starts; `input` decompresses.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(broken("unknown format"));
        }
        Ok(Self { input })
    }

    /// The next record. After [`Record::End`] nothing is to be read.
    pub fn next_record(&mut self) -> io::Result<Record> {
        let [tag] = self.bytes()?;
        match tag {
            b'R' => {
                let length = u32::from_le_bytes(self.bytes()?) as usize;
                if length > MAX_RAW {
                    return Err(broken("a record is too long"));
                }
                Ok(Record::Raw(self.vector(length)?))
            }
            b'F' => {
                let path = self.path()?;
                let length = u64::from_le_bytes(self.bytes()?);
                Ok(Record::File { path, segments: vec![Segment { offset: 0, length }], sparse: false })
            }
            b'S' => {
                let path = self.path()?;
                let count = u32::from_le_bytes(self.bytes()?);
                let mut segments = Vec::new();
                for _ in 0..count {
                    let offset = u64::from_le_bytes(self.bytes()?);
                    segments.push(Segment { offset, length: u64::from_le_bytes(self.bytes()?) });
                }
                Ok(Record::File { path, segments, sparse: true })
            }
            b'E' => {
                let sha256 = self.bytes()?;
                Ok(Record::End { sha256, size_bytes: u64::from_le_bytes(self.bytes()?) })
            }
            _ => Err(broken("unknown record")),
        }
    }

    fn path(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::from(u16::from_le_bytes(self.bytes()?));
        self.vector(length)
    }

    fn vector(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("broken recipe: {why}"))
}
