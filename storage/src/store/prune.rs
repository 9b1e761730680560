//! Giving disk space back: `image prune`, and the disk budget.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use super::{ImageUse, Removal, Store};
use crate::images::{Image, ImageId};
use crate::{Digest, RemoveError, StoreError};

/// Which images [`Store::prune_images`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneScope {
    /// Those without a tag.
    Dangling,
    /// All that no container uses.
    Unused,
}

/// What was pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Line by line, as `rmi` answers.
    pub removals: Vec<Removal>,
    /// Sum of the file sizes of the layers that went, in bytes.
    pub reclaimed_bytes: u64,
}

impl Store {
    /// Docker's `image prune`. `selects` is asked for each image that comes into question (filters
    /// like `until` and `label`), `users` for the containers of an image; images with users stay. The
    /// finished layers of interrupted pulls go as well. Files are deleted in the background.
    pub async fn prune_images(
        &self,
        scope: PruneScope,
        selects: impl Fn(&Image) -> bool,
        users: impl Fn(&ImageId) -> Vec<ImageUse>,
    ) -> Result<Pruned, StoreError> {
        let chosen: Vec<(Arc<Image>, Vec<ImageUse>)> = {
            let index = self.inner.images.index();
            let is_chosen = |image: &&Arc<Image>| {
                let intermediate = image.is_nameless() && index.children(&image.id).next().is_some();
                let in_scope = scope == PruneScope::Unused || image.tags.is_empty();
                in_scope && !intermediate && selects(image)
            };
            index.newest_first().iter().filter(is_chosen).map(|i| (i.clone(), users(&i.id))).collect()
        };
        self.prune_chosen(chosen).await
    }

    async fn prune_chosen(&self, chosen: Vec<(Arc<Image>, Vec<ImageUse>)>) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        for (image, users) in chosen {
            let names: Vec<String> = if image.is_nameless() {
                vec![image.id.to_string()]
            } else {
                image.tags.iter().chain(&image.repo_digests).cloned().collect()
            };
            for name in names {
                match self.remove_counted(&name, false, &users).await {
                    Ok((removals, bytes)) => {
                        pruned.removals.extend(removals);
                        pruned.reclaimed_bytes += bytes;
                    }
                    // In use, or gone with an earlier one.
                    Err(RemoveError::Conflict(_) | RemoveError::Lookup(_)) => {}
                    Err(RemoveError::Store(error)) => return Err(error),
                }
            }
        }
        pruned.reclaimed_bytes += self.drop_kept_layers().await?;
        Ok(pruned)
    }

    /// Finished layers of interrupted pulls are kept no longer.
    async fn drop_kept_layers(&self) -> Result<u64, StoreError> {
        for layer in self.inner.layers.references().layers.values_mut() {
            layer.kept_until = 0;
        }
        sqlx::query("UPDATE layers SET kept_until = 0").execute(self.inner.db.state()).await?;
        Ok(self.collect_garbage().await?.layer_bytes)
    }

    /// Keeps the layers' blocks within `disk_budget_bytes`: first what interrupted pulls left goes,
    /// then the images that were used least recently, except for those with a container or a child
    /// and the one used last. Does nothing where no budget is set.
    pub(crate) async fn keep_disk_budget(&self) -> Result<Vec<ImageId>, StoreError> {
        let Some(budget) = self.inner.options.disk_budget_bytes else { return Ok(vec![]) };
        let mut evicted = Vec::new();
        if self.layers_disk_bytes().await? > budget {
            self.drop_kept_layers().await?;
        }
        let mut spared = HashSet::new();
        loop {
            let total_bytes = self.layers_disk_bytes().await?;
            if total_bytes <= budget {
                return Ok(evicted);
            }
            let Some(image) = self.least_recently_used(&spared) else {
                tracing::warn!(total_bytes, budget, "over the disk budget, and every image is in use");
                return Ok(evicted);
            };
            match self.remove_counted(image.id.as_str(), true, &[]).await {
                Ok(_) => {
                    tracing::info!(image = %image.id, names = ?image.tags, "evicted to keep the disk budget");
                    evicted.push(image.id.clone());
                }
                Err(RemoveError::Store(error)) => return Err(error),
                Err(_) => {
                    spared.insert(image.id.clone());
                }
            }
        }
    }

    async fn layers_disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.measured_layers().await?.values().sum())
    }

    fn least_recently_used(&self, spared: &HashSet<ImageId>) -> Option<Arc<Image>> {
        let index = self.inner.images.index();
        let in_use: HashSet<ImageId> =
            self.inner.layers.references().snapshots.values().map(|s| s.image.clone()).collect();
        let used = self.inner.used.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |image: &Arc<Image>| used.get(&image.id).copied().unwrap_or(0);
        let latest = index.newest_first().iter().max_by_key(|i| at(i)).map(|i| i.id.clone())?;
        let evictable = |image: &&Arc<Image>| {
            image.id != latest
                && !spared.contains(&image.id)
                && !in_use.contains(&image.id)
                && index.children(&image.id).next().is_none()
        };
        index.newest_first().iter().filter(evictable).min_by_key(|i| at(i)).cloned()
    }

    /// Writes back when images were last used.
    pub(crate) async fn write_used(&self) -> Result<(), StoreError> {
        let used: Vec<(ImageId, i64)> = {
            let used = self.inner.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.iter().map(|(id, at)| (id.clone(), *at)).collect()
        };
        let mut transaction = self.inner.db.state().begin().await?;
        for (id, at) in used {
            sqlx::query("UPDATE images SET used_at = ? WHERE id = ? AND used_at < ?")
                .bind(at)
                .bind(id.as_str())
                .bind(at)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Layer blobs that are kept for the layers made from them.
pub(crate) fn kept_blobs<'a>(
    sources: &'a std::collections::HashMap<Digest, HashSet<Digest>>,
    layers: impl Iterator<Item = &'a Digest>,
) -> Vec<Digest> {
    layers.filter_map(|d| sources.get(d)).flatten().cloned().collect()
}
