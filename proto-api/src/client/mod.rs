//! A client of the Engine API over a Unix socket.
//!
//! One HTTP/1.1 connection per request in flight; a connection whose answer was read to its end is
//! kept and used again, so that a command of several steps rarely opens more than two. The version
//! in the path is [`API_VERSION`](crate::API_VERSION); only where the daemon answers that its
//! maximum is lower is the request sent again with that version. Nothing is asked beforehand,
//! except ahead of a body that cannot be sent twice.
//!
//! - [`Client::get`] and its siblings start a [`Request`]; [`Request::send`] returns a [`Response`].
//! - [`Response::json`] reads one object, [`Response::objects`] a stream of them.
//! - [`Request::hijack`] upgrades the connection to a raw [`Hijacked`] stream.
//!
//! Everything here must run inside a tokio runtime. Dropping a future or a response closes its
//! connection, which the daemon takes as the end of interest in the answer.

mod connection;
mod encode;
mod hijack;
mod request;
mod response;
mod socket;

use std::path::PathBuf;

pub use connection::Client;
pub use encode::{image_path, segment};
pub use hijack::{Hijacked, HijackedReader};
pub use request::Request;
pub use response::{Objects, Response};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers on the socket.
    #[error("Cannot connect to the ctl daemon at unix://{}. Is ctld running? ({source})", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// What `connect` said.
        source: std::io::Error,
    },
    /// The daemon refused; `message` is its own text.
    #[error("Error response from daemon: {message}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// The daemon's message.
        message: String,
    },
    /// The connection broke, or what came back was not HTTP.
    #[error("error during connect: {0}")]
    Http(#[from] hyper::Error),
    /// The request could not be put into HTTP.
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    /// The request's body could not be written as JSON.
    #[error("cannot encode the request: {0}")]
    Encode(#[source] serde_json::Error),
    /// The answer was not what the API promises.
    #[error("cannot read the daemon's answer: {0}")]
    Decode(#[source] serde_json::Error),
    /// An upgraded stream or a local file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The daemon did not upgrade the connection.
    #[error("unable to upgrade to tcp, received {0}")]
    NotUpgraded(u16),
}

impl Error {
    /// The HTTP status of the daemon's refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the daemon says that there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}
