//! The facade that the daemon sees. Bodies move into modules of their own; signatures stay.
use super::*;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// See the crate's documentation for what it holds.
    pub data_root: PathBuf,
    /// The program `ctld-unpack`.
    pub unpack_worker: PathBuf,
    /// Settings by registry host (`host[:port]`).
    pub registries: BTreeMap<String, RegistryOptions>,
    /// Layers that are fetched and unpacked side by side in one pull.
    pub parallel_layers: usize,
    /// Keep compressed layer blobs as they came.
    pub keep_blobs: bool,
    /// Bounds on what an image may hold.
    pub budget: Budget,
}

/// Settings of one registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Plain HTTP, or TLS without verification, is allowed. Loopback addresses are always allowed HTTP.
    pub insecure: bool,
    /// PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Base URLs that are asked first, in order; the registry itself is the last resort.
    pub mirrors: Vec<String>,
}

/// Bounds that a hostile image meets.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes of file content in one layer.
    pub layer_bytes: u64,
    /// Entries in one layer.
    pub layer_entries: u64,
    /// Bytes of a manifest, index or configuration.
    pub document_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { layer_bytes: 256 << 30, layer_entries: 10_000_000, document_bytes: 8 << 20 }
    }
}

/// Digest of an image's configuration, as `sha256:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub(crate) String);

impl ImageId {
    /// `sha256:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }

    /// The first twelve digits, as tables show it.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// Checks the form.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let fine = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        fine.then(|| Self(text.to_owned()))
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image of the store. Immutable; a changed name makes a new value.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The configuration, parsed.
    pub config: ImageConfiguration,
    /// The configuration, byte by byte.
    pub raw_config: Arc<[u8]>,
    /// Names as Docker shows them (`busybox:latest`, `localhost:5000/a/b:1`), sorted.
    pub tags: Vec<String>,
    /// `name@sha256:…` for each repository it was pulled from or pushed to, sorted.
    pub repo_digests: Vec<String>,
    /// Digest of the manifest it came with; `None` for images made here.
    pub manifest_digest: Option<String>,
    /// Sum of the unpacked layers' file sizes in bytes.
    pub size_bytes: u64,
    /// When it was created, by its configuration.
    pub created: Option<SystemTime>,
    /// When it last got a name here.
    pub last_tagged: Option<SystemTime>,
}

/// A name was not found or is not one. Texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// 404.
    #[error("No such image: {0}")]
    NotFound(String),
    /// 400; the whole text.
    #[error("{0}")]
    Invalid(String),
    /// 400; an id prefix that several images share.
    #[error("ambiguous image id: {0}")]
    Ambiguous(String),
}

/// Credentials for a registry.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// None.
    #[default]
    Anonymous,
    /// For basic authentication and token servers.
    Basic(String, String),
    /// An OAuth2 refresh token.
    IdentityToken(String),
    /// A bearer token to use as it is.
    RegistryToken(String),
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// As the user wrote it: `busybox`, `host:5000/a/b:tag`, `name@sha256:…`; no tag means `latest`.
    pub reference: String,
    /// `os[/arch[/variant]]`; the host's by default.
    pub platform: Option<String>,
    /// For the registry in the reference only.
    pub credentials: Credentials,
}

/// Progress of a pull, one per state change and at most a few per second and layer.
#[derive(Debug, Clone)]
pub enum Progress {
    /// `{"status": …}` with an optional id.
    Status {
        /// A tag or a layer's short id.
        id: Option<String>,
        /// Docker's words: `Pulling fs layer`, `Already exists`, `Download complete`, `Pull complete`, …
        status: String,
    },
    /// Bytes of one layer.
    Bytes {
        /// The layer's short id (12 digits of its blob digest).
        id: String,
        /// `Downloading` or `Extracting`.
        status: &'static str,
        /// So far.
        current: u64,
        /// In all; 0 where unknown.
        total: u64,
    },
}

/// Where progress goes. A full or closed channel never stops a pull.
pub type ProgressSink = tokio::sync::mpsc::Sender<Progress>;

/// Why a pull failed. `Display` is what the client reads.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// 400.
    #[error(transparent)]
    Reference(LookupError),
    /// 404: `pull access denied for x, repository does not exist or may require 'docker login'` or
    /// `manifest for x not found: manifest unknown: manifest unknown`.
    #[error("{0}")]
    NotFound(String),
    /// 401/403 of the registry, 500 here as in Docker.
    #[error("{0}")]
    Denied(String),
    /// Network, TLS, 5xx.
    #[error("{0}")]
    Unavailable(String),
    /// A digest, size or format that is wrong; names the digest.
    #[error("{0}")]
    Corrupt(String),
    /// A bound of [`Budget`].
    #[error("{0}")]
    OverBudget(String),
    /// Disk full and the like.
    #[error("{0}")]
    Local(String),
}

