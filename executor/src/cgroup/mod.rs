//! Control groups: v1, hybrid and v2, through cgroupfs.

pub mod devices;
pub mod hierarchies;
pub mod settings;
pub mod setup;
mod usage;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cgroup::hierarchies::Hierarchies;
use crate::spec::{Resources, SpecError, resources_to_oci};
use crate::sys::process;

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

    /// The group's directories: one on v2, one a hierarchy on v1; only those that exist.
    fn directories(&self) -> Vec<PathBuf> {
        let relative = self.path.trim_start_matches('/');
        let hierarchies = Hierarchies::host();
        let roots = hierarchies.v2.iter().chain(hierarchies.v1.iter().map(|h| &h.root));
        roots.map(|root| root.join(relative)).filter(|path| path.is_dir()).collect()
    }

    /// The directory that has a controller's files.
    fn directory(&self, controller: &str) -> io::Result<PathBuf> {
        let hierarchies = Hierarchies::host();
        let root = hierarchies.v2.as_ref().or_else(|| hierarchies.v1_root(controller));
        let missing = || io::Error::other(format!("the {controller} controller is not mounted"));
        Ok(root.ok_or_else(missing)?.join(self.path.trim_start_matches('/')))
    }

    fn read(&self, controller: &str, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.directory(controller)?.join(file))
    }

    /// A file with one number; `None` where it is not there or says `max`.
    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file).ok()?.trim().parse().ok()
    }

    /// Every process in the group and the groups below it, as the host sees them. Empty where the
    /// group is gone.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let Some(directory) = self.directories().into_iter().next() else { return Ok(vec![]) };
        let directory = self.directory("freezer").ok().filter(|d| d.is_dir()).unwrap_or(directory);
        let mut all = vec![];
        walk(&directory, &mut |group| {
            match std::fs::read_to_string(group.join("cgroup.procs")) {
                Ok(text) => all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Stops every process of the group (freezer). Returns once they are frozen; blocks.
    pub fn freeze(&self) -> io::Result<()> {
        self.set_frozen(true)
    }

    /// Lets them go on. Returns once they run; blocks.
    pub fn thaw(&self) -> io::Result<()> {
        self.set_frozen(false)
    }

    /// Whether the group is frozen, or about to be.
    pub fn is_frozen(&self) -> io::Result<bool> {
        let directory = self.directory("freezer")?;
        if Hierarchies::host().is_v2() {
            return Ok(std::fs::read_to_string(directory.join("cgroup.freeze"))?.trim() == "1");
        }
        Ok(std::fs::read_to_string(directory.join("freezer.state"))?.trim() != "THAWED")
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let directory = self.directory("freezer")?;
        let v2 = Hierarchies::host().is_v2();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // v1 wants to be told again where a process forked in between.
            if v2 {
                std::fs::write(directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
                let events = std::fs::read_to_string(directory.join("cgroup.events"))?;
                if keyed(&events, "frozen") == Some(frozen.into()) {
                    return Ok(());
                }
            } else {
                let word = if frozen { "FROZEN" } else { "THAWED" };
                std::fs::write(directory.join("freezer.state"), word)?;
                if std::fs::read_to_string(directory.join("freezer.state"))?.trim() == word {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                if frozen {
                    self.set_frozen(false)?;
                }
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the processes could not be frozen in time",
                ));
            }
            std::thread::sleep(STEP);
        }
    }

    /// Sends SIGKILL to every process until none is left, frozen ones too. Blocks.
    pub fn kill_all(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            let v2_kill = self.directory("freezer").map(|d| d.join("cgroup.kill")).ok();
            let v2_kill = v2_kill.filter(|_| Hierarchies::host().is_v2());
            if v2_kill.is_none_or(|file| std::fs::write(file, "1").is_err()) {
                for pid in processes {
                    match process::kill(pid, libc::SIGKILL) {
                        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                        _ => {}
                    }
                }
            }
            // What is frozen dies only once it is thawed.
            let frozen = self.directory("freezer")?.join("freezer.state");
            if std::fs::read_to_string(&frozen).is_ok_and(|state| state.trim() != "THAWED") {
                std::fs::write(frozen, "THAWED")?;
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes are left after SIGKILL"));
            }
            std::thread::sleep(STEP);
        }
    }

    /// Changes limits while the container runs. What is `None` stays as it is.
    pub fn update(&self, resources: &Resources) -> io::Result<()> {
        let invalid = |error: SpecError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
        let oci = resources_to_oci(resources, vec![]).map_err(invalid)?;
        let v2 = Hierarchies::host().is_v2();
        let mut settings = settings::settings(&oci, v2).map_err(invalid)?;
        if !v2 {
            self.order_memory(&mut settings);
        }
        for setting in settings {
            let file = self.directory(&setting.controller)?.join(&setting.file);
            match std::fs::write(&file, &setting.value) {
                Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let text = format!("{}: {}", file.display(), crate::errors::text(&error));
                    return Err(io::Error::new(error.kind(), text));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// v1 refuses a memory limit above memory-and-swap at any moment: whoever raises goes first with
    /// the sum.
    fn order_memory(&self, settings: &mut [settings::Setting]) {
        let position = |file: &str| settings.iter().position(|s| s.file == file);
        let (Some(limit), Some(sum)) =
            (position("memory.limit_in_bytes"), position("memory.memsw.limit_in_bytes"))
        else {
            return;
        };
        let current = self.number("memory", "memory.memsw.limit_in_bytes").unwrap_or(u64::MAX);
        let raises = settings[limit].value.parse::<u64>().is_ok_and(|limit| limit > current);
        if raises && limit < sum {
            settings.swap(limit, sum);
        }
    }

    /// What was used so far. Zero where a controller is missing; an error where the group is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        if self.directories().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(usage::read(self))
    }

    /// Removes the group and those below it from every hierarchy; no error where it is gone already.
    /// Waits a little for processes that are just ending; blocks.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut first_error = None;
        for directory in self.directories() {
            let result = walk(&directory, &mut |group| {
                loop {
                    match std::fs::remove_dir(group) {
                        Ok(()) => return Ok(()),
                        Err(error) if gone(&error) => return Ok(()),
                        Err(error)
                            if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                        {
                            std::thread::sleep(STEP);
                        }
                        Err(error) => return Err(error),
                    }
                }
            });
            first_error = first_error.or(result.err());
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// How long the kernel may take for what usually takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a file of the kernel that cannot be waited for.
const STEP: Duration = Duration::from_millis(1);

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Calls `visit` for every group below `directory`, then for itself.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                        walk(&entry.path(), visit)?
                    }
                    Ok(_) => {}
                    Err(error) if gone(&error) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    visit(directory)
}

/// The number behind a key in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
