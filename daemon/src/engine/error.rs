//! Everything that the engine can answer instead of success.

use executor::shims::ShimError;
use executor::spec::SpecError;
use storage::{LookupError, StoreError};

/// What a failure means to the caller. The API turns it into a status in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400: the request cannot be served as it stands.
    BadRequest,
    /// 304: it is so already; no body.
    NotModified,
    /// 404.
    NotFound,
    /// 409: the state or another name stands in the way.
    Conflict,
    /// 501: known to Docker, not to us.
    Unsupported,
    /// 500: the engine's own trouble.
    Internal,
}

/// A failure; `Display` is what the client reads, in Docker's words where Docker has any.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this name, id or prefix.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// No exec instance has this id.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// The image's name is wrong or unknown.
    #[error(transparent)]
    Image(#[from] LookupError),
    /// The image is there, for another platform.
    #[error("{0}")]
    WrongPlatform(String),
    /// A value that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Something of Docker's that is not there yet; names it.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// The container's state, or a name that is taken, forbids it.
    #[error("{0}")]
    Conflict(String),
    /// Nothing to do.
    #[error("the container is in this state already")]
    NotModified,
    /// The container's program could not be started (Docker's long text).
    #[error("{message}")]
    Launch {
        /// With `exec: "foo": executable file not found in $PATH` and the like in it.
        message: String,
        /// 127, 126, or 125/128 for everything else.
        exit_code: i32,
    },
    /// The specification was refused.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shim failed.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// A file of the container.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which path.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Anything that should not happen.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What it means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchExec(_)
            | Self::WrongPlatform(_)
            | Self::Image(LookupError::NotFound(_)) => ErrorKind::NotFound,
            Self::Image(_) | Self::Invalid(_) | Self::Spec(_) => ErrorKind::BadRequest,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NotModified => ErrorKind::NotModified,
            Self::Launch { exit_code: 126 | 127, .. } => ErrorKind::BadRequest,
            Self::Launch { .. } | Self::Store(_) | Self::Shim(_) | Self::Io { .. } | Self::Internal(_) => {
                ErrorKind::Internal
            }
        }
    }

    /// A failed file operation.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
