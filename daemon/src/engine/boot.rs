//! The daemon's start: what the database says against what the runtime finds.
//!
//! | database | found | becomes |
//! |---|---|---|
//! | any | alive | running, watched |
//! | running | dead, with or without a record | ended (exit 137 and an error where there is no record) |
//! | running | never | ended with 137: the machine was restarted |
//! | created, exited | dead, with a newer record | a start whose row was never written: ended |
//! | created, exited | dead otherwise | as it was; what is left is cleared away |
//! | removing | anything | the removal is finished |
//! | any | unknown | as it was; asked again, and nothing is deleted |

use std::collections::HashSet;
use std::sync::Arc;

use executor::shims::{ExitRecord, ProcessId};
use storage::ContainerRow;

use super::actor::{Actor, Report};
use super::record::Record;
use super::registry::View;
use super::runtime::{Sighting, Task};
use super::state::{Phase, Run, State};
use super::{Error, Inner};

/// Reads all containers and starts their actors.
pub async fn reconcile(engine: &Arc<Inner>) -> Result<(), Error> {
    let rows = engine.store.containers().await?;
    let known: HashSet<String> = match engine.runtime.known().await {
        Ok(known) => known.into_iter().collect(),
        Err(error) => return Err(Error::io("read the run root")(error)),
    };
    let ids: HashSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    for id in known.iter().filter(|id| !ids.contains(id.as_str())) {
        sweep(engine, id).await;
    }
    let work = rows.into_iter().map(|row| {
        let trace = known.contains(&row.id);
        adopt(engine, row, trace)
    });
    futures_util::future::join_all(work).await;
    Ok(())
}

/// A shim's directory without a container: cleared away once its shim is surely gone.
async fn sweep(engine: &Arc<Inner>, id: &str) {
    match engine.runtime.find(id, engine.patience).await {
        Sighting::Dead { .. } | Sighting::Never => {
            if let Err(error) = engine.runtime.forget(id, &engine.cgroup_path(id)).await {
                tracing::warn!(container = id, %error, "the trace of an unknown container stays");
            }
        }
        Sighting::Alive { .. } => tracing::warn!(container = id, "runs, but is not in the database"),
        Sighting::Unknown(why) => tracing::warn!(container = id, why, "not in the database, state unknown"),
    }
}

async fn adopt(engine: &Arc<Inner>, row: ContainerRow, trace: bool) {
    let ContainerRow { id, name, config, state } = row;
    let parsed = serde_json::from_str::<Record>(&config).and_then(|record| {
        let state = serde_json::from_str::<State>(&state)?;
        Ok((record, state))
    });
    let (record, state) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return tracing::error!(container = id, %error, "row cannot be read; left alone"),
    };
    if let Err(error) = engine.registry.reserve(&name, &id) {
        return tracing::error!(container = id, %error, "two containers of one name; left alone");
    }
    let sighting = match trace || state.is_running() {
        true => engine.runtime.find(&id, engine.patience).await,
        false => Sighting::Never,
    };
    let (state, task, report) = judge(&id, state, sighting);
    if trace
        && task.is_none()
        && report.is_none()
        && !state.is_running()
        && !matches!(state, State::Removing { .. })
    {
        sweep(engine, &id).await;
    }
    let report = report.or_else(|| {
        record.policy().restart.wants_at_boot(&state).then_some(match &state {
            State::Exited(_) => Some(Report::Due),
            _ => None,
        })?
    });
    Actor::spawn(engine.clone(), View { id, name, record: Arc::new(record), state, task }, report);
}

type Verdict = (State, Option<Arc<dyn Task>>, Option<Report>);

fn judge(id: &str, state: State, sighting: Sighting) -> Verdict {
    match (state, sighting) {
        (state @ State::Removing { .. }, _) => (state, None, None),
        (State::Running(mut run), Sighting::Alive { init, task }) if run.init == init => {
            // The freezer's work is done or undone by whoever asks next.
            run.phase = match run.phase {
                Phase::Pausing => Phase::Active,
                Phase::Resuming => Phase::Paused,
                phase => phase,
            };
            (State::Running(run), Some(task), None)
        }
        (state, Sighting::Alive { init, task }) => (running(&state, init), Some(task), None),
        (state @ State::Running(_), Sighting::Dead { exit: Some(record) }) => {
            (state, None, Some(Report::Ended(record)))
        }
        (state @ State::Running(_), Sighting::Dead { exit: None }) => {
            let why = "the container's shim is gone and left no exit code".to_owned();
            (state, None, Some(Report::Lost(why)))
        }
        (state @ State::Running(_), Sighting::Never) => {
            let why = "the container did not survive a restart of the machine".to_owned();
            (state, None, Some(Report::Lost(why)))
        }
        (state, Sighting::Dead { exit: Some(record) }) if newer(&state, &record) => {
            let init = ProcessId { boot_id: String::new(), pid: 0, start_ticks: 0 };
            (running(&state, init), None, Some(Report::Ended(record)))
        }
        (state, Sighting::Unknown(why)) => {
            tracing::warn!(container = id, why, "state unknown");
            (state, None, None)
        }
        (state, Sighting::Dead { .. } | Sighting::Never) => (state, None, None),
    }
}

/// A run that the database does not know of.
fn running(state: &State, init: ProcessId) -> State {
    let restarts = match state {
        State::Restarting { last, .. } => last.restarts,
        _ => 0,
    };
    let started_at = std::time::SystemTime::now();
    State::Running(Run { init, started_at, phase: Phase::Active, by_user: false, restarts })
}

fn newer(state: &State, record: &ExitRecord) -> bool {
    match state {
        State::Exited(exit) | State::Restarting { last: exit, .. } => record.at > exit.finished_at,
        _ => true,
    }
}
