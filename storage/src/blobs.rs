//! Documents by digest under `blobs/sha256`: manifests, indexes and configurations, and layer blobs
//! where the configuration says to keep them.
//!
//! A file is written under another name, then renamed. It counts only once an image's row names it;
//! the rest is swept.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::paths::{Paths, random_name};
use crate::{Digest, StoreError};

/// The blob directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    paths: Paths,
}

impl Blobs {
    pub fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Where a blob is, there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.paths.blob(digest)
    }

    /// Whether the file is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Writes a small document; not synced. Blocks on the file system for a moment.
    pub fn write(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let target = self.path(&digest);
        if std::fs::metadata(&target).is_ok_and(|m| m.len() == bytes.len() as u64) {
            return Ok(digest);
        }
        let temporary = self.paths.staging().join(random_name());
        let written = std::fs::File::create_new(&temporary).and_then(|mut file| file.write_all(bytes));
        if let Err(error) = written {
            std::fs::remove_file(&temporary).ok();
            return Err(StoreError::io(&temporary)(error));
        }
        self.adopt(&temporary, &digest)?;
        Ok(digest)
    }

    /// Takes over a verified file of the same file system.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        std::fs::rename(file, self.path(digest)).map_err(StoreError::io(file))
    }

    /// Reads a document and verifies its digest. Blocks on the file system for a moment.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let bytes = std::fs::read(&path).map_err(StoreError::io(&path))?;
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::damaged(format!("{} does not have its digest", path.display())));
        }
        Ok(bytes)
    }
}
