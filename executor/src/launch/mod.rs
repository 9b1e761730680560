//! Applying a plan: called by the shim, which is single-threaded, static and has no runtime.

mod channel;
mod child;
mod console;
mod finish;
mod init;
mod mounts;
mod program;
mod resolve;
mod rootfs;
mod user;

pub use self::rootfs::read_only_view;

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::cgroup::setup::{Entry, Setup};
use crate::launch::channel::{Listener, Report, channel};
use crate::plan::{ExecInput, Plan};
use crate::sys::process::{self, Fork};

/// The process' standard streams, as seen from the shim.
#[derive(Debug)]
pub enum Stdio {
    /// Three ends of pipes (or /dev/null) that become fds 0, 1 and 2.
    Pipes {
        /// Read end.
        stdin: OwnedFd,
        /// Write end.
        stdout: OwnedFd,
        /// Write end.
        stderr: OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts; its master comes back in [`Launched`].
    Terminal {
        /// Rows and columns at the start.
        size: Option<(u16, u16)>,
    },
}

/// A process that runs the user's program (`execve` has succeeded).
#[derive(Debug)]
pub struct Launched {
    /// Process id as the shim sees it.
    pub pid: i32,
    /// The same as a pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master.
    pub console: Option<OwnedFd>,
    /// What could not be done and was not worth failing for.
    pub warnings: Vec<String>,
}

/// Why a process could not be started. Travels to the daemon; the message is Docker's.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct LaunchError {
    /// 125 for the engine's own errors, 126 for a program that cannot be executed, 127 for one
    /// that is not there.
    pub exit_code: i32,
    /// For example `exec: "foo": executable file not found in $PATH`.
    pub message: String,
}

/// Makes an error of the engine's own: what was being done, and why it failed.
fn engine(doing: impl Display) -> impl FnOnce(io::Error) -> LaunchError {
    let doing = doing.to_string();
    move |error| LaunchError { exit_code: 125, message: format!("{doing}: {}", crate::errors::text(&error)) }
}

/// Makes the control group, namespaces and root, and starts the container's first process.
/// Blocks until the program runs or has failed; a failure leaves nothing behind.
pub fn launch(plan: &Plan, stdio: Stdio) -> Result<Launched, LaunchError> {
    process::ensure_single_threaded().map_err(engine("launch"))?;
    let result = launch_in_group(plan, stdio);
    if result.is_err() {
        // The first error is the one to tell.
        clean_up(plan).ok();
    }
    result
}

fn launch_in_group(plan: &Plan, stdio: Stdio) -> Result<Launched, LaunchError> {
    let (entry, warnings) = plan.cgroup.create().map_err(|error| LaunchError {
        exit_code: 125,
        message: format!("unable to apply cgroup configuration: {error}"),
    })?;
    let open = |path: &std::path::Path| openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut joined = vec![];
    let mut pid_namespace = None;
    for (flag, path) in &plan.namespaces.join {
        let fd = open(path)
            .map_err(|error| engine(format_args!("opening namespace {}", path.display()))(error.into()))?;
        if *flag == libc::CLONE_NEWPID { pid_namespace = Some(fd) } else { joined.push((*flag, fd)) }
    }
    let (listener, reporter) = channel().map_err(engine("socketpair"))?;
    let forked = fork_into(pid_namespace.as_ref(), plan.namespaces.new, &entry).map_err(engine("clone"))?;
    match forked {
        Fork::Child => {
            drop(listener);
            let error = child::first_process(plan, &entry, &joined, stdio, &reporter);
            reporter.fail(&error);
            process::exit_now(error.exit_code)
        }
        Fork::Parent { pid, pidfd } => {
            drop((reporter, stdio));
            listen(&listener, pid, pidfd, warnings)
        }
    }
}

/// Forks with the child in another pid namespace (of a pidfd or namespace fd).
fn fork_into(pid_namespace: Option<&OwnedFd>, new_namespaces: u64, entry: &Entry) -> io::Result<Fork> {
    let Some(namespace) = pid_namespace else { return process::clone3(new_namespaces, entry.clone_target()) };
    let own = openat(CWD, "/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Changes where children are born, not where the caller is.
    process::setns(namespace, libc::CLONE_NEWPID)?;
    let forked = process::clone3(new_namespaces, entry.clone_target());
    if matches!(forked, Ok(Fork::Child)) {
        return forked;
    }
    let back = process::setns(own, libc::CLONE_NEWPID);
    match (forked, back) {
        (Ok(Fork::Parent { pid, .. }), Err(error)) => {
            process::kill(pid, libc::SIGKILL).ok();
            process::wait_for(pid).ok();
            Err(error)
        }
        (forked, _) => forked,
    }
}

/// Hears the new process out until it has become the program or failed.
fn listen(
    listener: &Listener,
    pid: i32,
    pidfd: OwnedFd,
    mut warnings: Vec<String>,
) -> Result<Launched, LaunchError> {
    let mut console = None;
    loop {
        let failure = match listener.next() {
            Ok(None) => return Ok(Launched { pid, pidfd, console, warnings }),
            Ok(Some(Report::Console(master))) => {
                console = Some(master);
                continue;
            }
            Ok(Some(Report::Warning(text))) => {
                warnings.push(text);
                continue;
            }
            Ok(Some(Report::Failure(failure))) => failure,
            Err(error) => engine("listening to the new process")(error),
        };
        // With an init in between, the program's process is a child of process 1, which goes with it.
        process::kill(pid, libc::SIGKILL).ok();
        process::wait_for(pid).ok();
        return Err(failure);
    }
}

/// Starts a further process in the container whose first process is `init`.
/// Blocks until the program runs or has failed.
pub fn join(plan: &Plan, init: &Launched, exec: &ExecInput, stdio: Stdio) -> Result<Launched, LaunchError> {
    process::ensure_single_threaded().map_err(engine("exec"))?;
    let entry = existing_group(&plan.cgroup).map_err(engine("opening the container's cgroup"))?;
    let (listener, reporter) = channel().map_err(engine("socketpair"))?;
    let forked = fork_into(Some(&init.pidfd), 0, &entry);
    let forked = forked.map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH | libc::ENOMEM) => engine("container is not running")(error),
        _ => engine("clone")(error),
    })?;
    match forked {
        Fork::Child => {
            drop(listener);
            let error = child::further_process(plan, &entry, init.pidfd.as_fd(), exec, stdio, &reporter);
            reporter.fail(&error);
            process::exit_now(error.exit_code)
        }
        Fork::Parent { pid, pidfd } => {
            drop((reporter, stdio));
            listen(&listener, pid, pidfd, vec![])
        }
    }
}

/// The group of a running container.
fn existing_group(setup: &Setup) -> io::Result<Entry> {
    // Making what exists changes nothing, and limits may have been updated since.
    let bare = Setup { path: setup.path.clone(), settings: vec![], devices: vec![] };
    bare.create().map(|(entry, _)| entry).map_err(io::Error::other)
}

/// Removes what [`launch`] made outside the container's namespaces (its control groups), after
/// killing whatever is left in them. Does all it can and reports the first error.
pub fn clean_up(plan: &Plan) -> Result<(), LaunchError> {
    let group = Cgroup::new(plan.cgroup.path.as_str());
    let killed = group.kill_all();
    let removed = group.remove();
    killed.and(removed).map_err(engine(format_args!("removing cgroup {}", plan.cgroup.path)))
}
