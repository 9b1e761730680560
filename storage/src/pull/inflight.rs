//! Layers that are being fetched right now, so that two pulls of one layer share the work.
//!
//! A job runs in a task of its own and lives as long as somebody wants it: the map holds it weakly, and
//! the last pull that lets go of it stops the task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Digest, PullError};

/// How far a layer is; later phases are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Waiting,
    Downloading,
    /// All bytes are here; the worker finishes and the digests are compared.
    Unpacking,
    Done,
}

/// What those who wait for a layer see.
#[derive(Debug, Clone)]
pub(crate) struct LayerState {
    pub phase: Phase,
    /// Compressed bytes so far.
    pub current: u64,
    /// Compressed bytes in all.
    pub total: u64,
    /// At the end.
    pub result: Option<Result<(), Arc<PullError>>>,
}

/// One layer's work. Dropping the last reference stops it.
#[derive(Debug)]
pub(crate) struct Job {
    states: watch::Receiver<LayerState>,
    task: AbortHandle,
}

impl Job {
    /// Its states from now on.
    pub fn watch(&self) -> watch::Receiver<LayerState> {
        self.states.clone()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The layer as unpacked, and the blob it comes from: another blob may be damaged where this is not.
type Key = (Digest, Digest);

/// All jobs by diff id and blob digest.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    jobs: Mutex<HashMap<Key, Weak<Job>>>,
}

impl Inflight {
    /// The job for a layer: the one that runs, or a new one that runs `work`.
    pub fn join<F>(&self, key: Key, total: u64, work: impl FnOnce(watch::Sender<LayerState>) -> F) -> Arc<Job>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut jobs = self.jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        jobs.retain(|_, job| job.strong_count() > 0);
        let running = jobs.get(&key).and_then(Weak::upgrade);
        // A job that has ended says nothing about now: the layer may have been removed since.
        if let Some(job) = running.filter(|job| job.states.borrow().result.is_none()) {
            return job;
        }
        let start = LayerState { phase: Phase::Waiting, current: 0, total, result: None };
        let (sender, states) = watch::channel(start);
        let task = tokio::spawn(work(sender)).abort_handle();
        let job = Arc::new(Job { states, task });
        jobs.insert(key, Arc::downgrade(&job));
        job
    }
}
