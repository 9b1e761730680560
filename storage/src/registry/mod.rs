//! The client side of the OCI distribution protocol (`/v2/`).
//!
//! - [`transport`]: TLS settings, redirects and time limits of one host; turns failures into Docker's words.
//! - [`auth`]: `WWW-Authenticate` challenges, tokens, and to whom credentials may go.
//! - [`session`]: requests to one repository at one endpoint, with authorisation, retries and back-off.
//! - [`upload`]: blobs and manifests on their way there.
//! - [`login`]: requests about a registry as a whole.
//! - [`document`]: manifests, indexes and configurations as they come from outside, with their checks.
//! - [`platform`]: which manifest of an index is meant.
//!
//! Written on `reqwest` rather than on `oci-client`, which has no retries, no 429, reads manifests of
//! any length into memory, keeps the first credential that a client saw for a registry, sends it where
//! the realm says, and knows one mirror per reference. Each of these would have to be worked around.
//!
//! Invariants: a credential goes to the host it was given for, over TLS or a loopback or insecure-named
//! connection, and to a token server of that host or its domain; never further. A document is bounded
//! while it is read, and its digest is compared before it is parsed.

pub(crate) mod auth;
pub(crate) mod document;
pub(crate) mod error;
pub(crate) mod login;
pub(crate) mod platform;
pub(crate) mod session;
pub(crate) mod transport;
pub(crate) mod upload;

pub(crate) use error::RegistryError;
pub(crate) use session::Session;
pub(crate) use transport::Transports;

/// `host` of `host[:port]` or `[v6]:port`, without brackets.
pub(crate) fn host_without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

/// Whether a host name means this machine. Names are not looked up: only `localhost` counts.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host_without_port(host);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
