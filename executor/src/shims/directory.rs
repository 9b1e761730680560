//! A shim's directory, as the daemon sees it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::{ExitRecord, ShimError};
use crate::protocol::{EXIT_FILE, LOG_FILE, PLAN_FILE, SHIM_FILE, ShimRecord, StartRecord};

/// Below the run root, one directory a container.
const CONTAINERS: &str = "containers";

/// The directory of one container. The file system is not touched by naming it.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub id: String,
    pub path: PathBuf,
}

/// Whether a shim lives.
#[derive(Debug)]
pub(super) enum Liveness {
    /// It holds the lock.
    Alive,
    /// Nobody holds it; the file given holds it now, and as long as it is open no shim can start.
    Dead(Option<File>),
}

impl Directory {
    /// An id that could lead out of the run root is refused.
    pub fn new(run_root: &Path, id: &str) -> Result<Self, ShimError> {
        let fine = !id.is_empty()
            && id.len() <= 128
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fine {
            return Err(ShimError::Protocol { id: id.into(), what: "invalid container id".into() });
        }
        Ok(Self { id: id.into(), path: run_root.join(CONTAINERS).join(id) })
    }

    /// Ids with a directory.
    pub fn all(run_root: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(run_root.join(CONTAINERS)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Makes the directory, for a start: `plan.json` and the locked `shim.log`. One of a shim that
    /// lives, or whose exit nobody took, is refused; what else is there is cleared away.
    pub fn prepare(&self, record: &StartRecord) -> Result<File, ShimError> {
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&self.path).map_err(|error| self.io("", error))?;
        let log = match self.liveness().map_err(|error| self.io(LOG_FILE, error))? {
            Liveness::Alive => return Err(self.protocol("is running already")),
            Liveness::Dead(_) if self.exit().map_err(|error| self.io(EXIT_FILE, error))?.is_some() => {
                return Err(self.protocol("an earlier exit was not taken yet"));
            }
            Liveness::Dead(None) => self.lock().map_err(|error| self.io(LOG_FILE, error))?,
            Liveness::Dead(Some(log)) => {
                self.clear().map_err(|error| self.io("", error))?;
                log
            }
        };
        self.write_plan(record).map_err(|error| self.io(PLAN_FILE, error))?;
        Ok(log)
    }

    fn lock(&self) -> io::Result<File> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path.join(LOG_FILE))?;
        flock(&log, FlockOperation::NonBlockingLockExclusive)?;
        Ok(log)
    }

    /// Removes all files but the locked one.
    fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() != LOG_FILE {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn write_plan(&self, record: &StartRecord) -> io::Result<()> {
        let temporary = self.path.join(format!("{PLAN_FILE}.tmp"));
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        std::fs::rename(&temporary, self.path.join(PLAN_FILE))
    }

    /// Whether the directory is there.
    pub fn exists(&self) -> io::Result<bool> {
        self.path.try_exists()
    }

    /// Asks the lock. A directory without `shim.log` never had a shim.
    pub fn liveness(&self) -> io::Result<Liveness> {
        let log = match OpenOptions::new().append(true).open(self.path.join(LOG_FILE)) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Liveness::Dead(None)),
            Err(error) => return Err(error),
        };
        match flock(&log, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Liveness::Dead(Some(log))),
            Err(Errno::WOULDBLOCK) => Ok(Liveness::Alive),
            Err(error) => Err(error.into()),
        }
    }

    /// How the container ended, if the shim has said so.
    pub fn exit(&self) -> io::Result<Option<ExitRecord>> {
        self.read(EXIT_FILE)
    }

    /// Who runs, if the shim has said so.
    pub fn shim(&self) -> io::Result<Option<ShimRecord>> {
        self.read(SHIM_FILE)
    }

    /// What the shim complained of, its end at most.
    pub fn complaints(&self) -> String {
        let text = std::fs::read(self.path.join(LOG_FILE)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(1000)..]);
        text.trim().replace('\n', "; ")
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the directory; no error where it is gone.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub fn io(&self, name: &str, source: io::Error) -> ShimError {
        ShimError::Io { path: if name.is_empty() { self.path.clone() } else { self.path.join(name) }, source }
    }

    pub fn protocol(&self, what: impl Into<String>) -> ShimError {
        ShimError::Protocol { id: self.id.clone(), what: what.into() }
    }
}
