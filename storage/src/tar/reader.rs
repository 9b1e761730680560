//! From a stream to entries.

use std::io::BufRead;

use super::header::{BLOCK, Header};
use super::pax::{self, Pax};
use super::{Entry, Kind, Segment, TarError, Time, name, shown, sparse};

/// Longest content of an extension header (`x`, `g`, `L`, `K`) in bytes.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// The largest size that a plain octal field can hold; above it PAX writers leave the field at 0.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;

/// Reads entries from a stream. See the module for what it accepts.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// What was consumed and is not content, since the caller took it last.
    raw: Vec<u8>,
    /// Bytes of the current entry's content that are still to come.
    content: u64,
    /// Padding behind it.
    padding: u64,
    ended: bool,
}

/// Extension headers that wait for their entry.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    any: bool,
}

impl<R: BufRead> TarReader<R> {
    /// A reader at the start of a stream.
    pub fn new(input: R) -> Self {
        Self { input, raw: Vec::new(), content: 0, padding: 0, ended: false }
    }

    /// What the stream had since the last call, content apart.
    pub fn take_raw(&mut self, mut take: impl FnMut(&[u8])) {
        if !self.raw.is_empty() {
            take(&self.raw);
            self.raw.clear();
            self.raw.shrink_to(64 << 10);
        }
    }

