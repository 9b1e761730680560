//! Unpacking one layer in the worker `ctld-unpack`.
//!
//! The daemon never parses a layer: it pipes the blob, exactly as received, into a worker that sees
//! nothing but the staging directory, and reads one line of JSON back.
//!
//! ```text
//! staging/         made by the caller, empty
//! staging/fs       the tree, in overlayfs' form
//! staging/tar.zst  the recipe that makes the exact tar again
//! ```

mod protocol;
mod worker;

pub use protocol::{ErrorKind, Report};
pub use worker::{LayerUnpacker, UnpackError, Unpacked};
