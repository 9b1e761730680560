//! Making an image known, and giving it names.

use sqlx::{Sqlite, Transaction};

use super::Store;
use crate::db::{from_unix, now, now_ms};
use crate::failpoint::failpoint;
use crate::images::{Document, Image, ImageId, Index, layers_size_bytes};
use crate::layers::Lease;
use crate::paths::{blocking, to_the_end};
use crate::reference::Reference;
use crate::{Digest, RemoveError, StoreError};

/// An image whose layers are all committed.
#[derive(Debug, Default)]
pub(crate) struct NewImage {
    /// The configuration, byte by byte; its digest is the image's id.
    pub config_raw: Vec<u8>,
    /// The manifest it came with: media type and bytes.
    pub manifest: Option<(String, Vec<u8>)>,
    /// The index that led to the manifest: media type and bytes.
    pub index: Option<(String, Vec<u8>)>,
    /// Tags to give; taken from other images where they have them. References with digests become
    /// repository digests.
    pub names: Vec<Reference>,
    /// Where the layers' compressed forms came from.
    pub sources: Vec<LayerSource>,
    /// The image it was made from here.
    pub parent: Option<ImageId>,
}

/// Where a layer's compressed form can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSource {
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Digest of the compressed form.
    pub blob_digest: Digest,
    /// Media type of the compressed form.
    pub media_type: String,
    /// Size of the compressed form.
    pub size_bytes: u64,
    /// `registry/repository` in full: `docker.io/library/busybox`.
    pub repository: String,
}

impl Store {
    /// Makes an image known in one transaction after one `syncfs`: when it returns, a power cut loses
    /// nothing. The lease has to hold all layers, committed. Goes on to its end when the caller goes
    /// away.
    pub(crate) async fn put_image(
        &self,
        new: NewImage,
        lease: &Lease,
    ) -> Result<std::sync::Arc<Image>, StoreError> {
        let image = Image::from_config(new.config_raw.clone())?;
        let raw_documents: Vec<_> = [&new.manifest, &new.index].into_iter().flatten().cloned().collect();
        lease.hold(image.id.digest());
        for (_, bytes) in &raw_documents {
            lease.hold(&Digest::of(bytes));
        }
        // The mutation outlives a caller that goes away, and so must the protection of what it needs.
        let own_lease = self.inner.layers.lease();
        for digest in image.layers.iter().chain([image.id.digest()]) {
            own_lease.hold(digest);
        }
        for (_, bytes) in &raw_documents {
            own_lease.hold(&Digest::of(bytes));
        }
        let store = self.clone();
        to_the_end(async move {
            let put = store.put(image, new, raw_documents).await?;
            drop(own_lease);
            if let Err(error) = store.keep_disk_budget().await {
                tracing::warn!(%error, "the disk budget could not be kept");
            }
            Ok(put)
        })
        .await
    }

    async fn put(
        &self,
        mut image: Image,
        new: NewImage,
        raw_documents: Vec<(String, Vec<u8>)>,
    ) -> Result<std::sync::Arc<Image>, StoreError> {
        let blobs = self.inner.blobs.clone();
        let config_raw = new.config_raw;
        let documents = blocking(move || {
            blobs.write(&config_raw)?;
            let write = |(media_type, bytes): (String, Vec<u8>)| {
                Ok(Document { digest: blobs.write(&bytes)?, media_type })
            };
            raw_documents.into_iter().map(write).collect::<Result<Vec<_>, StoreError>>()
        })
        .await?;
        failpoint("image-blobs");
        self.inner.layers.sync().await?;
        failpoint("image-synced");

        let guard = self.inner.images.write_lock().await;
        if let Some(missing) = image.layers.iter().find(|d| !self.inner.layers.has(d)) {
            return Err(StoreError::damaged(format!("layer {missing} of image {} is not here", image.id)));
        }
        let index = self.inner.images.index();
        let known = index.get(&image.id);
        let mut all_documents = known.map(|k| k.documents.to_vec()).unwrap_or_default();
        all_documents
            .extend(documents.iter().filter(|d| !all_documents.contains(d)).cloned().collect::<Vec<_>>());
        image.manifest_digest = match &new.manifest {
            Some((_, bytes)) => Some(Digest::of(bytes).as_str().to_owned()),
            None => known.and_then(|k| k.manifest_digest.clone()),
        };
        image.parent = known.and_then(|k| k.parent.clone()).or(new.parent);
        image.size_bytes = layers_size_bytes(&self.inner.layers, &image.layers);
        image.tags = known.map(|k| k.tags.clone()).unwrap_or_default();
        image.repo_digests = known.map(|k| k.repo_digests.clone()).unwrap_or_default();
        image.documents = all_documents.into();
        let at = now();
        image.last_tagged =
            if new.names.is_empty() { known.and_then(|k| k.last_tagged) } else { Some(from_unix(at)) };

        let mut transaction = self.inner.db.durable().begin().await?;
        insert_image(&mut transaction, &image).await?;
        for source in &new.sources {
            insert_source(&mut transaction, source).await?;
        }
        for name in &new.names {
            insert_name(&mut transaction, name, &image.id).await?;
        }
        failpoint("image-before-commit");
        transaction.commit().await?;
        failpoint("image-after-commit");

        {
            let mut references = self.inner.layers.references();
            for diff_id in image.layers.iter() {
                if let Some(layer) = references.layers.get_mut(diff_id) {
                    layer.kept_until = 0;
                }
            }
            for source in new.sources {
                references.sources.entry(source.diff_id).or_default().insert(source.blob_digest);
            }
        }
        let id = image.id.clone();
        let changed = renamed(&index, image, &new.names);
        self.inner.images.publish(changed);
        self.inner.touch(&id);
        drop(guard);
        let index = self.inner.images.index();
        index.get(&id).cloned().ok_or_else(|| StoreError::damaged(format!("image {id} went away at once")))
    }

