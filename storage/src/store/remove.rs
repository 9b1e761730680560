//! Docker's `rmi`: names first, the image with its last name, and who objects to it.

use std::collections::HashSet;
use std::sync::Arc;

use super::Store;
use crate::failpoint::failpoint;
use crate::images::{Image, ImageId, Index};
use crate::paths::to_the_end;
use crate::reference::Reference;
use crate::{Digest, RemoveError, StoreError};

/// A container that keeps an image from being removed.
#[derive(Debug, Clone)]
pub struct ImageUse {
    /// Full container id.
    pub container: String,
    /// Whether it runs now.
    pub running: bool,
}

impl ImageUse {
    fn short(&self) -> &str {
        self.container.get(..12).unwrap_or(&self.container)
    }
}

/// One line of an `rmi` answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A name was taken away.
    Untagged(String),
    /// An image or layer was deleted.
    Deleted(String),
}

/// What a removal will do; decided before anything is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Plan {
    /// Tags and repository digests to take away, in the order of the answer.
    untag: Vec<String>,
    /// Whether the image goes as well.
    delete: bool,
}

impl Store {
    /// Docker's `rmi`: takes the name away, and deletes the image with the last one. By id it needs
    /// `force` where several repositories name it. `users` are the containers made from it. Files
    /// are deleted in the background. Goes on to its end when the caller goes away.
    pub async fn remove_image(
        &self,
        name: &str,
        force: bool,
        users: &[ImageUse],
    ) -> Result<Vec<Removal>, RemoveError> {
        self.remove_counted(name, force, users).await.map(|(removals, _)| removals)
    }

    /// The same, and the sum of the file sizes of the layers that went.
    pub(crate) async fn remove_counted(
        &self,
        name: &str,
        force: bool,
        users: &[ImageUse],
    ) -> Result<(Vec<Removal>, u64), RemoveError> {
        let (store, name, users) = (self.clone(), name.to_owned(), users.to_vec());
        to_the_end(async move { store.remove(&name, force, users).await }).await
    }

    async fn remove(
        &self,
        name: &str,
        force: bool,
        users: Vec<ImageUse>,
    ) -> Result<(Vec<Removal>, u64), RemoveError> {
        let guard = self.inner.images.write_lock().await;
        let index = self.inner.images.index();
        let image = index.find(name)?.clone();
        let users = self.with_unnamed_users(users, &image.id);
        let has_children = index.children(&image.id).next().is_some();
        let plan = plan(&image, name, force, &users, has_children)?;
        let removals = self.apply(&index, &image, &plan).await?;
        let collected = if plan.delete { self.collect_locked().await?.layer_bytes } else { 0 };
        drop(guard);
        Ok((removals, collected))
    }

    /// The caller's users, and containers that were made since it asked.
    fn with_unnamed_users(&self, mut users: Vec<ImageUse>, image: &ImageId) -> Vec<ImageUse> {
        let references = self.inner.layers.references();
        let mut more: Vec<_> =
            references.snapshots.iter().filter(|(_, s)| s.image == *image).map(|(c, _)| c).collect();
        more.sort();
        for container in more {
            if users.iter().all(|u| u.container != *container) {
                users.push(ImageUse { container: container.clone(), running: false });
            }
        }
        users
    }

