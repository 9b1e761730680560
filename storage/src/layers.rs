//! Unpacked layers by diff id under `layers/<hex>`: `fs/` in overlayfs' own form and `tar.zst`, the
//! recipe that makes the exact tar again.
//!
//! A layer's life: a [`Staging`] directory is filled by the unpack worker, [`Layers::commit`] renames
//! it and inserts its row (not yet durable), the image that needs it makes it durable with one
//! `syncfs` for all its layers. Until then the row counts only within the boot that wrote it, so a
//! killed daemon loses nothing and a power cut leaves nothing half-written.
//!
//! A [`Lease`] protects what a pull in progress found or made. When a pull fails, its finished layers
//! stay for [`KEPT`], so that the next try goes on from there.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::db::{Database, now};
use crate::failpoint::failpoint;
use crate::paths::{Paths, make_dir, random_name, to_the_end};
use crate::trash::Trash;
use crate::{Digest, ImageId, StoreError};

/// Seconds for which the finished layers of an interrupted pull are kept.
const KEPT: i64 = 24 * 3600;

/// What is known of a layer without touching the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    /// Sum of its files' sizes.
    pub size_bytes: u64,
    /// Blocks on disk in bytes, with the recipe; `None` until someone asked.
    pub disk_bytes: Option<u64>,
    /// Unix seconds until which it lives without an image.
    pub kept_until: i64,
}

/// A container's writable layer and what it stands on.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub image: ImageId,
    /// Lowest first.
    pub layers: Arc<[Digest]>,
}

/// Everything that refers to layers, apart from images, and the layers themselves. One mutex, so
/// that a collector sees a consistent picture; never held across I/O.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub layers: HashMap<Digest, Layer>,
    pub leases: HashMap<u64, HashSet<Digest>>,
    pub snapshots: HashMap<String, Snapshot>,
    /// Compressed forms by the layers made from them; the collector spares those that are kept here.
    pub sources: HashMap<Digest, HashSet<Digest>>,
    next_lease: u64,
}

/// Protects layers and blobs from the collector while it lives.
#[derive(Debug)]
pub(crate) struct Lease {
    id: u64,
    references: Arc<Mutex<References>>,
}

impl Lease {
    /// Protects a layer or blob that is there or will be, and answers whether the *layer* is there.
    pub fn hold(&self, digest: &Digest) -> bool {
        let mut references = lock(&self.references);
        references.leases.entry(self.id).or_default().insert(digest.clone());
        references.layers.contains_key(digest)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.references).leases.remove(&self.id);
    }
}

/// A directory for work in progress; gone when dropped, and swept at start.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    trash: Trash,
}

impl Staging {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.trash.discard(&self.path) {
            tracing::warn!(%error, "cannot discard a staging directory; the next start sweeps it");
        }
    }
}

/// All layers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    paths: Paths,
    db: Database,
    trash: Trash,
    boot_id: Arc<str>,
    references: Arc<Mutex<References>>,
    /// Orders commits and the collector's renames.
    write: Arc<tokio::sync::Mutex<()>>,
}

impl Layers {
    /// Loads the rows; drops what was never made durable and did not survive a reboot.
    pub async fn load(paths: Paths, db: Database, trash: Trash, boot_id: String) -> Result<Self, StoreError> {
        let pool = db.durable();
        sqlx::query("DELETE FROM layers WHERE durable = 0 AND boot_id <> ?")
            .bind(&boot_id)
            .execute(pool)
            .await?;
        let rows: Vec<(String, i64, Option<i64>, i64)> =
            sqlx::query_as("SELECT diff_id, size_bytes, disk_bytes, kept_until FROM layers")
                .fetch_all(pool)
                .await?;
        let mut references = References::default();
        for (diff_id, size, disk, kept_until) in rows {
            let Some(diff_id) = Digest::parse(&diff_id) else { continue };
            if !paths.layer_fs(&diff_id).is_dir() {
                tracing::error!(%diff_id, "a layer's directory is missing; pull its image again to repair it");
                continue;
            }
            let layer = Layer {
                size_bytes: size.max(0).unsigned_abs(),
                disk_bytes: disk.map(|d| d.max(0).unsigned_abs()),
                kept_until,
            };
            references.layers.insert(diff_id, layer);
        }
        let sources: Vec<(String, String)> =
            sqlx::query_as("SELECT diff_id, blob_digest FROM layer_sources").fetch_all(pool).await?;
        for (diff_id, blob) in sources {
            if let (Some(diff_id), Some(blob)) = (Digest::parse(&diff_id), Digest::parse(&blob)) {
                references.sources.entry(diff_id).or_default().insert(blob);
            }
        }
        Ok(Self {
            paths,
            db,
            trash,
            boot_id: boot_id.into(),
            references: Arc::new(Mutex::new(references)),
            write: Arc::default(),
        })
    }

