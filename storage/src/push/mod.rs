//! Pushing: an image's layers side by side, then its configuration, then the manifest.
//!
//! A layer goes by the first way that works, which also decides whether digests stay as they were:
//!
//! 1. the target has a blob that is known to be this layer: nothing to send;
//! 2. another repository of the same registry has it: mounted from there;
//! 3. its blob was kept (`keep_blobs`), or can be fetched from where it came: sent as it is;
//! 4. the exact tar is made from the store and compressed anew: another blob, and so another manifest.
//!
//! Where all layers go by 1 to 3 the manifest is the one that was pulled, byte by byte. What was sent is
//! remembered at once, so a push that is interrupted goes on with the layers that are missing.

mod layer;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use self::layer::{LayerPush, Sent};
use crate::registry::document::{self, OCI_MANIFEST, Parsed};
use crate::registry::{RegistryError, Session};
use crate::{Credentials, Digest, Image, LookupError, Progress, ProgressSink, Reference, Store};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// A name that an image here has; no tag means `latest`, or all tags with `all_tags`.
    pub reference: String,
    /// All tags of the repository.
    pub all_tags: bool,
    /// For the registry in the reference only.
    pub credentials: Credentials,
}

/// What the registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Size of the manifest in bytes.
    pub size_bytes: u64,
}

/// Why a push failed. `Display` is what the client reads.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// 400.
    #[error(transparent)]
    Reference(LookupError),
    /// 404.
    #[error("{0}")]
    NotFound(String),
    /// 401 or 403 of the registry, 500 here as in Docker.
    #[error("{0}")]
    Denied(String),
    /// Network, TLS, 5xx.
    #[error("{0}")]
    Unavailable(String),
    /// The store: a damaged layer, disk full.
    #[error("{0}")]
    Local(String),
}

