//! The containers' writable layers. What overlayfs needs is returned as data; the mount itself is
//! made in the container's own mount namespace, by the executor.
//!
//! The directory comes before the row and goes after it, so a row promises a directory.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Store;
use crate::failpoint::failpoint;
use crate::images::ImageId;
use crate::layers::Snapshot;
use crate::paths::{blocking, make_dir, to_the_end};
use crate::{Digest, StoreError, usage};

/// What overlayfs needs to make a container's root; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMount {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// overlayfs' work directory.
    pub work: PathBuf,
}

impl Store {
    /// Makes the writable layer of a container. Fails where it exists.
    pub async fn prepare_snapshot(&self, container: &str, image: &ImageId) -> Result<RootMount, StoreError> {
        check_container_id(container)?;
        let (store, container, image) = (self.clone(), container.to_owned(), image.clone());
        to_the_end(async move { store.prepare(&container, &image).await }).await
    }

    async fn prepare(&self, container: &str, image: &ImageId) -> Result<RootMount, StoreError> {
        let no_image = || StoreError::damaged(format!("No such image: {image}"));
        let layers = self.inner.images.index().get(image).ok_or_else(no_image)?.layers.clone();
        {
            // Registered before anything else, so that the collector leaves the layers alone.
            let mut references = self.inner.layers.references();
            if references.snapshots.contains_key(container) {
                return Err(StoreError::damaged(format!(
                    "container {container} has a writable layer already"
                )));
            }
            if let Some(missing) = layers.iter().find(|d| !references.layers.contains_key(*d)) {
                return Err(StoreError::damaged(format!(
                    "layer {missing} of image {image} is damaged; pull the image again"
                )));
            }
            let snapshot = Snapshot { image: image.clone(), layers: layers.clone() };
            references.snapshots.insert(container.to_owned(), snapshot);
        }
        let made = self.make_snapshot(container, image, &layers).await;
        if made.is_err() {
            self.inner.layers.references().snapshots.remove(container);
            self.inner.trash.discard(&self.inner.paths.snapshot(container))?;
        }
        self.inner.touch(image);
        made
    }

    async fn make_snapshot(
        &self,
        container: &str,
        image: &ImageId,
        layers: &[Digest],
    ) -> Result<RootMount, StoreError> {
        let mount = self.mount_of(container, layers);
        make_dir(&self.inner.paths.snapshot(container), 0o700)?;
        make_dir(&mount.work, 0o700)?;
        make_upper(&mount)?;
        failpoint("snapshot-made");
        let diff_ids: Vec<&str> = layers.iter().map(Digest::as_str).collect();
        sqlx::query("INSERT INTO snapshots (container, image, layers) VALUES (?, ?, ?)")
            .bind(container)
            .bind(image.as_str())
            .bind(serde_json::Value::from(diff_ids).to_string())
            .execute(self.inner.db.state())
            .await?;
        failpoint("snapshot-row");
        Ok(mount)
    }

    fn mount_of(&self, container: &str, layers: &[Digest]) -> RootMount {
        let directory = self.inner.paths.snapshot(container);
        RootMount {
            lower: layers_topmost_first(layers).map(|d| self.inner.paths.layer_fs(d)).collect(),
            upper: directory.join("upper"),
            work: directory.join("work"),
        }
    }

    /// The root of a container whose writable layer exists. The layers are those it was made with,
    /// also where the image is gone.
    pub fn root_mount(&self, container: &str, image: &ImageId) -> Result<RootMount, StoreError> {
        let snapshot = self.inner.layers.references().snapshots.get(container).cloned();
        let snapshot = snapshot
            .ok_or_else(|| StoreError::damaged(format!("container {container} has no writable layer")))?;
        if snapshot.image != *image {
            return Err(StoreError::damaged(format!(
                "container {container} was made from {}",
                snapshot.image
            )));
        }
        Ok(self.mount_of(container, &snapshot.layers))
    }

    /// Removes a container's writable layer; no error where it is gone already. The files are
    /// deleted in the background.
    pub async fn remove_snapshot(&self, container: &str) -> Result<(), StoreError> {
        check_container_id(container)?;
        let (store, container) = (self.clone(), container.to_owned());
        to_the_end(async move {
            sqlx::query("DELETE FROM snapshots WHERE container = ?")
                .bind(&container)
                .execute(store.inner.db.state())
                .await?;
            failpoint("snapshot-row-deleted");
            store.inner.trash.discard(&store.inner.paths.snapshot(&container))?;
            let removed = store.inner.layers.references().snapshots.remove(&container);
            if removed.is_some_and(|s| store.inner.images.index().get(&s.image).is_none()) {
                // Its image was removed by force: its layers are nobody's now.
                store.collect_garbage().await?;
            }
            Ok(())
        })
        .await
    }

    /// Sum of the file sizes in a container's writable layer in bytes. Blocks on the file system in
    /// a blocking task.
    pub async fn snapshot_size_bytes(&self, container: &str) -> Result<u64, StoreError> {
        check_container_id(container)?;
        let upper = self.inner.paths.snapshot(container).join("upper");
        blocking(move || usage::tree(&upper).map(|t| t.file_bytes)).await
    }
}

/// A layer that an image holds twice counts where it is topmost: overlayfs refuses a directory that
/// comes twice, and whatever the lower one says is said again above all that lies between.
fn layers_topmost_first(layers: &[Digest]) -> impl Iterator<Item = &Digest> {
    let mut seen = HashSet::new();
    layers.iter().rev().filter(move |d| seen.insert(*d))
}

/// The root directory of a container is the upper directory: it has the owner of the image's.
fn make_upper(mount: &RootMount) -> Result<(), StoreError> {
    make_dir(&mount.upper, 0o755)?;
    let set = |owner: Option<std::fs::Metadata>| {
        std::fs::set_permissions(&mount.upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        match owner {
            Some(meta) if (meta.uid(), meta.gid()) != (0, 0) => {
                std::os::unix::fs::chown(&mount.upper, Some(meta.uid()), Some(meta.gid()))
            }
            _ => Ok(()),
        }
    };
    let owner = mount.lower.first().map(std::fs::symlink_metadata).transpose();
    owner.and_then(set).map_err(StoreError::io(&mount.upper))
}

/// A container id becomes a file name, so it is checked to be one.
fn check_container_id(id: &str) -> Result<(), StoreError> {
    let fine = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fine && Path::new(id).components().count() == 1 {
        return Ok(());
    }
    Err(StoreError::damaged(format!("{id:?} is not a container id")))
}
