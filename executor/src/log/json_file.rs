//! Cutting output into entries, writing them, rotating.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::entry;

/// Longer lines are cut.
pub const MAX_LINE_BYTES: usize = 16 << 10;

/// Entries are written in batches of about this size.
const BATCH_BYTES: usize = 64 << 10;

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line that has not ended yet.
#[derive(Debug, Default)]
struct Line {
    text: Vec<u8>,
    /// When the first piece of a cut line was written.
    cut_since: Option<SystemTime>,
}

/// A json-file log that is written to. Memory is bounded by two lines and one batch.
///
/// Nothing here fails the container: what cannot be written is dropped, and said once by the
/// return value.
#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    max_size_bytes: Option<u64>,
    max_files: u32,
    file: Option<File>,
    size_bytes: u64,
    lines: [Line; 2],
    batch: Vec<u8>,
}

impl JsonFile {
    /// Opens or makes (0640) the file, and appends to it.
    pub fn open(path: PathBuf, max_size_bytes: Option<u64>, max_files: u32) -> io::Result<Self> {
        let (file, size_bytes) = open_for_append(&path, false)?;
        Ok(Self {
            path,
            max_size_bytes,
            max_files: max_files.max(1),
            file: Some(file),
            size_bytes,
            lines: Default::default(),
            batch: vec![],
        })
    }

    /// Takes a chunk of output. What is after the last line break waits for more, up to
    /// [`MAX_LINE_BYTES`]. After an error the entries concerned are lost, whole.
    pub fn write(&mut self, stream: Stream, chunk: &[u8]) -> io::Result<()> {
        let now = SystemTime::now();
        let mut result = Ok(());
        let mut rest = chunk;
        while !rest.is_empty() {
            let line = &mut self.lines[stream as usize];
            let room = MAX_LINE_BYTES - line.text.len();
            let end = rest.iter().take(room).position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(room.min(rest.len()));
            if end.is_none() && taken < room {
                line.text.extend_from_slice(rest);
                break;
            }
            let time = line.cut_since.unwrap_or(now);
            // The common case, a whole line in one chunk, is not copied twice.
            if line.text.is_empty() {
                entry::append(&mut self.batch, &rest[..taken], end.is_some(), stream.name(), time);
            } else {
                line.text.extend_from_slice(&rest[..taken]);
                entry::append(&mut self.batch, &line.text, end.is_some(), stream.name(), time);
                line.text = vec![];
            }
            line.cut_since = if end.is_some() { None } else { Some(time) };
            rest = &rest[taken + usize::from(end.is_some())..];
            if self.batch.len() >= BATCH_BYTES || self.is_full() {
                result = result.and(self.flush());
            }
        }
        result.and(self.flush())
    }

    /// Writes what is left of an unfinished line, at the end of its stream.
    pub fn end(&mut self, stream: Stream) -> io::Result<()> {
        let line = std::mem::take(&mut self.lines[stream as usize]);
        if line.text.is_empty() {
            return Ok(());
        }
        let time = line.cut_since.unwrap_or_else(SystemTime::now);
        entry::append(&mut self.batch, &line.text, false, stream.name(), time);
        self.flush()
    }

    /// Opens the path anew, after somebody else moved or truncated the file.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size_bytes) = (None, 0);
        let (file, size_bytes) = open_for_append(&self.path, false)?;
        (self.file, self.size_bytes) = (Some(file), size_bytes);
        Ok(())
    }

    /// As Docker does it, a file is rotated once it has reached its size, before the next entry.
    fn is_full(&self) -> bool {
        let batch_bytes = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        self.max_size_bytes.is_some_and(|max| self.size_bytes + batch_bytes >= max)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let result = self.write_batch(&batch);
        if batch.capacity() <= MAX_LINE_BYTES {
            batch.clear();
            self.batch = batch;
        }
        result
    }

    fn write_batch(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.max_size_bytes.is_some_and(|max| self.size_bytes >= max) {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let (file, size_bytes) = open_for_append(&self.path, false)?;
                self.size_bytes = size_bytes;
                self.file.insert(file)
            }
        };
        let written = file.write_all(batch);
        match written {
            Ok(()) => self.size_bytes += u64::try_from(batch.len()).map_err(io::Error::other)?,
            // On a full disk part of an entry may be there: take it back, so that lines stay whole.
            Err(_) => file.set_len(self.size_bytes)?,
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.max_files > 1 {
            for number in (1..self.max_files - 1).rev() {
                rename_if_there(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
            }
            rename_if_there(&self.path, &numbered(&self.path, 1))?;
        }
        let (file, size_bytes) = open_for_append(&self.path, true)?;
        (self.file, self.size_bytes) = (Some(file), size_bytes);
        Ok(())
    }
}

