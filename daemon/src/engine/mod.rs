//! Containers: their configuration, their states and everything that is done to them.
//!
//! [`Engine`] is the facade that the API calls. Names may be a full id, a unique prefix of one or a
//! name. Every operation that changes something runs in a task of its own, so that a client that
//! goes away cancels nothing.

mod detach;
mod error;
mod options;

use std::collections::HashMap;

use futures_util::stream::BoxStream;
use proto_api::filters::Filters;
use proto_api::models;
use storage::{ImageId, ImageUse};

pub use detach::DetachKeys;
pub use error::{Error, ErrorKind};
pub use options::*;

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {}

fn not_yet<T>(what: &str) -> Result<T, Error> {
    Err(Error::Unsupported(what.to_owned()))
}

#[expect(unused_variables, reason = "bodies are still to come")]
impl Engine {
    /// Reads the containers of the store, finds their shims again and finishes what an earlier
    /// process left half-done.
    pub async fn open(options: EngineOptions) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// Creates a container. `platform` is `os[/arch[/variant]]` as the user asked for it.
    pub async fn create(
        &self,
        name: Option<String>,
        body: models::ContainerCreateBody,
        platform: Option<String>,
    ) -> Result<Created, Error> {
        not_yet("create")
    }

    /// Starts a container; [`Error::NotModified`] where it runs. `detach_keys` is validated only.
    pub async fn start(&self, name: &str, detach_keys: Option<String>) -> Result<(), Error> {
        not_yet("start")
    }

    /// Sends the stop signal and, `timeout` seconds later (-1 is never), SIGKILL. Returns once it has
    /// ended; [`Error::NotModified`] where it does not run.
    pub async fn stop(&self, name: &str, timeout: Option<i64>, signal: Option<String>) -> Result<(), Error> {
        not_yet("stop")
    }

    /// Stops where it runs, then starts.
    pub async fn restart(
        &self,
        name: &str,
        timeout: Option<i64>,
        signal: Option<String>,
    ) -> Result<(), Error> {
        not_yet("restart")
    }

    /// Sends a signal (`SIGTERM`, `TERM`, `15`; SIGKILL by default). Conflict where it does not run.
    pub async fn kill(&self, name: &str, signal: Option<String>) -> Result<(), Error> {
        not_yet("kill")
    }

    /// Freezes every process.
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        not_yet("pause")
    }

    /// Lets them go on.
    pub async fn unpause(&self, name: &str) -> Result<(), Error> {
        not_yet("unpause")
    }

    /// Gives a container another name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<(), Error> {
        not_yet("rename")
    }

    /// Removes a container; a running one only with `force`.
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), Error> {
        not_yet("remove")
    }

    /// Registers a wait: what happens after this returns is not missed.
    pub async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Waiting, Error> {
        not_yet("wait")
    }

    /// `docker ps`; newest first.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<models::ContainerSummary>, Error> {
        not_yet("list")
    }

    /// `docker inspect`; `size` walks the writable layer.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<models::ContainerInspectResponse, Error> {
        not_yet("inspect")
    }

    /// Reads the log.
    pub async fn logs(&self, name: &str, options: LogOptions) -> Result<Logs, Error> {
        not_yet("logs")
    }

    /// Connects to process 1; before the start as well, so that nothing is missed.
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attach, Error> {
        not_yet("attach")
    }

    /// Sets the terminal's size.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), Error> {
        not_yet("resize")
    }

    /// The processes of a container, from the host's procfs. `ps_args` is `-ef` by default.
    pub async fn top(
        &self,
        name: &str,
        ps_args: Option<&str>,
    ) -> Result<models::ContainerTopResponse, Error> {
        not_yet("top")
    }

    /// One sample a second; with `stream` false one or (without `one_shot`) after a first second.
    pub async fn stats(
        &self,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<BoxStream<'static, models::ContainerStatsResponse>, Error> {
        not_yet("stats")
    }

    /// Prepares a further process; gives its id.
    pub async fn exec_create(&self, name: &str, config: models::ExecConfig) -> Result<String, Error> {
        not_yet("exec")
    }

    /// Starts it; with `detach` there is no connection.
    pub async fn exec_start(&self, id: &str, options: ExecStartOptions) -> Result<Option<Attach>, Error> {
        not_yet("exec")
    }

    /// What became of it.
    pub async fn exec_inspect(&self, id: &str) -> Result<models::ExecInspectResponse, Error> {
        not_yet("exec")
    }

    /// Sets its terminal's size.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        not_yet("exec")
    }

    /// Changes limits and the restart policy; gives warnings.
    pub async fn update(&self, name: &str, body: models::ContainerUpdateBody) -> Result<Vec<String>, Error> {
        not_yet("update")
    }

    /// Removes all stopped containers that the filters (`until`, `label`, `label!`) let through.
    pub async fn prune(&self, filters: Filters) -> Result<models::ContainerPruneResponse, Error> {
        not_yet("prune")
    }

    /// For `/info`.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Who uses an image, for `rmi`.
    pub fn image_users(&self, image: &ImageId) -> Vec<ImageUse> {
        vec![]
    }

    /// What changed against the image.
    pub async fn changes(&self, name: &str) -> Result<Vec<models::FilesystemChange>, Error> {
        not_yet("diff")
    }

    /// Makes an image of a container.
    pub async fn commit(&self, name: &str, options: CommitOptions) -> Result<ImageId, Error> {
        not_yet("commit")
    }

    /// Events, kept and live.
    pub async fn events(
        &self,
        options: EventOptions,
    ) -> Result<BoxStream<'static, models::EventMessage>, Error> {
        not_yet("events")
    }

    /// Tells of something that happened outside the engine (an image was pulled, tagged, removed).
    pub fn emit(
        &self,
        kind: models::EventMessageTypeEnum,
        action: &str,
        actor: &str,
        attributes: HashMap<String, String>,
    ) {
    }
}
