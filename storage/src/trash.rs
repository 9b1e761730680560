//! Deleting without waiting: a rename takes a directory out of sight at once, a background task
//! deletes what it held. What a crash leaves in `trash/` is deleted at the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::StoreError;
use crate::paths::{Paths, blocking, entry_names, random_name};

/// Directories that are deleted side by side.
const PARALLEL_DELETIONS: u32 = 2;

/// The `trash` directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    directory: PathBuf,
    slots: Arc<Semaphore>,
    pending: tokio_util::task::TaskTracker,
}

impl Trash {
    pub fn new(paths: &Paths) -> Self {
        let pending = tokio_util::task::TaskTracker::new();
        pending.close();
        Self {
            directory: paths.trash(),
            slots: Arc::new(Semaphore::new(PARALLEL_DELETIONS as usize)),
            pending,
        }
    }

    /// Takes a file or directory out of sight; gone already is fine. One rename, so it does not block
    /// for long.
    pub fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let target = self.directory.join(random_name());
        match std::fs::rename(path, &target) {
            Ok(()) => {
                self.delete_later(target);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io(path)(e)),
        }
    }

    /// Deletes what an earlier process left.
    pub fn sweep(&self) -> Result<(), StoreError> {
        for name in entry_names(&self.directory)? {
            self.delete_later(self.directory.join(name));
        }
        Ok(())
    }

    /// Waits until everything that was discarded so far is deleted.
    pub async fn emptied(&self) {
        self.pending.wait().await;
    }

    fn delete_later(&self, path: PathBuf) {
        let slots = self.slots.clone();
        self.pending.spawn(async move {
            // The semaphore is never closed.
            let slot = slots.acquire_owned().await.ok();
            if let Err(error) = blocking(move || delete(&path)).await {
                tracing::warn!(%error, "cannot delete a discarded directory; the next start tries again");
            }
            drop(slot);
        });
    }
}

fn delete(path: &Path) -> Result<(), StoreError> {
    let result = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(path)(e)),
        _ => Ok(()),
    }
}
