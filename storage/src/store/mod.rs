//! The facade that the daemon sees: opening, and reads that memory answers.

mod containers;
mod open;
mod prune;
mod put;
mod remove;
mod snapshots;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use containers::ContainerRow;
pub(crate) use open::{lock, parse_snapshot};
pub(crate) use prune::kept_blobs;
pub use prune::{PruneScope, Pruned};
pub use put::LayerSource;
pub(crate) use put::NewImage;
pub use remove::{ImageUse, Removal};
pub use snapshots::RootMount;
pub use verify::Damage;

use crate::blobs::Blobs;
use crate::db::{Database, now_ms};
use crate::images::{Image, ImageId, Images};
use crate::layers::Layers;
use crate::paths::{Paths, blocking};
use crate::trash::Trash;
use crate::{Digest, LookupError, ProgressSink, PullError, PullRequest, StoreError, StoreOptions};

/// The store. Cheap to clone. Reads of images come from memory.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones of a [`Store`] share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub options: StoreOptions,
    pub paths: Paths,
    pub db: Database,
    pub blobs: Blobs,
    pub layers: Layers,
    pub images: Images,
    pub trash: Trash,
    /// When images were last used, in Unix milliseconds; written back now and then.
    pub used: Mutex<HashMap<ImageId, i64>>,
    /// Pulls in progress, and connections to registries.
    pub puller: crate::pull::Puller,
    /// Sizes of layers' tars that were asked for, in bytes.
    pub tar_sizes: Mutex<HashMap<Digest, u64>>,
    /// Held for its lock.
    _lock: std::fs::File,
}

impl Inner {
    /// Records that an image was used now.
    pub fn touch(&self, image: &ImageId) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(image.clone(), now_ms());
    }
}

impl Store {
    /// The data root.
    pub fn data_root(&self) -> &Path {
        self.inner.paths.root()
    }

    /// How the store was opened.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// All images, newest first.
    pub fn images(&self) -> Vec<Arc<Image>> {
        self.inner.images.index().newest_first().to_vec()
    }

    /// Finds an image by name, `name@digest`, full id or unique id prefix, as Docker does (a name
    /// goes before an id prefix).
    pub fn image(&self, name: &str) -> Result<Arc<Image>, LookupError> {
        self.inner.images.index().find(name).cloned()
    }

    /// Images that were made from this one here, by a commit.
    pub fn image_children(&self, id: &ImageId) -> Vec<ImageId> {
        self.inner.images.index().children(id).map(|i| i.id.clone()).collect()
    }

    /// The bytes of a document (manifest, index, configuration), verified against its digest.
    pub async fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let (blobs, digest) = (self.inner.blobs.clone(), digest.clone());
        blocking(move || blobs.read(&digest)).await
    }

    /// The sum of a layer's file sizes in bytes, `None` where it is not here.
    pub fn layer_size_bytes(&self, diff_id: &Digest) -> Option<u64> {
        self.inner.layers.size_bytes(diff_id)
    }

    /// Where a layer's compressed forms came from.
    pub async fn layer_sources(&self, diff_id: &Digest) -> Result<Vec<LayerSource>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT blob_digest, media_type, repository, size_bytes FROM layer_sources WHERE diff_id = ?",
        )
        .bind(diff_id.as_str())
        .fetch_all(self.inner.db.state())
        .await?;
        let source = |(blob, media_type, repository, size): (String, String, String, i64)| {
            Some(LayerSource {
                diff_id: diff_id.clone(),
                blob_digest: Digest::parse(&blob)?,
                media_type,
                size_bytes: size.max(0).unsigned_abs(),
                repository,
            })
        };
        Ok(rows.into_iter().filter_map(source).collect())
    }

    /// Pulls an image. Two pulls of one layer share the work. Dropping the future stops it; what was
    /// downloaded so far is kept in `partial/` and used again.
    pub async fn pull(&self, request: PullRequest, progress: ProgressSink) -> Result<Arc<Image>, PullError> {
        self.inner.puller.pull(self, &request, progress).await
    }

    /// Waits until what was removed is deleted, and closes the database.
    pub async fn close(&self) {
        if let Err(error) = self.write_used().await {
            tracing::warn!(%error, "when images were last used is not recorded");
        }
        self.inner.trash.emptied().await;
        self.inner.db.close().await;
    }
}
