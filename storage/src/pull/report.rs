//! Progress of a pull in Docker's words.

use std::time::{Duration, Instant};

use super::inflight::{Job, LayerState, Phase};
use crate::{Digest, Progress, ProgressSink, PullError};

/// Between two byte counts of one layer.
const BYTES_PAUSE: Duration = Duration::from_millis(100);
/// A reader that is behind is waited for this long, then the line is dropped.
const SLOW_READER: Duration = Duration::from_millis(200);

/// The way to whoever watches. Nothing here fails.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    sink: ProgressSink,
}

impl Report {
    pub fn new(sink: ProgressSink) -> Self {
        Self { sink }
    }

    /// A line about a tag, a layer, or the pull as a whole.
    pub async fn status(&self, id: Option<&str>, status: impl Into<String>) {
        let line = Progress::Status { id: id.map(str::to_owned), status: status.into() };
        self.sink.send_timeout(line, SLOW_READER).await.ok();
    }

    fn bytes(&self, id: &str, status: &'static str, current: u64, total: u64) {
        self.sink.try_send(Progress::Bytes { id: id.to_owned(), status, current, total }).ok();
    }

    /// Tells of a layer until it is done or has failed.
    pub async fn follow(&self, id: &str, job: &Job) -> Result<(), PullError> {
        let mut states = job.watch();
        let mut told = None;
        let mut last_bytes: Option<Instant> = None;
        loop {
            let state = states.borrow_and_update().clone();
            self.catch_up(id, told, &state).await;
            told = Some(state.phase);
            if state.phase == Phase::Downloading && last_bytes.is_none_or(|at| at.elapsed() >= BYTES_PAUSE) {
                self.bytes(id, "Downloading", state.current, state.total);
                last_bytes = Some(Instant::now());
            }
            match state.result {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(again(&error)),
                None => {}
            }
            if states.changed().await.is_err() {
                return Err(PullError::Local("the work on a layer ended without a result".to_owned()));
            }
        }
    }

    /// The lines of all phases since the last look.
    async fn catch_up(&self, id: &str, told: Option<Phase>, state: &LayerState) {
        for phase in [Phase::Waiting, Phase::Downloading, Phase::Unpacking, Phase::Done] {
            if told.is_some_and(|told| told >= phase) || phase > state.phase {
                continue;
            }
            match phase {
                Phase::Waiting if state.phase == Phase::Waiting => self.status(Some(id), "Waiting").await,
                Phase::Waiting | Phase::Downloading => {}
                Phase::Unpacking => {
                    self.status(Some(id), "Verifying Checksum").await;
                    self.status(Some(id), "Download complete").await;
                    self.bytes(id, "Extracting", state.total, state.total);
                }
                Phase::Done => self.status(Some(id), "Pull complete").await,
            }
        }
    }
}

/// The id under which Docker shows a layer: twelve digits of its blob digest.
pub(crate) fn short(digest: &Digest) -> &str {
    &digest.hex()[..12]
}

/// One error for several who wait for the same layer.
fn again(error: &PullError) -> PullError {
    match error {
        PullError::Reference(error) => PullError::Local(error.to_string()),
        PullError::NotFound(text) => PullError::NotFound(text.clone()),
        PullError::Denied(text) => PullError::Denied(text.clone()),
        PullError::Unavailable(text) => PullError::Unavailable(text.clone()),
        PullError::Corrupt(text) => PullError::Corrupt(text.clone()),
        PullError::OverBudget(text) => PullError::OverBudget(text.clone()),
        PullError::Local(text) => PullError::Local(text.clone()),
    }
}
