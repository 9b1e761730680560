//! The engine over a real store and a runtime without privileges.

mod fake;
mod registry;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::engine::{
    AttachOptions, Engine, EngineOptions, Error, ErrorKind, EventOptions, ExecStartOptions, ListOptions,
    LogOptions, WaitCondition,
};
use executor::shims::Streams;
use fake::Fake;
use futures_util::{FutureExt, StreamExt};
use proto_api::filters::Filters;
use proto_api::models::{
    ContainerCreateBody, ContainerStateStatusEnum as Status, ExecConfig, HostConfig, RestartPolicy,
    RestartPolicyNameEnum as Restart,
};
use storage::{Store, StoreOptions};
use tokio::io::AsyncReadExt;

/// A data root, a runtime that outlives engines, and the engine of now.
struct World {
    dir: tempfile::TempDir,
    fake: Fake,
    engine: Engine,
    store: Store,
    image: String,
}

async fn store(dir: &std::path::Path) -> Store {
    let options = StoreOptions {
        data_root: dir.join("data"),
        unpack_worker: "/nonexistent".into(),
        registries: Default::default(),
        parallel_layers: 1,
        keep_blobs: false,
        budget: Default::default(),
        disk_budget_bytes: None,
    };
    // The lock of an engine that was just dropped goes with its last task.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Store::open(options.clone()).await {
            Ok(store) => return store,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn engine(store: &Store, fake: &Fake) -> Engine {
    let mut options = EngineOptions::new(store.clone(), "/nonexistent".into(), "/nonexistent".into());
    options.patience = Duration::from_millis(100);
    Engine::open_with(options, Arc::new(fake.clone())).await.expect("an engine")
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path()).await;
        let image = registry::pull_image(&store).await;
        let fake = Fake::default();
        let engine = engine(&store, &fake).await;
        Self { dir, fake, engine, store, image }
    }

    /// A further engine over the same rows and containers, as after a `kill -9` of the daemon. The
    /// first one's tasks are still there, but nobody talks to them.
    async fn another_engine(&self) -> Engine {
        engine(&self.store, &self.fake).await
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until a container's state in the database holds a word, and gives it.
    async fn row(&self, id: &str, word: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let rows = self.store.containers().await.expect("rows");
            let state = rows.into_iter().find(|row| row.id == id).expect("the row").state;
            if state.contains(word) {
                return state;
            }
            assert!(Instant::now() < deadline, "{word} never came: {state}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn body(&self, cmd: &[&str]) -> ContainerCreateBody {
        let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
        ContainerCreateBody { image: Some(self.image.clone()), cmd: Some(cmd), ..Default::default() }
    }

    async fn create(&self, name: &str, cmd: &[&str], host: HostConfig) -> String {
        let body = ContainerCreateBody { host_config: Some(host), ..self.body(cmd) };
        self.engine.create(Some(name.to_owned()), body, None).await.expect("a container").id
    }

    async fn run(&self, name: &str, cmd: &[&str]) -> String {
        let id = self.create(name, cmd, HostConfig::default()).await;
        self.engine.start(name, None).await.expect("a start");
        id
    }
}

async fn status(engine: &Engine, name: &str) -> Status {
    let state = engine.inspect(name, false).await.expect("a container").state.expect("a state");
    state.status.expect("a status")
}

async fn reach(engine: &Engine, name: &str, wanted: Status) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(engine, name).await != wanted {
        assert!(Instant::now() < deadline, "{name} never got {wanted}: {}", status(engine, name).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn gone(engine: &Engine, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while engine.inspect(name, false).await.is_ok() {
        assert!(Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn text(error: Error) -> (ErrorKind, String) {
    (error.kind(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_from_create_to_remove() {
    let world = World::new().await;
    let engine = &world.engine;
    let id = world.run("web", &["sleep", "60"]).await;
    assert_eq!(status(engine, "web").await, Status::RUNNING);
    assert_eq!(engine.start("web", None).await.unwrap_err().kind(), ErrorKind::NotModified);
    let spec = world.fake.spec(&id);
    assert_eq!(spec.args, ["sleep", "60"]);
    assert_eq!(
        spec.env,
        ["PATH=/bin".to_owned(), format!("HOSTNAME={}", &id[..12]), "FROM=image".to_owned()]
    );
    let error = engine.remove(&id[..10], false, false).await.unwrap_err();
    assert_eq!(
        text(error),
        (
            ErrorKind::Conflict,
            "cannot remove container \"web\": container is running: stop the container before removing or force remove"
                .to_owned()
        )
    );
    engine.stop("web", None, None).await.unwrap();
    world.until("the run's trace is cleared away", || world.fake.traces().is_empty()).await;
    let inspected = engine.inspect("web", false).await.unwrap();
    let state = inspected.state.unwrap();
    assert_eq!((state.status, state.exit_code), (Some(Status::EXITED), Some(143)));
    assert_eq!(engine.stop("web", None, None).await.unwrap_err().kind(), ErrorKind::NotModified);
    let error = engine.kill("web", None).await.unwrap_err();
    assert_eq!(
        text(error),
        (ErrorKind::Conflict, format!("cannot kill container: web: container {id} is not running"))
    );
    let dir = world.store.container_dir(&id);
    assert!(dir.exists());
    engine.remove("/web", false, false).await.unwrap();
    assert_eq!(
        text(engine.inspect("web", false).await.unwrap_err()),
        (ErrorKind::NotFound, "No such container: web".to_owned())
    );
    assert!(!dir.exists());
    assert!(world.store.containers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_rm_leaves_nothing_and_tells_the_exit_code() {
    let world = World::new().await;
    let host = HostConfig { auto_remove: Some(true), ..Default::default() };
    let id = world.create("once", &["exit", "7"], host).await;
    let removed = world.engine.wait("once", WaitCondition::Removed).await.unwrap();
    let ended = world.engine.wait("once", WaitCondition::NextExit).await.unwrap();
    world.engine.start("once", None).await.unwrap();
    assert_eq!(ended.await.status_code, 7);
    assert_eq!(removed.await.status_code, 7);
    gone(&world.engine, "once").await;
    assert!(!world.store.container_dir(&id).exists());
    assert!(world.store.containers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_unique_and_renamed() {
    let world = World::new().await;
    let engine = &world.engine;
    let id = world.run("one", &["sleep"]).await;
    let error = engine.create(Some("one".into()), world.body(&["x"]), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with(&format!(
        "Conflict. The container name \"/one\" is already in use by container \"{id}\"."
    )));
    world.run("two", &["sleep"]).await;
    assert_eq!(engine.rename("one", "two").await.unwrap_err().kind(), ErrorKind::Conflict);
    engine.rename("one", "three").await.unwrap();
    assert_eq!(engine.inspect("three", false).await.unwrap().name.as_deref(), Some("/three"));
    assert!(engine.inspect("one", false).await.is_err());
    world.create("one", &["x"], HostConfig::default()).await;
    let error = engine.create(Some("b@d".into()), world.body(&["x"]), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    let error =
        engine.create(None, ContainerCreateBody { image: Some("nope".into()), ..Default::default() }, None);
    assert_eq!(error.await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_started() {
    let world = World::new().await;
    for (name, code, words) in
        [("missing", 127, "executable file not found in $PATH"), ("forbidden", 126, "permission denied")]
    {
        world.create(name, &[name], HostConfig::default()).await;
        let error = world.engine.start(name, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        let message = error.to_string();
        assert!(message.starts_with("failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "), "{message}");
        assert!(message.contains(words), "{message}");
        let state = world.engine.inspect(name, false).await.unwrap().state.unwrap();
        assert_eq!((state.status, state.exit_code), (Some(Status::CREATED), Some(code)));
        assert_eq!(state.error, Some(message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_overtakes_stop() {
    let world = World::new().await;
    let id = world.run("s1", &["stubborn"]).await;
    let engine = world.engine.clone();
    let stop = tokio::spawn(async move { engine.stop("s1", Some(3600), None).await });
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.fake.signals(&id) != [15] {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.engine.kill("s1", Some("KILL".into())).await.unwrap();
    stop.await.unwrap().unwrap();
    assert_eq!(world.engine.inspect("s1", false).await.unwrap().state.unwrap().exit_code, Some(137));
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kills_at_its_deadline() {
    let world = World::new().await;
    world.run("s1", &["stubborn"]).await;
    world.engine.stop("s1", Some(0), None).await.unwrap();
    assert_eq!(world.engine.inspect("s1", false).await.unwrap().state.unwrap().exit_code, Some(137));
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_pause_and_forced_removal() {
    let world = World::new().await;
    let engine = &world.engine;
    world.run("c1", &["sleep"]).await;
    let pid = engine.inspect("c1", false).await.unwrap().state.unwrap().pid;
    engine.restart("c1", Some(1), None).await.unwrap();
    let again = engine.inspect("c1", false).await.unwrap().state.unwrap();
    assert_eq!(again.status, Some(Status::RUNNING));
    assert_ne!(again.pid, pid);
    engine.pause("c1").await.unwrap();
    assert_eq!(status(engine, "c1").await, Status::PAUSED);
    assert_eq!(engine.pause("c1").await.unwrap_err().kind(), ErrorKind::Conflict);
    let config = ExecConfig { cmd: Some(vec!["true".into()]), ..Default::default() };
    assert_eq!(engine.exec_create("c1", config).await.unwrap_err().kind(), ErrorKind::Conflict);
    engine.unpause("c1").await.unwrap();
    assert_eq!(status(engine, "c1").await, Status::RUNNING);
    engine.pause("c1").await.unwrap();
    engine.remove("c1", true, false).await.unwrap();
    assert!(engine.inspect("c1", false).await.is_err());
    assert!(world.fake.traces().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_before_the_start_sees_everything_and_logs_keep_it() {
    let world = World::new().await;
    world.create("e1", &["echo", "hello", "world"], HostConfig::default()).await;
    let streams = Streams { stdin: false, stdout: true, stderr: true };
    let options = AttachOptions { logs: false, stream: true, streams, detach_keys: None };
    let attached = world.engine.attach("e1", options).await.unwrap();
    world.engine.start("e1", None).await.unwrap();
    let mut bytes = Vec::new();
    attached.stream.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"\x01\0\0\0\0\0\0\x0chello world\n");
    let wait = world.engine.wait("e1", WaitCondition::NotRunning).await.unwrap();
    assert_eq!(wait.await.status_code, 0);
    let options = LogOptions { follow: true, stdout: true, ..Default::default() };
    let mut logs = world.engine.logs("e1", options).await.unwrap();
    assert_eq!(logs.stream.next().await.unwrap().unwrap(), &b"\x01\0\0\0\0\0\0\x0chello world\n"[..]);
    assert!(logs.stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn following_ends_with_the_container() {
    let world = World::new().await;
    let id = world.run("f1", &["sleep"]).await;
    let options = LogOptions { follow: true, stdout: true, ..Default::default() };
    let mut logs = world.engine.logs("f1", options).await.unwrap();
    assert!(logs.stream.next().now_or_never().is_none());
    let path = world.engine.inspect("f1", false).await.unwrap().log_path.unwrap();
    std::fs::write(&path, "{\"log\":\"late\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}\n")
        .unwrap();
    assert_eq!(&logs.stream.next().await.unwrap().unwrap()[8..], b"late\n");
    world.fake.end(&id, 0);
    assert!(logs.stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_gives_its_code_and_says_what_is_missing() {
    let world = World::new().await;
    let engine = &world.engine;
    world.run("c1", &["sleep"]).await;
    let config = |cmd: &[&str]| ExecConfig {
        cmd: Some(cmd.iter().map(|word| (*word).to_owned()).collect()),
        attach_stdout: Some(true),
        ..Default::default()
    };
    let id = engine.exec_create("c1", config(&["exit", "3"])).await.unwrap();
    let options = ExecStartOptions { detach: true, console_size: None };
    assert!(engine.exec_start(&id, options.clone()).await.unwrap().is_none());
    assert_eq!(engine.exec_inspect(&id).await.unwrap().exit_code, Some(3));
    assert_eq!(engine.exec_start(&id, options).await.unwrap_err().kind(), ErrorKind::Conflict);
    let id = engine.exec_create("c1", config(&["missing"])).await.unwrap();
    let attached = engine.exec_start(&id, ExecStartOptions::default()).await.unwrap().unwrap();
    let said = attached.replay.unwrap().next().await.unwrap().unwrap();
    assert_eq!(
        &said[8..],
        b"OCI runtime exec failed: exec failed: unable to start container process: exec: \"missing\": executable file not found in $PATH\r\n"
    );
    assert_eq!(engine.exec_inspect(&id).await.unwrap().exit_code, Some(127));
    let error = engine.exec_create("c1", ExecConfig::default()).await.unwrap_err();
    assert_eq!(text(error), (ErrorKind::BadRequest, "No exec command specified".to_owned()));
    assert_eq!(engine.exec_inspect("nope").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_pruned() {
    let world = World::new().await;
    let engine = &world.engine;
    world.run("alpha", &["sleep"]).await;
    world.run("beta", &["exit", "3"]).await;
    reach(engine, "beta", Status::EXITED).await;
    let body = ContainerCreateBody {
        labels: Some(HashMap::from([("keep".to_owned(), "yes".to_owned())])),
        ..world.body(&["x"])
    };
    engine.create(Some("gamma".into()), body, None).await.unwrap();
    let names = async |all: bool, filters: &[(&str, &str)]| -> Vec<String> {
        let mut wanted = Filters::default();
        for (name, value) in filters {
            wanted.add(*name, *value);
        }
        let options = ListOptions { all, filters: wanted, ..Default::default() };
        let list = engine.list(options).await.expect("a list");
        list.into_iter().flat_map(|summary| summary.names.expect("names")).collect()
    };
    assert_eq!(names(false, &[]).await, ["/alpha"]);
    assert_eq!(names(true, &[]).await, ["/gamma", "/beta", "/alpha"]);
    assert_eq!(names(false, &[("exited", "3")]).await, ["/beta"]);
    assert_eq!(names(false, &[("status", "created")]).await, ["/gamma"]);
    assert_eq!(names(true, &[("name", "^/?al")]).await, ["/alpha"]);
    assert_eq!(names(true, &[("label", "keep=yes")]).await, ["/gamma"]);
    assert_eq!(names(true, &[("label", "from=image")]).await.len(), 3);
    assert_eq!(names(true, &[("since", "alpha"), ("before", "gamma")]).await, ["/beta"]);
    assert_eq!(names(true, &[("ancestor", &world.image)]).await.len(), 3);
    let mut unknown = Filters::default();
    unknown.add("nope", "1");
    let error = engine.list(ListOptions { filters: unknown, ..Default::default() }).await.unwrap_err();
    assert_eq!(text(error), (ErrorKind::BadRequest, "invalid filter 'nope'".to_owned()));
    let mut filters = Filters::default();
    filters.add("label!", "keep");
    let pruned = engine.prune(filters).await.unwrap().containers_deleted.unwrap();
    assert_eq!(pruned.len(), 1);
    assert_eq!(names(true, &[]).await, ["/gamma", "/alpha"]);
    let counts = engine.counts();
    assert_eq!((counts.running, counts.paused, counts.stopped), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restart_policy_restarts_until_its_bound() {
    let world = World::new().await;
    let policy = RestartPolicy { name: Some(Restart::ON_FAILURE), maximum_retry_count: Some(2) };
    let host = HostConfig { restart_policy: Some(policy), ..Default::default() };
    world.create("r1", &["exit", "1"], host).await;
    world.engine.start("r1", None).await.unwrap();
    reach(&world.engine, "r1", Status::EXITED).await;
    let inspected = world.engine.inspect("r1", false).await.unwrap();
    assert_eq!((inspected.restart_count, world.fake.starts()), (Some(2), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_of_the_daemon_the_truth_is_found() {
    let world = World::new().await;
    let alive = world.run("alive", &["sleep"]).await;
    let lost = world.run("lost", &["sleep"]).await;
    world.row(&lost, "Running").await;
    // A start whose row was never written: the runtime has it, the database says "created".
    let host = HostConfig { auto_remove: Some(true), ..Default::default() };
    let once = world.create("once", &["sleep"], host).await;
    world.engine.start("once", None).await.unwrap();
    world.row(&once, "Running").await;
    world.store.update_container_state(&once, r#"{"Created":{"failure":null}}"#).await.unwrap();
    // A removal that was cut short.
    let half = world.create("half", &["sleep"], HostConfig::default()).await;
    world.store.update_container_state(&half, r#"{"Removing":{"last":null,"failure":null}}"#).await.unwrap();

    world.fake.lose(&lost);
    let engine = world.another_engine().await;
    assert_eq!(status(&engine, "alive").await, Status::RUNNING);
    assert_eq!(status(&engine, "once").await, Status::RUNNING);
    reach(&engine, "lost", Status::EXITED).await;
    let state = engine.inspect("lost", false).await.unwrap().state.unwrap();
    assert_eq!(state.exit_code, Some(137));
    assert!(!state.error.unwrap().is_empty());
    gone(&engine, "half").await;
    assert!(!world.store.container_dir(&half).exists());

    world.fake.end(&alive, 5);
    reach(&engine, "alive", Status::EXITED).await;
    assert_eq!(engine.inspect("alive", false).await.unwrap().state.unwrap().exit_code, Some(5));
    world.fake.end(&once, 0);
    gone(&engine, "once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_the_daemon_was_down_is_taken_before_the_trace_goes() {
    let world = World::new().await;
    let id = world.run("c1", &["sleep"]).await;
    let row = world.row(&id, "Running").await;
    world.fake.end(&id, 9);
    world.row(&id, "Exited").await;
    world.until("the first run is forgotten", || world.fake.traces().is_empty()).await;
    // Another run, which ended after the daemon did.
    world.store.update_container_state(&id, &row).await.unwrap();
    world.fake.plant(&id, 4);
    let fresh = world.another_engine().await;
    reach(&fresh, "c1", Status::EXITED).await;
    assert_eq!(fresh.inspect("c1", false).await.unwrap().state.unwrap().exit_code, Some(4));
    world.row(&id, "\"code\":4").await;
    world.until("the record is gone once the row has it", || world.fake.traces().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_deletes_nothing() {
    let world = World::new().await;
    let id = world.run("c1", &["sleep"]).await;
    let row = world.row(&id, "Running").await;
    world.fake.end(&id, 9);
    world.row(&id, "Exited").await;
    world.until("the first run is forgotten", || world.fake.traces().is_empty()).await;
    world.store.update_container_state(&id, &row).await.unwrap();
    world.fake.plant(&id, 6);
    world.fake.set_unknown(true);
    let engine = world.another_engine().await;
    assert_eq!(status(&engine, "c1").await, Status::RUNNING);
    assert_eq!(world.fake.traces(), std::slice::from_ref(&id));
    world.fake.set_unknown(false);
    reach(&engine, "c1", Status::EXITED).await;
    assert_eq!(engine.inspect("c1", false).await.unwrap().state.unwrap().exit_code, Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_nothing() {
    let world = World::new().await;
    world.run("c1", &["stubborn"]).await;
    {
        let stop = world.engine.stop("c1", Some(1), None);
        tokio::select! {
            _ = stop => panic!("it takes a second"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    reach(&world.engine, "c1", Status::EXITED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_story() {
    let world = World::new().await;
    world.run("c1", &["exit", "2"]).await;
    reach(&world.engine, "c1", Status::EXITED).await;
    world.engine.remove("c1", false, false).await.unwrap();
    let options = EventOptions { since: Some(std::time::UNIX_EPOCH), ..Default::default() };
    let events = world.engine.events(options).await.unwrap().take(4).collect::<Vec<_>>().await;
    let actions: Vec<_> = events.iter().map(|event| event.action.clone().unwrap()).collect();
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
    let attributes = events[2].actor.clone().unwrap().attributes.unwrap();
    assert_eq!((attributes["exitCode"].as_str(), attributes["name"].as_str()), ("2", "c1"));
    assert!(world.dir.path().exists());
}
