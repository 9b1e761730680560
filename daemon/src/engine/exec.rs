//! Further processes in running containers.
//!
//! An exec instance lives in memory: it is gone with its container's run, and five minutes after
//! its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use executor::launch::LaunchError;
use executor::plan::ExecInput;
use executor::shims::{ShimError, Streams, attachment};
use futures_util::StreamExt;
use proto_api::framing::{StreamKind, frame};
use proto_api::models::{ExecConfig, ExecInspectResponse, ProcessConfig};

use super::registry::View;
use super::runtime::{NewExec, Task};
use super::state::{Admission, Request, admit};
use super::{Attach, DetachKeys, Error, ExecStartOptions, Inner, names, record};

/// How long a finished one can be inspected.
const KEPT: Duration = Duration::from_secs(300);
/// How many there may be, finished ones included.
const MOST: usize = 10_000;

#[derive(Debug, Clone)]
enum Phase {
    Created,
    Starting,
    Running { pid: i32, task: Arc<dyn Task> },
    Ended { code: i32, pid: i32, at: Instant },
}

#[derive(Debug, Clone)]
struct Exec {
    container: String,
    config: ExecConfig,
    created: Instant,
    phase: Phase,
}

/// All exec instances.
#[derive(Debug, Default)]
pub struct Execs(Mutex<HashMap<String, Exec>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Exec>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Exec, Error> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NoSuchExec(id.to_owned()))
    }

    fn set(&self, id: &str, phase: Phase) {
        if let Some(exec) = self.lock().get_mut(id) {
            exec.phase = phase;
        }
    }

    fn insert(&self, id: &str, exec: Exec) -> Result<(), Error> {
        let mut all = self.lock();
        all.retain(|_, exec| match exec.phase {
            Phase::Ended { at, .. } => at.elapsed() < KEPT,
            Phase::Created => exec.created.elapsed() < KEPT * 12,
            _ => true,
        });
        if all.len() >= MOST {
            // The oldest finished ones go first.
            let mut ended: Vec<_> = all
                .iter()
                .filter_map(|(id, exec)| match exec.phase {
                    Phase::Ended { at, .. } => Some((at, id.clone())),
                    _ => None,
                })
                .collect();
            ended.sort();
            for (_, id) in ended.into_iter().take(MOST / 10) {
                all.remove(&id);
            }
        }
        if all.len() >= MOST {
            return Err(Error::Conflict(format!("there are {MOST} exec instances already")));
        }
        all.insert(id.to_owned(), exec);
        Ok(())
    }

    /// Marks an instance as being started.
    fn claim(&self, id: &str) -> Result<Exec, Error> {
        let mut all = self.lock();
        let exec = all.get_mut(id).ok_or_else(|| Error::NoSuchExec(id.to_owned()))?;
        match exec.phase {
            Phase::Created => {
                exec.phase = Phase::Starting;
                Ok(exec.clone())
            }
            Phase::Starting | Phase::Running { .. } => {
                Err(Error::Conflict(format!("Error: Exec command {id} is already running")))
            }
            Phase::Ended { .. } => Err(Error::Conflict(format!("Error: Exec command {id} has already run"))),
        }
    }
}

fn streams(config: &ExecConfig) -> Streams {
    Streams {
        stdin: config.attach_stdin == Some(true),
        stdout: config.attach_stdout == Some(true),
        stderr: config.attach_stderr == Some(true),
    }
}

fn size(config: &ExecConfig) -> Option<(u16, u16)> {
    match *config.console_size.as_deref()? {
        [rows, columns] if rows > 0 && columns > 0 => {
            Some((u16::try_from(rows).ok()?, u16::try_from(columns).ok()?))
        }
        _ => None,
    }
}

