//! Saving: one tar that is an OCI layout and a docker archive at once.
//!
//! ```text
//! blobs/sha256/<hex>   configurations, manifests, layers (as plain tar: named by their diff ids)
//! index.json           a descriptor per name, annotated with it
//! manifest.json        for readers of docker archives
//! oci-layout
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::channel::stream_of;
use super::oci::{
    CONFIG, Descriptor, DockerManifest, IMAGE_NAME, INDEX, Index, LAYER, MANIFEST, Manifest, REF_NAME,
};
use super::writer::{Header, TarWriter};
use super::{ArchiveError, ArchiveStream};
use crate::layer_tar::LayerTar;
use crate::paths::blocking;
use crate::{Digest, Image, ImageId, LookupError, Reference, Store, StoreError};

/// An image and the names under which it is saved.
struct Saved {
    image: Arc<Image>,
    tags: Vec<Reference>,
}

impl Store {
    /// Docker's `save`: all images that the names mean, layers once, in one tar. A repository without a
    /// tag means all its tags. Fails at once where a name is not known. Needs a tokio runtime.
    pub async fn save(&self, names: &[String]) -> Result<ArchiveStream, ArchiveError> {
        let saved = self.saved(names)?;
        // What is being saved stays until the stream ends.
        let lease = self.inner.layers.lease();
        let mut layers: BTreeMap<Digest, PathBuf> = BTreeMap::new();
        for entry in saved.values() {
            lease.hold(entry.image.id.digest());
            for diff_id in entry.image.layers() {
                if !lease.hold(diff_id) {
                    let text =
                        format!("layer {diff_id} of image {} is damaged; pull it again", entry.image.id);
                    return Err(StoreError::damaged(text).into());
                }
                layers.insert(diff_id.clone(), self.inner.paths.layer(diff_id));
            }
        }
        let sizes = blocking(move || {
            let size = |(diff_id, path): (Digest, PathBuf)| {
                let size = LayerTar::size_bytes(&path)?;
                Ok((diff_id, (path, size)))
            };
            layers.into_iter().map(size).collect::<io::Result<BTreeMap<_, _>>>()
        });
        let layers = sizes.await.map_err(|error| ArchiveError::Local(error.to_string()))?;
        Ok(stream_of(move |out| {
            let result = write(out, &saved, &layers);
            drop(lease);
            result
        }))
    }

    fn saved(&self, names: &[String]) -> Result<BTreeMap<ImageId, Saved>, ArchiveError> {
        let mut saved: BTreeMap<ImageId, Saved> = BTreeMap::new();
        let mut add = |image: Arc<Image>, tag: Option<Reference>| {
            let entry = saved.entry(image.id.clone()).or_insert_with(|| Saved { image, tags: vec![] });
            if let Some(tag) = tag.filter(|tag| !entry.tags.contains(tag)) {
                entry.tags.push(tag);
            }
        };
        for name in names {
            let reference = Reference::parse(name).ok();
            let bare = reference.as_ref().filter(|r| r.tag().is_none() && r.digest().is_none());
            if let Some(repository) = bare.map(Reference::familiar_name) {
                let mut found = false;
                for image in self.images() {
                    let of_it =
                        |tag: &&String| tag.rsplit_once(':').is_some_and(|(name, _)| name == repository);
                    for tag in image.tags.iter().filter(of_it) {
                        found = true;
                        add(image.clone(), Some(Reference::parse(tag)?));
                    }
                }
                if found {
                    continue;
                }
            }
            let image = self.image(name)?;
            let tag = reference.filter(|r| r.tag().is_some() && image.tags.contains(&r.familiar()));
            add(image, tag);
        }
        if saved.is_empty() {
            return Err(LookupError::Invalid("no image was named".to_owned()).into());
        }
        Ok(saved)
    }
}

fn write(
    out: &mut impl io::Write,
    saved: &BTreeMap<ImageId, Saved>,
    layers: &BTreeMap<Digest, (PathBuf, u64)>,
) -> io::Result<()> {
    let mut tar = TarWriter::new(out);
    for name in [&b"blobs/"[..], b"blobs/sha256/"] {
        tar.entry(&Header { name, kind: b'5', mode: 0o755, ..Header::default() })?;
    }
    for (diff_id, (path, size)) in layers {
        let name = blob_name(diff_id);
        let header = Header { name: name.as_bytes(), size: *size, ..Header::default() };
        let mut layer = LayerTar::open(path)?;
        tar.copy(&header, &mut layer, false)?;
        // Reading on to the end is what compares the digest.
        io::copy(&mut layer, &mut io::sink())?;
    }
    let mut written = BTreeSet::new();
    let mut manifests = Vec::new();
    let mut descriptors = Vec::new();
    for Saved { image, tags } in saved.values() {
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: Descriptor::new(CONFIG, image.id.digest(), image.raw_config.len() as u64),
            layers: image.layers().iter().map(|d| Descriptor::new(LAYER, d, layers[d].1)).collect(),
        };
        let manifest = serde_json::to_vec(&manifest)?;
        let digest = Digest::of(&manifest);
        for (digest, bytes) in [(image.id.digest(), &image.raw_config[..]), (&digest, &manifest[..])] {
            if written.insert(digest.clone()) {
                tar.file(&Header { name: blob_name(digest).as_bytes(), ..Header::default() }, bytes)?;
            }
        }
        let descriptor = Descriptor::new(MANIFEST, &digest, manifest.len() as u64);
        if tags.is_empty() {
            descriptors.push(descriptor.clone());
        }
        for tag in tags {
            let mut descriptor = descriptor.clone();
            descriptor.annotations.insert(IMAGE_NAME.to_owned(), full_name(tag));
            descriptor.annotations.insert(REF_NAME.to_owned(), tag.tag().unwrap_or_default().to_owned());
            descriptors.push(descriptor);
        }
        manifests.push(DockerManifest {
            config: blob_name(image.id.digest()),
            repo_tags: (!tags.is_empty()).then(|| tags.iter().map(Reference::familiar).collect()),
            layers: image.layers().iter().map(blob_name).collect(),
        });
    }
    let index = Index { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: descriptors };
    let mut document = |name: &[u8], bytes: &[u8]| tar.file(&Header { name, ..Header::default() }, bytes);
    document(b"index.json", &serde_json::to_vec(&index)?)?;
    document(b"manifest.json", &serde_json::to_vec(&manifests)?)?;
    document(b"oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.finish()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn full_name(tag: &Reference) -> String {
    format!("{}/{}:{}", tag.registry(), tag.repository(), tag.tag().unwrap_or_default())
}
