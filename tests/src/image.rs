//! Building images, honest and hostile ones: any tar entry, any configuration, any manifest.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A blob as a registry keeps it.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An image that is ready to be pushed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Configuration and layers.
    pub blobs: Vec<Blob>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's media type.
    pub media_type: String,
    /// Digest of the configuration.
    pub id: String,
}

impl Image {
    /// Digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip, level 6.
    Gzip,
    /// zstd, level 3.
    Zstd,
}

/// Which family of media types a manifest uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Docker's schema 2.
    Docker,
    /// OCI's.
    Oci,
}

/// Collects layers and configuration of an image.
#[derive(Debug)]
pub struct Builder {
    layers: Vec<(Vec<u8>, Packing)>,
    config: Value,
    format: Format,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new(Format::Docker)
    }
}

impl Builder {
    /// An image without layers.
    pub fn new(format: Format) -> Self {
        let config = json!({
            "created": "2024-01-02T03:04:05Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        });
        Self { layers: Vec::new(), config, format }
    }

    /// Adds a layer from a tar stream.
    pub fn layer(mut self, tar: Vec<u8>, packing: Packing) -> Self {
        self.layers.push((tar, packing));
        self
    }

    /// Sets a field of the configuration's `config` object, such as `Env` or `User`.
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.config["config"][field] = value;
        self
    }

    /// Sets a field of the configuration itself.
    pub fn set_top(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// Compresses and hashes everything.
    pub fn build(self) -> Image {
        let mut config = self.config;
        let diff_ids: Vec<String> = self.layers.iter().map(|(tar, _)| digest(tar)).collect();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        if config.get("history").is_none() {
            config["history"] = self
                .layers
                .iter()
                .enumerate()
                .map(|(n, _)| json!({"created": "2024-01-02T03:04:05Z", "created_by": format!("layer {n}")}))
                .collect();
        }
        let config_bytes = serde_json::to_vec(&config).expect("JSON serialises");
        let config_blob = Blob { digest: digest(&config_bytes), bytes: config_bytes };
        let mut blobs = Vec::new();
        let mut descriptors = Vec::new();
        for (tar, packing) in &self.layers {
            let bytes = pack(tar, *packing);
            let blob = Blob { digest: digest(&bytes), bytes };
            descriptors.push(json!({
                "mediaType": layer_type(self.format, *packing),
                "size": blob.bytes.len(),
                "digest": blob.digest,
            }));
            blobs.push(blob);
        }
        let (media_type, config_type) = match self.format {
            Format::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            ),
            Format::Oci => {
                ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json")
            }
        };
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": config_type, "size": config_blob.bytes.len(), "digest": config_blob.digest},
            "layers": descriptors,
        }))
        .expect("JSON serialises");
        let id = config_blob.digest.clone();
        blobs.push(config_blob);
        Image { blobs, manifest, media_type: media_type.into(), id }
    }
}

fn layer_type(format: Format, packing: Packing) -> &'static str {
    match (format, packing) {
        (Format::Docker, Packing::Gzip | Packing::Zstd) => {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        }
        (Format::Docker, Packing::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
        (Format::Oci, Packing::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (Format::Oci, Packing::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (Format::Oci, Packing::Plain) => "application/vnd.oci.image.layer.v1.tar",
    }
}

/// Compresses a tar stream.
pub fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(tar).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        Packing::Zstd => zstd::encode_all(tar, 3).expect("memory takes everything"),
    }
}

/// Writes a tar stream entry by entry, without asking whether it makes sense.
#[derive(Debug, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any entry; `path` and `link` go into the header as they are.
    pub fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        assert!(path.len() <= old.name.len(), "paths of test entries are short");
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a directory.
    pub fn dir(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, "", 0o755, b"")
    }

    /// Adds a regular file.
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, "", mode, content)
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, 0o777, b"")
    }

    /// Adds a hard link. Its mode is applied to the file, as every extractor does.
    pub fn hard_link(self, path: &str, target: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Link, path, target, mode, b"")
    }

    /// Ends the stream.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// A layer with Debian's static busybox, its applets as links, and the few files that programs ask for.
pub fn busybox_layer() -> Vec<u8> {
    let busybox =
        std::fs::read("/bin/busybox").expect("busybox-static is installed: scripts/test sees to it");
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    let mut tar = Tar::new();
    for dir in ["bin/", "dev/", "etc/", "home/", "proc/", "root/", "sys/", "usr/", "usr/bin/", "var/"] {
        tar = tar.dir(dir);
    }
    tar = tar.entry(tar::EntryType::Directory, "tmp/", "", 0o1777, b"");
    tar = tar.file("bin/busybox", 0o755, &busybox);
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
        tar = tar.hard_link(&format!("bin/{applet}"), "bin/busybox", 0o755);
    }
    tar.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww:x:33:33:www:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    )
    .file("etc/group", 0o644, b"root:x:0:\ndaemon:x:1:\nwww:x:33:\naudio:x:29:www\nvideo:x:44:www\nnogroup:x:65534:\n")
    .finish()
}