    async fn apply(
        &self,
        index: &Index,
        image: &Arc<Image>,
        plan: &Plan,
    ) -> Result<Vec<Removal>, StoreError> {
        let mut removals: Vec<_> = plan.untag.iter().cloned().map(Removal::Untagged).collect();
        let mut transaction = self.inner.db.durable().begin().await?;
        for name in &plan.untag {
            for query in
                ["DELETE FROM image_names WHERE name = ?", "DELETE FROM image_digests WHERE name = ?"]
            {
                sqlx::query(query).bind(name).execute(&mut *transaction).await?;
            }
        }
        let mut left = Image::clone(image);
        left.tags.retain(|t| !plan.untag.contains(t));
        left.repo_digests.retain(|d| !plan.untag.contains(d));
        let mut deleted = Vec::new();
        if plan.delete {
            deleted = self.with_useless_parents(index, image);
            for id in &deleted {
                sqlx::query("DELETE FROM images WHERE id = ?")
                    .bind(id.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        failpoint("remove-before-commit");
        transaction.commit().await?;
        failpoint("remove-after-commit");
        let after = if plan.delete { index.changed([], &deleted) } else { index.changed([left], &[]) };
        removals.extend(deletion_lines(index, &after, &deleted));
        self.inner.images.publish(after);
        Ok(removals)
    }

    /// The image and those of its ancestors that have no name, no other child and no container.
    fn with_useless_parents(&self, index: &Index, image: &Image) -> Vec<ImageId> {
        let used: HashSet<ImageId> =
            self.inner.layers.references().snapshots.values().map(|s| s.image.clone()).collect();
        let mut deleted = vec![image.id.clone()];
        let mut parent = image.parent.clone();
        while let Some(ancestor) = parent.and_then(|id| index.get(&id)) {
            let other_child = index.children(&ancestor.id).any(|c| !deleted.contains(&c.id));
            if !ancestor.is_nameless()
                || other_child
                || used.contains(&ancestor.id)
                || deleted.contains(&ancestor.id)
            {
                break;
            }
            deleted.push(ancestor.id.clone());
            parent = ancestor.parent.clone();
        }
        deleted
    }
}

/// Decides what `rmi name` does, or why it does nothing.
fn plan(
    image: &Image,
    name: &str,
    force: bool,
    users: &[ImageUse],
    has_children: bool,
) -> Result<Plan, RemoveError> {
    let all: Vec<String> = image.tags.iter().chain(&image.repo_digests).cloned().collect();
    let by_id = image.id.as_str().starts_with(name) || image.id.hex().starts_with(name);
    let single = is_one_repository(image);
    if by_id {
        let untag_all = single || force || all.is_empty();
        deletable(image, force, users, has_children, !untag_all)?;
        return Ok(Plan { untag: all, delete: true });
    }
    if !force
        && single
        && let Some(user) = users.first()
    {
        return Err(RemoveError::Conflict(format!(
            "unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
            user.short(),
            image.id.short()
        )));
    }
    let reference = Reference::parse(name)?;
    let key = reference.key();
    let mut untag = vec![key.clone()];
    let repository = reference.familiar_name();
    let tag_left = image.tags.iter().any(|t| *t != key && repository_of(t) == repository);
    if reference.digest().is_none() && !tag_left {
        // The last tag of a repository takes the repository's digests along.
        untag.extend(image.repo_digests.iter().filter(|d| repository_of(d) == repository).cloned());
    }
    if all.iter().any(|n| !untag.contains(n)) {
        return Ok(Plan { untag, delete: false });
    }
    deletable(image, force, users, has_children, false)?;
    Ok(Plan { untag, delete: true })
}

/// All names belong to one repository, and at most one of them is a tag.
fn is_one_repository(image: &Image) -> bool {
    let names = image.tags.iter().chain(&image.repo_digests);
    let repositories: HashSet<_> = names.map(|n| repository_of(n)).collect();
    repositories.len() == 1 && image.tags.len() <= 1
}

fn repository_of(name: &str) -> &str {
    if let Some((repository, _)) = name.split_once('@') {
        return repository;
    }
    name.rsplit_once(':').map_or(name, |(repository, _)| repository)
}

/// Docker's conflicts in its order; hard ones first, which `force` does not overrule.
fn deletable(
    image: &Image,
    force: bool,
    users: &[ImageUse],
    has_children: bool,
    named_elsewhere: bool,
) -> Result<(), RemoveError> {
    let conflict = |how: &str, why: String| {
        Err(RemoveError::Conflict(format!("unable to delete {} ({how}) - {why}", image.id.short())))
    };
    if has_children {
        return conflict("cannot be forced", "image has dependent child images".into());
    }
    if let Some(user) = users.iter().find(|u| u.running) {
        return conflict(
            "cannot be forced",
            format!("image is being used by running container {}", user.short()),
        );
    }
    if force {
        return Ok(());
    }
    if named_elsewhere {
        return conflict("must be forced", "image is referenced in multiple repositories".into());
    }
    match users.first() {
        Some(user) => {
            conflict("must be forced", format!("image is being used by stopped container {}", user.short()))
        }
        None => Ok(()),
    }
}

/// Deleted images and, as Docker names them, the chain ids of the layer stacks that went with them.
fn deletion_lines(before: &Index, after: &Index, deleted: &[ImageId]) -> Vec<Removal> {
    let mut gone: HashSet<Digest> = after.newest_first().iter().flat_map(|i| chain_ids(&i.layers)).collect();
    let mut lines = Vec::new();
    for image in deleted.iter().filter_map(|id| before.get(id)) {
        lines.push(Removal::Deleted(image.id.to_string()));
        for chain_id in chain_ids(&image.layers).into_iter().rev() {
            if gone.insert(chain_id.clone()) {
                lines.push(Removal::Deleted(chain_id.to_string()));
            }
        }
    }
    lines
}

/// The chain id of each layer with all below it, by the OCI image specification.
pub(crate) fn chain_ids(layers: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(layers.len());
    for diff_id in layers {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}