fn input(view: &View, config: &ExecConfig) -> ExecInput {
    let own = &view.record;
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut env = own.environment(own.config.hostname.as_deref().unwrap_or_default());
    if config.tty == Some(true) && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    ExecInput {
        args: config.cmd.clone().unwrap_or_default(),
        env: record::override_environment(env, config.env.as_deref().unwrap_or_default()),
        cwd: filled(&config.working_dir)
            .or_else(|| filled(&own.config.working_dir))
            .unwrap_or_else(|| "/".into()),
        user: filled(&config.user).or_else(|| own.config.user.clone()).unwrap_or_default(),
        group_add: own.host.group_add.clone().unwrap_or_default(),
        terminal: config.tty == Some(true),
        privileged: config.privileged == Some(true),
    }
}

impl Inner {
    fn running(&self, container: &str) -> Result<(Arc<View>, Arc<dyn Task>), Error> {
        let view = self.registry.find(container)?.now();
        match admit(&view.state, Request::Exec, &view.id, &view.name) {
            Admission::Conflict(text) => return Err(Error::Conflict(text)),
            Admission::Accept => {}
            Admission::Already | Admission::Later => {
                return Err(Error::Conflict(format!("container {} is not running", view.id)));
            }
        }
        match view.task.clone() {
            Some(task) => Ok((view, task)),
            None => Err(Error::Conflict(format!("container {} does not answer", view.id))),
        }
    }

    /// See [`super::Engine::exec_create`].
    pub(super) fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String, Error> {
        let view = self.registry.find(name)?.now();
        if config.cmd.as_ref().is_none_or(|cmd| cmd.first().is_none_or(String::is_empty)) {
            return Err(Error::Invalid("No exec command specified".into()));
        }
        DetachKeys::parse(config.detach_keys.as_deref())?;
        if let Some(dir) =
            config.working_dir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/'))
        {
            return Err(Error::Invalid(format!(
                "the working directory '{dir}' is invalid, it needs to be an absolute path"
            )));
        }
        self.running(&view.id)?;
        let id = names::new_id();
        let text = format!("exec_create: {}", config.cmd.clone().unwrap_or_default().join(" "));
        self.emit_container(&text, &view.id, &view.name, &view.record, &[("execID", id.clone())]);
        let exec =
            Exec { container: view.id.clone(), config, created: Instant::now(), phase: Phase::Created };
        self.execs.insert(&id, exec)?;
        Ok(id)
    }

    /// See [`super::Engine::exec_start`]. Not to be cancelled.
    pub(super) async fn exec_start(
        self: Arc<Self>,
        id: String,
        options: ExecStartOptions,
    ) -> Result<Option<Attach>, Error> {
        let (view, task) = self.running(&self.execs.get(&id)?.container)?;
        let exec = self.execs.claim(&id)?;
        let tty = exec.config.tty == Some(true);
        let connected = !options.detach;
        let (ours, theirs) = match connected {
            true => match attachment(streams(&exec.config)) {
                Ok((theirs, ours)) => (Some(ours), Some(theirs)),
                Err(error) => {
                    self.execs.set(&id, Phase::Created);
                    return Err(Error::io("make a pair of sockets")(error));
                }
            },
            false => (None, None),
        };
        let new = NewExec {
            id: id.clone(),
            input: input(&view, &exec.config),
            console_size: options.console_size.or_else(|| size(&exec.config)),
            attachment: theirs,
        };
        let text = format!("exec_start: {}", exec.config.cmd.clone().unwrap_or_default().join(" "));
        match task.exec(new).await {
            Ok(started) => {
                self.emit_container(&text, &view.id, &view.name, &view.record, &[("execID", id.clone())]);
                self.execs.set(&id, Phase::Running { pid: started.pid, task: task.clone() });
                self.follow_exec(id, view, task, started.pid);
                let detach = match (tty, streams(&exec.config).stdin) {
                    (true, true) => Some(DetachKeys::parse(exec.config.detach_keys.as_deref())?),
                    _ => None,
                };
                Ok(ours.map(|stream| Attach { tty, replay: None, stream: Some(stream), detach }))
            }
            Err(error) => {
                let (code, text) = refused(&error);
                self.execs.set(&id, Phase::Ended { code, pid: 0, at: Instant::now() });
                if !connected || !matches!(error, ShimError::Launch(_)) {
                    return Err(match error {
                        ShimError::Gone => Error::Conflict(format!("container {} is not running", view.id)),
                        ShimError::Launch(_) => Error::Launch { message: text, exit_code: code },
                        error => error.into(),
                    });
                }
                // Docker has answered by then, and says why on the stream.
                let line = format!("{text}\r\n");
                let bytes = if tty { line.into() } else { frame(StreamKind::Stdout, line.as_bytes()) };
                let replay = futures_util::stream::iter([Ok(bytes)]).boxed();
                Ok(Some(Attach { tty, replay: Some(replay), stream: None, detach: None }))
            }
        }
    }

