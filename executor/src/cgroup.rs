//! Control groups: v1, hybrid and v2, through cgroupfs.

use std::io;

use serde::{Deserialize, Serialize};

use crate::spec::Resources;

/// A container's control group, by its path below the root of each hierarchy (`/ctl/<id>`).
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: String,
}

/// What a control group has used; zero where the host does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in nanoseconds: total, in the kernel, in user space.
    pub cpu_ns: (u64, u64, u64),
    /// Memory in bytes, page cache that can be given back taken off as Docker does.
    pub memory_bytes: u64,
    /// Memory limit in bytes; `None` without one.
    pub memory_limit_bytes: Option<u64>,
    /// Number of tasks.
    pub pids: u64,
    /// How often the OOM killer killed a process of this group.
    pub oom_kills: u64,
}

impl Cgroup {
    /// Names a control group; touches nothing.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    /// The path below each hierarchy's root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Every process in the group, as the host sees them.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Stops every process of the group (freezer). Returns once they are frozen; blocks.
    pub fn freeze(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Lets them go on.
    pub fn thaw(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends SIGKILL to every process until none is left, frozen ones too. Blocks.
    pub fn kill_all(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Changes limits while the container runs.
    pub fn update(&self, resources: &Resources) -> io::Result<()> {
        let _unused = resources;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What was used so far.
    pub fn usage(&self) -> io::Result<Usage> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes the group from every hierarchy; no error where it is gone already.
    pub fn remove(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
