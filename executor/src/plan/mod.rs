//! A plan: everything a launch does, decided beforehand, as data.

mod build;
mod mounts;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::capabilities::CapSets;
use crate::cgroup::devices::NodeKind;
use crate::cgroup::setup::Setup;
pub use crate::plan::mounts::{MountKind, MountStep};
use crate::seccomp::Filter;

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
pub struct Plan {
    /// The control group.
    pub cgroup: Setup,
    /// Which namespaces are new, and which are joined.
    pub namespaces: NamespacePlan,
    /// Host name, in a UTS namespace of its own.
    pub hostname: Option<String>,
    /// NIS domain name, likewise.
    pub domainname: Option<String>,
    /// The root file system.
    pub root: RootSource,
    /// Whether it is read-only in the end.
    pub root_readonly: bool,
    /// Whether mounts of the host go on arriving in bind mounts that ask for it.
    pub root_slave: bool,
    /// In order.
    pub mounts: Vec<MountStep>,
    /// Nodes to be made.
    pub devices: Vec<DeviceNode>,
    /// Paths hidden behind nothing.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Files below `/proc/sys` and what is written to them.
    pub sysctls: Vec<(String, String)>,
    /// The first process.
    pub process: ProcessPlan,
    /// What it may do.
    pub confinement: Confinement,
    /// Whether our own init is process 1, and the program its child.
    pub init: bool,
}

/// Namespaces by `CLONE_NEW*` flag.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// New ones, made by clone3.
    pub new: u64,
    /// A new control group namespace, made once the group has been entered.
    pub new_cgroup: bool,
    /// Joined ones.
    pub join: Vec<(i32, PathBuf)>,
}

/// A device node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct DeviceNode {
    pub path: String,
    pub kind: NodeKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What is run and as whom.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Complete, but for HOME.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// Make `cwd` where it does not exist.
    pub create_cwd: bool,
    /// As whom.
    pub user: UserChoice,
    /// Further groups, by name or number.
    pub group_add: Vec<String>,
    /// File mode creation mask.
    pub umask: u32,
}

/// Who a process runs as.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum UserChoice {
    /// `user[:group]`, looked up in the container's root.
    Named(String),
    /// As the specification says, nothing looked up.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
}

impl Default for UserChoice {
    fn default() -> Self {
        Self::Named(String::new())
    }
}

/// What holds for every process of the container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// Capabilities.
    pub capabilities: CapSets,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// The filter.
    pub seccomp: Option<Filter>,
    /// Kernel number (`RLIMIT_*`), soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// For the OOM killer; the daemon's own is never inherited.
    pub oom_score_adj: i32,
}

/// A further process in a running container (`exec`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
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
