//! Applying a plan: called by the shim, which is single-threaded, static and has no runtime.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::plan::{ExecInput, Plan};

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

/// Makes the control group, namespaces and root, and starts the container's first process.
/// Blocks until the program runs or has failed; a failure leaves nothing behind.
pub fn launch(plan: &Plan, stdio: Stdio) -> Result<Launched, LaunchError> {
    let _unused = (plan, stdio);
    Err(LaunchError { exit_code: 125, message: "not yet".into() })
}

/// Starts a further process in the container whose first process is `init`.
/// Blocks until the program runs or has failed.
pub fn join(plan: &Plan, init: &Launched, exec: &ExecInput, stdio: Stdio) -> Result<Launched, LaunchError> {
    let _unused = (plan, init, exec, stdio);
    Err(LaunchError { exit_code: 125, message: "not yet".into() })
}

/// Removes what [`launch`] made outside the container's namespaces (its control groups), after
/// killing whatever is left in them. Does all it can and reports the first error.
pub fn clean_up(plan: &Plan) -> Result<(), LaunchError> {
    let _unused = plan;
    Ok(())
}