impl From<RegistryError> for PushError {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Status { status: 401 | 403, .. } | RegistryError::Credentials(_) => {
                Self::Denied(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

impl Store {
    /// Pushes an image under a name that it has, or all tags of a repository. Dropping the future stops
    /// it; layers that were sent by then are not sent again.
    pub async fn push(&self, request: PushRequest, progress: ProgressSink) -> Result<Vec<Pushed>, PushError> {
        let reference = Reference::parse(&request.reference).map_err(PushError::Reference)?;
        if reference.digest().is_some() {
            return Err(PushError::Reference(LookupError::Invalid(
                "cannot push a digest reference".to_owned(),
            )));
        }
        let report = Progressing { sink: progress };
        let names = self.names_to_push(&reference, request.all_tags)?;
        let transports = self.inner.puller.transports();
        let session = Arc::new(Session::registry(transports, &reference, request.credentials.clone()));
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        report.status(None, format!("The push refers to repository [{repository}]")).await;
        let mut pushed = Vec::new();
        for (name, image) in names {
            let push = Push { store: self, session: &session, reference: &name, report: &report };
            pushed.push(push.image(&image, &request.credentials).await?);
        }
        Ok(pushed)
    }

    fn names_to_push(
        &self,
        reference: &Reference,
        all_tags: bool,
    ) -> Result<Vec<(Reference, Arc<Image>)>, PushError> {
        let missing = |text: String| {
            PushError::NotFound(format!("An image does not exist locally with the tag: {text}"))
        };
        if !all_tags {
            let name = reference.clone().or_latest();
            let index = self.inner.images.index();
            let image = index.by_name(&name.key()).ok_or_else(|| missing(name.familiar_name()))?;
            return Ok(vec![(name, image.clone())]);
        }
        if reference.tag().is_some() {
            return Err(PushError::Reference(LookupError::Invalid(
                "tag can't be used with --all-tags/-a".to_owned(),
            )));
        }
        let mut names = Vec::new();
        for image in self.images() {
            for tag in &image.tags {
                let name = Reference::parse(tag).map_err(PushError::Reference)?;
                if name.familiar_name() == reference.familiar_name() {
                    names.push((name, image.clone()));
                }
            }
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        if names.is_empty() { Err(missing(reference.familiar_name())) } else { Ok(names) }
    }
}

/// Progress in Docker's words.
#[derive(Debug, Clone)]
pub(crate) struct Progressing {
    sink: ProgressSink,
}

impl Progressing {
    pub async fn status(&self, id: Option<&str>, status: impl Into<String>) {
        let line = Progress::Status { id: id.map(str::to_owned), status: status.into() };
        self.sink.send_timeout(line, std::time::Duration::from_millis(200)).await.ok();
    }

    pub fn bytes(&self, id: &str, current: u64, total: u64) {
        self.sink.try_send(Progress::Bytes { id: id.to_owned(), status: "Pushing", current, total }).ok();
    }
}

/// One image under one name.
struct Push<'a> {
    store: &'a Store,
    session: &'a Arc<Session>,
    reference: &'a Reference,
    report: &'a Progressing,
}

impl Push<'_> {
    async fn image(&self, image: &Image, credentials: &Credentials) -> Result<Pushed, PushError> {
        // Nothing of it goes away while it is read.
        let lease = self.store.inner.layers.lease();
        for digest in image.layers().iter().chain([image.id.digest()]) {
            lease.hold(digest);
        }
        let original = self.original(image);
        let slots = Arc::new(Semaphore::new(self.store.options().parallel_layers.max(1)));
        let mut distinct: Vec<&Digest> = Vec::new();
        for diff_id in image.layers() {
            if !distinct.contains(&diff_id) {
                self.report.status(Some(short(diff_id)), "Preparing").await;
                distinct.push(diff_id);
            }
        }
        let pushes = distinct.iter().map(|diff_id| {
            let at = image.layers().iter().position(|layer| layer == *diff_id).expect("it is one of them");
            let preferred = original.as_ref().map(|original| original.layers[at].digest.clone());
            LayerPush {
                store: self.store,
                session: self.session,
                registry: self.reference.registry(),
                report: self.report,
                diff_id,
                preferred,
                credentials,
                slots: slots.clone(),
            }
            .run()
        });
        let sent: Vec<Sent> = try_join_all(pushes).await?;
        let of = |diff_id: &Digest| {
            let at = distinct.iter().position(|layer| *layer == diff_id).expect("all of them were sent");
            &sent[at]
        };
        let layers: Vec<&Sent> = image.layers().iter().map(of).collect();
        self.configuration(image).await?;

        let kept = original.filter(|original| {
            original.layers.len() == layers.len()
                && original.layers.iter().zip(&layers).all(|(was, is)| was.digest == is.digest)
        });
        let (media_type, manifest) = match kept {
            Some(original) => (original.media_type, original.bytes),
            None => (OCI_MANIFEST.to_owned(), Bytes::from(self.new_manifest(image, &layers))),
        };
        let anew = sent.iter().filter(|sent| sent.compressed_anew).count();
        if anew > 0 {
            let text =
                format!("{anew} of {} layers were compressed anew: the digest is a new one", sent.len());
            self.report.status(None, text).await;
        }
        let digest = Digest::of(&manifest);
        let tag = self.reference.tag().unwrap_or("latest");
        let size = manifest.len();
        self.session.put_manifest(tag, &media_type, manifest).await?;
        let name = self.reference.with_digest(&digest);
        self.store
            .add_repo_digest(&image.id, name)
            .await
            .map_err(|error| PushError::Local(error.to_string()))?;
        self.report.status(None, format!("{tag}: digest: {digest} size: {size}")).await;
        Ok(Pushed { tag: tag.to_owned(), digest: digest.to_string(), size_bytes: size as u64 })
    }

    async fn configuration(&self, image: &Image) -> Result<(), PushError> {
        let digest = image.id.digest();
        if self.session.has_blob(digest).await? {
            return Ok(());
        }
        let upload = self.session.begin_upload().await?;
        let bytes = Bytes::copy_from_slice(&image.raw_config);
        let size = bytes.len() as u64;
        Ok(self.session.upload(upload, digest, size, reqwest::Body::from(bytes)).await?)
    }

    /// The manifest that the image came with.
    fn original(&self, image: &Image) -> Option<Original> {
        let digest = Digest::parse(image.manifest_digest.as_deref()?)?;
        let bytes = self.store.inner.blobs.read(&digest).ok()?;
        let (media_type, Parsed::Manifest(manifest)) = document::parse(&bytes, "", &digest).ok()? else {
            return None;
        };
        let known = image.documents().iter().find(|document| document.digest == digest);
        let media_type = known.map_or(media_type, |document| document.media_type.clone());
        (manifest.layers.len() == image.layers().len()).then_some(Original {
            media_type,
            bytes: bytes.into(),
            layers: manifest.layers,
        })
    }

    fn new_manifest(&self, image: &Image, layers: &[&Sent]) -> String {
        let layers: Vec<serde_json::Value> = layers
            .iter()
            .map(|sent| {
                serde_json::json!({"mediaType": oci_type(&sent.media_type), "digest": sent.digest.as_str(), "size": sent.size_bytes})
            })
            .collect();
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.id.as_str(), "size": image.raw_config.len()},
            "layers": layers,
        })
        .to_string()
    }
}

struct Original {
    media_type: String,
    bytes: Bytes,
    layers: Vec<document::Descriptor>,
}

/// The OCI name of a layer's media type; manifests do not mix the families.
fn oci_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        other => other,
    }
}

/// The id under which Docker shows a layer in a push: twelve digits of its diff id.
fn short(diff_id: &Digest) -> &str {
    &diff_id.hex()[..12]
}
