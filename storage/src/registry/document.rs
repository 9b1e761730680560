//! Manifests and indexes from outside: OCI image manifest and index v1, Docker schema 2 manifest and list.
//!
//! A document that could be read as either kind, or whose own media type contradicts the header it came
//! with, is refused: two readers must never see two images under one digest.

use serde::Deserialize;

use super::RegistryError;
use super::platform::Platform;
use crate::Digest;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Media types that are asked for, in this order.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// Configurations that make a manifest an image.
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A reference to content, checked: the digest has the one known form.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platform: Option<Platform>,
}

/// A parsed document.
#[derive(Debug, Clone)]
pub(crate) enum Parsed {
    /// Manifests by platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// A manifest of one image.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

impl TryFrom<RawDescriptor> for Descriptor {
    type Error = RegistryError;

    fn try_from(raw: RawDescriptor) -> Result<Self, RegistryError> {
        let digest = Digest::parse(&raw.digest).ok_or_else(|| {
            RegistryError::Corrupt(format!("invalid or unsupported digest {:?} in a manifest", raw.digest))
        })?;
        Ok(Self { media_type: raw.media_type, digest, size: raw.size, platform: raw.platform })
    }
}

/// Parses a document whose digest was compared already. `header` is the media type of the answer's
/// header without parameters; empty where it is not known.
pub(crate) fn parse(bytes: &[u8], header: &str, digest: &Digest) -> Result<(String, Parsed), RegistryError> {
    let corrupt = |why: String| RegistryError::Corrupt(format!("manifest {digest}: {why}"));
    let raw: RawDocument = serde_json::from_slice(bytes)
        .map_err(|error| if is_schema_1(bytes, header) { schema_1() } else { corrupt(error.to_string()) })?;
    if raw.schema_version == 1 || is_schema_1(bytes, header) {
        return Err(schema_1());
    }
    if raw.schema_version != 2 {
        return Err(corrupt(format!("schema version {} is not supported", raw.schema_version)));
    }
    let known = |media_type: &str| ACCEPTED.contains(&media_type);
    if known(header) && !raw.media_type.is_empty() && raw.media_type != header {
        return Err(corrupt(format!("it says {:?} but came as {header:?}", raw.media_type)));
    }
    let media_type = if raw.media_type.is_empty() { header } else { &raw.media_type };
    let is_index = match media_type {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        "" | "application/json" | "application/octet-stream" | "text/plain" => raw.manifests.is_some(),
        other => return Err(RegistryError::Corrupt(format!("unsupported manifest media type {other:?}"))),
    };
    let descriptors = |list: Vec<RawDescriptor>| -> Result<Vec<Descriptor>, RegistryError> {
        list.into_iter().map(Descriptor::try_from).collect()
    };
    let media_type = match media_type {
        known if ACCEPTED.contains(&known) => known.to_owned(),
        _ if is_index => OCI_INDEX.to_owned(),
        _ => OCI_MANIFEST.to_owned(),
    };
    let parsed = match (is_index, raw.manifests, raw.config, raw.layers) {
        (true, Some(manifests), None, None) => Parsed::Index(descriptors(manifests)?),
        (false, None, Some(config), layers) => {
            if !IMAGE_CONFIGS.contains(&config.media_type.as_str()) {
                return Err(RegistryError::Corrupt(format!(
                    "Encountered remote {:?}(unknown) when fetching",
                    config.media_type
                )));
            }
            let layers = descriptors(layers.unwrap_or_default())?;
            Parsed::Manifest(Manifest { config: config.try_into()?, layers })
        }
        (_, Some(_), _, Some(_)) | (_, Some(_), Some(_), _) => {
            return Err(corrupt("it is both a manifest and an index".to_owned()));
        }
        _ => return Err(corrupt(format!("it is not what {media_type:?} promises"))),
    };
    Ok((media_type, parsed))
}

/// The best manifest for a platform; among equals the first.
pub(crate) fn choose<'a>(index: &'a [Descriptor], wish: &Platform) -> Option<&'a Descriptor> {
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => wish.rank(platform),
        // Its configuration will tell; taken only where nothing else fits.
        None => Some(u32::MAX),
    };
    index.iter().filter_map(|entry| Some((rank(entry)?, entry))).min_by_key(|(rank, _)| *rank).map(|(_, e)| e)
}

fn is_schema_1(bytes: &[u8], header: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: Option<u32>,
    }
    header.starts_with("application/vnd.docker.distribution.manifest.v1+")
        || serde_json::from_slice::<Version>(bytes).is_ok_and(|v| v.schema_version == Some(1))
}

fn schema_1() -> RegistryError {
    RegistryError::Corrupt(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported; ask the \
         author of the image for an OCI or Docker schema 2 manifest"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, header: &str) -> Result<Parsed, String> {
        parse(text.as_bytes(), header, &Digest::of(text.as_bytes()))
            .map(|(_, parsed)| parsed)
            .map_err(|error| error.to_string())
    }

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{}","size":3}}"#, "0".repeat(64))
    }

    #[test]
    fn reads_both_families() {
        let (config, layer) = (descriptor(IMAGE_CONFIGS[1]), descriptor("x"));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
        assert!(matches!(read(&manifest, DOCKER_MANIFEST), Ok(Parsed::Manifest(m)) if m.layers.len() == 1));
        assert!(matches!(read(&manifest, ""), Ok(Parsed::Manifest(_))));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{layer}]}}"#);
        assert!(matches!(read(&index, OCI_INDEX), Ok(Parsed::Index(list)) if list.len() == 1));
    }

    #[test]
    fn refuses_the_ambiguous() {
        let (config, layer) = (descriptor(IMAGE_CONFIGS[0]), descriptor("x"));
        let both =
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"manifests":[{layer}]}}"#);
        assert!(read(&both, OCI_INDEX).unwrap_err().contains("both a manifest and an index"));
        let lying = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{layer}]}}"#);
        assert!(read(&lying, OCI_MANIFEST).unwrap_err().contains("but came as"));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        assert!(read(&manifest, OCI_INDEX).is_err());
        let schema_1 = r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#;
        assert!(read(schema_1, "").unwrap_err().contains("schema 1 are not supported"));
        let evil = manifest.replace(&"0".repeat(64), "../../../etc/passwd");
        assert!(read(&evil, OCI_MANIFEST).unwrap_err().contains("unsupported digest"));
        let chart = manifest.replace(IMAGE_CONFIGS[0], "application/vnd.cncf.helm.config.v1+json");
        assert!(read(&chart, OCI_MANIFEST).unwrap_err().starts_with("Encountered remote"));
        assert!(read("{", "").is_err());
    }
}