fn open_for_append(path: &Path, truncate: bool) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    if truncate {
        file.set_len(0)?;
    }
    let size_bytes = file.metadata()?.len();
    Ok((file, size_bytes))
}

/// `<path>.<number>`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string(path).unwrap();
        let field = |value: &serde_json::Value, name: &str| value[name].as_str().unwrap().to_owned();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|value| (field(&value, "log"), field(&value, "stream"), field(&value, "time")))
            .collect()
    }

    #[test]
    fn lines_across_chunks_and_streams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JsonFile::open(path.clone(), None, 1).unwrap();
        log.write(Stream::Stdout, b"one\ntw").unwrap();
        log.write(Stream::Stderr, b"\nerr").unwrap();
        log.write(Stream::Stdout, b"o\n").unwrap();
        log.end(Stream::Stderr).unwrap();
        log.end(Stream::Stdout).unwrap();
        let got: Vec<_> = entries(&path).into_iter().map(|(log, stream, _)| (log, stream)).collect();
        let want = [("one\n", "stdout"), ("\n", "stderr"), ("two\n", "stdout"), ("err", "stderr")];
        assert_eq!(got, want.map(|(log, stream)| (log.to_owned(), stream.to_owned())));
    }

    #[test]
    fn long_lines_are_cut_as_docker_cuts_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JsonFile::open(path.clone(), None, 1).unwrap();
        let mut text = vec![b'a'; 2 * MAX_LINE_BYTES + 5];
        text.extend_from_slice(b"\nnext\n");
        for chunk in text.chunks(1000) {
            log.write(Stream::Stdout, chunk).unwrap();
        }
        let got = entries(&path);
        let lengths: Vec<_> = got.iter().map(|(log, ..)| log.len()).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, MAX_LINE_BYTES, 6, 5]);
        assert!(got[2].0.ends_with("a\n") && !got[1].0.ends_with('\n'));
        assert!(got[0].2 == got[1].2 && got[1].2 == got[2].2 && got[2].2 <= got[3].2);
    }

    #[test]
    fn a_line_of_exactly_the_limit_ends_with_a_line_break_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JsonFile::open(path.clone(), None, 1).unwrap();
        let mut text = vec![b'a'; MAX_LINE_BYTES];
        text.push(b'\n');
        log.write(Stream::Stdout, &text).unwrap();
        let lengths: Vec<_> = entries(&path).iter().map(|(log, ..)| log.len()).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, 1]);
    }

    #[test]
    fn rotation_keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JsonFile::open(path.clone(), Some(1000), 3).unwrap();
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        log.write(Stream::Stdout, text.as_bytes()).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["log", "log.1", "log.2"]);
        let mut all = entries(&numbered(&path, 2));
        all.extend(entries(&numbered(&path, 1)));
        all.extend(entries(&path));
        let first = 100 - all.len();
        for (number, (log, ..)) in all.iter().enumerate() {
            assert_eq!(*log, format!("line {}\n", first + number));
        }
        let size = std::fs::metadata(numbered(&path, 1)).unwrap().len();
        assert!((1000..1100).contains(&size), "{size}");
    }

    #[test]
    fn one_file_is_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JsonFile::open(path.clone(), Some(100), 1).unwrap();
        log.write(Stream::Stdout, b"1\n2\n3\n").unwrap();
        let got: Vec<_> = entries(&path).into_iter().map(|(log, ..)| log).collect();
        assert_eq!(got, ["3\n"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn reopen_follows_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JsonFile::open(path.clone(), None, 1).unwrap();
        log.write(Stream::Stdout, b"1\n").unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        log.reopen().unwrap();
        log.write(Stream::Stdout, b"2\n").unwrap();
        assert_eq!(entries(&path)[0].0, "2\n");
    }

    #[test]
    fn a_full_disk_leaves_whole_lines() {
        let log = JsonFile::open("/dev/full".into(), None, 1);
        let mut log = log.unwrap();
        assert!(log.write(Stream::Stdout, b"1\n").is_err());
    }
}
