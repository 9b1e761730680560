//! A runtime without privileges: containers are entries of a map, and what their program does
//! depends on its name. It outlives the engines that use it, as shims do.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use daemon::engine::runtime::{Launch, NewExec, Runtime, Sighting, Started, Task};
use executor::cgroup::Usage;
use executor::launch::LaunchError;
use executor::shims::{Attachment, ExecStarted, ExitRecord, LogTarget, ProcessId, ShimError};
use executor::spec::{Resources, SpecInput};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proto_api::framing::{StreamKind, frame};
use tokio::sync::watch;

#[derive(Debug)]
struct Container {
    init: ProcessId,
    spec: SpecInput,
    exit: watch::Sender<Option<ExitRecord>>,
    signals: Vec<i32>,
    frozen: bool,
    clients: Vec<Attachment>,
    execs: HashMap<String, i32>,
}

#[derive(Debug, Default)]
struct Inner {
    containers: HashMap<String, Container>,
    pids: i32,
    unknown: bool,
    starts: usize,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Fake(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct FakeTask {
    fake: Fake,
    id: String,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics with the lock held")
    }

    /// Ends a container's program.
    pub fn end(&self, id: &str, code: i32) {
        let record = ExitRecord { code, oom_killed: false, at: SystemTime::now() };
        let mut inner = self.lock();
        let container = inner.containers.get_mut(id).expect("a container that runs");
        container.clients.clear();
        container.exit.send_replace(Some(record));
    }

    /// Leaves the trace of a container that has ended, as a shim does when no daemon is there.
    pub fn plant(&self, id: &str, code: i32) {
        let record = ExitRecord { code, oom_killed: false, at: SystemTime::now() };
        let container = Container {
            init: ProcessId { boot_id: "boot".into(), pid: 1, start_ticks: 1 },
            spec: SpecInput::default(),
            exit: watch::Sender::new(Some(record)),
            signals: vec![],
            frozen: false,
            clients: vec![],
            execs: HashMap::new(),
        };
        self.lock().containers.insert(id.to_owned(), container);
    }

    /// Makes a container's shim vanish without a record.
    pub fn lose(&self, id: &str) {
        self.lock().containers.remove(id);
    }

    /// Whether `find` can tell.
    pub fn set_unknown(&self, unknown: bool) {
        self.lock().unknown = unknown;
    }

    /// Signals that a container got.
    pub fn signals(&self, id: &str) -> Vec<i32> {
        self.lock().containers.get(id).map(|container| container.signals.clone()).unwrap_or_default()
    }

    /// What a container was started with.
    pub fn spec(&self, id: &str) -> SpecInput {
        self.lock().containers[id].spec.clone()
    }

    /// Ids with a trace.
    pub fn traces(&self) -> Vec<String> {
        self.lock().containers.keys().cloned().collect()
    }

    /// How often something was started.
    pub fn starts(&self) -> usize {
        self.lock().starts
    }

    fn launch(&self, launch: Launch) -> Result<Started, ShimError> {
        let args = launch.spec.args.clone();
        let refuse = |exit_code, message: &str| {
            Err(ShimError::Launch(LaunchError { exit_code, message: message.to_owned() }))
        };
        match args[0].as_str() {
            "missing" => return refuse(127, "exec: \"missing\": executable file not found in $PATH"),
            "forbidden" => return refuse(126, "exec: \"forbidden\": permission denied"),
            _ => {}
        }
        let id = launch.spec.id.clone();
        let mut inner = self.lock();
        assert!(!inner.containers.contains_key(&id), "started while there is a trace of an earlier run");
        inner.pids += 1;
        inner.starts += 1;
        let init = ProcessId { boot_id: "boot".into(), pid: 1000 + inner.pids, start_ticks: 1 };
        let container = Container {
            init: init.clone(),
            spec: launch.spec,
            exit: watch::Sender::new(None),
            signals: vec![],
            frozen: false,
            clients: launch.attach,
            execs: HashMap::new(),
        };
        inner.containers.insert(id.clone(), container);
        drop(inner);
        if args[0] == "echo" {
            self.output(&id, &launch.log, &args[1..].join(" "));
        }
        match args[0].as_str() {
            "true" | "echo" => self.end(&id, 0),
            "exit" => self.end(&id, args[1].parse().expect("an exit code")),
            _ => {}
        }
        Ok((init, Arc::new(FakeTask { fake: self.clone(), id })))
    }

    fn output(&self, id: &str, log: &LogTarget, text: &str) {
        if let LogTarget::JsonFile { path, .. } = log {
            let time = chrono::Utc::now().to_rfc3339();
            let line = serde_json::json!({"log": format!("{text}\n"), "stream": "stdout", "time": time});
            let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a log");
            writeln!(file, "{line}").expect("room");
        }
        for client in &mut self.lock().containers.get_mut(id).expect("it was just made").clients {
            let stream = std::os::unix::net::UnixStream::from(client.stream.try_clone().expect("a socket"));
            (&stream)
                .write_all(&frame(StreamKind::Stdout, format!("{text}\n").as_bytes()))
                .expect("a reader");
        }
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    std::future::ready(value).boxed()
}

impl Runtime for Fake {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, ShimError>> {
        ready(self.launch(launch))
    }

    fn find(&self, id: &str, _patience: Duration) -> BoxFuture<'_, Sighting> {
        let inner = self.lock();
        ready(match inner.containers.get(id) {
            _ if inner.unknown => Sighting::Unknown("asleep".into()),
            None => Sighting::Never,
            Some(container) => match container.exit.borrow().clone() {
                Some(record) => Sighting::Dead { exit: Some(record) },
                None => Sighting::Alive {
                    init: container.init.clone(),
                    task: Arc::new(FakeTask { fake: self.clone(), id: id.to_owned() }),
                },
            },
        })
    }

    fn forget(&self, id: &str, _cgroup_path: &str) -> BoxFuture<'_, Result<(), ShimError>> {
        self.lock().containers.remove(id);
        ready(Ok(()))
    }

