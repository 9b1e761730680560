//! Writes tar: ustar headers, with PAX records for what they cannot hold.

use std::io::{self, Read, Write};

use crate::tar::Time;

const BLOCK: u64 = 512;
/// Largest number in eleven octal digits.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
/// Largest number in seven octal digits.
const MAX_OCTAL_ID: u32 = 0o7_777_777;

/// One entry's header.
#[derive(Debug, Clone)]
pub(super) struct Header<'a> {
    /// With a trailing slash for directories.
    pub name: &'a [u8],
    /// `b'0'` file, `b'1'` hard link, `b'2'` symbolic link, `b'3'` and `b'4'` devices, `b'5'` directory,
    /// `b'6'` FIFO.
    pub kind: u8,
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Time,
    pub device: (u32, u32),
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Default for Header<'_> {
    fn default() -> Self {
        Self {
            name: b"",
            kind: b'0',
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: &[],
        }
    }
}

/// Writes entries to `output`.
#[derive(Debug)]
pub(super) struct TarWriter<W> {
    output: W,
}

impl<W: Write> TarWriter<W> {
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// An entry without content.
    pub fn entry(&mut self, header: &Header<'_>) -> io::Result<()> {
        let mut records = Vec::new();
        let mut record = |key: &[u8], value: &[u8]| records.extend(pax_record(key, value));
        if header.name.len() > 100 || !header.name.is_ascii() {
            record(b"path", header.name);
        }
        if header.link.len() > 100 || !header.link.is_ascii() {
            record(b"linkpath", header.link);
        }
        if header.size > MAX_OCTAL_SIZE {
            record(b"size", header.size.to_string().as_bytes());
        }
        if header.uid > MAX_OCTAL_ID {
            record(b"uid", header.uid.to_string().as_bytes());
        }
        if header.gid > MAX_OCTAL_ID {
            record(b"gid", header.gid.to_string().as_bytes());
        }
        if header.mtime.nanos > 0 || !(0..=MAX_OCTAL_SIZE.cast_signed()).contains(&header.mtime.seconds) {
            record(b"mtime", decimal(header.mtime).as_bytes());
        }
        for (name, value) in header.xattrs {
            record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let extension = Header {
                name: b"PaxHeaders.0/entry",
                kind: b'x',
                size: records.len() as u64,
                ..Header::default()
            };
            self.output.write_all(&block(&extension))?;
            self.output.write_all(&records)?;
            self.pad(extension.size)?;
        }
        self.output.write_all(&block(header))
    }

    /// A file with its content.
    pub fn file(&mut self, header: &Header<'_>, content: &[u8]) -> io::Result<()> {
        self.entry(&Header { size: content.len() as u64, ..header.clone() })?;
        self.output.write_all(content)?;
        self.pad(content.len() as u64)
    }

    /// A file whose content is read: exactly `header.size` bytes. A source that turns out shorter is
    /// filled up with zeros where `fill` says so, and an error otherwise.
    pub fn copy(&mut self, header: &Header<'_>, content: impl Read, fill: bool) -> io::Result<()> {
        self.entry(header)?;
        let copied = io::copy(&mut content.take(header.size), &mut self.output)?;
        let missing = header.size - copied;
        if missing > 0 && !fill {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than it was"));
        }
        io::copy(&mut io::repeat(0).take(missing), &mut self.output)?;
        self.pad(header.size)
    }

    /// The end marker.
    pub fn finish(mut self) -> io::Result<()> {
        self.output.write_all(&[0; 2 * BLOCK as usize])
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.wrapping_neg() % BLOCK;
        io::copy(&mut io::repeat(0).take(padding), &mut self.output).map(drop)
    }
}

fn block(header: &Header<'_>) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, length: usize, bytes: &[u8]| {
        let length = bytes.len().min(length);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, header.name);
    put(100, 8, format!("{:07o}\0", header.mode & 0o7777).as_bytes());
    put(108, 8, format!("{:07o}\0", if header.uid > MAX_OCTAL_ID { 0 } else { header.uid }).as_bytes());
    put(116, 8, format!("{:07o}\0", if header.gid > MAX_OCTAL_ID { 0 } else { header.gid }).as_bytes());
    // Where the field cannot hold it, the record does, and zero says so.
    put(124, 12, format!("{:011o}\0", if header.size > MAX_OCTAL_SIZE { 0 } else { header.size }).as_bytes());
    let seconds = u64::try_from(header.mtime.seconds).ok().filter(|s| *s <= MAX_OCTAL_SIZE).unwrap_or(0);
    put(136, 12, format!("{seconds:011o}\0").as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[header.kind]);
    put(157, 100, header.link);
    put(257, 8, b"ustar\x0000");
    put(329, 8, format!("{:07o}\0", header.device.0).as_bytes());
    put(337, 8, format!("{:07o}\0", header.device.1).as_bytes());
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with nine decimals; the fraction counts away from zero in front of the point.
fn decimal(time: Time) -> String {
    match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanos) if seconds >= 0 => format!("{seconds}.{nanos:09}"),
        (seconds, nanos) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Kind, TarReader};

    #[test]
    fn what_is_written_is_read() {
        let xattrs = vec![(b"user.a".to_vec(), b"\0\n=".to_vec())];
        let long = "é/".repeat(80) + "x";
        let header = Header {
            name: long.as_bytes(),
            mode: 0o4755,
            uid: 3_000_000_000,
            gid: 5,
            mtime: Time { seconds: -2, nanos: 750_000_000 },
            xattrs: &xattrs,
            ..Header::default()
        };
        let mut bytes = Vec::new();
        let mut tar = TarWriter::new(&mut bytes);
        tar.file(&header, b"content").unwrap();
        tar.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, long.as_bytes());
        assert_eq!((entry.mode, entry.uid, entry.gid, entry.mtime), (0o4755, 3_000_000_000, 5, header.mtime));
        assert_eq!(entry.kind, Kind::File { size: 7, segments: None });
        assert_eq!(entry.xattrs, xattrs);
        assert_eq!(reader.content().unwrap(), b"content");
        reader.consume(7);
        assert_eq!(reader.next_entry().unwrap(), None);
    }
}
