//! The Docker Engine API as types: models, stream framing, filters and errors.
//!
//! Both ends of the socket use this crate: `ctld` to parse requests and write answers, `ctl`
//! (through the feature `client`) to do the opposite. It knows nothing of the engine.
//!
//! - [`models`]: the request and response bodies of Engine API 1.53.
//! - [`framing`]: the 8-byte headers that keep stdout and stderr apart on one stream.
//! - [`filters`]: the `filters=` query parameter in both of its historical forms.
//! - `client` (feature `client`): requests over the Unix socket, JSON streams, hijacked streams.
//! - [`ApiError`]: the body of every answer that is not a success.

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod filters;
pub mod framing;

pub use bollard_stubs::models;
use serde::{Deserialize, Serialize};

/// The newest version of the Engine API that is spoken here.
pub const API_VERSION: &str = "1.53";
/// The oldest version of the Engine API that is still answered.
pub const MIN_API_VERSION: &str = "1.40";

/// The body of an error answer, in Docker's form: `{"message": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What went wrong and, where it helps, what to do about it.
    pub message: String,
}
