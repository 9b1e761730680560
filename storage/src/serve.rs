//! The store as a read-only OCI registry: pure answers to requests, for whichever server asks.
//!
//! A repository is served under each form of its name (`busybox`, `library/busybox`,
//! `docker.io/library/busybox`). An image whose compressed layers were kept is served as it came; for
//! any other a manifest is made whose layers are the plain tars under their diff ids. The configuration
//! is the same in both, and so is the image's id.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::layer_tar::LayerTar;
use crate::layers::Lease;
use crate::paths::blocking;
use crate::recipe::{RecipeReader, Record};
use crate::registry::document::{self, OCI_MANIFEST, Parsed};
use crate::{Digest, Image, Reference, Store, StoreError};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 4;

/// An answer of the registry.
#[derive(Debug)]
pub struct Served {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Nothing for HEAD.
    pub body: ServedBody,
}

/// The body of an answer.
#[derive(Debug)]
pub enum ServedBody {
    /// A whole one.
    Bytes(Bytes),
    /// A layer; an error ends it, and the connection has to be broken then.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

/// A manifest of the registry.
struct Manifest {
    media_type: String,
    digest: Digest,
    bytes: Bytes,
}

/// Content by digest.
enum Content {
    Bytes(Bytes),
    /// A kept compressed layer.
    File(PathBuf, u64),
    /// A layer's directory, and the size of its tar.
    Layer(PathBuf, u64),
}

impl Store {
    /// Answers a request to the registry: `GET` and `HEAD` below `/v2/`. `range` is the header of that
    /// name; only `bytes=N-` is honoured, as clients that go on with a download send it.
    pub async fn serve(&self, method: &str, path: &str, range: Option<&str>) -> Served {
        if !matches!(method, "GET" | "HEAD") {
            return refusal(405, "UNSUPPORTED", "this registry is read-only");
        }
        let mut served = match self.route(path.split('?').next().unwrap_or_default(), range).await {
            Ok(served) => served,
            Err(error) => {
                tracing::error!(%error, path, "the registry cannot answer");
                refusal(500, "UNKNOWN", "the content cannot be read")
            }
        };
        if method == "HEAD" {
            served.body = ServedBody::Bytes(Bytes::new());
        }
        served.headers.push(("docker-distribution-api-version", "registry/2.0".to_owned()));
        served
    }

    async fn route(&self, path: &str, range: Option<&str>) -> Result<Served, StoreError> {
        let Some(rest) = path.strip_prefix("/v2") else {
            return Ok(refusal(404, "NOT_FOUND", "no such page"));
        };
        match rest.trim_start_matches('/') {
            "" => return Ok(json(&serde_json::json!({}))),
            "_catalog" => {
                let names: BTreeSet<String> =
                    self.names().iter().map(|(name, _)| name.repository().to_owned()).collect();
                return Ok(json(&serde_json::json!({"repositories": names})));
            }
            rest => {
                if let Some(repository) = rest.strip_suffix("/tags/list") {
                    return Ok(self.serve_tags(repository));
                }
                if let Some((repository, name)) = rest.rsplit_once("/manifests/") {
                    return self.serve_manifest(repository, name).await;
                }
                if let Some((repository, digest)) = rest.rsplit_once("/blobs/") {
                    return self.serve_blob(repository, digest, range).await;
                }
            }
        }
        Ok(refusal(404, "NOT_FOUND", "no such page"))
    }

    /// All tags of all images.
    fn names(&self) -> Vec<(Reference, Arc<Image>)> {
        let of = |image: Arc<Image>| {
            let names: Vec<_> = image.tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect();
            names.into_iter().map(move |name| (name, image.clone()))
        };
        self.images().into_iter().flat_map(of).collect()
    }

    fn names_of(&self, repository: &str) -> Vec<(Reference, Arc<Image>)> {
        self.names().into_iter().filter(|(name, _)| is_called(name, repository)).collect()
    }

    fn serve_tags(&self, repository: &str) -> Served {
        let names = self.names_of(repository);
        if names.is_empty() {
            return refusal(404, "NAME_UNKNOWN", "repository name not known to registry");
        }
        let tags: BTreeSet<&str> = names.iter().filter_map(|(name, _)| name.tag()).collect();
        json(&serde_json::json!({"name": repository, "tags": tags}))
    }

