//! Containers: their configuration, their states and everything that is done to them.
//!
//! [`Engine`] is the facade that the API calls. Names may be a full id, a unique prefix of one or a
//! name. Every operation that changes something runs in a task of its own, so that a client that
//! goes away cancels nothing.

mod actor;
mod boot;
mod changes;
mod commit;
mod create;
mod detach;
mod error;
mod events;
mod exec;
mod export;
mod files;
mod inspect;
mod list;
mod log_file;
mod log_target;
mod log_watch;
mod logs;
mod mounts;
mod names;
mod options;
mod record;
mod registry;
pub mod runtime;
mod security;
mod signals;
mod spec_input;
pub mod state;
mod stats;
mod time_text;
mod top;
mod update;
mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use executor::shims::{Shims, attachment};
use futures_util::FutureExt;
use futures_util::stream::BoxStream;
use proto_api::filters::Filters;
use proto_api::models;
use storage::archive::ArchiveStream;
use storage::{ImageId, ImageUse, Store};
use tokio::sync::oneshot;

use actor::Command;
pub use detach::DetachKeys;
pub use error::{Error, ErrorKind};
pub use options::*;
use record::Record;
use registry::{Registry, View};
use runtime::Runtime;

/// The engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    runtime: Arc<dyn Runtime>,
    cgroup_parent: String,
    patience: Duration,
    registry: Registry,
    execs: exec::Execs,
    events: events::Events,
}

impl Inner {
    fn cgroup_path(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup_parent)
    }

    fn emit_container(&self, action: &str, id: &str, name: &str, record: &Record, more: &[(&str, String)]) {
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone().unwrap_or_default());
        attributes.insert("name".into(), name.to_owned());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.events.emit(models::EventMessageTypeEnum::CONTAINER, action, id, attributes);
    }
}

type Reply = oneshot::Sender<Result<(), Error>>;

/// Runs a mutation in a task of its own, so that the caller's end does not cancel it.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work)
        .await
        .map_err(|error| Error::Internal(format!("a task of the engine failed: {error}")))?
}

impl Engine {
    /// Reads the containers of the store, finds their shims again and finishes what an earlier
    /// process left half-done.
    pub async fn open(options: EngineOptions) -> Result<Self, Error> {
        let shims = Shims::new(options.shim_binary.clone(), options.run_root.clone());
        Self::open_with(options, Arc::new(shims)).await
    }

    /// The same over any runtime.
    pub async fn open_with(options: EngineOptions, runtime: Arc<dyn Runtime>) -> Result<Self, Error> {
        let inner = Arc::new(Inner {
            store: options.store,
            runtime,
            cgroup_parent: options.cgroup_parent,
            patience: options.patience,
            registry: Registry::default(),
            execs: exec::Execs::default(),
            events: events::Events::default(),
        });
        boot::reconcile(&inner).await?;
        Ok(Self(inner))
    }

    /// Sends a command to an actor. Once it is in the mailbox it is carried out, whoever waits.
    async fn tell(&self, name: &str, command: impl FnOnce(Reply) -> Command) -> Result<(), Error> {
        let handle = self.0.registry.find(name)?;
        let gone = || Error::NoSuchContainer(name.to_owned());
        let (reply, answer) = oneshot::channel();
        handle.mailbox.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn view(&self, name: &str) -> Result<Arc<View>, Error> {
        Ok(self.0.registry.find(name)?.now())
    }

    /// Creates a container. `platform` is `os[/arch[/variant]]` as the user asked for it.
    pub async fn create(
        &self,
        name: Option<String>,
        body: models::ContainerCreateBody,
        platform: Option<String>,
    ) -> Result<Created, Error> {
        detached(self.0.clone().create(name, body, platform)).await
    }

    /// Starts a container; [`Error::NotModified`] where it runs. `detach_keys` is validated only.
    pub async fn start(&self, name: &str, detach_keys: Option<String>) -> Result<(), Error> {
        DetachKeys::parse(detach_keys.as_deref())?;
        self.tell(name, |reply| Command::Start { reply }).await
    }

    /// Sends the stop signal and, `timeout` seconds later (-1 is never), SIGKILL. Returns once it has
    /// ended; [`Error::NotModified`] where it does not run.
    pub async fn stop(&self, name: &str, timeout: Option<i64>, signal: Option<String>) -> Result<(), Error> {
        let signal = given_signal(signal)?;
        self.tell(name, |reply| Command::Stop { signal, timeout, reply }).await
    }

    /// Stops where it runs, then starts.
    pub async fn restart(
        &self,
        name: &str,
        timeout: Option<i64>,
        signal: Option<String>,
    ) -> Result<(), Error> {
        let signal = given_signal(signal)?;
        self.tell(name, |reply| Command::Restart { signal, timeout, reply }).await
    }

    /// Sends a signal (`SIGTERM`, `TERM`, `15`; SIGKILL by default). Conflict where it does not run.
    pub async fn kill(&self, name: &str, signal: Option<String>) -> Result<(), Error> {
        let signal = given_signal(signal)?.unwrap_or(state::SIGKILL);
        self.tell(name, |reply| Command::Kill { signal, reply }).await
    }

    /// Freezes every process.
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        self.tell(name, |reply| Command::Pause { reply }).await
    }

