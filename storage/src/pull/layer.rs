//! One layer: fetched, hashed, decompressed and unpacked in one go, then verified and committed.
//!
//! The bytes go from the connection into the unpack worker (which hashes them) and, for the case that the
//! pull is interrupted, into `partial/`. A layer is keyed by its diff id, so it waits for no other.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::download::Download;
use super::inflight::{LayerState, Phase};
use super::local::Local;
use super::partial::Partial;
use crate::registry::Session;
use crate::unpack::{LayerUnpacker, UnpackError, Unpacked};
use crate::{Digest, PullError};

/// Bytes that go from the record of an interrupted download to the worker at once.
const REPLAY_BYTES: usize = 256 << 10;

/// What one layer's work needs.
pub(crate) struct LayerWork {
    pub local: Local,
    /// Endpoints in the order in which they are asked.
    pub sessions: Vec<Arc<Session>>,
    pub diff_id: Digest,
    pub blob: Digest,
    /// Compressed, as the manifest says.
    pub size: u64,
    /// How many layers are worked on at once.
    pub slots: Arc<Semaphore>,
    /// As people know the image, for the texts of errors.
    pub names: (String, String),
}

impl LayerWork {
    /// Does it, and says how it went.
    pub async fn run(self, states: watch::Sender<LayerState>) {
        let result = self.fetch(&states).await;
        states.send_modify(|state| {
            if result.is_ok() {
                state.phase = Phase::Done;
            }
            state.result = Some(result.map_err(Arc::new));
        });
    }

    async fn fetch(&self, states: &watch::Sender<LayerState>) -> Result<(), PullError> {
        let slot = self.slots.acquire().await;
        let turn = self.local.partials().turn(&self.blob).await;
        let result = self.fetch_in_turn(states).await;
        drop((turn, slot));
        result
    }

    async fn fetch_in_turn(&self, states: &watch::Sender<LayerState>) -> Result<(), PullError> {
        loop {
            if self.local.has_layer(&self.diff_id) {
                return Ok(());
            }
            let keep = self.local.options().keep_blobs;
            let mut partial = self.local.partials().open(&self.blob, self.size, keep);
            let resumed = partial.as_ref().is_some_and(|partial| partial.length() > 0);
            let unpacked = self.unpack(&mut partial, states).await;
            match unpacked {
                Ok(()) => {
                    if let Some(partial) = partial {
                        self.local.keep_or_remove(partial, &self.blob);
                    }
                    return Ok(());
                }
                Err(error @ (PullError::Corrupt(_) | PullError::OverBudget(_))) => {
                    if let Some(partial) = partial {
                        partial.remove();
                    }
                    if !resumed || matches!(error, PullError::OverBudget(_)) {
                        return Err(error);
                    }
                    tracing::warn!(blob = %self.blob, %error, "a resumed download was damaged; fetching anew");
                }
                Err(error) => {
                    // A full disk needs the room more than the next pull needs the bytes.
                    if let Some(partial) = partial.filter(|_| error.to_string().contains("No space left")) {
                        partial.remove();
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn unpack(
        &self,
        partial: &mut Option<Partial>,
        states: &watch::Sender<LayerState>,
    ) -> Result<(), PullError> {
        let staging = self.local.new_staging()?;
        let options = self.local.options();
        let mut worker = LayerUnpacker::start(&options.unpack_worker, staging.path(), &options.budget)
            .map_err(unpack_error)?;
        let mut offset = 0;
        let advance = |current: u64| {
            states.send_modify(|state| {
                state.phase = Phase::Downloading;
                state.current = current;
            });
        };
        if let Some(partial) = partial {
            let mut buffer =
                vec![0; REPLAY_BYTES.min(usize::try_from(partial.length()).unwrap_or(REPLAY_BYTES))];
            loop {
                let read = partial
                    .read_at(offset, &mut buffer)
                    .map_err(|error| PullError::Local(format!("{}: {error}", partial.path().display())))?;
                if read == 0 {
                    break;
                }
                worker.write(&buffer[..read]).await.map_err(unpack_error)?;
                offset += read as u64;
                advance(offset);
            }
        }
        let mut download = Download::new(self.sessions.clone(), self.blob.clone(), offset, self.size);
        advance(offset);
        let (name, familiar) = &self.names;
        while let Some(chunk) = download.next().await.map_err(|error| error.into_pull(name, familiar))? {
            if let Some(Err(error)) = partial.as_mut().map(|partial| partial.append(&chunk)) {
                tracing::warn!(blob = %self.blob, %error, "a download is not recorded any further");
                if let Some(partial) = partial.take() {
                    partial.remove();
                }
            }
            worker.write(&chunk).await.map_err(unpack_error)?;
            offset += chunk.len() as u64;
            advance(offset);
        }
        states.send_modify(|state| state.phase = Phase::Unpacking);
        let unpacked = worker.finish().await.map_err(unpack_error)?;
        self.verify(&unpacked)?;
        self.local.commit_layer(staging, &self.diff_id, &unpacked).await
    }

    fn verify(&self, unpacked: &Unpacked) -> Result<(), PullError> {
        if unpacked.blob_digest != self.blob.as_str() || unpacked.blob_bytes != self.size {
            return Err(PullError::Corrupt(format!(
                "filesystem layer verification failed for digest {}: received {} bytes with digest {}",
                self.blob, unpacked.blob_bytes, unpacked.blob_digest
            )));
        }
        if unpacked.diff_id != self.diff_id.as_str() {
            return Err(PullError::Corrupt(format!(
                "filesystem layer verification failed for digest {}: its diff id is {} where the \
                 configuration says {}",
                self.blob, unpacked.diff_id, self.diff_id
            )));
        }
        Ok(())
    }
}

fn unpack_error(error: UnpackError) -> PullError {
    let text = error.to_string();
    match error {
        UnpackError::Corrupt(_) => PullError::Corrupt(text),
        UnpackError::OverBudget(_) => PullError::OverBudget(text),
        UnpackError::Local(_) => PullError::Local(text),
    }
}
