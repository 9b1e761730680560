//! One task per container: the only one that changes its state.
//!
//! Commands come through a bounded mailbox, answers of the runtime through a channel of their own.
//! The actor decides ([`admit`]), steps ([`step`]) and starts effects; what takes long runs in tasks
//! that report back, so that a `kill` is never behind a `stop`.

mod effects;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use executor::launch::LaunchError;
use executor::shims::{Attachment, ExitRecord, ProcessId, ShimError};
use executor::spec::Resources;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::record::Record;
use super::registry::{Handle, View};
use super::runtime::Task;
use super::state::{Admission, After, Effect, Event, Failure, Request, SIGKILL, State, admit, step};
use super::{Error, Inner, WaitCondition, WaitOutcome};

/// How many commands may wait.
const MAILBOX: usize = 64;
/// How many commands may wait for a start or for the freezer.
const DEFERRED: usize = 64;

/// How many clients may be attached before the start.
const PENDING: usize = 256;

type Reply = oneshot::Sender<Result<(), Error>>;

/// What the facade asks of an actor.
#[derive(Debug)]
pub enum Command {
    Start { reply: Reply },
    Stop { signal: Option<i32>, timeout: Option<i64>, reply: Reply },
    Restart { signal: Option<i32>, timeout: Option<i64>, reply: Reply },
    Kill { signal: i32, reply: Reply },
    Pause { reply: Reply },
    Unpause { reply: Reply },
    Remove { force: bool, reply: Reply },
    Rename { name: String, reply: Reply },
    Update { record: Box<Record>, resources: Resources, reply: Reply },
    Wait { condition: WaitCondition, reply: oneshot::Sender<oneshot::Receiver<WaitOutcome>> },
    Attach { attachment: Attachment, reply: Reply },
}

impl Command {
    fn request(&self) -> Option<Request> {
        Some(match self {
            Self::Start { .. } => Request::Start,
            Self::Stop { .. } => Request::Stop,
            Self::Restart { .. } => Request::Restart,
            Self::Kill { .. } => Request::Kill,
            Self::Pause { .. } => Request::Pause,
            Self::Unpause { .. } => Request::Unpause,
            Self::Remove { force, .. } => Request::Remove { force: *force },
            Self::Update { .. } => Request::Update,
            Self::Rename { .. } | Self::Wait { .. } | Self::Attach { .. } => return None,
        })
    }

    fn refuse(self, error: Error) {
        match self {
            Self::Start { reply }
            | Self::Stop { reply, .. }
            | Self::Restart { reply, .. }
            | Self::Kill { reply, .. }
            | Self::Pause { reply }
            | Self::Unpause { reply }
            | Self::Remove { reply, .. }
            | Self::Rename { reply, .. }
            | Self::Update { reply, .. }
            | Self::Attach { reply, .. } => answer(reply, Err(error)),
            Self::Wait { reply, .. } => drop(reply),
        }
    }
}

/// Whoever asked may be gone.
fn answer(reply: Reply, result: Result<(), Error>) {
    reply.send(result).ok();
}

/// What the actor's own tasks report.
#[derive(Debug)]
pub enum Report {
    /// The runtime's answer to a launch.
    Started(Result<(ProcessId, Arc<dyn Task>), Error>),
    /// Process 1 has ended.
    Ended(ExitRecord),
    /// The shim is gone and left no record.
    Lost(String),
    /// The restart policy wants it started.
    Due,
    /// The connection was made anew.
    Found(Arc<dyn Task>),
    /// The freezer's answer.
    Frozen(std::io::Result<()>),
    /// The freezer's answer.
    Thawed(std::io::Result<()>),
    /// The end of a removal.
    Removed(Result<(), Error>),
}

/// A container's actor.
pub struct Actor {
    engine: Arc<Inner>,
    id: String,
    name: String,
    record: Arc<Record>,
    state: State,
    task: Option<Arc<dyn Task>>,
    view: watch::Sender<Arc<View>>,
    mailbox: mpsc::Receiver<Command>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    /// Clients that attached before the start.
    pending: Vec<Attachment>,
    deferred: Vec<Command>,
    starters: Vec<Reply>,
    stoppers: Vec<Reply>,
    pausers: Vec<Reply>,
    removers: Vec<Reply>,
    waiters: Vec<(WaitCondition, oneshot::Sender<WaitOutcome>)>,
    forgetting: Option<JoinHandle<()>>,
}

