//! What can go wrong, in the words that a client reads.

use std::path::{Path, PathBuf};

/// A name was not found or is not one. Texts are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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

impl StoreError {
    /// A `map_err` for file operations on `path`.
    pub(crate) fn io<E: Into<std::io::Error>>(path: &Path) -> impl FnOnce(E) -> Self {
        |source| Self::Io { path: path.to_owned(), source: source.into() }
    }

    /// For an image id or diff id whose row or file is not there.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

/// Why an image was not removed or not tagged.
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
