//! Why a stream was refused.

/// Why a stream was refused. `Display` is what the client reads.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Not tar, damaged, cut off, or ambiguous.
    #[error("invalid tar: {0}")]
    Invalid(String),
    /// A bound was reached; names it.
    #[error("{0}")]
    Budget(String),
    /// Reading the stream failed.
    #[error("reading the tar stream: {0}")]
    Io(#[from] std::io::Error),
}

impl TarError {
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}
