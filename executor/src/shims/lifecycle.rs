//! Starting shims, finding them again, forgetting them.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::directory::{Directory, Liveness};
use super::{ExitRecord, Found, ProcessId, Shim, ShimError, Shims, StartRequest, connection};
use crate::cgroup::Cgroup;
use crate::protocol::{Answer, Request, ShimRecord, StartRecord, start_ticks};

/// How long a shim may take to hand the last output to its clients and end by itself.
const FAREWELL: Duration = Duration::from_secs(12);

impl Shims {
    /// Starts a shim and its container; returns once the program runs (`execve` succeeded).
    /// After an error nothing is left: no shim, no cgroup, no directory.
    /// Not to be cancelled: callers run it in a task of its own.
    pub async fn start(&self, request: StartRequest) -> Result<(ProcessId, Shim), ShimError> {
        let directory = Directory::new(&self.run_root, &request.id)?;
        let (record, attach) = split(request);
        let (streams, fds) = attach.into_iter().map(|client| (client.streams, client.stream)).unzip();
        let (mut child, control) = self.spawn(&directory, record).await?;
        let answer = match UnixStream::from_std(control) {
            Ok(mut control) => connection::ask(&mut control, &Request::Start { attach: streams }, fds).await,
            Err(error) => Err(error),
        };
        let error = match answer {
            Ok(Answer::Running(init)) => {
                // Reaps the shim whenever it ends.
                tokio::spawn(async move { child.wait().await });
                return Ok((init, Shim { directory }));
            }
            Ok(Answer::Failed(error)) => ShimError::Launch(error),
            Ok(answer) => directory.protocol(format!("an unexpected answer: {answer:?}")),
            Err(error) => {
                // Its end is not in doubt, whatever state it is in.
                child.start_kill().ok();
                child.wait().await.ok();
                directory.protocol(format!("{error} ({})", directory.complaints()))
            }
        };
        child.wait().await.map_err(|error| directory.io("", error))?;
        directory.remove().map_err(|error| directory.io("", error))?;
        Err(error)
    }

    async fn spawn(
        &self,
        directory: &Directory,
        record: StartRecord,
    ) -> Result<(Child, std::os::unix::net::UnixStream), ShimError> {
        let (directory, binary) = (directory.clone(), self.shim_binary.clone());
        let task = tokio::task::spawn_blocking(move || {
            let log = directory.prepare(&record)?;
            let spawn = || {
                let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                ours.set_nonblocking(true)?;
                let child = Command::new(&binary)
                    .arg(&directory.path)
                    .env_clear()
                    .stdin(Stdio::from(OwnedFd::from(theirs)))
                    .stdout(Stdio::null())
                    .stderr(Stdio::from(log))
                    .spawn()?;
                Ok((child, ours))
            };
            spawn().map_err(|source| {
                directory.remove().ok();
                ShimError::Io { path: binary.clone(), source }
            })
        });
        task.await.map_err(|error| ShimError::Protocol { id: String::new(), what: error.to_string() })?
    }

