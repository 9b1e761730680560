//! What a container's state is, and the only function that moves it.
//!
//! ```text
//!            Start            Started               Ended
//! Created ──────────→ Starting ─────→ Running ─────────────────→ Exited ──Start→ Starting
//!    ↑  StartFailed      │            │ Pause ⇄ Resume             │
//!    └───────────────────┘            │ Stop → Stopping            │ by the restart policy
//!                                     └────────────→ Restarting ←──┘ (Deadline → Starting)
//! any of them at rest ──Remove→ Removing → gone;  Removing ──RemoveFailed→ Removing (dead)
//! ```
//!
//! [`step`] is pure: it takes a state and an event and gives the next state and what has to be
//! done. Docker's overlapping booleans are derived in [`State::flags`] and nowhere else.

mod admission;
mod flags;

use std::time::{Duration, SystemTime};

pub use admission::{Admission, Request, admit};
use executor::shims::{ExitRecord, ProcessId};
pub use flags::Flags;
use serde::{Deserialize, Serialize};

/// SIGKILL's number.
pub const SIGKILL: i32 = 9;

/// The state of a container. Kept in the database as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Never ran; the last start may have failed.
    Created {
        /// Why.
        failure: Option<Failure>,
    },
    /// The runtime is at work.
    Starting {
        /// The run before.
        previous: Option<Exit>,
        /// Restarts by policy so far.
        restarts: u32,
    },
    /// Process 1 runs.
    Running(Run),
    /// Waits for its next start by the restart policy.
    Restarting {
        /// The run before.
        last: Exit,
        /// When it starts.
        at: SystemTime,
    },
    /// Has ended.
    Exited(Exit),
    /// Is being removed; whatever happens, it never runs again.
    Removing {
        /// The last run.
        last: Option<Exit>,
        /// Why the removal stopped half-way; it may be tried again.
        failure: Option<String>,
    },
}

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// 126, 127 or 128.
    pub code: i32,
    /// As the client read it.
    pub message: String,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Process 1.
    pub init: ProcessId,
    /// Since when.
    pub started_at: SystemTime,
    /// What is done to it.
    pub phase: Phase,
    /// A user sent the signal that will end it; the restart policy keeps out of it.
    pub by_user: bool,
    /// Restarts by policy so far.
    pub restarts: u32,
}

/// What is done to a running container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing.
    Active,
    /// The freezer is at work.
    Pausing,
    /// Frozen.
    Paused,
    /// The freezer is at work.
    Resuming,
    /// The stop signal was sent.
    Stopping {
        /// When SIGKILL follows; `None` is never.
        kill_at: Option<SystemTime>,
        /// What comes after its end.
        after: After,
    },
}

/// What comes after the end of a container that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    /// Nothing.
    Settle,
    /// A start (`restart`).
    Start,
    /// Its removal (`rm -f`).
    Remove,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, 128 + n after signal n.
    pub code: i32,
    /// Whether the OOM killer struck.
    pub oom_killed: bool,
    /// Why there is no proper exit code.
    pub error: Option<String>,
    /// Begin.
    pub started_at: SystemTime,
    /// End.
    pub finished_at: SystemTime,
    /// Whether a user ended it.
    pub by_user: bool,
    /// Restarts by policy so far.
    pub restarts: u32,
}

/// When a container is started again without being told to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a non-zero exit, at most so many times (0 is without bound).
    OnFailure(u32),
    /// Always, and at the daemon's start even after a `stop`.
    Always,
    /// Always, unless a user stopped it.
    UnlessStopped,
}

/// The part of a container's configuration that moves its state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// `--rm`.
    pub auto_remove: bool,
    /// `--restart`.
    pub restart: RestartPolicy,
}

