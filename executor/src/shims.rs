//! The daemon's side of the shims.
//!
//! Each container has a directory `<run root>/containers/<id>/`. It holds `plan.json` (written
//! before the spawn), `shim.log` (locked for as long as the shim lives), `shim.json` (boot id, pid
//! and start time of shim and init), `shim.sock` (0600, where the daemon finds the shim again after
//! a restart) and `exit.json` (written atomically *before* anyone is told; deleted by
//! [`Shims::forget`], once the database has it). See [`crate::protocol`].

mod connection;
mod directory;
mod lifecycle;
mod shim;

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use self::directory::Directory;
use crate::launch::LaunchError;
use crate::plan::Plan;

/// Starts shims and finds them again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shims {
    shim_binary: PathBuf,
    run_root: PathBuf,
}

/// Where a container's output is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LogTarget {
    /// Docker's json-file format: one JSON object a line, `{"log","stream","time"}`; lines over
    /// 16 KiB are cut into pieces without a final newline, as Docker does.
    JsonFile {
        /// The current file; older ones are `<path>.1` (newest) and up.
        path: PathBuf,
        /// Size in bytes at which it is rotated; `None` is never.
        max_size_bytes: Option<u64>,
        /// How many files are kept, the current one included.
        max_files: u32,
    },
    /// Not at all.
    None,
}

/// A container to start.
#[derive(Debug)]
pub struct StartRequest {
    /// Full container id.
    pub id: String,
    /// What to launch.
    pub plan: Plan,
    /// Whether process 1 has a terminal.
    pub terminal: bool,
    /// Size of the terminal as (rows, columns).
    pub console_size: Option<(u16, u16)>,
    /// Whether stdin is kept open; otherwise it is /dev/null (without a terminal).
    pub open_stdin: bool,
    /// Whether stdin is closed when the first attached client that gave stdin ends.
    pub stdin_once: bool,
    /// Where output goes.
    pub log: LogTarget,
    /// The control group, for the OOM count.
    pub cgroup_path: String,
    /// Clients that were attached before the start. They see every byte from the first on.
    pub attach: Vec<Attachment>,
}

/// A client to be connected to process 1. The shim gets a duplicate of the stream's fd and serves it:
/// it writes frames of `proto-api`'s multiplexed format (raw bytes with a terminal) and
/// reads raw stdin; the end of what it reads closes stdin if `stdin_once`.
/// The shim shuts its side down after the last byte of output.
#[derive(Debug)]
pub struct Attachment {
    /// One end of a socket pair (or of the client's own connection).
    pub stream: std::os::fd::OwnedFd,
    /// Which streams it wants.
    pub streams: Streams,
}

/// Which standard streams somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A process' identity, which survives the reuse of pids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Process id in the host's namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Whether the OOM killer killed a process of the container.
    pub oom_killed: bool,
    /// When.
    pub at: SystemTime,
}

/// A connection to a running shim. Cheap to clone; every call is a message of its own and can be
/// cancelled without harm.
#[derive(Debug, Clone)]
pub struct Shim {
    directory: Directory,
}

/// What is known of a container whose shim was started by an earlier daemon.
#[derive(Debug)]
pub enum Found {
    /// The shim answers. Its container runs, or has ended and its record waits.
    Alive {
        /// Process 1.
        init: ProcessId,
        /// The connection.
        shim: Shim,
    },
    /// The shim is gone (its process identity no longer exists).
    Dead {
        /// How the container ended, where the shim could still write it.
        exit: Option<ExitRecord>,
    },
    /// There is no directory: it was never started, or the machine was restarted.
    Never,
    /// It could not be told (a timeout, a record that cannot be read). Nothing may be deleted.
    Unknown(String),
}

/// A failure of the engine's own machinery.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The process could not be started; carries Docker's message and exit code.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The shim did not answer, or answered nonsense.
    #[error("shim of container {id}: {what}")]
    Protocol {
        /// The container.
        id: String,
        /// What happened.
        what: String,
    },
    /// The process has ended already.
    #[error("process already finished")]
    Gone,
    /// A file or socket of the shim's directory.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A started `exec`.
#[derive(Debug)]
pub struct ExecStarted {
    /// Process id in the host's namespace.
    pub pid: i32,
}

impl Shims {
    /// `shim_binary` is `ctld-shim`; `run_root` is made (0700) where it does not exist.
    pub fn new(shim_binary: PathBuf, run_root: PathBuf) -> Self {
        Self { shim_binary, run_root }
    }
}

/// A connected pair: one end for a shim's [`Attachment`], the other for the daemon to relay.
pub fn attachment(streams: Streams) -> std::io::Result<(Attachment, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((Attachment { stream: theirs.into(), streams }, UnixStream::from_std(ours)?))
}