    /// The next piece of the current entry's content; empty at its end. [`Self::consume`] moves on.
    pub fn content(&mut self) -> Result<&[u8], TarError> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(cut_off());
        }
        let most = usize::try_from(self.content).unwrap_or(usize::MAX);
        Ok(&buffer[..buffer.len().min(most)])
    }

    /// Marks bytes of the content as used.
    pub fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.content -= bytes as u64;
    }

    /// After the last entry: what follows the end marker, piece by piece; empty at the end.
    pub fn trailer(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), TarError> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            take(buffer);
            let length = buffer.len();
            self.input.consume(length);
        }
    }

    /// The next entry; `None` behind the last. The content of the one before has to be consumed.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.content > 0 {
            return Err(TarError::invalid("the content of an entry was not read"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.read_raw(padding)?;
        let mut pending = Pending::default();
        while !self.ended {
            let Some(block) = self.header_block()? else { break };
            let header = Header::new(&block)?;
            match header.kind() {
                b'x' => {
                    let parsed = Pax::parse(&self.extension(&header)?)?;
                    once(&mut pending.pax, parsed)?;
                }
                b'g' => pax::check_global(&self.extension(&header)?)?,
                b'L' => once(&mut pending.long_name, self.long_name(&header)?)?,
                b'K' => once(&mut pending.long_link, self.long_name(&header)?)?,
                _ => return self.entry(&header, pending).map(Some),
            }
            pending.any |= header.kind() != b'g';
        }
        if pending.any {
            return Err(TarError::invalid("the last extension header has no entry"));
        }
        Ok(None)
    }

    /// The next block; `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let Some(block) = self.block_or_end()? else {
            self.ended = true;
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        self.ended = true;
        match self.block_or_end()? {
            Some(second) if second != [0; BLOCK] => {
                Err(TarError::invalid("a single zero block between entries"))
            }
            _ => Ok(None),
        }
    }

    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.block().map(Some)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let start = self.raw.len();
        self.read_raw(BLOCK as u64)?;
        Ok(self.raw[start..].try_into().expect("a block was read"))
    }

    /// Moves bytes from the stream to `raw`.
    fn read_raw(&mut self, bytes: u64) -> Result<(), TarError> {
        let mut left = usize::try_from(bytes).map_err(|_| cut_off())?;
        while left > 0 {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(cut_off());
            }
            let length = buffer.len().min(left);
            self.raw.extend_from_slice(&buffer[..length]);
            self.input.consume(length);
            left -= length;
        }
        Ok(())
    }

    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > MAX_EXTENSION_BYTES {
            return Err(TarError::Budget(format!(
                "over budget: an extension header is longer than {MAX_EXTENSION_BYTES} bytes"
            )));
        }
        let start = self.raw.len();
        self.read_raw(size)?;
        let content = self.raw[start..].to_vec();
        self.read_raw(padding(size))?;
        Ok(content)
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let mut text = self.extension(header)?;
        while text.last() == Some(&0) {
            text.pop();
        }
        if text.is_empty() {
            return Err(TarError::invalid("an entry has an empty name"));
        }
        Ok(text)
    }

    fn entry(&mut self, header: &Header<'_>, pending: Pending) -> Result<Entry, TarError> {
        let pax = pending.pax.unwrap_or_default();
        let given_name = choose(pax.path, pending.long_name, "path")?;
        let given_link = choose(pax.link_path, pending.long_link, "linkpath")?;
        let full_name = match (pax.sparse.name.clone(), given_name) {
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => header.name(),
        };
        let path = name::clean(&full_name)?;
        let size = agreed_size(header.size()?, pax.size, &path)?;
        let link = || given_link.clone().unwrap_or_else(|| header.link_name().to_vec());
        let slash = full_name.last() == Some(&b'/');
        let sparse_pax = pax.sparse.any;
        let kind = match header.kind() {
            b'S' if header.is_gnu() && !sparse_pax => self.gnu_sparse(header, size)?,
            b'0' | 0 | b'7' if sparse_pax => self.pax_sparse(&pax.sparse, size)?,
            _ if sparse_pax => return Err(refuse(&path, "has a sparse map and is no file")),
            0 if slash => Kind::Directory,
            b'0' | b'7' if slash => return Err(refuse(&path, "is a file whose name ends in a slash")),
            b'0' | 0 | b'7' => Kind::File { size, segments: None },
            b'1' => Kind::HardLink(name::clean(&link())?),
            b'2' => Kind::Symlink(link()),
            b'3' => Kind::CharDevice(header.device()?.0, header.device()?.1),
            b'4' => Kind::BlockDevice(header.device()?.0, header.device()?.1),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(refuse(&path, &format!("has the unsupported type {:?}", char::from(other)))),
        };
        match &kind {
            Kind::File { segments: None, .. } => self.content = size,
            // The map was consumed already, `content` is what it left.
            Kind::File { .. } => {}
            _ if size > 0 => return Err(refuse(&path, "has content and is no file")),
            Kind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                return Err(refuse(&path, "is a symbolic link without a target"));
            }
            _ => {}
        }
        if path.is_empty() && kind != Kind::Directory {
            return Err(TarError::invalid("the root is no directory"));
        }
        self.padding = padding(self.content);
        Ok(Entry {
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?, &path)?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?, &path)?,
            mode: header.mode()?,
            mtime: pax.mtime.map_or_else(|| header.mtime().map(|seconds| Time { seconds, nanos: 0 }), Ok)?,
            atime: pax.atime,
            xattrs: pax.xattrs,
            path,
            kind,
        })
    }

    fn gnu_sparse(&mut self, header: &Header<'_>, stored: u64) -> Result<Kind, TarError> {
        let (field, mut more, size) = header.gnu_sparse()?;
        let mut map = Vec::new();
        sparse::gnu_entries(field, &mut map)?;
        while more {
            let block = self.block()?;
            sparse::gnu_entries(&block[..504], &mut map)?;
            more = block[504] != 0;
        }
        sparse::check(&map, size, stored)?;
        self.content = stored;
        Ok(Kind::File { size, segments: Some(map) })
    }

    fn pax_sparse(&mut self, records: &pax::Sparse, size: u64) -> Result<Kind, TarError> {
        let real_size = records.real_size.ok_or_else(|| TarError::invalid("a sparse file has no size"))?;
        let (map, stored) = match (records.major, records.minor) {
            (Some(1), Some(0)) => self.map_in_content(size)?,
            (None | Some(0), None | Some(0 | 1)) => {
                if records.blocks.is_some_and(|count| count != records.map.len() as u64) {
                    return Err(TarError::invalid("a sparse map has another length than it says"));
                }
                (records.map.clone(), size)
            }
            _ => return Err(TarError::invalid("unknown version of sparse records")),
        };
        sparse::check(&map, real_size, stored)?;
        self.content = stored;
        Ok(Kind::File { size: real_size, segments: Some(map) })
    }

    /// Version 1.0: decimal numbers, one a line, in blocks before the content proper.
    fn map_in_content(&mut self, size: u64) -> Result<(Vec<Segment>, u64), TarError> {
        let short = || TarError::invalid("a sparse map is longer than its entry");
        let mut left = size;
        let mut block = [0; BLOCK];
        let mut at = BLOCK;
        let mut number = |reader: &mut Self| -> Result<u64, TarError> {
            let mut digits = Vec::new();
            loop {
                if at == BLOCK {
                    left = left.checked_sub(BLOCK as u64).ok_or_else(short)?;
                    block = reader.block()?;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'\n' => return pax::natural(b"sparse map", &digits),
                    _ if digits.len() < 20 => digits.push(byte),
                    _ => return Err(TarError::invalid("a sparse map has junk in it")),
                }
            }
        };
        let count = number(self)?;
        let mut map = Vec::new();
        for _ in 0..count {
            let segment = Segment { offset: number(self)?, length: number(self)? };
            sparse::push(&mut map, segment)?;
        }
        Ok((map, left))
    }
}

fn cut_off() -> TarError {
    TarError::invalid("unexpected EOF")
}

fn refuse(path: &[u8], why: &str) -> TarError {
    TarError::invalid(format!("the entry {} {why}", shown(path)))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), TarError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::invalid("an entry has two extension headers of one kind")),
    }
}

fn choose(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, what: &str) -> Result<Option<Vec<u8>>, TarError> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(TarError::invalid(format!("an entry has two values for {what}")))
        }
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

/// One size out of two. They may differ only where the header cannot hold it.
fn agreed_size(header: u64, pax: Option<u64>, path: &[u8]) -> Result<u64, TarError> {
    match pax {
        None => Ok(header),
        Some(size) if size == header => Ok(size),
        Some(size) if size > MAX_OCTAL_SIZE && (header == 0 || header == MAX_OCTAL_SIZE) => Ok(size),
        Some(size) => Err(refuse(
            path,
            &format!("has conflicting sizes: {header} in its header, {size} in its PAX record"),
        )),
    }
}

fn id(value: i64, path: &[u8]) -> Result<u32, TarError> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| refuse(path, &format!("has the owner {value}, which is out of range")))
}
