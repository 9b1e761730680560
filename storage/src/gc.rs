//! Garbage collection by reachability: one pure mark, one sweep.
//!
//! Roots are images, the writable layers of containers, leases of what is in progress, and finished
//! layers of interrupted pulls for a while. It runs at start, after a removal and after a failed pull.

use std::collections::HashSet;

use crate::db::now;
use crate::failpoint::failpoint;
use crate::images::{Image, Index};
use crate::layers::References;
use crate::paths::{entry_names, to_the_end};
use crate::store::kept_blobs;
use crate::{Digest, Store, StoreError};

/// What an image keeps alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub layers: Vec<Digest>,
    /// Configuration, manifests and indexes.
    pub documents: Vec<Digest>,
}

impl Node {
    fn of(image: &Image) -> Self {
        let documents = image.documents.iter().map(|d| d.digest.clone());
        Self {
            layers: image.layers.to_vec(),
            documents: documents.chain([image.id.digest().clone()]).collect(),
        }
    }
}

/// Where reachability starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roots {
    pub images: Vec<Node>,
    /// The layers under each writable layer.
    pub snapshots: Vec<Vec<Digest>>,
    /// Layers and blobs of work in progress.
    pub leases: Vec<HashSet<Digest>>,
    /// Layers and blobs that are kept for another reason.
    pub kept: Vec<Digest>,
}

impl Roots {
    pub fn new(index: &Index, references: &References, at: i64) -> Self {
        let waiting = references.layers.iter().filter(|(_, l)| l.kept_until > at).map(|(d, _)| d.clone());
        let in_images = index.newest_first().iter().flat_map(|i| i.layers.iter());
        let kept = waiting.chain(kept_blobs(&references.sources, in_images)).collect();
        Self {
            images: index.newest_first().iter().map(|i| Node::of(i)).collect(),
            snapshots: references.snapshots.values().map(|s| s.layers.to_vec()).collect(),
            leases: references.leases.values().cloned().collect(),
            kept,
        }
    }
}

/// Everything that a root reaches.
pub(crate) fn mark(roots: &Roots) -> HashSet<&Digest> {
    let images = roots.images.iter().flat_map(|n| n.layers.iter().chain(&n.documents));
    let snapshots = roots.snapshots.iter().flatten();
    let leases = roots.leases.iter().flatten();
    images.chain(snapshots).chain(leases).chain(&roots.kept).collect()
}

/// What a collection took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers by diff id.
    pub layers: Vec<Digest>,
    /// The sum of their file sizes in bytes.
    pub layer_bytes: u64,
    /// Documents and kept blobs.
    pub blobs: Vec<Digest>,
}

impl Store {
    /// Takes away every layer and blob that nothing needs. The files are deleted in the background.
    pub async fn collect_garbage(&self) -> Result<Collected, StoreError> {
        let store = self.clone();
        to_the_end(async move {
            let guard = store.inner.images.write_lock().await;
            let collected = store.collect_locked().await;
            drop(guard);
            collected
        })
        .await
    }

    /// Compressed layers that live as long as the layers that they became.
    async fn kept_blobs(&self) -> Result<Vec<Digest>, StoreError> {
        if !self.inner.options.keep_blobs {
            return Ok(vec![]);
        }
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT blob_digest FROM layer_sources").fetch_all(self.inner.db.state()).await?;
        Ok(rows.iter().filter_map(|(digest,)| Digest::parse(digest)).collect())
    }

    /// The same for a caller that holds the images' write lock.
    pub(crate) async fn collect_locked(&self) -> Result<Collected, StoreError> {
        let layers = &self.inner.layers;
        let commits = layers.write_lock().await;
        let blob_names = entry_names(&self.inner.paths.blobs())?;
        let mut collected = Collected::default();
        let kept_blobs = self.kept_blobs().await?;
        {
            let index = self.inner.images.index();
            let mut references = layers.references();
            let mut roots = Roots::new(&index, &references, now());
            roots.kept.extend(kept_blobs);
            let live = mark(&roots);
            collected.layers = references.layers.keys().filter(|d| !live.contains(d)).cloned().collect();
            for diff_id in &collected.layers {
                // From now on a pull sees that it has to fetch the layer.
                collected.layer_bytes += references.layers.remove(diff_id).map_or(0, |l| l.size_bytes);
                references.sources.remove(diff_id);
            }
            let blobs = blob_names.iter().filter_map(|n| Digest::from_hex(n));
            collected.blobs = blobs.filter(|d| !live.contains(d)).collect();
            for digest in &collected.blobs {
                // Under the lock that leases need, so a blob that is written anew is not hit.
                std::fs::remove_file(self.inner.paths.blob(digest)).ok();
            }
        }
        if collected.layers.is_empty() {
            return Ok(collected);
        }
        failpoint("gc-marked");
        let mut transaction = self.inner.db.durable().begin().await?;
        for diff_id in &collected.layers {
            sqlx::query("DELETE FROM layers WHERE diff_id = ?")
                .bind(diff_id.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        failpoint("gc-rows-deleted");
        for diff_id in &collected.layers {
            self.inner.trash.discard(&self.inner.paths.layer(diff_id))?;
            failpoint("gc-discarded");
        }
        drop(commits);
        tracing::info!(layers = collected.layers.len(), bytes = collected.layer_bytes, "collected garbage");
        Ok(collected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digests() -> impl Strategy<Value = Vec<Digest>> {
        prop::collection::vec((0u8..12).prop_map(|n| Digest::of(&[n])), 0..5)
    }

    fn roots() -> impl Strategy<Value = Roots> {
        let node = (digests(), digests()).prop_map(|(layers, documents)| Node { layers, documents });
        let images = prop::collection::vec(node, 0..4);
        let lists = || prop::collection::vec(digests(), 0..3);
        (images, lists(), lists(), digests()).prop_map(|(images, snapshots, leases, kept)| Roots {
            images,
            snapshots,
            leases: leases.into_iter().map(|l| l.into_iter().collect()).collect(),
            kept,
        })
    }

    proptest! {
        #[test]
        fn lives_exactly_what_a_root_names(roots in roots(), probe in 0u8..14) {
            let probe = Digest::of(&[probe]);
            let named = roots.images.iter().any(|n| n.layers.contains(&probe) || n.documents.contains(&probe))
                || roots.snapshots.iter().any(|s| s.contains(&probe))
                || roots.leases.iter().any(|l| l.contains(&probe))
                || roots.kept.contains(&probe);
            prop_assert_eq!(mark(&roots).contains(&probe), named);
        }

        #[test]
        fn a_further_root_never_kills(roots in roots(), more in digests()) {
            let before: HashSet<Digest> = mark(&roots).into_iter().cloned().collect();
            let mut larger = roots.clone();
            larger.images.push(Node { layers: more, documents: vec![] });
            let after: HashSet<Digest> = mark(&larger).into_iter().cloned().collect();
            prop_assert!(before.is_subset(&after));
        }

        #[test]
        fn removing_an_image_keeps_what_others_share(roots in roots()) {
            let mut smaller = roots.clone();
            smaller.images.pop();
            let rest: HashSet<Digest> = smaller.images.iter().flat_map(|n| n.layers.clone()).collect();
            let live: HashSet<Digest> = mark(&smaller).into_iter().cloned().collect();
            prop_assert!(rest.is_subset(&live));
        }
    }
}
