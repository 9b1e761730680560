//! `docker export`: what a container's root holds, running or not.

use storage::ImageId;
use storage::archive::{ArchiveStream, tree_tar};

use super::registry::View;
use super::{Error, Inner};

impl Inner {
    /// See [`super::Engine::export`]. The files are read through a mount of the container's layers that
    /// nobody else sees, so nothing that the container mounts or links is followed.
    pub(super) async fn export(&self, view: &View) -> Result<ArchiveStream, Error> {
        let image = ImageId::parse(&view.record.image_id)
            .ok_or_else(|| Error::Internal(format!("container {} has no image id", view.id)))?;
        let root = self.store.root_mount(&view.id, &image)?;
        let mut layers = vec![root.upper];
        layers.extend(root.lower);
        let opened = tokio::task::spawn_blocking(move || executor::launch::read_only_view(&layers));
        let root = opened.await.map_err(|error| Error::Internal(error.to_string()))?;
        let root = root.map_err(Error::io("open the container's files"))?;
        self.emit_container("export", &view.id, &view.name, &view.record, &[]);
        Ok(tree_tar(root, ""))
    }
}
