//! Docker's overlapping booleans, derived from a state here and nowhere else.

use std::time::SystemTime;

use proto_api::models::ContainerStateStatusEnum as Status;

use super::{Exit, Phase, State};

/// Docker's view of a state.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are Docker's")]
pub struct Flags {
    pub status: Status,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    pub dead: bool,
    pub oom_killed: bool,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
}

impl State {
    /// The one place where Docker's booleans come from.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags {
            status: Status::CREATED,
            running: false,
            paused: false,
            restarting: false,
            dead: false,
            oom_killed: false,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            started_at: None,
            finished_at: None,
        };
        let mut over = |exit: &Exit| {
            flags.exit_code = exit.code;
            flags.oom_killed = exit.oom_killed;
            flags.error = exit.error.clone().unwrap_or_default();
            flags.started_at = Some(exit.started_at);
            flags.finished_at = Some(exit.finished_at);
        };
        match self {
            Self::Created { failure } => {
                if let Some(failure) = failure {
                    flags.exit_code = failure.code;
                    flags.error.clone_from(&failure.message);
                }
            }
            Self::Starting { previous, restarts } => {
                if let Some(exit) = previous {
                    over(exit);
                    flags.restarting = *restarts > 0;
                    flags.running = flags.restarting;
                    flags.status = if flags.restarting { Status::RESTARTING } else { Status::EXITED };
                }
            }
            Self::Running(run) => {
                flags.running = true;
                flags.paused = matches!(run.phase, Phase::Paused | Phase::Resuming);
                flags.status = if flags.paused { Status::PAUSED } else { Status::RUNNING };
                flags.pid = run.init.pid;
                flags.started_at = Some(run.started_at);
            }
            Self::Restarting { last, .. } => {
                over(last);
                flags.running = true;
                flags.restarting = true;
                flags.status = Status::RESTARTING;
            }
            Self::Exited(exit) => {
                over(exit);
                flags.status = Status::EXITED;
            }
            Self::Removing { last, failure } => {
                if let Some(exit) = last {
                    over(exit);
                }
                flags.dead = failure.is_some();
                flags.status = if flags.dead { Status::DEAD } else { Status::REMOVING };
                if let Some(why) = failure {
                    flags.error.clone_from(why);
                }
            }
        }
        flags
    }
}