impl RestartPolicy {
    fn wants(self, exit: &Exit) -> bool {
        if exit.by_user {
            return false;
        }
        match self {
            Self::No => false,
            Self::OnFailure(most) => exit.code != 0 && (most == 0 || exit.restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Whether a container that does not run is started with the daemon.
    pub fn wants_at_boot(self, state: &State) -> bool {
        match (self, state) {
            (Self::Always, State::Exited(_)) | (_, State::Restarting { .. }) => true,
            (_, State::Exited(exit)) => self.wants(exit),
            _ => false,
        }
    }
}

/// How long the policy waits: 100 ms, doubled with each restart, at most a minute; a run of ten
/// seconds or more starts over.
fn back_off(exit: &Exit) -> (Duration, u32) {
    let ran = exit.finished_at.duration_since(exit.started_at).unwrap_or_default();
    let steps = if ran >= Duration::from_secs(10) { 0 } else { exit.restarts.min(10) };
    (Duration::from_millis(100 << steps).min(Duration::from_secs(60)), exit.restarts + 1)
}

/// What happens to a container.
#[derive(Debug, Clone)]
pub enum Event {
    /// A start was admitted.
    Start,
    /// `execve` succeeded.
    Started {
        /// Process 1.
        init: ProcessId,
        /// When.
        at: SystemTime,
    },
    /// It did not.
    StartFailed(Failure),
    /// A stop was admitted.
    Stop {
        /// Which signal.
        signal: i32,
        /// When SIGKILL follows.
        kill_at: Option<SystemTime>,
        /// What comes then.
        after: After,
    },
    /// A signal was admitted.
    Signal {
        /// Which.
        signal: i32,
        /// Whether it is meant to end the container (SIGKILL or the stop signal).
        ends: bool,
    },
    /// A pause was admitted.
    Pause,
    /// The end of the freezer's work, or its failure.
    Frozen(bool),
    /// An unpause was admitted.
    Resume,
    /// The end of the freezer's work, or its failure.
    Thawed(bool),
    /// Process 1 has ended.
    Ended(ExitRecord),
    /// The shim is gone and left no record.
    Lost {
        /// For the user.
        error: String,
        /// When it was noticed.
        at: SystemTime,
    },
    /// The time of the state's deadline has come.
    Deadline,
    /// A removal was admitted.
    Remove,
    /// It stopped half-way.
    RemoveFailed(String),
}

/// What has to be done after a step, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the state to the database.
    Persist,
    /// Tell those who wait for the end.
    Release,
    /// Clear away what the shim left.
    Forget,
    /// Start the shim.
    Launch,
    /// Send a signal to process 1.
    Signal(i32),
    /// Freeze.
    Freeze,
    /// Thaw.
    Thaw,
    /// Delete everything.
    Remove,
}

/// An event that has no meaning in a state: an error of the actor, never of a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} in state {state}")]
pub struct Denied {
    state: String,
    event: String,
}

/// Moves a state.
pub fn step(state: State, event: Event, policy: Policy) -> Result<(State, Vec<Effect>), Denied> {
    use Effect::*;
    Ok(match (state, event) {
        (State::Created { .. }, Event::Start) => {
            (State::Starting { previous: None, restarts: 0 }, vec![Launch])
        }
        (State::Exited(exit), Event::Start) => {
            (State::Starting { previous: Some(exit), restarts: 0 }, vec![Launch])
        }
        (State::Starting { restarts, .. }, Event::Started { init, at }) => {
            let run = Run { init, started_at: at, phase: Phase::Active, by_user: false, restarts };
            (State::Running(run), vec![Persist])
        }
        (State::Starting { previous, restarts }, Event::StartFailed(failure)) => {
            start_failed(previous, restarts, failure, policy)
        }
        (State::Running(run), Event::Stop { signal, kill_at, after }) => stop(run, signal, kill_at, after),
        (State::Restarting { last, .. }, Event::Stop { after, .. }) => {
            let last = Exit { by_user: true, ..last };
            match after {
                After::Settle => (State::Exited(last), vec![Persist, Release]),
                After::Start => (State::Starting { previous: Some(last), restarts: 0 }, vec![Launch]),
                After::Remove => removing(Some(last), policy),
            }
        }
        (State::Running(mut run), Event::Signal { signal, ends }) => {
            run.by_user |= ends;
            let mut effects = vec![Signal(signal)];
            if ends && run.phase == Phase::Paused {
                run.phase = Phase::Active;
                effects.push(Thaw);
            }
            if ends {
                effects.push(Persist);
            }
            (State::Running(run), effects)
        }
        (State::Running(run), Event::Pause) if run.phase == Phase::Active => {
            (State::Running(Run { phase: Phase::Pausing, ..run }), vec![Freeze])
        }
        (State::Running(run), Event::Frozen(done)) if run.phase == Phase::Pausing => {
            let phase = if done { Phase::Paused } else { Phase::Active };
            (State::Running(Run { phase, ..run }), vec![Persist])
        }
        (State::Running(run), Event::Resume) if run.phase == Phase::Paused => {
            (State::Running(Run { phase: Phase::Resuming, ..run }), vec![Thaw])
        }
        (State::Running(run), Event::Thawed(done)) => {
            let phase = match run.phase {
                Phase::Resuming if done => Phase::Active,
                Phase::Resuming => Phase::Paused,
                other => other,
            };
            (State::Running(Run { phase, ..run }), vec![Persist])
        }
        (State::Running(run), Event::Ended(record)) => {
            ended(run, record.code, record.oom_killed, None, record.at, policy)
        }
        (State::Running(run), Event::Lost { error, at }) => ended(run, 137, false, Some(error), at, policy),
        (State::Running(run), Event::Deadline) => match run.phase {
            Phase::Stopping { after, kill_at: Some(_) } => {
                let phase = Phase::Stopping { after, kill_at: None };
                (State::Running(Run { phase, ..run }), vec![Signal(SIGKILL)])
            }
            _ => (State::Running(run), vec![]),
        },
        (State::Restarting { last, .. }, Event::Deadline) => {
            let restarts = last.restarts;
            (State::Starting { previous: Some(last), restarts }, vec![Launch])
        }
        (State::Created { .. }, Event::Remove) => removing(None, policy),
        (State::Exited(exit), Event::Remove) => removing(Some(exit), policy),
        (State::Restarting { last, .. }, Event::Remove) => removing(Some(last), policy),
        (State::Removing { last, .. }, Event::Remove) => {
            (State::Removing { last, failure: None }, vec![Remove])
        }
        (State::Removing { last, .. }, Event::RemoveFailed(why)) => {
            (State::Removing { last, failure: Some(why) }, vec![Persist])
        }
        // The freezer's answer may come after the container's end.
        (state, Event::Frozen(_) | Event::Thawed(_) | Event::Deadline) => (state, vec![]),
        (state, event) => {
            return Err(Denied { state: format!("{state:?}"), event: format!("{event:?}") });
        }
    })
}

fn start_failed(
    previous: Option<Exit>,
    restarts: u32,
    failure: Failure,
    policy: Policy,
) -> (State, Vec<Effect>) {
    if policy.auto_remove {
        let last = previous.map(|exit| Exit { code: failure.code, error: Some(failure.message), ..exit });
        return (State::Removing { last, failure: None }, vec![Effect::Persist, Effect::Remove]);
    }
    let state = match previous {
        None => State::Created { failure: Some(failure) },
        Some(exit) => {
            let exit = Exit { code: failure.code, error: Some(failure.message), restarts, ..exit };
            // A start by the policy that fails is tried again as if it had run.
            match restarts > 0 && policy.restart.wants(&exit) {
                true => return restarting(exit),
                false => State::Exited(exit),
            }
        }
    };
    (state, vec![Effect::Persist, Effect::Release])
}

fn stop(run: Run, signal: i32, kill_at: Option<SystemTime>, after: After) -> (State, Vec<Effect>) {
    let mut effects = vec![Effect::Signal(signal)];
    if matches!(run.phase, Phase::Paused | Phase::Pausing | Phase::Resuming) {
        effects.push(Effect::Thaw);
    }
    effects.push(Effect::Persist);
    // The earlier deadline holds, and a removal is never taken back.
    let phase = match run.phase {
        Phase::Stopping { kill_at: before, after: then } => Phase::Stopping {
            kill_at: match (before, kill_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            after: if then == After::Remove { then } else { after },
        },
        _ => Phase::Stopping { kill_at, after },
    };
    (State::Running(Run { phase, by_user: true, ..run }), effects)
}

fn ended(
    run: Run,
    code: i32,
    oom_killed: bool,
    error: Option<String>,
    at: SystemTime,
    policy: Policy,
) -> (State, Vec<Effect>) {
    let exit = Exit {
        code,
        oom_killed,
        error,
        started_at: run.started_at,
        finished_at: at,
        by_user: run.by_user,
        restarts: run.restarts,
    };
    let after = match run.phase {
        Phase::Stopping { after, .. } => after,
        _ => After::Settle,
    };
    match after {
        After::Start => {
            let state = State::Starting { previous: Some(exit), restarts: 0 };
            (state, vec![Effect::Release, Effect::Forget, Effect::Launch])
        }
        After::Remove => removing(Some(exit), policy),
        After::Settle if policy.restart.wants(&exit) => restarting(exit),
        After::Settle if policy.auto_remove => removing(Some(exit), policy),
        After::Settle => (State::Exited(exit), vec![Effect::Persist, Effect::Release, Effect::Forget]),
    }
}

fn restarting(exit: Exit) -> (State, Vec<Effect>) {
    let (pause, restarts) = back_off(&exit);
    let at = exit.finished_at.max(SystemTime::now()) + pause;
    let state = State::Restarting { last: Exit { restarts, ..exit }, at };
    (state, vec![Effect::Persist, Effect::Release, Effect::Forget])
}

/// With `--rm` the row alone says that a container at rest is to be removed: no write is needed.
fn removing(last: Option<Exit>, policy: Policy) -> (State, Vec<Effect>) {
    let state = State::Removing { last, failure: None };
    match policy.auto_remove {
        true => (state, vec![Effect::Release, Effect::Remove]),
        false => (state, vec![Effect::Persist, Effect::Release, Effect::Remove]),
    }
}

impl State {
    /// Whether process 1 exists.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Whether process 1 exists, or is about to.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Starting { .. })
    }

    /// When something has to be done to it, whoever asks.
    pub fn deadline(&self) -> Option<SystemTime> {
        match self {
            Self::Running(Run { phase: Phase::Stopping { kill_at, .. }, .. }) => *kill_at,
            Self::Restarting { at, .. } => Some(*at),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
