//! The store as one pull sees it.

use std::sync::Arc;

use super::partial::{Partial, Partials};
use super::resolve::Resolved;
use crate::layers::{Lease, Staging};
use crate::store::{LayerSource, NewImage};
use crate::unpack::Unpacked;
use crate::{Digest, Image, ImageId, PullError, Reference, Store, StoreError, StoreOptions};

/// Where a pull puts things, with a lease on all that it found or made. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    store: Store,
    lease: Arc<Lease>,
}

impl Local {
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), lease: Arc::new(store.inner.layers.lease()) }
    }

    /// The store, for work that outlives this pull and needs a lease of its own.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How the store was opened.
    pub fn options(&self) -> &StoreOptions {
        self.store.options()
    }

    /// The bytes of interrupted downloads.
    pub fn partials(&self) -> &Partials {
        self.store.inner.puller.partials()
    }

    /// Whether a layer is here; from now on it stays.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.lease.hold(diff_id)
    }

    /// An empty directory for a layer in the making.
    pub fn new_staging(&self) -> Result<Staging, PullError> {
        self.store.inner.layers.staging().map_err(local)
    }

    /// Takes over a verified layer.
    pub async fn commit_layer(
        &self,
        staging: Staging,
        diff_id: &Digest,
        unpacked: &Unpacked,
    ) -> Result<(), PullError> {
        self.store
            .inner
            .layers
            .commit(staging, diff_id, unpacked.size_bytes, &self.lease)
            .await
            .map_err(local)
    }

    /// What becomes of a layer's complete compressed bytes.
    pub fn keep_or_remove(&self, partial: Partial, blob: &Digest) {
        if self.options().keep_blobs && self.store.inner.blobs.adopt(partial.path(), blob).is_ok() {
            self.lease.hold(blob);
            return;
        }
        partial.remove();
    }

    /// Whether an image has this name.
    pub fn knows(&self, reference: &Reference) -> bool {
        self.store.inner.images.index().by_name(&reference.key()).is_some()
    }

    /// A manifest, index or configuration that is here.
    pub fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.lease.hold(digest);
        let blobs = &self.store.inner.blobs;
        if blobs.has(digest) { blobs.read(digest).ok() } else { None }
    }

    /// The image, where it is here in full and has this name and repository digest.
    pub fn has_image(&self, reference: &Reference, resolved: &Resolved) -> Option<Arc<Image>> {
        let index = self.store.inner.images.index();
        let image = index.get(&ImageId::from(resolved.config_digest.clone()))?;
        let named = names(reference, &resolved.top)
            .iter()
            .all(|name| index.by_name(&name.key()).is_some_and(|named| named.id == image.id));
        (named && image.layers().iter().all(|diff_id| self.has_layer(diff_id))).then(|| {
            self.store.inner.touch(&image.id);
            image.clone()
        })
    }

    /// Makes the image visible. All layers are committed.
    pub async fn put_image(
        &self,
        reference: &Reference,
        resolved: Resolved,
    ) -> Result<Arc<Image>, PullError> {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let sources = resolved
            .layers
            .iter()
            .map(|layer| LayerSource {
                diff_id: layer.diff_id.clone(),
                blob_digest: layer.blob.digest.clone(),
                media_type: layer.blob.media_type.clone(),
                size_bytes: layer.blob.size,
                repository: repository.clone(),
            })
            .collect();
        let mut documents = resolved.documents;
        let manifest = documents.pop().map(|document| (document.media_type, document.bytes));
        let index = documents.into_iter().next().map(|document| (document.media_type, document.bytes));
        let new = NewImage {
            config_raw: resolved.raw_config,
            manifest,
            index,
            names: names(reference, &resolved.top),
            sources,
            parent: None,
        };
        self.store.put_image(new, &self.lease).await.map_err(local)
    }
}

/// The names that a pull gives: the tag where the digest was not asked for, and the repository's digest.
fn names(reference: &Reference, top: &Digest) -> Vec<Reference> {
    let digest = reference.with_digest(top);
    if reference.digest().is_some() { vec![digest] } else { vec![reference.clone(), digest] }
}

fn local(error: StoreError) -> PullError {
    PullError::Local(error.to_string())
}
