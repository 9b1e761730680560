//! The last steps of a new process, the same for process 1 and for `exec`: streams, working
//! directory, user, capabilities, seccomp, exec.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Gid, OFlags, Uid, fchown, fstat};
use rustix::process::fchdir;

use super::channel::Reporter;
use super::resolve::{self, Want};
use super::user::{self, Identity};
use super::{LaunchError, console, engine, init, program};
use crate::capabilities::SYS_ADMIN;
use crate::plan::{Confinement, ProcessPlan};
use crate::sys::process::{self, Fork};

/// Descriptors that become 0, 1 and 2.
pub(super) enum Streams {
    Pipes([OwnedFd; 3]),
    Terminal(console::Pair),
}

/// Resource limits and the OOM score, set early: while the host's procfs is in view and all
/// privileges are there. What is not permitted is a warning.
pub(super) fn set_limits(confinement: &Confinement, reporter: &Reporter) -> Result<(), LaunchError> {
    let wanted = confinement.oom_score_adj.to_string();
    let file = "/proc/self/oom_score_adj";
    let write = || -> io::Result<()> {
        if std::fs::read_to_string(file)?.trim() != wanted {
            std::fs::write(file, &wanted)?;
        }
        Ok(())
    };
    match write() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            reporter.warn("oom_score_adj could not be lowered: permission denied");
        }
        other => other.map_err(engine("setting oom_score_adj"))?,
    }
    for (resource, soft, hard) in &confinement.rlimits {
        match process::set_rlimit(*resource, *soft, *hard) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                // As far as it goes without CAP_SYS_RESOURCE.
                let (_, most) = process::rlimit(*resource).map_err(engine("reading a resource limit"))?;
                let (soft, hard) = ((*soft).min(most), (*hard).min(most));
                process::set_rlimit(*resource, soft, hard).map_err(engine("setting a resource limit"))?;
                reporter.warn(&format!("resource limit {resource} could not be raised over {most}"));
            }
            other => other.map_err(engine("setting a resource limit"))?,
        }
    }
    Ok(())
}