impl Actor {
    /// Publishes a container in the registry and starts its actor. `first` is what was found out
    /// about it at the daemon's start.
    pub fn spawn(engine: Arc<Inner>, view: View, first: Option<Report>) {
        let View { id, name, record, state, task } = view.clone();
        let (view, viewer) = watch::channel(Arc::new(view));
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (reporter, reports) = mpsc::unbounded_channel();
        engine.registry.insert(&id, Handle { mailbox: sender, view: viewer });
        let actor = Self {
            engine,
            id,
            name,
            record,
            state,
            task,
            view,
            mailbox,
            reports,
            reporter,
            pending: vec![],
            deferred: vec![],
            starters: vec![],
            stoppers: vec![],
            pausers: vec![],
            removers: vec![],
            waiters: vec![],
            forgetting: None,
        };
        tokio::spawn(actor.run(first));
    }

    async fn run(mut self, first: Option<Report>) {
        match first {
            Some(report) => drop(self.reporter.send(report)),
            None if self.state.is_running() => self.watch(self.task.clone()),
            None => {}
        }
        if matches!(self.state, State::Removing { .. }) {
            self.spawn_removal();
        }
        loop {
            let deadline = self.state.deadline();
            let timer = async {
                match deadline {
                    Some(at) => {
                        tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => {
                    if self.report(report).await {
                        return;
                    }
                    self.retry_deferred().await;
                }
                command = self.mailbox.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                () = timer => self.event(Event::Deadline).await,
            }
        }
    }

    async fn retry_deferred(&mut self) {
        for command in std::mem::take(&mut self.deferred) {
            self.command(command).await;
        }
    }

    /// Steps, publishes, and starts the effects.
    async fn event(&mut self, event: Event) {
        let before = self.state.clone();
        match step(before.clone(), event, self.record.policy()) {
            Err(denied) => tracing::error!(container = self.id, "{denied}"),
            Ok((state, effects)) => {
                self.state = state;
                if !self.state.is_running() {
                    self.task = None;
                }
                self.announce(&before);
                self.publish();
                if self.state.is_running() && !before.is_running() {
                    // The client need not wait for the row: after a crash the shim itself is found.
                    for reply in self.starters.drain(..) {
                        answer(reply, Ok(()));
                    }
                }
                for effect in effects {
                    self.effect(effect).await;
                }
            }
        }
    }

    fn publish(&self) {
        self.view.send_replace(Arc::new(View {
            id: self.id.clone(),
            name: self.name.clone(),
            record: self.record.clone(),
            state: self.state.clone(),
            task: self.task.clone(),
        }));
    }

    /// Tells the event bus what the change of state means to a user.
    fn announce(&self, before: &State) {
        let (was, is) = (before.flags(), self.state.flags());
        let emit = |action: &str, more: &[(&str, String)]| {
            self.engine.emit_container(action, &self.id, &self.name, &self.record, more);
        };
        match (before.is_running(), self.state.is_running()) {
            (false, true) => emit("start", &[]),
            (true, false) => {
                if is.oom_killed {
                    emit("oom", &[]);
                }
                emit("die", &[("exitCode", is.exit_code.to_string())]);
                if matches!(before, State::Running(run) if run.by_user) {
                    emit("stop", &[]);
                }
            }
            _ if was.paused != is.paused => emit(if is.paused { "pause" } else { "unpause" }, &[]),
            _ => {}
        }
    }

    async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Persist => self.persist().await,
            Effect::Release => self.release(),
            Effect::Forget => self.forget(),
            Effect::Launch => self.launch(),
            Effect::Signal(signal) => self.signal(signal, None),
            Effect::Freeze => self.freezer(true),
            Effect::Thaw => self.freezer(false),
            Effect::Remove => self.spawn_removal(),
        }
    }

    async fn persist(&self) {
        let state = serde_json::to_string(&self.state).expect("a state serialises");
        if let Err(error) = self.engine.store.update_container_state(&self.id, &state).await {
            tracing::error!(container = self.id, %error, "state not recorded");
        }
    }

    fn outcome(&self) -> WaitOutcome {
        let flags = self.state.flags();
        let error = Some(flags.error)
            .filter(|error| !error.is_empty() && flags.exit_code != 126 && flags.exit_code != 127);
        WaitOutcome { status_code: i64::from(flags.exit_code), error }
    }

    /// Process 1 has ended: tells those who waited for that.
    fn release(&mut self) {
        let outcome = self.outcome();
        for (condition, waiter) in std::mem::take(&mut self.waiters) {
            match condition {
                WaitCondition::Removed => self.waiters.push((condition, waiter)),
                _ => drop(waiter.send(outcome.clone())),
            }
        }
        for reply in self.stoppers.drain(..) {
            answer(reply, Ok(()));
        }
        if !matches!(self.state, State::Starting { .. }) {
            for reply in self.starters.drain(..) {
                answer(reply, Err(Error::Conflict("the container was stopped meanwhile".into())));
            }
        }
    }

