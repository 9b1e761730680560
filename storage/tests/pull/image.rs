//! Small images: layers, configuration, manifest, index.

use std::io::Write as _;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::fake::Fake;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `sha256:<hex>`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// How a layer travels.
#[derive(Clone, Copy)]
pub enum Packing {
    Gzip,
    Zstd,
    Plain,
}

/// A layer as blob and tar.
#[derive(Clone)]
pub struct Layer {
    pub blob: Bytes,
    pub tar: Bytes,
    pub media_type: &'static str,
}

/// A layer with these files.
pub fn layer(files: &[(&str, &[u8])], packing: Packing) -> Layer {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *content).expect("a tar in memory");
    }
    let tar = tar.into_inner().expect("a tar in memory");
    let (blob, media_type) = match packing {
        Packing::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).expect("memory");
            (gzip.finish().expect("memory"), "application/vnd.oci.image.layer.v1.tar+gzip")
        }
        Packing::Zstd => {
            (zstd::encode_all(&tar[..], 1).expect("memory"), "application/vnd.oci.image.layer.v1.tar+zstd")
        }
        Packing::Plain => (tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
    };
    Layer { blob: blob.into(), tar: tar.into(), media_type }
}

/// A layer of one file that does not compress, of about this many bytes.
pub fn noise(seed: u64, size: usize) -> Layer {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect();
    layer(&[(&format!("noise-{seed}"), &content)], Packing::Gzip)
}

/// What an image consists of, before it is in a registry.
#[derive(Clone)]
pub struct Built {
    pub layers: Vec<Layer>,
    pub config: Bytes,
    pub manifest: Bytes,
}

impl Built {
    /// Digest of the configuration.
    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// Digest of the manifest.
    pub fn manifest_digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The descriptor for an index.
    pub fn descriptor(&self, architecture: &str, variant: Option<&str>) -> serde_json::Value {
        let mut platform = serde_json::json!({"os": "linux", "architecture": architecture});
        if let Some(variant) = variant {
            platform["variant"] = variant.into();
        }
        serde_json::json!({"mediaType": OCI_MANIFEST, "digest": self.manifest_digest(),
            "size": self.manifest.len(), "platform": platform})
    }

    /// Puts all of it into a registry, the manifest under its digest and a tag.
    pub fn put(&self, fake: &Fake, repository: &str, tag: &str) {
        for layer in &self.layers {
            fake.put_blob(&layer.blob);
        }
        fake.put_blob(&self.config);
        fake.put_manifest(repository, tag, OCI_MANIFEST, &self.manifest);
    }
}

/// An OCI image for an architecture.
pub fn build_for(architecture: &str, layers: Vec<Layer>) -> Built {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(&layer.tar)).collect();
    let config = serde_json::json!({"architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/true"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = Bytes::from(config.to_string());
    let descriptors: Vec<serde_json::Value> = layers
        .iter()
        .map(|layer| {
            serde_json::json!({"mediaType": layer.media_type, "digest": digest(&layer.blob), "size": layer.blob.len()})
        })
        .collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config), "size": config.len()},
        "layers": descriptors});
    Built { layers, config, manifest: Bytes::from(manifest.to_string()) }
}

/// An OCI image for this machine.
pub fn build(layers: Vec<Layer>) -> Built {
    build_for(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, layers)
}

/// An index of descriptors.
pub fn index(manifests: &[serde_json::Value]) -> Bytes {
    serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string().into()
}
