//! Where the disk space is: counted as `du` counts it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::StoreError;

/// What a directory tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Sum of the sizes of regular files; a file with several names counts once.
    pub file_bytes: u64,
    /// Blocks of everything, in bytes.
    pub disk_bytes: u64,
}

/// Measures a tree without following links; a missing one is empty. Blocks.
pub(crate) fn tree(root: &Path) -> Result<Tree, StoreError> {
    let mut total = Tree::default();
    let mut linked = HashSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // Containers and pulls go on meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::io(&path)(e)),
        };
        if meta.is_dir() {
            match std::fs::read_dir(&path) {
                Ok(entries) => open.extend(entries.filter_map(Result::ok).map(|e| e.path())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(StoreError::io(&path)(e)),
            }
        } else if meta.nlink() > 1 && !linked.insert((meta.dev(), meta.ino())) {
            continue;
        }
        total.disk_bytes += meta.blocks() * 512;
        if meta.is_file() {
            total.file_bytes += meta.len();
        }
    }
    Ok(total)
}