    /// `true` ends the actor.
    async fn report(&mut self, report: Report) -> bool {
        match report {
            Report::Started(Ok((init, task))) => {
                self.watch(Some(task.clone()));
                self.task = Some(task);
                self.event(Event::Started { init, at: SystemTime::now() }).await;
            }
            Report::Started(Err(error)) => {
                let failure = failure(&error);
                let starters = std::mem::take(&mut self.starters);
                self.event(Event::StartFailed(failure.clone())).await;
                for reply in starters {
                    answer(reply, Err(launch_error(&failure, &error)));
                }
            }
            Report::Ended(record) => self.event(Event::Ended(record)).await,
            Report::Lost(error) => self.event(Event::Lost { error, at: SystemTime::now() }).await,
            Report::Due => self.event(Event::Start).await,
            Report::Found(task) => {
                self.task = Some(task);
                self.publish();
            }
            Report::Frozen(result) => self.froze(result, true).await,
            Report::Thawed(result) => self.froze(result, false).await,
            Report::Removed(Ok(())) => {
                self.finish();
                return true;
            }
            Report::Removed(Err(error)) => {
                tracing::error!(container = self.id, %error, "not removed");
                let text = error.to_string();
                for reply in self.removers.drain(..) {
                    answer(reply, Err(Error::Internal(text.clone())));
                }
                self.event(Event::RemoveFailed(text)).await;
                let outcome = self.outcome();
                for (_, waiter) in self.waiters.drain(..) {
                    waiter.send(outcome.clone()).ok();
                }
            }
        }
        false
    }

    async fn froze(&mut self, result: std::io::Result<()>, freeze: bool) {
        let done = result.is_ok();
        let text = result.err().map(|error| {
            let what = if freeze { "pause" } else { "unpause" };
            format!("cannot {what} container {}: {error}", self.id)
        });
        self.event(if freeze { Event::Frozen(done) } else { Event::Thawed(done) }).await;
        for reply in self.pausers.drain(..) {
            answer(reply, text.clone().map_or(Ok(()), |text| Err(Error::Internal(text))));
        }
    }

    /// The container is no more.
    fn finish(&mut self) {
        self.engine.registry.remove(&self.id, &self.name);
        self.engine.drop_execs(&self.id);
        self.engine.emit_container("destroy", &self.id, &self.name, &self.record, &[]);
        let outcome = self.outcome();
        for (_, waiter) in self.waiters.drain(..) {
            waiter.send(outcome.clone()).ok();
        }
        for reply in self.removers.drain(..).chain(self.stoppers.drain(..)) {
            answer(reply, Ok(()));
        }
        for command in self.deferred.drain(..) {
            command.refuse(Error::NoSuchContainer(self.id.clone()));
        }
        self.mailbox.close();
        while let Ok(command) = self.mailbox.try_recv() {
            command.refuse(Error::NoSuchContainer(self.id.clone()));
        }
    }

    async fn command(&mut self, command: Command) {
        if let Some(request) = command.request() {
            match admit(&self.state, request, &self.id, &self.name) {
                Admission::Accept => {}
                Admission::Already => return command.refuse(Error::NotModified),
                Admission::Conflict(text) => return command.refuse(Error::Conflict(text)),
                Admission::Later if self.deferred.len() < DEFERRED => return self.deferred.push(command),
                Admission::Later => {
                    return command.refuse(Error::Conflict("too many requests at once".into()));
                }
            }
        }
        match command {
            Command::Start { reply } => {
                self.starters.push(reply);
                self.event(Event::Start).await;
            }
            Command::Stop { signal, timeout, reply } => {
                self.stoppers.push(reply);
                self.stop(signal, timeout, After::Settle).await;
            }
            Command::Restart { signal, timeout, reply } => {
                self.starters.push(reply);
                match self.state {
                    State::Running(_) | State::Restarting { .. } => {
                        self.stop(signal, timeout, After::Start).await;
                    }
                    _ => self.event(Event::Start).await,
                }
            }
            Command::Kill { signal, reply } => self.kill(signal, reply).await,
            Command::Pause { reply } => {
                self.pausers.push(reply);
                self.event(Event::Pause).await;
            }
            Command::Unpause { reply } => {
                self.pausers.push(reply);
                self.event(Event::Resume).await;
            }
            Command::Remove { reply, .. } => {
                self.removers.push(reply);
                match self.state {
                    State::Running(_) => {
                        self.event(Event::Stop { signal: SIGKILL, kill_at: None, after: After::Remove })
                            .await;
                    }
                    _ => self.event(Event::Remove).await,
                }
            }
            Command::Rename { name, reply } => self.rename(name, reply).await,
            Command::Update { record, resources, reply } => self.update(*record, resources, reply).await,
            Command::Wait { condition, reply } => self.wait(condition, reply),
            Command::Attach { attachment, reply } => self.attach(attachment, reply),
        }
    }

