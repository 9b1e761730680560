//! The daemon's side of the worker.

use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};

use super::{ErrorKind, Report};
use crate::Budget;

/// Longest answer that is read from a worker, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// The pipe to the worker: large enough that neither side waits for each small read.
const PIPE_BYTES: usize = 1 << 20;

/// A layer was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// `sha256:<hex>` of the uncompressed tar.
    pub diff_id: String,
    /// `sha256:<hex>` of the bytes as received.
    pub blob_digest: String,
    /// How many bytes were received.
    pub blob_bytes: u64,
    /// Sum of the sizes of the regular files in the tree, in bytes.
    pub size_bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
}

/// Why a layer was not unpacked. `Display` is what the client reads.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UnpackError {
    /// The blob is damaged, or has something that no layer may have.
    #[error("failed to register layer: {0}")]
    Corrupt(String),
    /// A bound of [`Budget`], or one of the worker's own.
    #[error("failed to register layer: {0}")]
    OverBudget(String),
    /// This machine: disk full, worker missing or killed.
    #[error("failed to register layer: {0}")]
    Local(String),
}

impl UnpackError {
    fn local(what: &str, error: &io::Error) -> Self {
        Self::Local(format!("{what}: {error}"))
    }
}

/// A worker that unpacks one layer. Dropping it kills the worker.
#[derive(Debug)]
pub struct LayerUnpacker {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl LayerUnpacker {
    /// Starts a worker. `staging` exists and is empty; it is absolute.
    pub fn start(worker: &Path, staging: &Path, budget: &Budget) -> Result<Self, UnpackError> {
        let mut child = Command::new(worker)
            .arg(staging)
            .arg(budget.layer_bytes.to_string())
            .arg(budget.layer_entries.to_string())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| UnpackError::local(&worker.display().to_string(), &error))?;
        let stdin = child.stdin.take().expect("stdin is piped");
        // Root may exceed pipe-max-size; where it is refused the pipe merely is smaller.
        rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_BYTES).ok();
        Ok(Self { child, stdin: Some(stdin) })
    }

    /// Passes on bytes of the blob, as received. Waits while the worker is behind. An error is the
    /// worker's own: nothing more can be written after it. Dropping the future between two polls
    /// loses the count of what was written: drop the unpacker with it.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), UnpackError> {
        let Some(stdin) = &mut self.stdin else {
            return Err(UnpackError::Local("the unpack worker has ended".into()));
        };
        match stdin.write_all(chunk).await {
            Ok(()) => Ok(()),
            Err(error) => match self.answer().await {
                Err(why) => Err(why),
                Ok(_) => Err(UnpackError::local("the unpack worker stopped reading", &error)),
            },
        }
    }

    /// The blob is complete: waits for the worker's answer.
    pub async fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Unpacked, UnpackError> {
        drop(self.stdin.take());
        let local = |error: io::Error| UnpackError::local("the unpack worker", &error);
        let (mut answer, mut complaint) = (Vec::new(), Vec::new());
        let stdout = self.child.stdout.take().expect("stdout is taken once");
        let stderr = self.child.stderr.take().expect("stderr is taken once");
        let (mut stdout, mut stderr) = (stdout.take(MAX_ANSWER_BYTES), stderr.take(MAX_ANSWER_BYTES));
        tokio::try_join!(stdout.read_to_end(&mut answer), stderr.read_to_end(&mut complaint))
            .map_err(local)?;
        let status = self.child.wait().await.map_err(local)?;
        match serde_json::from_slice(&answer) {
            Ok(Report::Done { diff_id, blob_digest, blob_bytes, size_bytes, entries })
                if status.success() =>
            {
                Ok(Unpacked { diff_id, blob_digest, blob_bytes, size_bytes, entries })
            }
            Ok(Report::Failed { error, kind }) => Err(match kind {
                ErrorKind::Corrupt => UnpackError::Corrupt(error),
                ErrorKind::Budget => UnpackError::OverBudget(error),
                ErrorKind::Local => UnpackError::Local(error),
            }),
            _ => {
                let complaint = String::from_utf8_lossy(&complaint);
                Err(UnpackError::Local(format!(
                    "the unpack worker ended with {status}: {}",
                    complaint.trim()
                )))
            }
        }
    }
}
