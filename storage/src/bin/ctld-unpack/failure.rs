//! Why the worker gives up.

use std::io;

use storage::tar::{TarError, shown};
use storage::unpack::ErrorKind;

/// A failure on its way to the daemon.
#[derive(Debug)]
pub struct Failure {
    pub kind: ErrorKind,
    pub text: String,
}

impl Failure {
    pub fn corrupt(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Corrupt, text: text.into() }
    }

    pub fn budget(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Budget, text: text.into() }
    }

    pub fn local(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Local, text: text.into() }
    }

    /// A file operation on an entry. What the layer asked for and cannot be is the layer's fault; the
    /// rest is the machine's.
    pub fn entry(what: &str, path: &[u8], error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let text = format!("{what} {}: {error}", shown(path));
        let layers_fault = matches!(
            error.raw_os_error(),
            Some(
                libc::ENOENT
                    | libc::ENOTDIR
                    | libc::ELOOP
                    | libc::ENAMETOOLONG
                    | libc::EEXIST
                    | libc::EISDIR
                    | libc::EINVAL
                    | libc::EXDEV
                    | libc::EMLINK
                    | libc::EPERM
                    | libc::E2BIG
                    | libc::ERANGE
            )
        );
        Self { kind: if layers_fault { ErrorKind::Corrupt } else { ErrorKind::Local }, text }
    }
}

impl From<TarError> for Failure {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Invalid(_) => Self::corrupt(error.to_string()),
            TarError::Budget(text) => Self::budget(text),
            TarError::Io(_) => Self::local(error.to_string()),
        }
    }
}
