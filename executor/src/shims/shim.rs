//! Calls to a running shim.

use std::io;
use std::os::fd::OwnedFd;

use super::{Attachment, ExecStarted, ExitRecord, ProcessId, Shim, ShimError, connection};
use crate::plan::ExecInput;
use crate::protocol::{Answer, EXIT_FILE, Request};

impl Shim {
    /// Full container id.
    pub fn id(&self) -> &str {
        &self.directory.id
    }

    /// Waits for the end of process 1. Its output was delivered and logged by then.
    /// [`ShimError::Gone`] where the shim was killed and could not say how its container ended.
    pub async fn wait(&self) -> Result<ExitRecord, ShimError> {
        match self.ask(Request::Wait, vec![]).await {
            Ok(Answer::Exited(exit)) => Ok(exit),
            Ok(other) => Err(self.unexpected(&other)),
            // It was too late to ask: the record is there, or there is none to come.
            Err(ShimError::Gone) => {
                let exit = self.directory.exit().map_err(|error| self.directory.io(EXIT_FILE, error))?;
                exit.ok_or(ShimError::Gone)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to process 1 (by pidfd). [`ShimError::Gone`] after its end.
    pub async fn signal(&self, signal: i32) -> Result<(), ShimError> {
        self.done(Request::Signal { exec_id: None, signal }, vec![]).await
    }

    /// Connects another client to process 1; output from now on.
    pub async fn attach(&self, attachment: Attachment) -> Result<(), ShimError> {
        let Attachment { stream, streams } = attachment;
        self.done(Request::Attach { streams }, vec![stream]).await
    }

    /// Sets the size of process 1's terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), ShimError> {
        self.done(Request::Resize { exec_id: None, rows, columns }, vec![]).await
    }

    /// Closes and reopens the log file, after somebody else moved or truncated it.
    pub async fn reopen_log(&self) -> Result<(), ShimError> {
        self.done(Request::ReopenLog, vec![]).await
    }

    /// Starts a further process, known as `exec_id` from now on; returns once the program runs.
    /// Its streams are `attachment`'s (as for process 1) or /dev/null.
    pub async fn exec(
        &self,
        exec_id: &str,
        exec: ExecInput,
        console_size: Option<(u16, u16)>,
        attachment: Option<Attachment>,
    ) -> Result<ExecStarted, ShimError> {
        let streams = attachment.as_ref().map(|attachment| attachment.streams);
        let fds = attachment.into_iter().map(|attachment| attachment.stream).collect();
        match self.ask(Request::Exec { exec_id: exec_id.into(), exec, console_size, streams }, fds).await? {
            Answer::ExecRunning(pid) => Ok(ExecStarted { pid }),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits for the end of an exec'd process and gives its exit code (128 + n after signal n). The
    /// answer stays there for as long as the shim lives, for the last 256 processes.
    pub async fn exec_wait(&self, exec_id: &str) -> Result<i32, ShimError> {
        match self.ask(Request::ExecWait { exec_id: exec_id.into() }, vec![]).await? {
            Answer::ExecExited(code) => Ok(code),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends a signal to an exec'd process.
    pub async fn exec_signal(&self, exec_id: &str, signal: i32) -> Result<(), ShimError> {
        self.done(Request::Signal { exec_id: Some(exec_id.into()), signal }, vec![]).await
    }

    /// Sets the size of an exec'd process' terminal.
    pub async fn exec_resize(&self, exec_id: &str, rows: u16, columns: u16) -> Result<(), ShimError> {
        self.done(Request::Resize { exec_id: Some(exec_id.into()), rows, columns }, vec![]).await
    }

    /// Process 1, by the shim's own word.
    pub(super) async fn ping(&self) -> Result<ProcessId, ShimError> {
        match self.ask(Request::Ping, vec![]).await? {
            Answer::Running(init) => Ok(init),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn done(&self, request: Request, fds: Vec<OwnedFd>) -> Result<(), ShimError> {
        match self.ask(request, fds).await? {
            Answer::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Answer, ShimError> {
        let answer = async {
            let mut stream = connection::connect(&self.directory.path).await?;
            connection::ask(&mut stream, &request, fds).await
        };
        match answer.await {
            Ok(Answer::Gone) => Err(ShimError::Gone),
            Ok(Answer::Failed(error)) => Err(ShimError::Launch(error)),
            Ok(Answer::Refused(what)) => Err(self.directory.protocol(what)),
            Ok(answer) => Ok(answer),
            Err(error) if is_absence(error.kind()) => Err(ShimError::Gone),
            Err(error) => Err(self.directory.protocol(error.to_string())),
        }
    }

    fn unexpected(&self, answer: &Answer) -> ShimError {
        self.directory.protocol(format!("an unexpected answer: {answer:?}"))
    }
}

/// Whether an error says that nobody is at the other end (any more).
fn is_absence(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
}