    fn known(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        ready(Ok(self.traces()))
    }

    fn freeze(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<()>> {
        ready(self.set_frozen(cgroup_path, true))
    }

    fn thaw(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<()>> {
        ready(self.set_frozen(cgroup_path, false))
    }

    fn update(&self, _cgroup_path: &str, _resources: Resources) -> BoxFuture<'_, io::Result<()>> {
        ready(Ok(()))
    }

    fn usage(&self, _cgroup_path: &str) -> BoxFuture<'_, io::Result<Usage>> {
        ready(Ok(Usage { memory_bytes: 4096, pids: 1, ..Usage::default() }))
    }

    fn processes(&self, _cgroup_path: &str) -> BoxFuture<'_, io::Result<Vec<i32>>> {
        ready(Ok(vec![i32::try_from(std::process::id()).expect("a pid")]))
    }
}

impl Fake {
    fn set_frozen(&self, cgroup_path: &str, frozen: bool) -> io::Result<()> {
        let id = cgroup_path.rsplit('/').next().unwrap_or_default();
        self.lock().containers.get_mut(id).ok_or(io::ErrorKind::NotFound)?.frozen = frozen;
        Ok(())
    }
}

impl Task for FakeTask {
    fn wait(&self) -> BoxFuture<'_, Result<ExitRecord, ShimError>> {
        let exit = self.fake.lock().containers.get(&self.id).map(|container| container.exit.subscribe());
        async move {
            let mut exit = exit.ok_or(ShimError::Gone)?;
            let record = exit.wait_for(Option::is_some).await.map_err(|_| ShimError::Gone)?.clone();
            record.ok_or(ShimError::Gone)
        }
        .boxed()
    }

    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), ShimError>> {
        let stubborn = {
            let mut inner = self.fake.lock();
            let Some(container) = inner.containers.get_mut(&self.id) else {
                return ready(Err(ShimError::Gone));
            };
            container.signals.push(signal);
            container.spec.args[0] == "stubborn"
        };
        if signal == 9 || (signal == 15 && !stubborn) {
            self.fake.end(&self.id, 128 + signal);
        }
        ready(Ok(()))
    }

    fn attach(&self, attachment: Attachment) -> BoxFuture<'_, Result<(), ShimError>> {
        let mut inner = self.fake.lock();
        ready(match inner.containers.get_mut(&self.id) {
            Some(container) => {
                container.clients.push(attachment);
                Ok(())
            }
            None => Err(ShimError::Gone),
        })
    }

    fn resize(&self, _rows: u16, _columns: u16) -> BoxFuture<'_, Result<(), ShimError>> {
        ready(Ok(()))
    }

    fn exec(&self, exec: NewExec) -> BoxFuture<'_, Result<ExecStarted, ShimError>> {
        if exec.input.args[0] == "missing" {
            let message = "exec: \"missing\": executable file not found in $PATH".to_owned();
            return ready(Err(ShimError::Launch(LaunchError { exit_code: 127, message })));
        }
        let code = exec.input.args.get(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut inner = self.fake.lock();
        ready(match inner.containers.get_mut(&self.id) {
            Some(container) => {
                container.execs.insert(exec.id, code);
                Ok(ExecStarted { pid: 4242 })
            }
            None => Err(ShimError::Gone),
        })
    }

    fn exec_wait(&self, exec_id: &str) -> BoxFuture<'_, Result<i32, ShimError>> {
        let inner = self.fake.lock();
        let code = inner.containers.get(&self.id).and_then(|container| container.execs.get(exec_id).copied());
        ready(code.ok_or(ShimError::Gone))
    }

    fn exec_resize(&self, _id: &str, _rows: u16, _columns: u16) -> BoxFuture<'_, Result<(), ShimError>> {
        ready(Ok(()))
    }
}
