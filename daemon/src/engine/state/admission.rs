//! Whether a request can be served in a state: Docker's 204, 304 and 409. Pure.

use super::{Phase, Run, State};

/// What a user asks of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Request {
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Remove { force: bool },
    Exec,
    Update,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Accept,
    /// 304.
    Already,
    /// 409, in Docker's words.
    Conflict(String),
    /// Ask again after the runtime's work that is under way; it is short.
    Later,
}

/// Whether a request can be served in a state. Pure.
pub fn admit(state: &State, request: Request, id: &str, name: &str) -> Admission {
    use Admission::{Accept, Already, Conflict, Later};
    if matches!(state, State::Removing { failure: None, .. }) {
        return Conflict(match request {
            Request::Remove { .. } => format!("removal of container {name} is already in progress"),
            Request::Start | Request::Restart => {
                "container is marked for removal and cannot be started".to_owned()
            }
            _ => format!("container {id} is marked for removal"),
        });
    }
    let busy = matches!(state, State::Starting { .. })
        || matches!(state, State::Running(Run { phase: Phase::Pausing | Phase::Resuming, .. }));
    if busy {
        return Later;
    }
    let not_running = || format!("container {id} is not running");
    match (request, state) {
        (Request::Update, _) => Accept,
        (Request::Remove { .. }, State::Removing { .. }) => Accept,
        (_, State::Removing { .. }) => Conflict("container is dead and has to be removed".to_owned()),
        (Request::Start, State::Running(run)) if run.phase == Phase::Paused => {
            Conflict("cannot start a paused container, try unpause instead".to_owned())
        }
        (Request::Start, State::Running(_) | State::Restarting { .. }) => Already,
        (Request::Start | Request::Restart, _) => Accept,
        (Request::Stop, State::Running(_) | State::Restarting { .. }) => Accept,
        (Request::Stop, _) => Already,
        (Request::Kill, State::Running(_)) => Accept,
        (Request::Kill, _) => Conflict(format!("cannot kill container: {name}: {}", not_running())),
        (Request::Pause | Request::Exec, State::Restarting { .. }) => {
            Conflict(format!("Container {id} is restarting, wait until the container is running"))
        }
        (Request::Pause, State::Running(run)) => match run.phase {
            Phase::Paused => Conflict(format!("Container {id} is already paused")),
            Phase::Stopping { .. } => Conflict(format!("container {id} is being stopped")),
            _ => Accept,
        },
        (Request::Unpause, State::Running(run)) if run.phase == Phase::Paused => Accept,
        (Request::Unpause, State::Running(_)) => Conflict(format!("Container {id} is not paused")),
        (Request::Exec, State::Running(run)) if run.phase == Phase::Paused => {
            Conflict(format!("Container {id} is paused, unpause the container before exec"))
        }
        (Request::Exec, State::Running(_)) => Accept,
        (Request::Pause | Request::Unpause | Request::Exec, _) => Conflict(not_running()),
        (Request::Remove { force: true }, _) => Accept,
        (Request::Remove { .. }, State::Running(run)) => Conflict(match run.phase {
            Phase::Paused => {
                format!("cannot remove container \"{name}\": container is paused and must be unpaused first")
            }
            _ => running_text(name, "running"),
        }),
        (Request::Remove { .. }, State::Restarting { .. }) => Conflict(running_text(name, "restarting")),
        (Request::Remove { .. }, _) => Accept,
    }
}

fn running_text(name: &str, what: &str) -> String {
    format!(
        "cannot remove container \"{name}\": container is {what}: stop the container before removing or force remove"
    )
}
