//! A plan: everything a launch does, decided beforehand, as data.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::spec::SpecError;

/// Where the root file system comes from. It is mounted in the container's own mount namespace
/// and nowhere else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum RootSource {
    /// overlayfs: `lower` from the top layer down, at most 500, on any absolute paths.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// overlayfs' work directory, beside `upper`.
        work: PathBuf,
    },
    /// A plain directory (a bundle's `rootfs`).
    Directory(PathBuf),
}

/// What the specification does not say and Docker needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Extras {
    /// See [`crate::spec::SpecInput::user`]; overrides the specification's numeric user.
    pub user: Option<String>,
    /// See [`crate::spec::SpecInput::group_add`].
    pub group_add: Vec<String>,
    /// Make the working directory where it does not exist.
    pub create_cwd: bool,
    /// Run our own init as process 1.
    pub init: bool,
}

/// The operations of one launch, in order. Serialisable, since it travels to the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {}

impl Plan {
    /// Decides everything. Pure apart from reading which cgroup version the host has.
    pub fn new(spec: &Spec, root: &RootSource, extras: &Extras) -> Result<Self, SpecError> {
        let _unused = (spec, root, extras);
        Err(SpecError::Invalid("not yet".into()))
    }
}

/// A further process in a running container (`exec`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExecInput {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// The complete environment.
    pub env: Vec<String>,
    /// Working directory in the container; it must exist.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Supplementary groups beside those of the user.
    pub group_add: Vec<String>,
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
    /// All capabilities, whatever the container has.
    pub privileged: bool,
}
