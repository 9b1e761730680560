//! Hashing what is here against its digests, and getting anew what is damaged.
//!
//! A layer is proven by making its tar again from tree and recipe, bit by bit. That covers names,
//! contents and everything the tar says; attributes that someone changed in the tree alone are not
//! read back.

use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::Store;
use crate::images::Image;
use crate::layer_tar::LayerTar;
use crate::paths::{Paths, blocking, to_the_end};
use crate::{
    Credentials, Digest, Finding, LookupError, ProgressSink, PullError, PullRequest, Reference, RemoveError,
    StoreError,
};

/// A layer or document that does not have its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which one.
    pub digest: Digest,
    /// A layer, or else a document.
    pub is_layer: bool,
    /// For a person to read.
    pub why: String,
}

/// Bytes of a tar that are hashed at once.
const BUFFER_BYTES: usize = 1 << 20;

impl Store {
    /// Hashes an image's documents and layers; answers what is damaged. Reads everything, in blocking
    /// tasks.
    pub async fn verify_image(&self, name: &str) -> Result<Vec<Damage>, LookupError> {
        let image = self.image(name)?;
        let mut damages = Vec::new();
        for digest in image.documents.iter().map(|d| &d.digest).chain([image.id.digest()]) {
            if let Err(error) = self.blob(digest).await {
                damages.push(Damage { digest: digest.clone(), is_layer: false, why: error.to_string() });
            }
        }
        for diff_id in image.layers.iter() {
            // An image may hold a layer twice.
            if damages.iter().any(|d| d.digest == *diff_id) {
                continue;
            }
            if let Err(why) = verify_layer(self.inner.paths.layer(diff_id), diff_id.clone()).await {
                damages.push(Damage { digest: diff_id.clone(), is_layer: true, why });
            }
        }
        Ok(damages)
    }

    /// Hashes every layer of a data root that no daemon has open.
    pub async fn verify_offline(data_root: &Path) -> Result<Vec<Finding>, StoreError> {
        let lock = super::lock(data_root)?;
        let paths = Paths::new(data_root.to_owned());
        let mut findings = Vec::new();
        for name in crate::paths::entry_names(&paths.layers())? {
            let Some(diff_id) = Digest::from_hex(&name) else { continue };
            if let Err(why) = verify_layer(paths.layer(&diff_id), diff_id.clone()).await {
                findings.push(Finding { what: format!("layer {diff_id}: {why}") });
            }
        }
        drop(lock);
        Ok(findings)
    }

    /// Fetches an image's damaged layers and documents again from where it came. Answers what was
    /// repaired; nothing where all is well. A layer that a container stands on is not replaced under
    /// it: the error names the container.
    pub async fn repair_image(
        &self,
        name: &str,
        credentials: Credentials,
        progress: ProgressSink,
    ) -> Result<Vec<Damage>, PullError> {
        let damages = self.verify_image(name).await.map_err(PullError::Reference)?;
        if damages.is_empty() {
            return Ok(damages);
        }
        let image = self.image(name).map_err(PullError::Reference)?;
        let reference = origin(&image).ok_or_else(|| {
            PullError::NotFound(format!(
                "image {} was made here and cannot be fetched again",
                image.id.short()
            ))
        })?;
        let store = self.clone();
        let broken = damages.clone();
        to_the_end(async move { store.take_out(&broken).await })
            .await
            .map_err(|e| PullError::Local(e.to_string()))?;
        let request = PullRequest { reference, platform: Some(platform(&image)), credentials };
        let fetched = self.pull(request, progress).await?;
        if fetched.id != image.id {
            return Err(PullError::Corrupt(format!("{} came back instead of {}", fetched.id, image.id)));
        }
        Ok(damages)
    }

    /// Takes damaged things out of the store, so that a pull fetches them.
    async fn take_out(&self, damages: &[Damage]) -> Result<(), RemoveError> {
        let images = self.inner.images.write_lock().await;
        let commits = self.inner.layers.write_lock().await;
        {
            let mut references = self.inner.layers.references();
            let is_damaged = |d: &Digest| damages.iter().any(|damage| damage.is_layer && damage.digest == *d);
            let standing = references.snapshots.iter().find(|(_, s)| s.layers.iter().any(is_damaged));
            if let Some((container, _)) = standing {
                return Err(RemoveError::Conflict(format!(
                    "container {} stands on a damaged layer; remove it first",
                    container.get(..12).unwrap_or(container)
                )));
            }
            for damage in damages.iter().filter(|d| d.is_layer) {
                references.layers.remove(&damage.digest);
            }
        }
        for damage in damages {
            let path = if damage.is_layer {
                self.inner.paths.layer(&damage.digest)
            } else {
                self.inner.paths.blob(&damage.digest)
            };
            self.inner.trash.discard(&path)?;
        }
        drop((images, commits));
        Ok(())
    }
}

/// Makes the tar of a layer again and compares its digest.
async fn verify_layer(directory: std::path::PathBuf, diff_id: Digest) -> Result<(), String> {
    blocking(move || {
        let mut tar = LayerTar::open(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match tar.read(&mut buffer).map_err(|e| e.to_string())? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let found = hex::encode(hasher.finalize());
        if found == diff_id.hex() { Ok(()) } else { Err(format!("its tar has the digest sha256:{found}")) }
    })
    .await
}

/// `repository@digest` of the manifest it came with.
fn origin(image: &Image) -> Option<String> {
    let repository = Reference::parse(image.repo_digests.first()?).ok()?.familiar_name();
    Some(format!("{repository}@{}", image.manifest_digest.as_ref()?))
}

fn platform(image: &Image) -> String {
    let mut text = format!("{}/{}", image.config.os(), image.config.architecture());
    let raw: Option<serde_json::Value> = serde_json::from_slice(&image.raw_config).ok();
    if let Some(variant) = raw.as_ref().and_then(|c| c.get("variant")).and_then(|v| v.as_str())
        && !variant.is_empty()
    {
        text.push('/');
        text.push_str(variant);
    }
    text
}
