//! Where the disk space is: counted as `du` counts it.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::images::{Image, ImageId, Index};
use crate::paths::{Paths, blocking, entry_names};
use crate::{Digest, Store, StoreError};

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

/// The disk space of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Which one.
    pub id: ImageId,
    /// Blocks of all its layers, in bytes.
    pub disk_bytes: u64,
    /// The part of it that other images have as well.
    pub shared_bytes: u64,
}

/// Where the disk space of the data root is; all figures are blocks in bytes, as `du` counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Everything in the data root.
    pub total_bytes: u64,
    /// Unpacked layers with their recipes.
    pub layers_bytes: u64,
    /// The part of the layers that no container's root needs.
    pub reclaimable_layers_bytes: u64,
    /// By image.
    pub images: Vec<ImageUsage>,
    /// Writable layers by container, sorted.
    pub snapshots: Vec<(String, u64)>,
    /// Documents, and layer blobs where they are kept.
    pub blobs_bytes: u64,
    /// Interrupted downloads.
    pub partial_bytes: u64,
    /// The engine's directories: logs above all.
    pub containers_bytes: u64,
    /// The database, work in progress, and what is being deleted.
    pub other_bytes: u64,
}

impl Store {
    /// Measures the data root. Layers are measured once in their life, the rest is walked in a
    /// blocking task.
    pub async fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let layers = self.measured_layers().await?;
        let index = self.inner.images.index();
        let (in_use, containers) = {
            let references = self.inner.layers.references();
            let in_use: HashSet<Digest> =
                references.snapshots.values().flat_map(|s| s.layers.iter().cloned()).collect();
            let mut containers: Vec<String> = references.snapshots.keys().cloned().collect();
            containers.sort();
            (in_use, containers)
        };
        let paths = self.inner.paths.clone();
        let walked = blocking(move || walk_without_layers(&paths, containers)).await?;
        let layers_bytes: u64 = layers.values().sum();
        let reclaimable = layers.iter().filter(|(d, _)| !in_use.contains(*d)).map(|(_, bytes)| bytes).sum();
        Ok(DiskUsage {
            total_bytes: layers_bytes + walked.total_bytes,
            layers_bytes,
            reclaimable_layers_bytes: reclaimable,
            images: image_usages(&index, &layers),
            ..walked
        })
    }

    /// The blocks of every layer in bytes.
    pub(crate) async fn measured_layers(&self) -> Result<HashMap<Digest, u64>, StoreError> {
        let layers: Vec<(Digest, Option<u64>)> =
            self.inner.layers.references().layers.iter().map(|(d, l)| (d.clone(), l.disk_bytes)).collect();
        let mut measured = HashMap::with_capacity(layers.len());
        for (diff_id, known) in layers {
            let bytes = match known {
                Some(bytes) => bytes,
                None => {
                    let path = self.inner.paths.layer(&diff_id);
                    let bytes = blocking(move || tree(&path)).await?.disk_bytes;
                    self.inner.layers.record_disk_bytes(&diff_id, bytes).await?;
                    bytes
                }
            };
            measured.insert(diff_id, bytes);
        }
        Ok(measured)
    }
}

fn image_usages(index: &Index, layers: &HashMap<Digest, u64>) -> Vec<ImageUsage> {
    let distinct = |image: &Image| image.layers().iter().cloned().collect::<HashSet<Digest>>();
    let mut holders: HashMap<Digest, u32> = HashMap::new();
    for diff_id in index.newest_first().iter().flat_map(|i| distinct(i)) {
        *holders.entry(diff_id).or_default() += 1;
    }
    let usage = |image: &Arc<Image>| {
        let own = distinct(image);
        let sum = |shared_only: bool| {
            own.iter()
                .filter(|d| !shared_only || holders.get(*d).is_some_and(|n| *n > 1))
                .filter_map(|d| layers.get(d))
                .sum()
        };
        ImageUsage { id: image.id.clone(), disk_bytes: sum(false), shared_bytes: sum(true) }
    };
    index.newest_first().iter().map(usage).collect()
}

/// Everything but the layers themselves; `total_bytes` is the sum. Blocks.
fn walk_without_layers(paths: &Paths, containers: Vec<String>) -> Result<DiskUsage, StoreError> {
    let disk_bytes = |path: &Path| tree(path).map(|t| t.disk_bytes);
    let mut usage = DiskUsage {
        blobs_bytes: disk_bytes(&paths.root().join("blobs"))?,
        partial_bytes: disk_bytes(&paths.partial())?,
        containers_bytes: disk_bytes(&paths.containers())?,
        other_bytes: disk_bytes(&paths.staging())? + disk_bytes(&paths.trash())?,
        ..DiskUsage::default()
    };
    let own_blocks = |path: &Path| std::fs::symlink_metadata(path).map_or(0, |m| m.blocks() * 512);
    for entry in entry_names(paths.root())? {
        let path = paths.root().join(entry);
        if path.is_file() {
            usage.other_bytes += own_blocks(&path);
        }
    }
    usage.other_bytes +=
        own_blocks(paths.root()) + own_blocks(&paths.layers()) + own_blocks(&paths.snapshots());
    for container in containers {
        let bytes = disk_bytes(&paths.snapshot(&container))?;
        usage.snapshots.push((container, bytes));
    }
    usage.total_bytes = usage.blobs_bytes
        + usage.partial_bytes
        + usage.containers_bytes
        + usage.other_bytes
        + usage.snapshots.iter().map(|(_, bytes)| bytes).sum::<u64>();
    Ok(usage)
}
