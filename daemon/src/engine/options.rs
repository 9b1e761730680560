//! What the engine's operations take and give, beside the models of the API.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use executor::shims::Streams;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use proto_api::filters::Filters;
use storage::Store;
use tokio::net::UnixStream;

use super::Error;
use super::detach::DetachKeys;

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Images, snapshots, the database.
    pub store: Store,
    /// `ctld-shim`.
    pub shim_binary: PathBuf,
    /// Where shims keep their directories; on tmpfs, 0700.
    pub run_root: PathBuf,
    /// Parent of the containers' control groups, such as `/ctl`.
    pub cgroup_parent: String,
    /// How long a shim of an earlier daemon may take to answer at start-up.
    pub patience: Duration,
}

impl EngineOptions {
    /// The defaults for everything that has one.
    pub fn new(store: Store, shim_binary: PathBuf, run_root: PathBuf) -> Self {
        Self { store, shim_binary, run_root, cgroup_parent: "/ctl".into(), patience: Duration::from_secs(5) }
    }
}

/// A created container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Full id.
    pub id: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// `GET /containers/json`.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Stopped ones as well.
    pub all: bool,
    /// At most this many, newest first; implies `all`.
    pub limit: Option<usize>,
    /// With the sizes of writable layers (slow).
    pub size: bool,
    /// Docker's filters; unknown names are refused.
    pub filters: Filters,
}

/// `GET /containers/{id}/logs`.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Want stdout.
    pub stdout: bool,
    /// Want stderr.
    pub stderr: bool,
    /// Only from this time on.
    pub since: Option<SystemTime>,
    /// Only before this time.
    pub until: Option<SystemTime>,
    /// RFC 3339 time before each line.
    pub timestamps: bool,
    /// The attributes of `--log-opt labels`/`env` before each line; there are none.
    pub details: bool,
    /// Only this many last lines; `None` is all.
    pub tail: Option<usize>,
}

/// Log output as it goes over the wire.
pub struct Logs {
    /// Whether it is raw (terminal) rather than framed.
    pub tty: bool,
    /// The bytes. Ends after the last line, or with the container under `follow`.
    pub stream: BoxStream<'static, Result<Bytes, Error>>,
}

/// `POST /containers/{id}/attach`.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// Replay what was logged so far.
    pub logs: bool,
    /// Stay connected.
    pub stream: bool,
    /// Which streams.
    pub streams: Streams,
    /// Such as `ctrl-p,ctrl-q`; `None` is the default.
    pub detach_keys: Option<String>,
}

/// A connection to a process' streams.
pub struct Attach {
    /// Whether bytes are raw (terminal) rather than framed.
    pub tty: bool,
    /// To be sent first (`logs=1`).
    pub replay: Option<BoxStream<'static, Result<Bytes, Error>>>,
    /// What to read gets to the client; what the client sends is written there. End of input is
    /// a `shutdown` of the writing half. `None` without `stream`.
    pub stream: Option<UnixStream>,
    /// To be fed with what the client sends, when there is a terminal and stdin.
    pub detach: Option<DetachKeys>,
}

/// When [`super::Engine::wait`] is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// As soon as it does not run; at once for one that does not.
    #[default]
    NotRunning,
    /// At the next end.
    NextExit,
    /// When it is removed.
    Removed,
}

/// What a wait ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOutcome {
    /// The exit code.
    pub status_code: i64,
    /// Why there is no proper one.
    pub error: Option<String>,
}

/// A registered wait: headers may be sent, the answer comes later. Dropping it is harmless.
pub type Waiting = BoxFuture<'static, WaitOutcome>;

/// `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default)]
pub struct ExecStartOptions {
    /// Nobody is connected.
    pub detach: bool,
    /// Rows and columns at the start.
    pub console_size: Option<(u16, u16)>,
}

/// How many containers there are, for `/info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
}

/// `GET /events`.
#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    /// Replay the kept ones from this time on.
    pub since: Option<SystemTime>,
    /// End at this time.
    pub until: Option<SystemTime>,
    /// Docker's filters.
    pub filters: Filters,
}

/// `POST /commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Name of the new image with its tag; `None` leaves it without a name.
    pub reference: Option<String>,
    /// A text for the history.
    pub comment: String,
    /// Who made it.
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").field("tty", &self.tty).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attach").field("tty", &self.tty).field("stream", &self.stream).finish_non_exhaustive()
    }
}