    fn follow_exec(self: &Arc<Self>, id: String, view: Arc<View>, task: Arc<dyn Task>, pid: i32) {
        let engine = self.clone();
        tokio::spawn(async move {
            // With its container, every process of it is killed.
            let code = task.exec_wait(&id).await.unwrap_or(137);
            engine.execs.set(&id, Phase::Ended { code, pid, at: Instant::now() });
            let more = [("execID", id), ("exitCode", code.to_string())];
            engine.emit_container("exec_die", &view.id, &view.name, &view.record, &more);
        });
    }

    /// See [`super::Engine::exec_inspect`].
    pub(super) async fn exec_inspect(&self, id: &str) -> Result<ExecInspectResponse, Error> {
        let mut exec = self.execs.get(id)?;
        // A client asks as soon as the stream has ended: the exit is told a moment later.
        if let Phase::Running { task, pid } = &exec.phase
            && let Ok(Ok(code)) = tokio::time::timeout(Duration::from_millis(20), task.exec_wait(id)).await
        {
            exec.phase = Phase::Ended { code, pid: *pid, at: Instant::now() };
        }
        let (running, code, pid) = match exec.phase {
            Phase::Created | Phase::Starting => (false, None, 0),
            Phase::Running { pid, .. } => (true, None, pid),
            Phase::Ended { code, pid, .. } => (false, Some(i64::from(code)), pid),
        };
        let config = exec.config;
        let mut words = config.cmd.clone().unwrap_or_default().into_iter();
        Ok(ExecInspectResponse {
            can_remove: Some(false),
            detach_keys: Some(config.detach_keys.clone().unwrap_or_default()),
            id: Some(id.to_owned()),
            running: Some(running),
            exit_code: code,
            process_config: Some(ProcessConfig {
                privileged: Some(config.privileged == Some(true)),
                user: config.user.clone(),
                tty: Some(config.tty == Some(true)),
                entrypoint: words.next(),
                arguments: Some(words.collect()),
            }),
            open_stdin: Some(config.attach_stdin == Some(true)),
            open_stderr: Some(config.attach_stderr == Some(true)),
            open_stdout: Some(config.attach_stdout == Some(true)),
            container_id: Some(exec.container),
            pid: Some(i64::from(pid)),
        })
    }

    /// See [`super::Engine::exec_resize`].
    pub(super) async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        match self.execs.get(id)?.phase {
            Phase::Running { task, .. } => Ok(task.exec_resize(id, rows, columns).await?),
            _ => Err(Error::Conflict(format!("exec {id} is not running"))),
        }
    }

    /// Ids of a container's exec instances that run.
    pub(super) fn exec_ids(&self, container: &str) -> Vec<String> {
        let all = self.execs.lock();
        let own = |exec: &Exec| exec.container == container && matches!(exec.phase, Phase::Running { .. });
        let mut ids: Vec<String> =
            all.iter().filter(|(_, exec)| own(exec)).map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    }

    /// Forgets the instances of a container that is gone.
    pub(super) fn drop_execs(&self, container: &str) {
        self.execs.lock().retain(|_, exec| exec.container != container);
    }
}

fn refused(error: &ShimError) -> (i32, String) {
    match error {
        ShimError::Launch(LaunchError { exit_code, message }) => (
            *exit_code,
            format!("OCI runtime exec failed: exec failed: unable to start container process: {message}"),
        ),
        other => (128, other.to_string()),
    }
}
