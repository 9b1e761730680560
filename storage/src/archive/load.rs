//! Loading docker archives and OCI layouts.
//!
//! The outer archive is parsed by an unpack worker into a staging directory, as the layers in it are then
//! by further ones: the daemon only opens files, within that directory, and reads JSON of bounded size.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;

use super::oci::{DockerManifest, IMAGE_NAME, Index, REF_NAME};
use super::{ArchiveError, Loaded};
use crate::layer_tar::open_content;
use crate::layers::{Lease, Staging};
use crate::paths::blocking;
use crate::registry::document::{Manifest, Parsed, parse};
use crate::registry::platform::Platform;
use crate::store::NewImage;
use crate::unpack::{LayerUnpacker, Unpacked};
use crate::{Digest, Image, Progress, ProgressSink, Reference, Store};

/// Documents that one layout may lead through.
const MAX_DOCUMENTS: usize = 1000;
/// Indexes within indexes.
const MAX_DEPTH: usize = 8;
/// Bytes that go to a worker at once.
const CHUNK: usize = 256 << 10;

/// Pipes a stream into a worker.
pub(super) async fn unpack_stream<S>(
    store: &Store,
    staging: &Staging,
    body: S,
) -> Result<Unpacked, ArchiveError>
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let options = store.options();
    let mut worker = LayerUnpacker::start(&options.unpack_worker, staging.path(), &options.budget)?;
    let mut body = pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ArchiveError::Invalid(format!("reading the archive: {error}")))?;
        worker.write(&chunk).await?;
    }
    Ok(worker.finish().await?)
}

fn invalid(text: impl Into<String>) -> ArchiveError {
    ArchiveError::Invalid(text.into())
}

/// A layer in the archive, and what it has to be.
struct LayerFile {
    path: String,
    diff_id: Digest,
    /// Digest of the file, where the archive promises one.
    blob: Option<Digest>,
}

/// An image in the archive.
struct Found {
    config: Vec<u8>,
    layers: Vec<LayerFile>,
    names: Vec<Reference>,
    manifest: Option<(String, Vec<u8>)>,
}

/// The unpacked archive.
struct Archive {
    root: Arc<File>,
    document_bytes: u64,
}

impl Store {
    /// Docker's `load`: a docker archive or an OCI layout, plain or compressed with gzip or zstd.
    /// `progress` gets `Loading layer` with bytes per layer. Dropping the future stops it; images that
    /// were complete by then stay.
    pub async fn load<S>(&self, body: S, progress: ProgressSink) -> Result<Vec<Loaded>, ArchiveError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let staging = self.inner.layers.staging()?;
        unpack_stream(self, &staging, body).await?;
        let root = File::open(staging.path().join("fs")).map_err(|e| ArchiveError::Local(e.to_string()))?;
        let archive = Archive { root: Arc::new(root), document_bytes: self.options().budget.document_bytes };
        let lease = self.inner.layers.lease();
        let mut loaded = Vec::new();
        for found in archive.images()? {
            let names = found.names.clone();
            let image = self.load_image(&archive, found, &lease, &progress).await?;
            if names.is_empty() {
                loaded.push(Loaded::Id(image.id.to_string()));
            }
            loaded.extend(names.iter().map(|name| Loaded::Name(name.familiar())));
        }
        Ok(loaded)
    }

    async fn load_image(
        &self,
        archive: &Archive,
        found: Found,
        lease: &Lease,
        progress: &ProgressSink,
    ) -> Result<Arc<Image>, ArchiveError> {
        for (at, layer) in found.layers.iter().enumerate() {
            if lease.hold(&layer.diff_id) {
                continue;
            }
            let file = archive.open(&layer.path)?;
            let size = file.metadata().map_err(|error| invalid(format!("{}: {error}", layer.path)))?.len();
            let staging = self.inner.layers.staging()?;
            let unpacked = self.unpack_file(&staging, file, &layer.diff_id, size, progress).await?;
            if let Some(blob) = &layer.blob
                && unpacked.blob_digest != blob.as_str()
            {
                let got = &unpacked.blob_digest;
                return Err(invalid(format!("layer verification failed for digest {blob}: got {got}")));
            }
            if unpacked.diff_id != layer.diff_id.as_str() {
                return Err(invalid(format!(
                    "invalid diffID for layer {at}: expected {:?}, got {:?}",
                    layer.diff_id.as_str(),
                    unpacked.diff_id
                )));
            }
            self.inner.layers.commit(staging, &layer.diff_id, unpacked.size_bytes, lease).await?;
        }
        let new = NewImage {
            config_raw: found.config,
            manifest: found.manifest,
            names: found.names,
            ..NewImage::default()
        };
        Ok(self.put_image(new, lease).await?)
    }

    async fn unpack_file(
        &self,
        staging: &Staging,
        file: File,
        diff_id: &Digest,
        total: u64,
        progress: &ProgressSink,
    ) -> Result<Unpacked, ArchiveError> {
        let id = diff_id.hex()[..12].to_owned();
        let file = Arc::new(file);
        let chunks = futures_util::stream::try_unfold(0_u64, |current| {
            let (file, id) = (file.clone(), id.clone());
            async move {
                let line = Progress::Bytes { id, status: "Loading layer", current, total };
                progress.try_send(line).ok();
                let read = blocking(move || {
                    let mut buffer = vec![0; CHUNK];
                    let count = (&*file).read(&mut buffer)?;
                    buffer.truncate(count);
                    Ok::<_, io::Error>(buffer)
                });
                let buffer = read.await?;
                let next = current + buffer.len() as u64;
                Ok((!buffer.is_empty()).then_some((Bytes::from(buffer), next)))
            }
        });
        unpack_stream(self, staging, chunks).await
    }
}