    /// Looks for the shim of a container after a restart of the daemon.
    /// `patience` bounds how long an answer is awaited; a timeout is [`Found::Unknown`].
    pub async fn find(&self, id: &str, patience: Duration) -> Found {
        let directory = match Directory::new(&self.run_root, id) {
            Ok(directory) => directory,
            Err(error) => return Found::Unknown(error.to_string()),
        };
        let shim = Shim { directory };
        let search = async {
            let mut last_error = None;
            loop {
                match still_alive(&shim.directory) {
                    Ok(None) => {}
                    Ok(Some(found)) => return found,
                    Err(error) => return Found::Unknown(error.to_string()),
                }
                match shim.ping().await {
                    Ok(init) => return Found::Alive { init, shim: shim.clone() },
                    // It is about to listen, or about to end: the lock tells, in a moment.
                    Err(ShimError::Gone) => {}
                    Err(error) if last_error.is_some() => return Found::Unknown(error.to_string()),
                    Err(error) => last_error = Some(error),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(patience, search).await {
            Ok(found) => found,
            Err(_) => Found::Unknown(format!("the shim of container {id} does not answer")),
        }
    }

    /// Removes a container's directory, kills what is left in its control group and removes that,
    /// once the database has the exit. Idempotent. A shim that still hands the last output to
    /// its clients gets some seconds for it.
    pub async fn forget(&self, id: &str, cgroup_path: &str) -> Result<(), ShimError> {
        let directory = Directory::new(&self.run_root, id)?;
        let cgroup = (!cgroup_path.is_empty()).then(|| Cgroup::new(cgroup_path));
        let id = id.to_owned();
        let task = tokio::task::spawn_blocking(move || forget(&directory, cgroup.as_ref()));
        task.await.map_err(|error| ShimError::Protocol { id, what: error.to_string() })?
    }

    /// Ids that have a directory below the run root, for `fsck` and the start-up sweep.
    pub async fn known(&self) -> std::io::Result<Vec<String>> {
        let run_root = self.run_root.clone();
        tokio::task::spawn_blocking(move || Directory::all(&run_root)).await.map_err(std::io::Error::other)?
    }
}

/// What travels as a file, and what as descriptors.
fn split(request: StartRequest) -> (StartRecord, Vec<super::Attachment>) {
    let StartRequest { id, plan, terminal, console_size, open_stdin, stdin_once, log, cgroup_path, attach } =
        request;
    let record = StartRecord { id, plan, terminal, console_size, open_stdin, stdin_once, log, cgroup_path };
    (record, attach)
}

/// `None` where the lock says that the shim lives.
fn still_alive(directory: &Directory) -> std::io::Result<Option<Found>> {
    if !directory.exists()? {
        return Ok(Some(Found::Never));
    }
    match directory.liveness()? {
        Liveness::Alive => Ok(None),
        Liveness::Dead(_) => Ok(Some(Found::Dead { exit: directory.exit()? })),
    }
}

fn forget(directory: &Directory, cgroup: Option<&Cgroup>) -> Result<(), ShimError> {
    let exists = directory.exists().map_err(|error| directory.io("", error))?;
    if exists && matches!(directory.liveness().map_err(|error| directory.io("", error))?, Liveness::Alive) {
        let exit: Option<ExitRecord> = directory.exit().unwrap_or_default();
        if exit.is_none()
            && let Some(cgroup) = cgroup
        {
            // It runs, and is not wanted any more: its shim sees the end, and ends.
            kill(directory, cgroup)?;
        }
        let record = directory.shim().map_err(|error| directory.io("", error))?;
        if let Some(record) = record {
            end_shim(directory, &record)?;
        }
    }
    if let Some(cgroup) = cgroup {
        kill(directory, cgroup)?;
        cgroup
            .remove()
            .map_err(|error| directory.protocol(format!("removing {}: {error}", cgroup.path())))?;
    }
    directory.remove().map_err(|error| directory.io("", error))
}

fn kill(directory: &Directory, cgroup: &Cgroup) -> Result<(), ShimError> {
    match cgroup.kill_all() {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(directory.protocol(format!("killing {}: {error}", cgroup.path())))
        }
        _ => Ok(()),
    }
}

/// Waits for the shim to end by itself, and ends it where it does not.
fn end_shim(directory: &Directory, record: &ShimRecord) -> Result<(), ShimError> {
    let fail = |what: &str, error: std::io::Error| directory.protocol(format!("{what}: {error}"));
    let Some(pid) = Pid::from_raw(record.shim.pid) else { return Ok(()) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(fail("pidfd_open", error.into())),
    };
    // The pidfd is held: if the start time is the shim's, so is the pidfd.
    if start_ticks(record.shim.pid).is_ok_and(|ticks| ticks != record.shim.start_ticks) {
        return Ok(());
    }
    let until = Instant::now() + FAREWELL;
    let ended = |until: Instant| -> std::io::Result<bool> {
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(rest).map_err(std::io::Error::other)?;
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    if ended(until).map_err(|error| fail("poll", error))? {
        return Ok(());
    }
    pidfd_send_signal(&pidfd, Signal::KILL).map_err(|error| fail("killing the shim", error.into()))?;
    ended(Instant::now() + FAREWELL).map_err(|error| fail("poll", error))?;
    Ok(())
}
