//! What a pull is asked for, what it tells on its way, and how it fails.

use crate::LookupError;

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
    /// A bound of [`Budget`](crate::Budget).
    #[error("{0}")]
    OverBudget(String),
    /// Disk full and the like.
    #[error("{0}")]
    Local(String),
}