/// A failure of the store itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has the data root.
    #[error("data root {0} is in use by another ctld")]
    Locked(PathBuf),
    /// A file operation.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's schema.
    #[error("database schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// Something that a row promises is not there.
    #[error("{0}")]
    Damaged(String),
}

/// A container that keeps an image from being removed.
#[derive(Debug, Clone)]
pub struct ImageUse {
    /// Full container id.
    pub container: String,
    /// Whether it runs now.
    pub running: bool,
}

/// One line of an `rmi` answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A name was taken away.
    Untagged(String),
    /// An image or layer was deleted.
    Deleted(String),
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Not there (404) or not a name (400).
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// 409, with Docker's reason.
    #[error("conflict: {0}")]
    Conflict(String),
    /// 500.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A container's row: what survives. The engine gives the JSON its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: String,
    /// Without the leading slash; unique.
    pub name: String,
    /// What the user asked for; written once, changed by `update` and `rename`.
    pub config: String,
    /// The last state that was recorded.
    pub state: String,
}

/// What overlayfs needs to make a container's root; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMount {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// overlayfs' work directory.
    pub work: PathBuf,
}

/// One finding of [`Store::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What and where, for a person to read.
    pub what: String,
}

/// The store. Cheap to clone. Reads of images come from memory.
#[derive(Debug, Clone)]
pub struct Store {
    options: Arc<StoreOptions>,
}

#[expect(unused_variables, reason = "bodies are still to come")]
impl Store {
    /// Opens or makes a data root, takes its lock, migrates the database and sweeps what an earlier
    /// process left half-made.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Self { options: Arc::new(options) })
    }

    /// The data root.
    pub fn data_root(&self) -> &Path {
        &self.options.data_root
    }

    /// All images, newest first.
    pub fn images(&self) -> Vec<Arc<Image>> {
        vec![]
    }

    /// Finds an image by name, `name@digest`, full id or unique id prefix, as Docker does (a name
    /// goes before an id prefix).
    pub fn image(&self, name: &str) -> Result<Arc<Image>, LookupError> {
        Err(LookupError::NotFound(name.into()))
    }

    /// Pulls an image. Two pulls of one layer share the work. Dropping the future stops it; what was
    /// downloaded so far is kept in `partial/` and used again.
    pub async fn pull(&self, request: PullRequest, progress: ProgressSink) -> Result<Arc<Image>, PullError> {
        Err(PullError::Local("not yet".into()))
    }

    /// Gives an image a further name; takes the name from another image where it has it.
    pub async fn tag(&self, source: &str, target: &str) -> Result<(), RemoveError> {
        Err(LookupError::NotFound(source.into()).into())
    }

    /// Docker's `rmi`: takes the name away, and deletes the image with the last one. By id it needs
    /// `force` where several repositories name it. `users` are the containers made from it.
    pub async fn remove_image(
        &self,
        name: &str,
        force: bool,
        users: &[ImageUse],
    ) -> Result<Vec<Removal>, RemoveError> {
        Err(LookupError::NotFound(name.into()).into())
    }

    /// Makes the writable layer of a container. Fails where it exists.
    pub async fn prepare_snapshot(&self, container: &str, image: &ImageId) -> Result<RootMount, StoreError> {
        Err(StoreError::Damaged("not yet".into()))
    }

    /// The root of a container whose writable layer exists.
    pub fn root_mount(&self, container: &str, image: &ImageId) -> Result<RootMount, StoreError> {
        Err(StoreError::Damaged("not yet".into()))
    }

    /// Removes a container's writable layer; no error where it is gone already.
    pub async fn remove_snapshot(&self, container: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Bytes in a container's writable layer. Blocks on the file system in a blocking task.
    pub async fn snapshot_size_bytes(&self, container: &str) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// The engine's directory for a container (`containers/<id>`), made 0700.
    pub fn container_dir(&self, container: &str) -> PathBuf {
        self.options.data_root.join("containers").join(container)
    }

    /// All containers, in the order of their creation.
    pub async fn containers(&self) -> Result<Vec<ContainerRow>, StoreError> {
        Ok(vec![])
    }

    /// Inserts a container; `Ok(false)` where the name is taken.
    pub async fn insert_container(&self, row: &ContainerRow) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Records a container's state (WAL with `synchronous=NORMAL`: ordered, about 0.2 ms).
    pub async fn update_container_state(&self, id: &str, state: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Changes name and configuration; `Ok(false)` where the name is taken.
    pub async fn update_container(&self, id: &str, name: &str, config: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Deletes the row; no error where it is gone.
    pub async fn delete_container(&self, id: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Compares database and disk. Opens nothing for writing; may run beside the daemon where
    /// `options` name the same data root (`ctld fsck` uses [`Store::check_offline`]).
    pub async fn check(&self) -> Result<Vec<Finding>, StoreError> {
        Ok(vec![])
    }

    /// The same for a data root that no daemon has open.
    pub async fn check_offline(data_root: &Path) -> Result<Vec<Finding>, StoreError> {
        Ok(vec![])
    }
}