    async fn stop(&mut self, signal: Option<i32>, timeout: Option<i64>, after: After) {
        let timeout = timeout.unwrap_or_else(|| self.record.stop_timeout());
        let kill_at = u64::try_from(timeout)
            .ok()
            .map(|seconds| SystemTime::now() + Duration::from_secs(seconds.min(1 << 31)));
        let signal = signal.unwrap_or_else(|| self.record.stop_signal());
        self.event(Event::Stop { signal, kill_at, after }).await;
    }

    async fn kill(&mut self, signal: i32, reply: Reply) {
        let ends = signal == SIGKILL || signal == self.record.stop_signal();
        self.engine.emit_container(
            "kill",
            &self.id,
            &self.name,
            &self.record,
            &[("signal", signal.to_string())],
        );
        let before = self.state.clone();
        match step(before, Event::Signal { signal, ends }, self.record.policy()) {
            Err(denied) => answer(reply, Err(Error::Internal(denied.to_string()))),
            Ok((state, effects)) => {
                self.state = state;
                self.publish();
                let mut reply = Some(reply);
                for effect in effects {
                    match effect {
                        Effect::Signal(signal) => self.signal(signal, reply.take()),
                        effect => self.effect(effect).await,
                    }
                }
            }
        }
    }

    async fn rename(&mut self, name: String, reply: Reply) {
        let config = serde_json::to_string(&*self.record).expect("a record serialises");
        let result = match self.engine.store.update_container(&self.id, &name, &config).await {
            Ok(true) => {
                let old = std::mem::replace(&mut self.name, name);
                self.engine.registry.release(&old);
                self.publish();
                let more = [("oldName", format!("/{old}"))];
                self.engine.emit_container("rename", &self.id, &self.name, &self.record, &more);
                Ok(())
            }
            Ok(false) => Err(Error::Conflict(format!("the container name \"/{name}\" is already in use"))),
            Err(error) => Err(error.into()),
        };
        answer(reply, result);
    }

    async fn update(&mut self, record: Record, resources: Resources, reply: Reply) {
        if self.state.is_running() {
            let path = self.engine.cgroup_path(&self.id);
            if let Err(error) = self.engine.runtime.update(&path, resources).await {
                let text = format!("Cannot update container {}: {error}", self.id);
                return answer(reply, Err(Error::Internal(text)));
            }
        }
        let config = serde_json::to_string(&record).expect("a record serialises");
        let result = match self.engine.store.update_container(&self.id, &self.name, &config).await {
            Ok(_) => {
                self.record = Arc::new(record);
                self.publish();
                self.engine.emit_container("update", &self.id, &self.name, &self.record, &[]);
                Ok(())
            }
            Err(error) => Err(error.into()),
        };
        answer(reply, result);
    }

    fn wait(&mut self, condition: WaitCondition, reply: oneshot::Sender<oneshot::Receiver<WaitOutcome>>) {
        let (sender, receiver) = oneshot::channel();
        let live = self.state.is_live() || matches!(self.state, State::Restarting { .. });
        if condition == WaitCondition::NotRunning && !live {
            sender.send(self.outcome()).ok();
        } else {
            self.waiters.retain(|(_, waiter)| !waiter.is_closed());
            self.waiters.push((condition, sender));
        }
        reply.send(receiver).ok();
    }

    fn attach(&mut self, attachment: Attachment, reply: Reply) {
        match (&self.task, &self.state) {
            (_, State::Removing { .. }) => {
                answer(reply, Err(Error::Conflict(format!("container {} is marked for removal", self.id))));
            }
            (Some(task), _) => {
                let task = task.clone();
                tokio::spawn(async move {
                    // A process that has just ended has no more output: the stream simply ends.
                    let result = match task.attach(attachment).await {
                        Ok(()) | Err(ShimError::Gone) => Ok(()),
                        Err(error) => Err(error.into()),
                    };
                    answer(reply, result);
                });
            }
            (None, State::Starting { .. }) => {
                self.deferred.push(Command::Attach { attachment, reply });
            }
            (None, _) if self.pending.len() >= PENDING => {
                answer(reply, Err(Error::Conflict("too many clients wait for the start".into())));
            }
            (None, _) => {
                self.pending.push(attachment);
                answer(reply, Ok(()));
            }
        }
    }
}

/// What a failed start leaves in the state.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Shim(ShimError::Launch(LaunchError { exit_code, message })) => Failure {
            code: if *exit_code == 125 { 128 } else { *exit_code },
            message: format!(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: {message}"
            ),
        },
        other => Failure { code: 128, message: other.to_string() },
    }
}

fn launch_error(failure: &Failure, error: &Error) -> Error {
    match error {
        Error::Shim(ShimError::Launch(_)) => {
            Error::Launch { message: failure.message.clone(), exit_code: failure.code }
        }
        Error::Conflict(text) => Error::Conflict(text.clone()),
        Error::Invalid(text) => Error::Invalid(text.clone()),
        other => Error::Internal(other.to_string()),
    }
}