    /// The shared picture. Hold it for a moment only.
    pub fn references(&self) -> MutexGuard<'_, References> {
        lock(&self.references)
    }

    /// Orders commits and renames; for the collector and the checker.
    pub async fn write_lock(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.write.clone().lock_owned().await
    }

    /// A lease that holds nothing yet.
    pub fn lease(&self) -> Lease {
        let mut references = self.references();
        references.next_lease += 1;
        Lease { id: references.next_lease, references: self.references.clone() }
    }

    /// Whether a layer is there. It can go away at once; [`Lease::hold`] asks and protects.
    pub fn has(&self, diff_id: &Digest) -> bool {
        self.references().layers.contains_key(diff_id)
    }

    /// Sum of a layer's file sizes in bytes.
    pub fn size_bytes(&self, diff_id: &Digest) -> Option<u64> {
        self.references().layers.get(diff_id).map(|l| l.size_bytes)
    }

    /// A fresh, empty staging directory (0700).
    pub fn staging(&self) -> Result<Staging, StoreError> {
        let path = self.paths.staging().join(random_name());
        make_dir(&path, 0o700)?;
        Ok(Staging { path, trash: self.trash.clone() })
    }

    /// Takes over a staging directory that holds `fs/` and `tar.zst` of a verified layer.
    /// `size_bytes` is the sum of the sizes of its regular files. Where another pull was faster, the
    /// directory is dropped. The layer belongs to the lease from now on; it becomes durable with the
    /// image. Goes on to its end when the caller goes away.
    pub async fn commit(
        &self,
        staging: Staging,
        diff_id: &Digest,
        size_bytes: u64,
        lease: &Lease,
    ) -> Result<(), StoreError> {
        lease.hold(diff_id);
        let (this, diff_id) = (self.clone(), diff_id.clone());
        to_the_end(async move { this.commit_staged(staging, diff_id, size_bytes).await }).await
    }

    async fn commit_staged(
        &self,
        staging: Staging,
        diff_id: Digest,
        size_bytes: u64,
    ) -> Result<(), StoreError> {
        let guard = self.write_lock().await;
        if self.has(&diff_id) {
            return Ok(());
        }
        let target = self.paths.layer(&diff_id);
        // A directory whose row is lost, or a damaged one.
        self.trash.discard(&target)?;
        std::fs::rename(staging.path(), &target).map_err(StoreError::io(&target))?;
        failpoint("layer-renamed");
        let kept_until = now() + KEPT;
        sqlx::query(
            "INSERT INTO layers (diff_id, size_bytes, boot_id, kept_until) VALUES (?, ?, ?, ?) ON CONFLICT (diff_id)
             DO UPDATE SET size_bytes = excluded.size_bytes, disk_bytes = NULL, durable = 0,
                           boot_id = excluded.boot_id, kept_until = excluded.kept_until",
        )
        .bind(diff_id.as_str())
        .bind(i64::try_from(size_bytes).unwrap_or(i64::MAX))
        .bind(&*self.boot_id)
        .bind(kept_until)
        .execute(self.db.state())
        .await?;
        failpoint("layer-row");
        self.references().layers.insert(diff_id, Layer { size_bytes, disk_bytes: None, kept_until });
        drop(guard);
        Ok(())
    }

    /// Remembers what a layer takes on disk, with its recipe.
    pub async fn record_disk_bytes(&self, diff_id: &Digest, disk_bytes: u64) -> Result<(), StoreError> {
        if let Some(layer) = self.references().layers.get_mut(diff_id) {
            layer.disk_bytes = Some(disk_bytes);
        }
        sqlx::query("UPDATE layers SET disk_bytes = ? WHERE diff_id = ?")
            .bind(i64::try_from(disk_bytes).unwrap_or(i64::MAX))
            .bind(diff_id.as_str())
            .execute(self.db.state())
            .await?;
        Ok(())
    }

    /// Makes every layer that was committed before durable; one `syncfs`.
    pub async fn sync(&self) -> Result<(), StoreError> {
        crate::paths::sync_file_system(self.paths.root()).await
    }
}

fn lock(references: &Mutex<References>) -> MutexGuard<'_, References> {
    // No code panics while it holds the lock with the maps half-changed.
    references.lock().unwrap_or_else(PoisonError::into_inner)
}
