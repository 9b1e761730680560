//! What the worker says at its end: one line of JSON on stdout.

use serde::{Deserialize, Serialize};

/// The worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    /// The layer is unpacked.
    Done {
        /// `sha256:<hex>` of the tar.
        diff_id: String,
        /// `sha256:<hex>` of the bytes as received.
        blob_digest: String,
        /// How many were received.
        blob_bytes: u64,
        /// Sum of the sizes of the regular files.
        size_bytes: u64,
        /// Entries of the tar.
        entries: u64,
    },
    /// It is not; what the staging directory holds is to be thrown away.
    Failed {
        /// For the client to read.
        error: String,
        /// What kind of failure.
        kind: ErrorKind,
    },
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The blob is damaged or not acceptable.
    Corrupt,
    /// A bound was reached.
    Budget,
    /// This machine: disk full and the like.
    Local,
}