    /// Gives an image a further name; takes the name from another image where it has it.
    pub async fn tag(&self, source: &str, target: &str) -> Result<(), RemoveError> {
        let reference = Reference::parse(target)?;
        if reference.digest().is_some() {
            return Err(crate::LookupError::Invalid(
                "refusing to create a tag with a digest reference".into(),
            )
            .into());
        }
        let (store, source) = (self.clone(), source.to_owned());
        to_the_end(async move { store.add_names(&source, vec![reference.or_latest()]).await }).await
    }

    /// Records that a repository has the image under this digest (after a push).
    pub(crate) async fn add_repo_digest(&self, image: &ImageId, name: Reference) -> Result<(), RemoveError> {
        let (store, image) = (self.clone(), image.clone());
        to_the_end(async move { store.add_names(image.as_str(), vec![name]).await }).await
    }

    /// Records where a layer's compressed form can be had as well (after a push).
    pub(crate) async fn add_layer_source(&self, source: &LayerSource) -> Result<(), StoreError> {
        let mut transaction = self.inner.db.state().begin().await?;
        insert_source(&mut transaction, source).await?;
        Ok(transaction.commit().await?)
    }

    async fn add_names(&self, source: &str, names: Vec<Reference>) -> Result<(), RemoveError> {
        let guard = self.inner.images.write_lock().await;
        let index = self.inner.images.index();
        let mut image = Image::clone(index.find(source)?);
        let at = now();
        let mut transaction = self.inner.db.durable().begin().await.map_err(StoreError::from)?;
        for name in &names {
            insert_name(&mut transaction, name, &image.id).await?;
        }
        sqlx::query("UPDATE images SET tagged_at = ? WHERE id = ?")
            .bind(at)
            .bind(image.id.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        transaction.commit().await.map_err(StoreError::from)?;
        image.last_tagged = Some(from_unix(at));
        self.inner.images.publish(renamed(&index, image, &names));
        drop(guard);
        Ok(())
    }
}

/// The index after `image` got names, which other images lose.
fn renamed(index: &Index, mut image: Image, names: &[Reference]) -> Index {
    let mut losers = std::collections::BTreeMap::new();
    for name in names {
        let key = name.key();
        if let Some(loser) = index.by_name(&key).filter(|i| i.id != image.id) {
            let entry = losers.entry(loser.id.clone()).or_insert_with(|| Image::clone(loser));
            entry.tags.retain(|t| *t != key);
            entry.repo_digests.retain(|t| *t != key);
        }
        let list = if name.digest().is_some() { &mut image.repo_digests } else { &mut image.tags };
        if let Err(at) = list.binary_search(&key) {
            list.insert(at, key);
        }
    }
    index.changed(losers.into_values().chain([image]), &[])
}

async fn insert_image(transaction: &mut Transaction<'_, Sqlite>, image: &Image) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO images (id, manifest_digest, parent, tagged_at, used_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET manifest_digest = excluded.manifest_digest, parent = excluded.parent,
                                        tagged_at = excluded.tagged_at, used_at = excluded.used_at",
    )
    .bind(image.id.as_str())
    .bind(image.manifest_digest.as_deref())
    .bind(image.parent.as_ref().map(ImageId::as_str))
    .bind(image.last_tagged.map(crate::db::to_unix))
    .bind(now_ms())
    .execute(&mut **transaction)
    .await?;
    for document in image.documents.iter() {
        sqlx::query("INSERT OR IGNORE INTO image_documents (image, digest, media_type) VALUES (?, ?, ?)")
            .bind(image.id.as_str())
            .bind(document.digest.as_str())
            .bind(&document.media_type)
            .execute(&mut **transaction)
            .await?;
    }
    for diff_id in image.layers.iter() {
        sqlx::query("UPDATE layers SET durable = 1, kept_until = 0 WHERE diff_id = ?")
            .bind(diff_id.as_str())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

async fn insert_source(
    transaction: &mut Transaction<'_, Sqlite>,
    source: &LayerSource,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO layer_sources (diff_id, blob_digest, repository, media_type, size_bytes)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(source.diff_id.as_str())
    .bind(source.blob_digest.as_str())
    .bind(&source.repository)
    .bind(&source.media_type)
    .bind(i64::try_from(source.size_bytes).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_name(
    transaction: &mut Transaction<'_, Sqlite>,
    name: &Reference,
    image: &ImageId,
) -> Result<(), StoreError> {
    let query = if name.digest().is_some() {
        "INSERT OR REPLACE INTO image_digests (name, image) VALUES (?, ?)"
    } else {
        "INSERT OR REPLACE INTO image_names (name, image) VALUES (?, ?)"
    };
    sqlx::query(query).bind(name.key()).bind(image.as_str()).execute(&mut **transaction).await?;
    Ok(())
}
