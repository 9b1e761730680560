//! How a store is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// See the crate's documentation for what it holds.
    pub data_root: PathBuf,
    /// The program `ctld-unpack`.
    pub unpack_worker: PathBuf,
    /// Settings by registry host (`host[:port]`).
    pub registries: BTreeMap<String, RegistryOptions>,
    /// Layers that are fetched and unpacked side by side in one pull.
    pub parallel_layers: usize,
    /// Keep compressed layer blobs as they came.
    pub keep_blobs: bool,
    /// Blocks of all unpacked layers in bytes, beyond which the least recently used images are evicted.
    pub disk_budget_bytes: Option<u64>,
    /// Bounds on what an image may hold.
    pub budget: Budget,
}

/// Settings of one registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Plain HTTP, or TLS without verification, is allowed. Loopback addresses are always allowed HTTP.
    pub insecure: bool,
    /// PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Base URLs that are asked first, in order; the registry itself is the last resort.
    pub mirrors: Vec<String>,
    /// What is asked of images, by repository or path of repositories; the empty path is the whole
    /// registry.
    pub policies: BTreeMap<String, crate::Policy>,
}

/// Bounds that a hostile image meets.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes of file content in one layer.
    pub layer_bytes: u64,
    /// Entries in one layer.
    pub layer_entries: u64,
    /// Bytes of a manifest, index or configuration.
    pub document_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { layer_bytes: 256 << 30, layer_entries: 10_000_000, document_bytes: 8 << 20 }
    }
}
