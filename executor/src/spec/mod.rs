//! The OCI runtime specification of a container (<https://github.com/opencontainers/runtime-spec>).

mod build;
mod defaults;
mod resources;
mod validate;

use std::path::PathBuf;

pub use build::build;
pub(crate) use resources::to_oci as resources_to_oci;
use serde::{Deserialize, Serialize};
pub(crate) use validate::RLIMITS;

/// What the engine wants, in the field's terms and without Docker's historical shapes.
/// Everything that is not said takes Docker's default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecInput {
    /// The container's full id (64 hex digits).
    pub id: String,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value` entries, complete: what the image, the user and the engine say, in that order.
    pub env: Vec<String>,
    /// Working directory, absolute; created in the root where it does not exist.
    pub cwd: String,
    /// `user[:group]`, names or numbers, resolved inside the container's root. Empty is root.
    pub user: String,
    /// Supplementary groups by name or number (`--group-add`).
    pub group_add: Vec<String>,
    /// Host name; `None` with the host's UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Whether the process gets a pseudo-terminal.
    pub terminal: bool,
    /// Size of the terminal as (rows, columns).
    pub console_size: Option<(u16, u16)>,
    /// All capabilities, all devices, no masked paths, no seccomp.
    pub privileged: bool,
    /// `--cap-add`, with or without `CAP_`, `ALL` allowed.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// The root file system is mounted read-only.
    pub read_only_root: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// `--init`: our own tiny init is process 1.
    pub init: bool,
    /// The seccomp profile.
    pub seccomp: SeccompProfile,
    /// Which namespaces are the container's own.
    pub namespaces: Namespaces,
    /// Mounts beside the defaults (/proc, /dev, /sys, /dev/shm, …), in order: the hosts, hostname
    /// and resolv.conf files, binds, tmpfs.
    pub mounts: Vec<MountInput>,
    /// Size of /dev/shm in bytes; 64 MiB by default.
    pub shm_size_bytes: Option<i64>,
    /// Resource limits.
    pub resources: Resources,
    /// Path of the control group below the hierarchy's root, such as `/ctl/<id>`.
    pub cgroup_path: String,
    /// `--sysctl`.
    pub sysctls: Vec<(String, String)>,
    /// `--ulimit` as (name such as `nofile`, soft, hard).
    pub rlimits: Vec<(String, u64, u64)>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--device`: host path, path in the container, permissions such as `rwm`.
    pub devices: Vec<(String, String, String)>,
    /// `None` for Docker's masked paths, `Some(vec![])` for none.
    pub masked_paths: Option<Vec<String>>,
    /// `None` for Docker's read-only paths, `Some(vec![])` for none.
    pub readonly_paths: Option<Vec<String>>,
    /// Annotations of the specification; only ever ours, never an image's.
    pub annotations: Vec<(String, String)>,
}

/// Which seccomp filter the container's processes get.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// Docker's default profile, by the container's capabilities.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON form.
    Custom(String),
}

/// A namespace is the container's own, the host's, or another's by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one at this path (`/proc/<pid>/ns/…`), opened by the shim.
    Path(PathBuf),
}

/// The container's namespaces; mount and (on the default) all others are private.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// Network. `Private` has a loopback device that is up, and nothing else.
    pub net: Namespace,
    /// System V IPC and POSIX queues.
    pub ipc: Namespace,
    /// Host and domain name.
    pub uts: Namespace,
    /// Control groups.
    pub cgroup: Namespace,
}

/// One mount beside the defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountInput {
    /// Absolute path in the container, resolved inside its root (R1).
    pub destination: String,
    /// What is mounted there.
    pub source: MountSource,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Further options in mount(8)'s words (`noexec`, `rshared`, `size=64m`, `mode=1777`).
    pub options: Vec<String>,
}

/// What a mount shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind(PathBuf),
    /// A new tmpfs.
    Tmpfs,
}

/// Resource limits; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: Option<i64>,
    /// Memory plus swap in bytes, -1 for unlimited swap.
    pub memory_swap_bytes: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// 0 to 100, v1 only.
    pub memory_swappiness: Option<i64>,
    /// v1 only.
    pub oom_kill_disable: bool,
    /// CPU time in billionths of a CPU (`--cpus`); becomes a quota over 100 ms.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2 to 262144, 1024 by default.
    pub cpu_shares: Option<i64>,
    /// Quota in microseconds a period.
    pub cpu_quota_us: Option<i64>,
    /// Period in microseconds.
    pub cpu_period_us: Option<i64>,
    /// CPUs such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Number of tasks; -1 is unlimited.
    pub pids_limit: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
}

/// Why a specification was refused; reads as Docker's message.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A field has a value that cannot work; the text names both.
    #[error("{0}")]
    Invalid(String),
}