impl Archive {
    fn open(&self, path: &str) -> Result<File, ArchiveError> {
        let clean = path.trim_start_matches('/');
        open_content(&self.root, clean.as_bytes()).map_err(|error| invalid(format!("open {path}: {error}")))
    }

    fn has(&self, path: &str) -> bool {
        open_content(&self.root, path.as_bytes()).is_ok()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        let read = self.open(path)?.take(self.document_bytes + 1).read_to_end(&mut bytes);
        read.map_err(|error| invalid(format!("{path}: {error}")))?;
        if bytes.len() as u64 > self.document_bytes {
            return Err(ArchiveError::OverBudget(format!(
                "over budget: {path} has more than {} bytes (document_bytes)",
                self.document_bytes
            )));
        }
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ArchiveError> {
        serde_json::from_slice(&self.read(path)?).map_err(|error| invalid(format!("{path}: {error}")))
    }

    fn images(&self) -> Result<Vec<Found>, ArchiveError> {
        if self.has("manifest.json") {
            return self.docker_images();
        }
        if self.has("index.json") {
            return self.layout_images();
        }
        Err(invalid("invalid archive: it has neither manifest.json nor index.json"))
    }

    fn docker_images(&self) -> Result<Vec<Found>, ArchiveError> {
        let manifests: Vec<DockerManifest> = self.json("manifest.json")?;
        let mut found = Vec::new();
        for manifest in manifests {
            let config = self.read(&manifest.config)?;
            let diff_ids = diff_ids(&config)?;
            if diff_ids.len() != manifest.layers.len() {
                return Err(invalid(format!(
                    "invalid manifest, layers length mismatch: expected {}, got {}",
                    diff_ids.len(),
                    manifest.layers.len()
                )));
            }
            let layers = std::iter::zip(manifest.layers, diff_ids)
                .map(|(path, diff_id)| LayerFile { path, diff_id, blob: None })
                .collect();
            let mut names = Vec::new();
            for tag in manifest.repo_tags.unwrap_or_default() {
                let reference = Reference::parse(&tag)?;
                if reference.digest().is_some() {
                    return Err(invalid(format!("invalid tag {tag:?}")));
                }
                names.push(reference.or_latest());
            }
            found.push(Found { config, layers, names, manifest: None });
        }
        Ok(found)
    }

    fn layout_images(&self) -> Result<Vec<Found>, ArchiveError> {
        let index: Index = self.json("index.json")?;
        let mut by_digest: Vec<(Digest, Found)> = Vec::new();
        let mut documents = 0;
        for descriptor in &index.manifests {
            let digest = parse_digest(&descriptor.digest)?;
            let annotation = |key: &str| descriptor.annotations.get(key);
            let name = match annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME)) {
                // A mere tag names no repository.
                Some(name) if name.contains(['/', ':']) => Some(Reference::parse(name)?.or_latest()),
                _ => None,
            };
            let Some((digest, media_type, bytes, manifest)) =
                self.manifest(digest, &descriptor.media_type, 0, &mut documents)?
            else {
                continue;
            };
            if let Some((_, known)) = by_digest.iter_mut().find(|(known, _)| *known == digest) {
                known.names.extend(name);
                continue;
            }
            let config = self.blob(&manifest.config.digest)?;
            let diff_ids = diff_ids(&config)?;
            if diff_ids.len() != manifest.layers.len() {
                return Err(invalid(format!(
                    "invalid manifest, layers length mismatch: expected {}, got {}",
                    diff_ids.len(),
                    manifest.layers.len()
                )));
            }
            let layers = std::iter::zip(&manifest.layers, diff_ids)
                .map(|(layer, diff_id)| LayerFile {
                    path: blob_path(&layer.digest),
                    diff_id,
                    blob: Some(layer.digest.clone()),
                })
                .collect();
            let names = name.into_iter().collect();
            let found = Found { config, layers, names, manifest: Some((media_type, bytes)) };
            by_digest.push((digest, found));
        }
        if by_digest.is_empty() {
            return Err(invalid(format!("the archive has no image for {}", Platform::host())));
        }
        Ok(by_digest.into_iter().map(|(_, found)| found).collect())
    }

    /// Follows indexes to the manifest for this machine; `None` where there is none.
    #[expect(clippy::type_complexity, reason = "the parts of one document, used once")]
    fn manifest(
        &self,
        digest: Digest,
        media_type: &str,
        depth: usize,
        documents: &mut usize,
    ) -> Result<Option<(Digest, String, Vec<u8>, Manifest)>, ArchiveError> {
        *documents += 1;
        if depth > MAX_DEPTH || *documents > MAX_DOCUMENTS {
            return Err(ArchiveError::OverBudget(format!(
                "over budget: more than {MAX_DEPTH} indexes within each other or {MAX_DOCUMENTS} documents"
            )));
        }
        let bytes = self.blob(&digest)?;
        let (media_type, parsed) =
            parse(&bytes, media_type, &digest).map_err(|error| invalid(error.to_string()))?;
        let descriptors = match parsed {
            Parsed::Manifest(manifest) => return Ok(Some((digest, media_type, bytes, manifest))),
            Parsed::Index(descriptors) => descriptors,
        };
        let host = Platform::host();
        let rank = |offer: &Option<Platform>| offer.as_ref().map_or(Some(u32::MAX), |offer| host.rank(offer));
        let best = descriptors
            .into_iter()
            .filter_map(|descriptor| Some((rank(&descriptor.platform)?, descriptor)))
            .min_by_key(|(rank, _)| *rank);
        match best {
            Some((_, best)) => self.manifest(best.digest, &best.media_type, depth + 1, documents),
            None => Ok(None),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ArchiveError> {
        let bytes = self.read(&blob_path(digest))?;
        let got = Digest::of(&bytes);
        if got != *digest {
            return Err(invalid(format!("blob {digest} has the digest {got}")));
        }
        Ok(bytes)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn parse_digest(text: &str) -> Result<Digest, ArchiveError> {
    Digest::parse(text).ok_or_else(|| invalid(format!("invalid or unsupported digest {text:?}")))
}

fn diff_ids(config: &[u8]) -> Result<Vec<Digest>, ArchiveError> {
    let image = Image::from_config(config.to_vec()).map_err(|error| invalid(error.to_string()))?;
    Ok(image.layers().to_vec())
}