/// Becomes the program. Returns only on failure. `root` is the container's root directory.
pub(super) fn become_program(
    root: &OwnedFd,
    plan: &ProcessPlan,
    confinement: &Confinement,
    streams: Streams,
    with_init: bool,
) -> LaunchError {
    match prepare_and_execute(root, plan, confinement, streams, with_init) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

fn prepare_and_execute(
    root: &OwnedFd,
    plan: &ProcessPlan,
    confinement: &Confinement,
    streams: Streams,
    with_init: bool,
) -> Result<Never, LaunchError> {
    let identity = user::identity(root, plan)?;
    process::umask(plan.umask);
    enter_working_directory(root, plan)?;
    rustix::process::setsid().map_err(|error| engine("setsid")(error.into()))?;
    let has_terminal = matches!(streams, Streams::Terminal(_));
    set_streams(streams, &identity).map_err(engine("setting up the standard streams"))?;
    let mut env = plan.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    if with_init {
        init::block_signals().map_err(engine("blocking signals"))?;
        match process::clone3(0, None).map_err(engine("fork"))? {
            Fork::Parent { pid, .. } => {
                // Under its own rules but for the filter, which it needs no more than tini does.
                confine(confinement, &identity, false)?;
                init::run(pid);
            }
            Fork::Child => {
                if has_terminal {
                    take_terminal().map_err(engine("taking the terminal"))?;
                }
            }
        }
    }
    process::reset_signals().map_err(engine("resetting signals"))?;
    process::close_on_exec_from(3).map_err(engine("closing descriptors"))?;
    let program = confine_and_find(confinement, &identity, &plan.args[0], &env)?;
    Err(program::execute(&program, &plan.args, &env))
}

/// The program is looked up as the user, but before the filter can get in the way.
fn confine_and_find(
    confinement: &Confinement,
    identity: &Identity,
    name: &str,
    env: &[String],
) -> Result<String, LaunchError> {
    let mut found = Ok(String::new());
    confine_with(confinement, identity, true, || found = program::look_up(name, env))?;
    found
}

fn confine(confinement: &Confinement, identity: &Identity, filter: bool) -> Result<(), LaunchError> {
    confine_with(confinement, identity, filter, || {})
}

fn confine_with(
    confinement: &Confinement,
    identity: &Identity,
    filter: bool,
    as_user: impl FnOnce(),
) -> Result<(), LaunchError> {
    let sets = &confinement.capabilities;
    let failed = || engine("setting capabilities");
    // Not beyond what this process itself has: on a restricted host that is not everything.
    let (_, ours, _) = process::capget().map_err(failed())?;
    let bounding = process::bounding_set();
    for cap in (0..64).filter(|cap| bounding >> cap & 1 == 1 && !sets.bounding.has(*cap)) {
        process::drop_bounding(cap).map_err(failed())?;
    }
    process::keep_capabilities().map_err(failed())?;
    process::become_user(identity.uid, identity.gid, &identity.groups)
        .map_err(engine(format_args!("setting user {}:{}", identity.uid, identity.gid)))?;
    // Going to another user clears the signal that a dead parent sends.
    process::set_parent_death_signal(libc::SIGKILL).map_err(engine("prctl"))?;
    if confinement.no_new_privileges {
        process::set_no_new_privs().map_err(engine("setting no_new_privs"))?;
    }
    let permitted = sets.permitted.0 & ours;
    // Another user's process starts with what exec leaves it: nothing, but for ambient ones.
    let root = identity.uid == 0;
    let effective = if root { sets.effective.0 & permitted } else { sets.ambient.0 & permitted };
    let inheritable = sets.inheritable.0 & ours;
    // The look-up sees what the user sees.
    process::capset(effective, ours, inheritable).map_err(failed())?;
    as_user();
    if let Some(seccomp) = confinement.seccomp.as_ref().filter(|_| filter) {
        // Without no_new_privs the kernel asks for CAP_SYS_ADMIN.
        if !confinement.no_new_privileges {
            process::capset(ours & 1 << SYS_ADMIN, ours, inheritable).map_err(failed())?;
        }
        process::seccomp_load(&seccomp.instructions, seccomp.flags)
            .map_err(engine("loading the seccomp filter"))?;
    }
    process::capset(effective, if root { permitted } else { effective }, inheritable).map_err(failed())?;
    if sets.ambient.0 != 0 {
        process::set_ambient(sets.ambient.0 & permitted & inheritable).map_err(failed())?;
    }
    Ok(())
}

fn enter_working_directory(root: &OwnedFd, plan: &ProcessPlan) -> Result<(), LaunchError> {
    let enter = || -> io::Result<()> {
        let directory = if plan.create_cwd {
            resolve::ensure(root, &plan.cwd, Want::Directory)?
        } else {
            resolve::open(root, &plan.cwd, OFlags::PATH | OFlags::DIRECTORY)?
        };
        fchdir(&directory)?;
        // A directory outside the root would not have a path here (CVE-2024-21626).
        let path = rustix::process::getcwd(vec![])?;
        if !path.as_bytes().starts_with(b"/") {
            return Err(io::Error::other(
                "current working directory is outside of container mount namespace root",
            ));
        }
        Ok(())
    };
    enter().map_err(|error| LaunchError {
        exit_code: if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 },
        message: format!(
            "chdir to cwd (\"{}\") set in config.json failed: {}",
            plan.cwd,
            crate::errors::text(&error)
        ),
    })
}

fn set_streams(streams: Streams, identity: &Identity) -> io::Result<()> {
    match streams {
        Streams::Pipes(fds) => {
            // Out of the way first, whatever numbers they have.
            let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
            let copies = fds.iter().map(above).collect::<Result<Vec<_>, _>>()?;
            drop(fds);
            for (number, fd) in (0..).zip(&copies) {
                // So that the user can open /dev/stdout and the like.
                let stat = fstat(fd)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
                    && stat.st_uid != identity.uid
                {
                    fchown(fd, Some(Uid::from_raw(identity.uid)), None::<Gid>)?;
                }
                process::dup_onto(fd, number)?;
            }
        }
        Streams::Terminal(pair) => {
            let slave = rustix::io::fcntl_dupfd_cloexec(&pair.slave, 3)?;
            drop(pair);
            fchown(&slave, Some(Uid::from_raw(identity.uid)), None::<Gid>)?;
            rustix::process::ioctl_tiocsctty(&slave)?;
            for number in 0..3 {
                process::dup_onto(&slave, number)?;
            }
        }
    }
    Ok(())
}

/// Makes the program the terminal's foreground process group.
fn take_terminal() -> io::Result<()> {
    rustix::process::setpgid(None, None)?;
    let group = rustix::process::getpid().as_raw_nonzero().get();
    // SIGTTOU is blocked, as the init has left it.
    process::set_foreground_group(rustix::stdio::stdin(), group)
}
