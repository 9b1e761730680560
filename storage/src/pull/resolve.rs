//! From a reference to one image: index, platform, manifest, configuration; each verified before it is
//! parsed, and taken from the store where it is there already.

use oci_spec::image::ImageConfiguration;

use super::local::Local;
use crate::registry::document::{self, Descriptor, Manifest, Parsed};
use crate::registry::platform::Platform;
use crate::registry::session::Fetched;
use crate::registry::{RegistryError, Session};
use crate::{Digest, PullError, Reference};

/// Indexes within indexes.
const DEEPEST_INDEX: usize = 4;
/// Layers of one image; overlayfs takes 500 lower directories.
const MOST_LAYERS: usize = 500;

/// One layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct LayerOf {
    pub diff_id: Digest,
    pub blob: Descriptor,
}

/// A document as it came.
#[derive(Debug)]
pub(crate) struct Document {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// What a reference means for a platform.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// What the reference names: an index or a manifest.
    pub top: Digest,
    /// Indexes on the way and the manifest, as they came.
    pub documents: Vec<Document>,
    pub manifest_digest: Digest,
    pub config_digest: Digest,
    pub raw_config: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<LayerOf>,
}

/// Resolves a reference at one endpoint.
pub(crate) async fn resolve(
    local: &Local,
    session: &Session,
    reference: &Reference,
    platform: Option<&str>,
) -> Result<Resolved, PullError> {
    let (name, familiar) = (reference.familiar_name(), reference.familiar());
    let of_registry = |error: RegistryError| error.into_pull(&name, &familiar);
    let wish = match platform {
        Some(text) => Platform::parse(text)
            .ok_or_else(|| PullError::Unavailable(format!("\"{text}\": invalid platform")))?,
        None => Platform::host(),
    };
    let mut fetched = top(local, session, reference).await.map_err(of_registry)?;
    let top = fetched.digest.clone();
    let mut documents = Vec::new();
    let (manifest_digest, manifest) = loop {
        let (media_type, parsed) =
            document::parse(&fetched.bytes, &fetched.media_type, &fetched.digest).map_err(of_registry)?;
        documents.push(Document { media_type, bytes: fetched.bytes });
        match parsed {
            Parsed::Manifest(manifest) => break (fetched.digest, manifest),
            Parsed::Index(_) if documents.len() > DEEPEST_INDEX => {
                return Err(PullError::OverBudget(format!(
                    "{familiar}: indexes are nested more than {DEEPEST_INDEX} deep"
                )));
            }
            Parsed::Index(entries) => {
                let chosen = document::choose(&entries, &wish).ok_or_else(|| {
                    PullError::NotFound(format!(
                        "no matching manifest for {wish} in the manifest list entries"
                    ))
                })?;
                fetched = by_digest(local, session, &chosen.digest).await.map_err(of_registry)?;
            }
        }
    };
    let raw_config = configuration(local, session, &manifest.config).await.map_err(of_registry)?;
    let (config, diff_ids) = read_config(&raw_config, &manifest)?;
    check_platform(&config, platform.is_some().then_some(&wish), &familiar)?;
    let layers =
        diff_ids.into_iter().zip(manifest.layers).map(|(diff_id, blob)| LayerOf { diff_id, blob }).collect();
    Ok(Resolved {
        top,
        documents,
        manifest_digest,
        config_digest: manifest.config.digest,
        raw_config,
        layers,
    })
}

/// What the reference names. A tag that is known here is only asked after (HEAD), not fetched.
async fn top(local: &Local, session: &Session, reference: &Reference) -> Result<Fetched, RegistryError> {
    if let Some(text) = reference.digest() {
        let digest = Digest::parse(text)
            .ok_or_else(|| RegistryError::Corrupt(format!("unsupported digest algorithm: {text}")))?;
        return by_digest(local, session, &digest).await;
    }
    let tag = reference.tag().unwrap_or("latest");
    if local.knows(reference)
        && let Some(digest) = session.head_manifest(tag).await.unwrap_or_default()
        && let Some(bytes) = local.document(&digest)
    {
        return Ok(Fetched { bytes, media_type: String::new(), digest });
    }
    session.manifest(tag, local.options().budget.document_bytes).await
}

async fn by_digest(local: &Local, session: &Session, digest: &Digest) -> Result<Fetched, RegistryError> {
    if let Some(bytes) = local.document(digest) {
        return Ok(Fetched { bytes, media_type: String::new(), digest: digest.clone() });
    }
    session.manifest(digest.as_str(), local.options().budget.document_bytes).await
}

async fn configuration(
    local: &Local,
    session: &Session,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, RegistryError> {
    if let Some(bytes) = local.document(&descriptor.digest) {
        return Ok(bytes);
    }
    let most = local.options().budget.document_bytes;
    if descriptor.size > most {
        return Err(RegistryError::TooLarge(format!(
            "image config {}: {} bytes are more than the budget of {most} bytes for a document",
            descriptor.digest, descriptor.size
        )));
    }
    session.document(&descriptor.digest, most).await
}

fn read_config(raw: &[u8], manifest: &Manifest) -> Result<(ImageConfiguration, Vec<Digest>), PullError> {
    let digest = &manifest.config.digest;
    let corrupt = |why: String| PullError::Corrupt(format!("image config {digest}: {why}"));
    let config = ImageConfiguration::from_reader(raw).map_err(|error| corrupt(error.to_string()))?;
    let texts = config.rootfs().diff_ids();
    if texts.len() > MOST_LAYERS {
        return Err(PullError::OverBudget(format!(
            "image config {digest}: {} layers are more than the {MOST_LAYERS} that can be mounted",
            texts.len()
        )));
    }
    let diff_ids: Option<Vec<Digest>> = texts.iter().map(|text| Digest::parse(text)).collect();
    let diff_ids = diff_ids.ok_or_else(|| corrupt("it has an invalid diff id".to_owned()))?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(corrupt(format!(
            "it has {} layers where the manifest has {}",
            diff_ids.len(),
            manifest.layers.len()
        )));
    }
    Ok((config, diff_ids))
}

/// An image that was asked for by platform has to be for that platform; one of another system is of no
/// use in any case.
fn check_platform(
    config: &ImageConfiguration,
    wish: Option<&Platform>,
    familiar: &str,
) -> Result<(), PullError> {
    let os = config.os().to_string();
    if !os.is_empty() && os != "linux" {
        return Err(PullError::NotFound(format!(
            "image operating system \"{os}\" cannot be used on this platform: operating system is not supported"
        )));
    }
    let variant = config.variant().as_deref().unwrap_or_default();
    let mut actual = Platform::normalised(&os, &config.architecture().to_string(), variant);
    if let Some(wish) = wish.filter(|wish| variant.is_empty() && wish.architecture == actual.architecture) {
        // Configurations often leave the variant to the index.
        actual.variant.clone_from(&wish.variant);
    }
    match wish {
        Some(wish) if wish.rank(&actual).is_none() => Err(PullError::NotFound(format!(
            "image with reference {familiar} was found but does not match the specified platform: \
             wanted {wish}, actual: {actual}"
        ))),
        _ => Ok(()),
    }
}