    async fn serve_manifest(&self, repository: &str, wanted: &str) -> Result<Served, StoreError> {
        for (name, image) in self.names_of(repository) {
            let by_digest = wanted.contains(':');
            if !by_digest && name.tag() != Some(wanted) {
                continue;
            }
            let manifest = self.manifest_of(&image).await?;
            if !by_digest || manifest.digest.as_str() == wanted {
                return Ok(Served {
                    status: 200,
                    headers: vec![
                        ("content-type", manifest.media_type),
                        ("content-length", manifest.bytes.len().to_string()),
                        ("docker-content-digest", manifest.digest.to_string()),
                    ],
                    body: ServedBody::Bytes(manifest.bytes),
                });
            }
        }
        Ok(refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"))
    }

    /// The manifest that an image came with where all of its blobs were kept; otherwise one that names
    /// its layers by diff id.
    async fn manifest_of(&self, image: &Image) -> Result<Manifest, StoreError> {
        if let Some(manifest) = self.kept_manifest(image) {
            return Ok(manifest);
        }
        let mut layers = Vec::new();
        for diff_id in image.layers() {
            let size = self.tar_size_bytes(diff_id).await?;
            layers.push(
                serde_json::json!({"mediaType": PLAIN_LAYER, "digest": diff_id.as_str(), "size": size}),
            );
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.id.as_str(), "size": image.raw_config.len()},
            "layers": layers,
        });
        let bytes = Bytes::from(manifest.to_string());
        Ok(Manifest { media_type: OCI_MANIFEST.to_owned(), digest: Digest::of(&bytes), bytes })
    }

    fn kept_manifest(&self, image: &Image) -> Option<Manifest> {
        let blobs = &self.inner.blobs;
        let digest = Digest::parse(image.manifest_digest.as_deref()?)?;
        let bytes = blobs.read(&digest).ok()?;
        let (media_type, Parsed::Manifest(manifest)) = document::parse(&bytes, "", &digest).ok()? else {
            return None;
        };
        let kept = manifest.layers.iter().all(|layer| blobs.has(&layer.digest));
        kept.then(|| Manifest { media_type, digest, bytes: bytes.into() })
    }

    /// Size of a layer's exact tar, which its recipe tells.
    async fn tar_size_bytes(&self, diff_id: &Digest) -> Result<u64, StoreError> {
        let known = || self.inner.tar_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = known().get(diff_id) {
            return Ok(*size);
        }
        let path = self.inner.paths.layer(diff_id).join("tar.zst");
        let size = blocking(move || recipe_size(&path).map_err(StoreError::io(&path))).await?;
        known().insert(diff_id.clone(), size);
        Ok(size)
    }

    async fn serve_blob(
        &self,
        repository: &str,
        digest: &str,
        range: Option<&str>,
    ) -> Result<Served, StoreError> {
        let unknown = || refusal(404, "BLOB_UNKNOWN", "blob unknown to registry");
        let Some(digest) = Digest::parse(digest) else { return Ok(unknown()) };
        let lease = self.inner.layers.lease();
        lease.hold(&digest);
        let mut content = None;
        for (_, image) in self.names_of(repository) {
            if *image.id.digest() == digest {
                content = Some(Content::Bytes(Bytes::copy_from_slice(&image.raw_config)));
            } else if image.layers().contains(&digest) {
                let size = self.tar_size_bytes(&digest).await?;
                content = Some(Content::Layer(self.inner.paths.layer(&digest), size));
            } else if self.kept_manifest(&image).is_some_and(|manifest| names_blob(&manifest, &digest)) {
                let path = self.inner.blobs.path(&digest);
                let size = std::fs::metadata(&path).map_err(StoreError::io(&path))?.len();
                content = Some(Content::File(path, size));
            }
            if content.is_some() {
                break;
            }
        }
        Ok(content.map_or_else(unknown, |content| blob(content, &digest, range, lease)))
    }
}

