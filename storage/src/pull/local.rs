//! The store as a pull sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::partial::{Partial, Partials};
use super::resolve::Resolved;
use crate::unpack::Unpacked;
use crate::{Digest, Image, PullError, Reference, StoreOptions};

/// Where a pull puts things. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub options: Arc<StoreOptions>,
    pub partials: Arc<Partials>,
}

#[derive(Debug)]
pub(crate) struct Staging(PathBuf);

impl Staging {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Local {
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.options.data_root.join("layers").join(diff_id.hex()).exists()
    }

    pub fn new_staging(&self) -> Result<Staging, PullError> {
        let path = self.options.data_root.join("staging").join(format!("{:032x}", rand::random::<u128>()));
        std::fs::create_dir_all(&path).map_err(|error| PullError::Local(error.to_string()))?;
        Ok(Staging(path))
    }

    pub async fn commit_layer(
        &self,
        staging: Staging,
        diff_id: &Digest,
        _blob: &Digest,
        _unpacked: &Unpacked,
    ) -> Result<(), PullError> {
        std::fs::rename(staging.path(), self.options.data_root.join("layers").join(diff_id.hex()))
            .map_err(|error| PullError::Local(error.to_string()))
    }

    pub fn keep_or_remove(&self, partial: Partial, _blob: &Digest) {
        partial.remove();
    }

    pub fn knows(&self, _reference: &Reference) -> bool {
        false
    }

    pub fn document(&self, _digest: &Digest) -> Option<Vec<u8>> {
        None
    }

    pub fn has_image(&self, _reference: &Reference, _resolved: &Resolved) -> bool {
        false
    }

    pub async fn put_image(
        &self,
        _reference: &Reference,
        _resolved: Resolved,
    ) -> Result<Arc<Image>, PullError> {
        Err(PullError::Local("not yet".into()))
    }
}
