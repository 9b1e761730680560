//! Bytes of layers whose download may be interrupted: `partial/<hex of the blob digest>`.
//!
//! What arrives is appended as it is given to the unpack worker, so that a pull that is cancelled, fails
//! or dies with the daemon goes on from there. The digest is compared over all of it at the end, as
//! always; a file that turns out wrong (a power cut leaves zeros) is removed and the layer fetched anew.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::Digest;

/// Smaller layers are fetched again rather than recorded.
const SMALLEST_BYTES: u64 = 256 << 10;
/// What nobody came back for.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The directory, and whose turn it is with each file.
#[derive(Debug)]
pub(crate) struct Partials {
    directory: PathBuf,
    turns: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

/// The recorded bytes of one blob, open for reading and appending.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Partials {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, turns: Mutex::default() }
    }

    /// Waits until nobody else works on the blob: a job that was stopped may still be on its way out.
    pub async fn turn(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(digest).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(AsyncMutex::new(()));
                    turns.insert(digest.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }

    /// Opens the record of a blob of `size` bytes. `None` where it is not worth one or cannot be made:
    /// a download works without. Whoever calls has the turn.
    pub fn open(&self, digest: &Digest, size: u64, keep: bool) -> Option<Partial> {
        if size < SMALLEST_BYTES && !keep {
            return None;
        }
        let path = self.directory.join(digest.hex());
        let open = || -> std::io::Result<Partial> {
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
            let mut length = file.metadata()?.len();
            if length > size {
                file.set_len(0)?;
                length = 0;
            }
            Ok(Partial { path: path.clone(), file, length })
        };
        match open() {
            Ok(partial) => Some(partial),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a download is not recorded");
                None
            }
        }
    }

    /// Removes what nobody came back for. Blocks on the file system.
    pub fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > KEPT_FOR));
            if old {
                std::fs::remove_file(entry.path()).ok();
            }
        }
    }
}

impl Partial {
    /// Bytes that are recorded.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads recorded bytes from `offset` on; nothing at the end. Blocks on the page cache or the disk.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read(buffer)
    }

    /// Appends what arrived. Blocks on the page cache.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Removes the record.
    pub fn remove(self) {
        std::fs::remove_file(&self.path).ok();
    }
}