fn names_blob(manifest: &Manifest, digest: &Digest) -> bool {
    let parsed = document::parse(&manifest.bytes, "", &manifest.digest);
    matches!(parsed, Ok((_, Parsed::Manifest(m))) if m.layers.iter().any(|layer| layer.digest == *digest))
}

/// Whether a name's repository is asked for in one of its forms.
fn is_called(name: &Reference, repository: &str) -> bool {
    name.repository() == repository
        || name.familiar_name() == repository
        || repository
            .strip_prefix(name.registry())
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest == name.repository())
}

/// `N` of `bytes=N-`.
fn offset_of(range: Option<&str>) -> Option<u64> {
    range?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn blob(content: Content, digest: &Digest, range: Option<&str>, lease: Lease) -> Served {
    let size = match &content {
        Content::Bytes(bytes) => bytes.len() as u64,
        Content::File(_, size) | Content::Layer(_, size) => *size,
    };
    let offset = offset_of(range);
    if offset.is_some_and(|offset| offset >= size) {
        return refusal(416, "RANGE_INVALID", "invalid content range");
    }
    let start = offset.unwrap_or(0);
    let mut headers = vec![
        ("content-type", "application/octet-stream".to_owned()),
        ("content-length", (size - start).to_string()),
        ("docker-content-digest", digest.to_string()),
        ("accept-ranges", "bytes".to_owned()),
    ];
    if offset.is_some() {
        headers.push(("content-range", format!("bytes {start}-{}/{size}", size - 1)));
    }
    let body = match content {
        Content::Bytes(bytes) => {
            let start = usize::try_from(start).expect("less than the length of bytes in memory");
            ServedBody::Bytes(bytes.slice(start..))
        }
        Content::File(path, _) => ServedBody::Stream(stream(lease, move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            Ok(file)
        })),
        Content::Layer(directory, _) => ServedBody::Stream(stream(lease, move || {
            let mut tar = LayerTar::open(&directory)?;
            // What lies before is made again and thrown away: it is part of the hash.
            io::copy(&mut tar.by_ref().take(start), &mut io::sink())?;
            Ok(tar)
        })),
    };
    Served { status: if offset.is_some() { 206 } else { 200 }, headers, body }
}

/// Reads on a thread for blocking work, no faster than the receiver takes it.
fn stream<R: Read>(
    lease: Lease,
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let read_all = || -> io::Result<()> {
            let mut input = open()?;
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let read = input.read(&mut buffer)?;
                if read == 0 || sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..read]))).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read_all() {
            sender.blocking_send(Err(error)).ok();
        }
        drop(lease);
    });
    receiver
}

fn recipe_size(path: &Path) -> io::Result<u64> {
    let file = io::BufReader::new(File::open(path)?);
    let mut recipe = RecipeReader::new(zstd::stream::read::Decoder::with_buffer(file)?)?;
    loop {
        if let Record::End { size_bytes, .. } = recipe.next_record()? {
            return Ok(size_bytes);
        }
    }
}

fn json(value: &serde_json::Value) -> Served {
    let bytes = Bytes::from(value.to_string());
    Served {
        status: 200,
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("content-length", bytes.len().to_string()),
        ],
        body: ServedBody::Bytes(bytes),
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Served {
    Served { status, ..json(&serde_json::json!({"errors": [{"code": code, "message": message}]})) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_several_names() {
        let hub = Reference::parse("busybox:1").unwrap();
        for name in ["busybox", "library/busybox", "docker.io/library/busybox"] {
            assert!(is_called(&hub, name), "{name}");
        }
        assert!(!is_called(&hub, "usybox") && !is_called(&hub, "docker.io/busybox"));
        let local = Reference::parse("127.0.0.1:5000/a/b:1").unwrap();
        assert!(is_called(&local, "a/b") && is_called(&local, "127.0.0.1:5000/a/b"));
    }

    #[test]
    fn only_open_ranges_are_honoured() {
        assert_eq!(offset_of(Some("bytes=7-")), Some(7));
        for other in [None, Some("bytes=0-7"), Some("bytes=-7"), Some("lines=1-")] {
            assert_eq!(offset_of(other), None);
        }
    }
}
