//! What daemon and shim say to each other, and the files of a shim's directory.
//!
//! A message is a length (four bytes, little endian) and as many bytes of JSON. File descriptors
//! travel with the first bytes of a message. On the control socket, which the shim inherits as its
//! standard input, the daemon sends [`Request::Start`] and reads one [`Answer`]. After that every
//! connection to `shim.sock` carries one request and one answer; that of a `Wait` comes at the end.
//!
//! | file | written by | what it says |
//! |---|---|---|
//! | `plan.json` | daemon, before the spawn | [`StartRecord`] |
//! | `shim.log` | shim | its complaints; whoever holds the `flock` on it is the living shim |
//! | `shim.json` | shim, before and after the launch | [`ShimRecord`] |
//! | `shim.sock` | shim, before the launch | where it listens |
//! | `exit.json` | shim, before anyone is told | [`ExitRecord`] |
//!
//! The lock is taken by the daemon before the spawn and inherited, so there is no moment in which a
//! shim lives and does not hold it, whoever is killed when.

use std::io;

use serde::{Deserialize, Serialize};

use crate::launch::LaunchError;
use crate::plan::{ExecInput, Plan};
use crate::shims::{ExitRecord, LogTarget, ProcessId, Streams};

/// What the daemon asked to start.
pub const PLAN_FILE: &str = "plan.json";
/// The shim's complaints, and the lock that says it lives.
pub const LOG_FILE: &str = "shim.log";
/// Who runs.
pub const SHIM_FILE: &str = "shim.json";
/// Where the shim listens.
pub const SOCKET_FILE: &str = "shim.sock";
/// How the container ended.
pub const EXIT_FILE: &str = "exit.json";

/// Longest message in bytes; an `exec` carries an environment of at most 2 MiB.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Most file descriptors that one message carries.
pub const MAX_FDS: usize = 64;

/// Contents of `plan.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRecord {
    /// Full container id.
    pub id: String,
    /// What to launch.
    pub plan: Plan,
    /// Whether process 1 has a terminal.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// Whether stdin is a pipe rather than /dev/null.
    pub open_stdin: bool,
    /// Whether the end of the first client's stdin closes it.
    pub stdin_once: bool,
    /// Where output goes.
    pub log: LogTarget,
    /// The control group, for the OOM count.
    pub cgroup_path: String,
}

/// Contents of `shim.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShimRecord {
    /// The shim itself.
    pub shim: ProcessId,
    /// Process 1, once its program runs.
    pub init: Option<ProcessId>,
}

/// What the daemon asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Launch `plan.json`; one file descriptor for each client.
    Start {
        /// What each of them wants.
        attach: Vec<Streams>,
    },
    /// Who is process 1?
    Ping,
    /// Answer at the end of process 1.
    Wait,
    /// Send a signal to process 1, or to an exec'd process.
    Signal {
        /// The exec'd process.
        exec_id: Option<String>,
        /// Its number.
        signal: i32,
    },
    /// Connect a client (one file descriptor) to process 1.
    Attach {
        /// What it wants.
        streams: Streams,
    },
    /// Set the size of the terminal of process 1, or of an exec'd process.
    Resize {
        /// The exec'd process.
        exec_id: Option<String>,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Open the log file anew.
    ReopenLog,
    /// Start a further process; one file descriptor where there is a client.
    Exec {
        /// What it is called from now on.
        exec_id: String,
        /// What runs.
        exec: ExecInput,
        /// Rows and columns of its terminal.
        console_size: Option<(u16, u16)>,
        /// What the client wants.
        streams: Option<Streams>,
    },
    /// Answer at the end of an exec'd process.
    ExecWait {
        /// Which.
        exec_id: String,
    },
}

/// What the shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// To `Start` and `Ping`: process 1.
    Running(ProcessId),
    /// To `Start` and `Exec`: it does not run.
    Failed(LaunchError),
    /// To `Wait`.
    Exited(ExitRecord),
    /// To `Exec`: it runs, as this process id of the host.
    ExecRunning(i32),
    /// To `ExecWait`.
    ExecExited(i32),
    /// The process has ended, or there is none of that name.
    Gone,
    /// The request cannot be served.
    Refused(String),
}

/// Puts the length before a message.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {length} bytes")));
    }
    let prefix = u32::try_from(length).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

/// Length of the message that a prefix announces; an error where it is beyond all bounds.
pub fn message_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(prefix)).map_err(io::Error::other)?;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}

/// Identity of a living process; an error where there is none.
pub fn process_id(pid: i32) -> io::Result<ProcessId> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
    Ok(ProcessId { boot_id, pid, start_ticks: start_ticks(pid)? })
}

/// Field 22 of `/proc/<pid>/stat`. The name in field 2 may hold anything, so it is counted from
/// the last parenthesis.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    after_name
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_identity_is_stable() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let first = process_id(pid).unwrap();
        assert_eq!(first, process_id(pid).unwrap());
        assert_eq!(first.boot_id.len(), 36);
        assert!(first.start_ticks > 0);
    }

    #[test]
    fn prefix_and_bounds() {
        let bytes = encode(&Request::Ping).unwrap();
        assert_eq!(&bytes[4..], b"\"Ping\"");
        assert_eq!(message_length(bytes[..4].try_into().unwrap()).unwrap(), 6);
        assert!(message_length([0xff; 4]).is_err());
    }
}
