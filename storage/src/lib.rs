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
//! trash/<random>              what was removed and is being deleted; emptied at start
//! containers/<id>/            the engine's: log files, hosts, hostname, resolv.conf
//! ```
//!
//! Intent first: a staging directory -> `syncfs` -> rename -> row. What has no row is swept at start.

#![forbid(unsafe_code)]

pub mod archive;
mod blobs;
mod check;
mod db;
mod digest;
mod error;
mod failpoint;
mod gc;
mod images;
pub mod layer_tar;
mod layers;
mod options;
mod paths;
mod policy;
mod pull;
mod push;
pub mod recipe;
mod reference;
mod registry;
mod request;
mod serve;
mod store;
pub mod tar;
mod trash;
pub mod unpack;
mod usage;

pub use archive::{ArchiveError, ArchiveStream, CommitRequest, ImportOptions, Loaded, tree_tar};
pub use check::Finding;
pub use digest::Digest;
pub use error::{LookupError, RemoveError, StoreError};
pub use gc::Collected;
pub use images::{Document, Image, ImageId};
pub use options::{Budget, RegistryOptions, StoreOptions};
pub use policy::Policy;
pub use push::{PushError, PushRequest, Pushed};
pub use reference::Reference;
pub use registry::login::{Login, LoginError, SearchResult};
pub use request::{Credentials, Progress, ProgressSink, PullError, PullRequest};
pub use serve::{Served, ServedBody};
pub use store::{ContainerRow, Damage, ImageUse, LayerSource, PruneScope, Pruned, Removal, RootMount, Store};
pub use usage::{DiskUsage, ImageUsage};