    /// Lets them go on.
    pub async fn unpause(&self, name: &str) -> Result<(), Error> {
        self.tell(name, |reply| Command::Unpause { reply }).await
    }

    /// Gives a container another name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<(), Error> {
        let view = self.view(name)?;
        if new_name.is_empty() {
            return Err(Error::Invalid("Neither old nor new names may be empty".into()));
        }
        let new = names::checked(new_name)?.to_owned();
        if new == view.name {
            return Err(Error::Invalid("Renaming a container with the same name as its current name".into()));
        }
        let engine = self.clone();
        detached(async move {
            engine.0.registry.reserve(&new, &view.id)?;
            let name = new.clone();
            let result = engine.tell(&view.id, |reply| Command::Rename { name, reply }).await;
            if result.is_err() {
                engine.0.registry.release(&new);
            }
            result
        })
        .await
    }

    /// Removes a container; a running one only with `force`.
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), Error> {
        // Anonymous volumes do not exist yet: there is nothing more to delete with them.
        let _volumes = volumes;
        self.tell(name, |reply| Command::Remove { force, reply }).await
    }

    /// Registers a wait: what happens after this returns is not missed.
    pub async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Waiting, Error> {
        let handle = self.0.registry.find(name)?;
        let gone = || Error::NoSuchContainer(name.to_owned());
        let (reply, answer) = oneshot::channel();
        handle.mailbox.send(Command::Wait { condition, reply }).await.map_err(|_| gone())?;
        let outcome = answer.await.map_err(|_| gone())?;
        let lost = WaitOutcome { status_code: 0, error: Some("the container was removed".to_owned()) };
        Ok(async move { outcome.await.unwrap_or(lost) }.boxed())
    }

    /// `docker ps`; newest first.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<models::ContainerSummary>, Error> {
        self.0.list(options).await
    }

    /// `docker inspect`; `size` walks the writable layer.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<models::ContainerInspectResponse, Error> {
        let view = self.view(name)?;
        self.0.inspect(&view, size).await
    }

    /// Reads the log.
    pub async fn logs(&self, name: &str, options: LogOptions) -> Result<Logs, Error> {
        let handle = self.0.registry.find(name)?;
        self.0.logs(handle, options).await
    }

    /// Connects to process 1; before the start as well, so that nothing is missed.
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attach, Error> {
        let view = self.view(name)?;
        let tty = view.record.tty();
        let keys = DetachKeys::parse(options.detach_keys.as_deref())?;
        if view.state.flags().paused {
            return Err(Error::Conflict(format!(
                "Container {name} is paused, unpause the container before attach"
            )));
        }
        let replay = match options.logs && log_target::readable(&view.record) {
            true => {
                let wanted = LogOptions {
                    stdout: options.streams.stdout,
                    stderr: options.streams.stderr,
                    ..Default::default()
                };
                match wanted.stdout || wanted.stderr {
                    true => Some(self.logs(&view.id, wanted).await?.stream),
                    false => None,
                }
            }
            false => None,
        };
        let stream = match options.stream {
            true => {
                let (attachment, ours) =
                    attachment(options.streams).map_err(Error::io("make a pair of sockets"))?;
                self.tell(&view.id, |reply| Command::Attach { attachment, reply }).await?;
                Some(ours)
            }
            false => None,
        };
        let detach = (tty && options.streams.stdin).then_some(keys);
        self.0.emit_container("attach", &view.id, &view.name, &view.record, &[]);
        Ok(Attach { tty, replay, stream, detach })
    }

    /// Sets the terminal's size.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let view = self.view(name)?;
        match &view.task {
            Some(task) => Ok(task.resize(rows, columns).await?),
            None => Err(Error::Conflict(format!("container {} is not running", view.id))),
        }
    }

    /// The processes of a container, from the host's procfs. `ps_args` is `-ef` by default.
    pub async fn top(
        &self,
        name: &str,
        ps_args: Option<&str>,
    ) -> Result<models::ContainerTopResponse, Error> {
        let view = self.view(name)?;
        self.0.top(&view, ps_args).await
    }

    /// One sample a second; with `stream` false one or (without `one_shot`) after a first second.
    pub async fn stats(
        &self,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<BoxStream<'static, models::ContainerStatsResponse>, Error> {
        let handle = self.0.registry.find(name)?;
        Ok(stats::stream(self.0.clone(), handle, stream, one_shot))
    }

    /// Prepares a further process; gives its id.
    pub async fn exec_create(&self, name: &str, config: models::ExecConfig) -> Result<String, Error> {
        self.0.exec_create(name, config)
    }

    /// Starts it; with `detach` there is no connection.
    pub async fn exec_start(&self, id: &str, options: ExecStartOptions) -> Result<Option<Attach>, Error> {
        detached(self.0.clone().exec_start(id.to_owned(), options)).await
    }

    /// What became of it.
    pub async fn exec_inspect(&self, id: &str) -> Result<models::ExecInspectResponse, Error> {
        self.0.exec_inspect(id).await
    }

    /// Sets its terminal's size.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        self.0.exec_resize(id, rows, columns).await
    }

    /// Changes limits and the restart policy; gives warnings.
    pub async fn update(&self, name: &str, body: models::ContainerUpdateBody) -> Result<Vec<String>, Error> {
        update::update(self, name, body).await
    }

    /// Removes all stopped containers that the filters (`until`, `label`, `label!`) let through.
    pub async fn prune(&self, filters: Filters) -> Result<models::ContainerPruneResponse, Error> {
        update::prune(self.clone(), filters).await
    }

    /// For `/info`.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for view in self.0.registry.views() {
            match view.state.flags() {
                flags if flags.paused => counts.paused += 1,
                flags if flags.running => counts.running += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }

    /// Who uses an image, for `rmi`.
    pub fn image_users(&self, image: &ImageId) -> Vec<ImageUse> {
        let views = self.0.registry.views().into_iter();
        let users = views.filter(|view| view.record.image_id == image.as_str());
        users
            .map(|view| ImageUse { container: view.id.clone(), running: view.state.flags().running })
            .collect()
    }

    /// What changed against the image.
    pub async fn changes(&self, name: &str) -> Result<Vec<models::FilesystemChange>, Error> {
        let view = self.view(name)?;
        self.0.changes(&view).await
    }

    /// The files of a container as one tar, without what is mounted in it.
    pub async fn export(&self, name: &str) -> Result<ArchiveStream, Error> {
        let view = self.view(name)?;
        self.0.export(&view).await
    }

    /// Makes an image of a container.
    pub async fn commit(&self, name: &str, options: CommitOptions) -> Result<ImageId, Error> {
        detached(commit::commit(self.clone(), name.to_owned(), options)).await
    }

    /// Events, kept and live.
    pub async fn events(
        &self,
        options: EventOptions,
    ) -> Result<BoxStream<'static, models::EventMessage>, Error> {
        self.0.events.subscribe(options)
    }

    /// Tells of something that happened outside the engine (an image was pulled, tagged, removed).
    pub fn emit(
        &self,
        kind: models::EventMessageTypeEnum,
        action: &str,
        actor: &str,
        attributes: HashMap<String, String>,
    ) {
        self.0.events.emit(kind, action, actor, attributes);
    }
}

fn given_signal(signal: Option<String>) -> Result<Option<i32>, Error> {
    signal.filter(|signal| !signal.is_empty()).map(|signal| signals::parse(&signal)).transpose()
}
