//! Blobs, layers, snapshots, images, and the one database.
//!
//! ```text
//! registry ─pull→ blobs ─ctld-unpack→ layers (by diff id) ─prepare→ snapshots (a writable layer each)
//!                  └ config, manifest → images (by id = digest of the config), names → image ids
//! ```
//!
//! Data root (all 0700):
//! ```text
//! ctl.db                      SQLite, WAL; the truth for intent; opened by this process alone
//! lock                        flock, one daemon per data root
//! blobs/sha256/<hex>          manifests, indexes, configs (small; never layers, unless `keep_blobs`)
//! layers/<diff hex>/fs        an unpacked layer, in overlayfs' own form (whiteouts as 0/0 devices)
//! layers/<diff hex>/tar.zst   the recipe that makes the exact tar again (headers and padding)
//! snapshots/<container id>/{upper,work}
//! staging/<random>            work in progress; swept at start
//! partial/<digest hex>        bytes of interrupted downloads
//! containers/<id>/            the engine's: log files, hosts, hostname, resolv.conf
//! ```
//!
//! Intent first: a staging directory -> `syncfs` -> rename -> row. What has no row is swept at start.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;

mod archive;
mod digest;
pub mod layer_tar;
mod pull;
pub mod recipe;
mod reference;
mod registry;
mod seam;
pub mod tar;
pub mod unpack;
pub use archive::{ArchiveError, ArchiveStream, CommitRequest, ImportOptions, Loaded, tree_tar};
pub use digest::Digest;
pub use reference::Reference;
pub use seam::*;
