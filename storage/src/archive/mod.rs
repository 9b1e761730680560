//! Images and trees as archives: save, load, import, export, commit.
//!
//! ```text
//! save    images -> one tar that is both an OCI layout and a docker archive, as Docker 25 and later write
//! load    such a tar (or either alone) -> unpack worker -> layers, images, names
//! import  a tree as tar -> one layer -> image
//! commit  a container's writable layer -> layer tar -> one more layer -> image
//! export  a tree behind a descriptor -> tar
//! ```
//!
//! What comes from outside is only ever parsed in the unpack worker; what it left behind is opened over
//! directory descriptors.

mod changes;
mod channel;
mod commit;
mod import;
mod load;
mod oci;
mod save;
mod tree;
mod writer;

use std::io;

use bytes::Bytes;
pub use tree::tree_tar;

use crate::{LookupError, StoreError};

/// A tar on its way out. Dropping it stops the work behind it; an error ends it.
pub type ArchiveStream = tokio::sync::mpsc::Receiver<io::Result<Bytes>>;

/// Why an archive was not written or read. `Display` is what the client reads.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No such image (404) or no name (400).
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// 400: what the client sent is no archive, or not an acceptable one.
    #[error("{0}")]
    Invalid(String),
    /// 400: a bound of [`crate::Budget`].
    #[error("{0}")]
    OverBudget(String),
    /// 500.
    #[error("{0}")]
    Local(String),
    /// 500.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<crate::unpack::UnpackError> for ArchiveError {
    fn from(error: crate::unpack::UnpackError) -> Self {
        use crate::unpack::UnpackError;
        let text = error.to_string();
        match error {
            UnpackError::Corrupt(_) => Self::Invalid(text),
            UnpackError::OverBudget(_) => Self::OverBudget(text),
            UnpackError::Local(_) => Self::Local(text),
        }
    }
}

/// What a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// A name, as Docker shows it: `Loaded image: busybox:latest`.
    Name(String),
    /// An image without a name: `Loaded image ID: sha256:…`.
    Id(String),
}

/// How an image is imported.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name to give.
    pub reference: Option<String>,
    /// Comment of the history entry; `Imported from -` by default.
    pub message: Option<String>,
    /// `os[/arch[/variant]]`; the host's by default.
    pub platform: Option<String>,
    /// Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL,
    /// USER, VOLUME, WORKDIR.
    pub changes: Vec<String>,
}

/// How a container becomes an image.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The container whose writable layer is taken.
    pub container: String,
    /// The image that it stands on.
    pub parent: crate::ImageId,
    /// The configuration as Docker's `ContainerConfig` object (`Cmd`, `Env`, `Labels`, …); it replaces
    /// the parent's.
    pub config: serde_json::Value,
    /// Dockerfile instructions on top; see [`ImportOptions::changes`].
    pub changes: Vec<String>,
    /// Who.
    pub author: String,
    /// Comment of the history entry.
    pub comment: String,
    /// What the layer was made by, for the history entry: the container's command.
    pub created_by: String,
    /// The name to give.
    pub reference: Option<String>,
}
