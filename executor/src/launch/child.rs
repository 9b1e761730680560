//! The new process of a container, from clone3 to execve.
//!
//! It is a fork of the single-threaded shim and runs ordinary code; whatever fails goes back to
//! the parent as a [`LaunchError`].

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::channel::Reporter;
use super::finish::{self, Streams};
use super::{LaunchError, Stdio, console, engine, mounts, rootfs};
use crate::capabilities::{CapSet, CapSets};
use crate::cgroup::setup::Entry;
use crate::plan::{ExecInput, Plan, ProcessPlan, UserChoice};
use crate::sys::{self, process};

/// Until nothing of the shim is left, nobody in the container may look into this process.
fn guard(reporter: &Reporter) -> Result<(), LaunchError> {
    process::set_parent_death_signal(libc::SIGKILL).map_err(engine("prctl"))?;
    if reporter.is_orphan() {
        process::exit_now(125);
    }
    process::set_dumpable(false).map_err(engine("prctl"))
}

/// Process 1. Returns only on failure.
pub(super) fn first_process(
    plan: &Plan,
    entry: &Entry,
    joined: &[(i32, OwnedFd)],
    stdio: Stdio,
    reporter: &Reporter,
) -> LaunchError {
    match prepare_root(plan, entry, joined, stdio, reporter) {
        Ok((root, streams)) => {
            finish::become_program(&root, &plan.process, &plan.confinement, streams, plan.init)
        }
        Err(error) => error,
    }
}

fn prepare_root(
    plan: &Plan,
    entry: &Entry,
    joined: &[(i32, OwnedFd)],
    stdio: Stdio,
    reporter: &Reporter,
) -> Result<(OwnedFd, Streams), LaunchError> {
    guard(reporter)?;
    process::umask(0);
    finish::set_limits(&plan.confinement, reporter)?;
    entry.enter().map_err(engine("entering the cgroup"))?;
    for (flag, namespace) in joined {
        process::setns(namespace, *flag).map_err(engine("joining a namespace"))?;
    }
    if plan.namespaces.new_cgroup {
        process::unshare(libc::CLONE_NEWCGROUP).map_err(engine("unshare"))?;
    }
    if let Some(name) = &plan.hostname {
        process::set_host_name(name).map_err(engine("sethostname"))?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domain_name(name).map_err(engine("setdomainname"))?;
    }
    if plan.namespaces.new & libc::CLONE_NEWNET as u64 != 0 {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| engine("socket")(error.into()))?;
        use std::os::fd::AsFd;
        sys::mount::loopback_up(socket.as_fd()).map_err(engine("bringing the loopback device up"))?;
    }
    let sources = mounts::open_sources(plan)?;
    rootfs::isolate(plan.root_slave).map_err(engine("making mounts private"))?;
    let root = rootfs::mount_root(&plan.root).map_err(engine("mounting the root file system"))?;
    mounts::mount_all(&root, plan, sources)?;
    let streams = match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => Streams::Pipes([stdin, stdout, stderr]),
        Stdio::Terminal { size } => {
            let pair = console::open(&root, size).map_err(engine("opening a terminal"))?;
            console::bind(&root, &pair).map_err(engine("binding /dev/console"))?;
            reporter.console(&pair.master).map_err(engine("passing the terminal"))?;
            Streams::Terminal(pair)
        }
    };
    if plan.process.create_cwd && plan.root_readonly {
        // It can be made only now; a failure is told when the directory is entered.
        super::resolve::ensure(&root, &plan.process.cwd, super::resolve::Want::Directory).ok();
    }
    mounts::protect(&root, plan)?;
    mounts::write_sysctls(&plan.sysctls)?;
    if plan.root_readonly {
        mounts::make_read_only(&root).map_err(engine("making the root read-only"))?;
    }
    rootfs::pivot(&root).map_err(engine("pivot_root"))?;
    Ok((root, streams))
}

/// A process of `exec`. Returns only on failure.
pub(super) fn further_process(
    plan: &Plan,
    entry: &Entry,
    init: BorrowedFd<'_>,
    exec: &ExecInput,
    stdio: Stdio,
    reporter: &Reporter,
) -> LaunchError {
    match enter_container(plan, entry, init, stdio, reporter) {
        Ok((root, streams)) => {
            let mut confinement = plan.confinement.clone();
            if exec.privileged {
                let all = CapSet::all();
                confinement.capabilities =
                    CapSets { bounding: all, effective: all, permitted: all, ..CapSets::default() };
            }
            let process = ProcessPlan {
                args: exec.args.clone(),
                env: exec.env.clone(),
                cwd: if exec.cwd.is_empty() { "/".into() } else { exec.cwd.clone() },
                create_cwd: false,
                user: UserChoice::Named(exec.user.clone()),
                group_add: exec.group_add.clone(),
                umask: plan.process.umask,
            };
            if process.args.first().is_none_or(|program| program.is_empty()) {
                return LaunchError { exit_code: 125, message: "no exec command specified".into() };
            }
            finish::become_program(&root, &process, &confinement, streams, false)
        }
        Err(error) => error,
    }
}

fn enter_container(
    plan: &Plan,
    entry: &Entry,
    init: BorrowedFd<'_>,
    stdio: Stdio,
    reporter: &Reporter,
) -> Result<(OwnedFd, Streams), LaunchError> {
    guard(reporter)?;
    finish::set_limits(&plan.confinement, reporter)?;
    entry.enter().map_err(engine("entering the cgroup"))?;
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    process::setns(init, all).map_err(engine("joining the container's namespaces"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        openat(CWD, "/", flags, Mode::empty()).map_err(|error| engine("opening the root")(error.into()))?;
    let streams = match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => Streams::Pipes([stdin, stdout, stderr]),
        Stdio::Terminal { size } => {
            let pair = console::open(&root, size).map_err(engine("opening a terminal"))?;
            reporter.console(&pair.master).map_err(engine("passing the terminal"))?;
            Streams::Terminal(pair)
        }
    };
    Ok((root, streams))
}
