//! A strict tar reader: V7, ustar, GNU and PAX, with sparse files, over any `BufRead`.
//!
//! It is a parser only. It never touches the file system, and it hands out every byte of the stream
//! exactly once: as *raw* bytes (headers, extension records, padding, what follows the end marker) or
//! as the *content* of an entry. The recipe of a layer is made of the one, its tree of the other.
//!
//! Where readers in use (GNU tar, libarchive, Go) disagree about a stream, this one refuses it: two
//! readers that see different entries in one layer is how a scanner is shown another image than the
//! one that runs.

mod error;
mod header;
mod name;
mod pax;
mod reader;
mod sparse;

pub use error::TarError;
pub use name::{MAX_PATH_BYTES, MAX_PATH_DEPTH, shown};
pub use reader::TarReader;
pub use sparse::Segment;

/// A point in time as tar has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file. Its content follows in the stream, segment by segment.
    File {
        /// Size of the file in bytes, holes included.
        size: u64,
        /// Where in the file the content of the stream goes; `None` for a file without holes.
        segments: Option<Vec<Segment>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target, as it is.
    Symlink(Vec<u8>),
    /// A hard link to a path of the same tree.
    HardLink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry, its extension headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, without `.`, `..`, empty components or a slash at either end; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
    /// Time of the last access, where the stream has it.
    pub atime: Option<Time>,
    /// Extended attributes (`SCHILY.xattr.*`), in the order of the stream.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
