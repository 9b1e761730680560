//! Making a container's group and entering it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::devices::{self, DeviceRule};
use super::hierarchies::Hierarchies;
use super::settings::Setting;
use crate::sys::bpf;

/// A group to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Path below each hierarchy's root.
    pub path: String,
    /// Limits, in order.
    pub settings: Vec<Setting>,
    /// What may be done with which device; empty is no rule at all.
    pub devices: Vec<DeviceRule>,
}

/// A made group, ready to be entered.
#[derive(Debug)]
pub enum Entry {
    /// The `tasks` file of each v1 hierarchy; a process enters by writing `0` itself. Another's pid
    /// in `cgroup.procs` would wait for a grace period of the kernel, some 12 ms.
    V1(Vec<OwnedFd>),
    /// The group's directory, for `CLONE_INTO_CGROUP`.
    V2(OwnedFd),
}

impl Entry {
    /// What clone3 takes.
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::V1(_) => None,
            Self::V2(directory) => Some(directory.as_fd()),
        }
    }

    /// The rest of entering, to be called in the new process.
    pub fn enter(&self) -> io::Result<()> {
        if let Self::V1(tasks) = self {
            for file in tasks {
                rustix::io::write(file, b"0")?;
            }
        }
        Ok(())
    }
}

/// A failed step, in words.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {}", crate::errors::text(source))]
pub struct SetupError {
    /// File or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_owned();
    move |source| SetupError { path, source }
}

impl Setup {
    /// Makes the group in every hierarchy and sets its limits. A leftover of the same name is
    /// reused. Returns warnings beside the entry.
    pub fn create(&self) -> Result<(Entry, Vec<String>), SetupError> {
        let mut warnings = vec![];
        let hierarchies = Hierarchies::host();
        let relative = self.path.trim_start_matches('/');
        if let Some(root) = &hierarchies.v2 {
            let directory = self.create_v2(root, relative, &mut warnings)?;
            return Ok((Entry::V2(directory), warnings));
        }
        let mut tasks = vec![];
        for hierarchy in &hierarchies.v1 {
            let cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
            let (directory, path) =
                make(
                    &hierarchy.root,
                    relative,
                    |parent, child| {
                        if cpuset { inherit_cpuset(parent, child) } else { Ok(()) }
                    },
                )?;
            for setting in self.settings.iter().filter(|s| hierarchy.controllers.contains(&s.controller)) {
                apply(&directory, &path, setting, &mut warnings)?;
            }
            if hierarchy.controllers.iter().any(|c| c == "devices") {
                for rule in &self.devices {
                    let (file, line) = rule.v1_line();
                    write(&directory, file, &line).map_err(at(&path.join(file)))?;
                }
            }
            tasks.push(open(&directory, "tasks", OFlags::WRONLY).map_err(at(&path.join("tasks")))?);
        }
        if let Some(missing) = self.settings.iter().find(|s| hierarchies.v1_root(&s.controller).is_none()) {
            if missing.optional {
                warnings.push(format!("the kernel has no {} controller", missing.controller));
            } else {
                let source =
                    io::Error::other(format!("the {} controller is not mounted", missing.controller));
                return Err(SetupError { path: missing.file.clone().into(), source });
            }
        }
        Ok((Entry::V1(tasks), warnings))
    }

    fn create_v2(
        &self,
        root: &Path,
        relative: &str,
        warnings: &mut Vec<String>,
    ) -> Result<OwnedFd, SetupError> {
        let (directory, path) = make(root, relative, |parent, _child| delegate(parent))?;
        for setting in &self.settings {
            apply(&directory, &path, setting, warnings)?;
        }
        if !self.devices.is_empty() {
            let program = bpf::load_device_program(&devices::program(&self.devices));
            program
                .and_then(|program| bpf::attach_device_program(&program, &directory))
                .map_err(at(&path))?;
        }
        Ok(directory)
    }
}

/// Makes `relative` below `root` step by step, telling `prepare` (parent, child) of each.
fn make(
    root: &Path,
    relative: &str,
    prepare: impl Fn(&OwnedFd, &OwnedFd) -> io::Result<()>,
) -> Result<(OwnedFd, PathBuf), SetupError> {
    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let mut path = root.to_owned();
    let mut directory: OwnedFd =
        rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty()).map_err(io::Error::from).map_err(at(root))?;
    for part in relative.split('/') {
        path.push(part);
        match rustix::fs::mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(at(&path)(error.into())),
        }
        let child = open(&directory, part, DIRECTORY).map_err(at(&path))?;
        prepare(&directory, &child).map_err(at(&path))?;
        directory = child;
    }
    Ok((directory, path))
}

fn open(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn write(directory: &OwnedFd, file: &str, value: &str) -> io::Result<()> {
    let file = open(directory, file, OFlags::WRONLY)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

fn read(directory: &OwnedFd, file: &str) -> io::Result<String> {
    let file = open(directory, file, OFlags::RDONLY)?;
    let mut buffer = [0u8; 4096];
    let length = rustix::io::read(&file, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}

pub(super) fn apply(
    directory: &OwnedFd,
    path: &Path,
    setting: &Setting,
    warnings: &mut Vec<String>,
) -> Result<(), SetupError> {
    match write(directory, &setting.file, &setting.value) {
        Ok(()) => Ok(()),
        Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {
            warnings.push(format!("the kernel has no {}; the limit is not in force", setting.file));
            Ok(())
        }
        Err(error) => Err(at(&path.join(&setting.file))(error)),
    }
}

/// A new cpuset group of v1 has no CPUs and takes no process.
fn inherit_cpuset(parent: &OwnedFd, child: &OwnedFd) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(child, file)?.is_empty() {
            write(child, file, &read(parent, file)?)?;
        }
    }
    Ok(())
}

/// Lets the children of a v2 group have controllers.
fn delegate(parent: &OwnedFd) -> io::Result<()> {
    let available = read(parent, "cgroup.controllers")?;
    let enabled = read(parent, "cgroup.subtree_control")?;
    for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
        let has = |list: &str| list.split(' ').any(|name| name == controller);
        if has(&available) && !has(&enabled) {
            write(parent, "cgroup.subtree_control", &format!("+{controller}"))?;
        }
    }
    Ok(())
}
