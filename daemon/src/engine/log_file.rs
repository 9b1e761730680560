//! The files of a log, read line by line, across rotations and from the end for `--tail`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const BLOCK: usize = 64 << 10;
/// A line longer than this is broken: the shim cuts lines at 16 KiB.
const LONGEST_LINE: usize = 1 << 20;

/// Reads a log's lines, oldest first. All methods block.
pub struct Reader {
    path: PathBuf,
    /// Files still to read, oldest first; the first one is being read.
    files: VecDeque<File>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where the next line was taken from the buffer, to be given up on the next call.
    taken: usize,
}

/// What reading on came to.
enum Filled {
    Nothing,
    More,
    /// Bytes of another file: what was there of an unfinished line is gone.
    Afresh,
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn same(a: &File, b: &File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// All files, oldest first. The newest is opened first: a rotation in between shows a file twice,
/// which is noticed, rather than not at all.
fn all(path: &Path) -> io::Result<VecDeque<File>> {
    let mut files: VecDeque<File> = open(path)?.into_iter().collect();
    let mut number = 1;
    while let Some(file) = open(&rotated(path, number))? {
        let seen = match files.front() {
            Some(front) => same(front, &file)?,
            None => false,
        };
        if !seen {
            files.push_front(file);
        }
        number += 1;
    }
    Ok(files)
}

impl Reader {
    /// Opens a log that may not be there yet; `tail` skips all but so many last lines.
    pub fn open(path: &Path, tail: Option<usize>) -> io::Result<Self> {
        let mut files = all(path)?;
        if let Some(tail) = tail {
            skip_to_tail(&mut files, tail)?;
        }
        let path = path.to_owned();
        Ok(Self { path, files, buffer: vec![0; BLOCK], start: 0, end: 0, taken: 0 })
    }

    /// The next whole line without its newline; `None` at the end as it is now.
    pub fn line(&mut self) -> io::Result<Option<&[u8]>> {
        self.start = self.taken;
        let mut searched = self.start;
        loop {
            if let Some(at) = self.buffer[searched..self.end].iter().position(|byte| *byte == b'\n') {
                self.taken = searched + at + 1;
                return Ok(Some(&self.buffer[self.start..searched + at]));
            }
            searched = self.end - self.start;
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.taken = 0;
            if self.end == self.buffer.len() {
                if self.end >= LONGEST_LINE {
                    (self.end, searched) = (0, 0);
                }
                self.buffer.resize((self.buffer.len() * 2).min(LONGEST_LINE), 0);
            }
            match self.fill()? {
                Filled::Nothing => return Ok(None),
                Filled::More => {}
                Filled::Afresh => searched = 0,
            }
        }
    }

    fn fill(&mut self) -> io::Result<Filled> {
        let mut filled = Filled::More;
        loop {
            let Some(file) = self.files.front_mut() else {
                match open(&self.path)? {
                    Some(file) => self.files.push_back(file),
                    None => return Ok(Filled::Nothing),
                }
                continue;
            };
            let got = file.read(&mut self.buffer[self.end..])?;
            self.end += got;
            if got > 0 {
                return Ok(filled);
            }
            match self.next_file()? {
                Filled::Nothing => return Ok(Filled::Nothing),
                Filled::More => {}
                Filled::Afresh => {
                    // Half a line at the end of a file that was left will never be whole.
                    self.end = 0;
                    filled = Filled::Afresh;
                }
            }
        }
    }

    /// Goes on to the file after the current one, if there is one.
    fn next_file(&mut self) -> io::Result<Filled> {
        if self.files.len() == 1 {
            // Where the current file is not among them, it was rotated away: all of them are newer.
            let mut newer: VecDeque<File> = VecDeque::new();
            for file in all(&self.path)?.into_iter().rev() {
                if same(&self.files[0], &file)? {
                    break;
                }
                newer.push_front(file);
            }
            self.files.extend(newer);
            if self.files.len() == 1 {
                // Truncated in place.
                let length = self.files[0].metadata()?.len();
                if self.files[0].stream_position()? > length {
                    self.files[0].seek(SeekFrom::Start(0))?;
                    return Ok(Filled::Afresh);
                }
                return Ok(Filled::Nothing);
            }
            // What was written to it before it was rotated is read before it is left.
            let mut probe = [0];
            let at = self.files[0].stream_position()?;
            if self.files[0].read_at(&mut probe, at)? > 0 {
                return Ok(Filled::More);
            }
        }
        self.files.pop_front();
        Ok(Filled::Afresh)
    }
}

/// Seeks so that `tail` lines are left, reading backwards.
fn skip_to_tail(files: &mut VecDeque<File>, tail: usize) -> io::Result<()> {
    let mut left = tail;
    let mut block = vec![0; BLOCK];
    for index in (0..files.len()).rev() {
        let file = &mut files[index];
        let mut position = file.metadata()?.len();
        if tail == 0 {
            file.seek(SeekFrom::End(0))?;
            files.drain(..index);
            return Ok(());
        }
        // The newline that ends the file's last line begins no line.
        let mut last = true;
        while position > 0 {
            let length = position.min(BLOCK as u64);
            position -= length;
            let piece = &mut block[..usize::try_from(length).unwrap_or(BLOCK)];
            file.read_exact_at(piece, position)?;
            for at in (0..piece.len()).rev() {
                if piece[at] != b'\n' {
                    continue;
                }
                if std::mem::take(&mut last) {
                    left -= 1;
                    continue;
                }
                if left == 0 {
                    file.seek(SeekFrom::Start(position + at as u64 + 1))?;
                    files.drain(..index);
                    return Ok(());
                }
                left -= 1;
            }
        }
        if left == 0 {
            files.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(reader: &mut Reader) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = reader.line().expect("a readable log") {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        found
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x-json.log");
        (dir, path)
    }

    #[test]
    fn rotated_files_come_first() {
        let (_dir, path) = log();
        std::fs::write(rotated(&path, 2), "1\n2\n").unwrap();
        std::fs::write(rotated(&path, 1), "3\n").unwrap();
        std::fs::write(&path, "4\n5\nhalf").unwrap();
        assert_eq!(lines(&mut Reader::open(&path, None).unwrap()), ["1", "2", "3", "4", "5"]);
        for (tail, first) in [(0, 6), (1, 5), (2, 4), (3, 3), (4, 2), (5, 1), (9, 1)] {
            let wanted: Vec<String> = (first..=5).map(|n| n.to_string()).collect();
            assert_eq!(lines(&mut Reader::open(&path, Some(tail)).unwrap()), wanted, "tail {tail}");
        }
    }

    #[test]
    fn a_tail_over_many_blocks() {
        let (_dir, path) = log();
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let last = lines(&mut Reader::open(&path, Some(20_000)).unwrap());
        assert_eq!((last.len(), last[0].as_str()), (20_000, "line 30000"));
    }

    #[test]
    fn what_is_added_and_rotated_meanwhile_is_read_once() {
        let (_dir, path) = log();
        let mut reader = Reader::open(&path, None).unwrap();
        assert!(lines(&mut reader).is_empty());
        std::fs::write(&path, "a\nb").unwrap();
        assert_eq!(lines(&mut reader), ["a"]);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"b\nc\n").unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        std::fs::write(&path, "d\n").unwrap();
        std::fs::rename(rotated(&path, 1), rotated(&path, 2)).unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        std::fs::write(&path, "e\n").unwrap();
        assert_eq!(lines(&mut reader), ["bb", "c", "d", "e"]);
        assert!(lines(&mut reader).is_empty());
    }
}
