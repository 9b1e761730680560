//! Where things are in the data root, and the file operations that several modules share.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::{Digest, StoreError};

/// The directories of a data root.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

/// The data root's directories, all made when it is opened.
pub(crate) const DIRECTORIES: [&str; 8] =
    ["blobs", "blobs/sha256", "layers", "snapshots", "staging", "partial", "containers", "trash"];

impl Paths {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Holds `fs/` and `tar.zst`.
    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    pub fn layer_fs(&self, diff_id: &Digest) -> PathBuf {
        self.layer(diff_id).join("fs")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub fn snapshot(&self, container: &str) -> PathBuf {
        self.snapshots().join(container)
    }

    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
}

/// A name that nothing else has.
pub(crate) fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Makes a directory that must not be there yet.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    DirBuilder::new().mode(mode).create(path).map_err(StoreError::io(path))
}

/// Names of a directory's entries; those that are not UTF-8 are left out, as nothing here makes such.
pub(crate) fn entry_names(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = std::fs::read_dir(path).map_err(StoreError::io(path))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io(path))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Runs blocking file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking tasks.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Runs a mutation to its end even where the caller goes away.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// Makes everything written so far to the data root's file system durable.
pub(crate) async fn sync_file_system(root: &Path) -> Result<(), StoreError> {
    let root = root.to_owned();
    blocking(move || {
        let directory = std::fs::File::open(&root).map_err(StoreError::io(&root))?;
        rustix::fs::syncfs(&directory).map_err(StoreError::io(&root))
    })
    .await
}

/// Identifies the running boot of the machine.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(std::fs::read_to_string(path).map_err(StoreError::io(path))?.trim().to_owned())
}
