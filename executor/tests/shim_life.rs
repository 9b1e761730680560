//! Start, end, signals, and what is left when somebody is killed.

mod common;

use std::time::Duration;

use common::{ALL, Bed, OUTPUT, attach, demultiplex, exec_input, lives, log_entries, read_all, soon, until};
use executor::shims::{Found, ShimError, StartRequest};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(10);

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a process id"), Signal::KILL).expect("it is there");
}

#[tokio::test]
async fn first_byte_exit_code_and_record() {
    let bed = Bed::new("first");
    let (shim, mut client) =
        bed.start_attached(bed.script("printf out; printf err >&2; exit 42"), OUTPUT).await;
    assert_eq!(demultiplex(&read_all(&mut client).await), (b"out".to_vec(), b"err".to_vec()));
    let exit = soon(shim.wait()).await.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (42, false));
    let mut logged = log_entries(&bed.log());
    logged.sort();
    assert_eq!(logged, [("err".into(), "stderr".into()), ("out".into(), "stdout".into())]);
    // The shim ends by itself; the record stays, and can be asked for, until it is forgotten.
    let Found::Dead { exit: Some(found) } = found_dead(&bed, shim.id()).await else { panic!("no record") };
    assert_eq!(found, exit);
    assert_eq!(shim.wait().await.unwrap(), exit);
    assert!(matches!(shim.signal(15).await, Err(ShimError::Gone)));
    assert_eq!(bed.shims.known().await.unwrap(), [shim.id()]);
    bed.forget(&shim).await;
    bed.forget(&shim).await;
    assert!(matches!(bed.shims.find(shim.id(), PATIENCE).await, Found::Never));
    assert!(bed.shims.known().await.unwrap().is_empty());
}

/// The shim takes a moment to leave after its container.
async fn found_dead(bed: &Bed, id: &str) -> Found {
    soon(async {
        loop {
            match bed.shims.find(id, PATIENCE).await {
                Found::Alive { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
                found => return found,
            }
        }
    })
    .await
}

#[tokio::test]
async fn signals_end_it_with_128_and_the_number() {
    let bed = Bed::new("signals");
    for (signal, code) in [(9, 137), (15, 143), (36, 50)] {
        let (shim, mut client) = bed
            .start_attached(
                bed.script("trap 'exit 143' TERM; trap 'exit 50' 36; echo up; while :; do sleep 0.01; done"),
                OUTPUT,
            )
            .await;
        let mut first = [0; 11];
        soon(tokio::io::AsyncReadExt::read_exact(&mut client, &mut first)).await.unwrap();
        shim.signal(signal).await.unwrap();
        assert_eq!(soon(shim.wait()).await.unwrap().code, code);
        bed.forget(&shim).await;
    }
}

#[tokio::test]
async fn the_program_gets_default_signals_and_no_descriptors() {
    let bed = Bed::new("clean");
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; umask";
    let (shim, mut client) = bed.start_attached(bed.script(script), OUTPUT).await;
    let text = String::from_utf8(demultiplex(&read_all(&mut client).await).0).unwrap();
    // `ls` has the directory itself open as 3.
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n3\n0022\n");
    soon(shim.wait()).await.unwrap();
    bed.forget(&shim).await;
}

#[tokio::test]
async fn what_cannot_start_leaves_nothing() {
    let bed = Bed::new("missing");
    let error = bed.shims.start(bed.request(&["nothing-of-this-name"])).await.unwrap_err();
    let ShimError::Launch(error) = error else { panic!("{error}") };
    assert_eq!(error.exit_code, 127);
    assert!(error.message.contains("executable file not found in $PATH"), "{error}");
    assert!(bed.shims.known().await.unwrap().is_empty());
    let error =
        bed.shims.start(StartRequest { id: "../x".into(), ..bed.request(&["true"]) }).await.unwrap_err();
    assert!(error.to_string().contains("invalid container id"), "{error}");
}

#[tokio::test]
async fn a_shim_that_cannot_be_run_leaves_nothing() {
    let bed = Bed::with_shim("noshim", "/nonexistent/ctld-shim".into());
    let error = bed.shims.start(bed.request(&["/bin/true"])).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ctld-shim"), "{error}");
    assert!(bed.shims.known().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_same_container_is_not_started_twice() {
    let bed = Bed::new("twice");
    let request = bed.script("sleep 1000");
    let again = StartRequest { id: request.id.clone(), ..bed.script("true") };
    let third = StartRequest { id: request.id.clone(), ..bed.script("true") };
    let (_, shim) = bed.shims.start(request).await.unwrap();
    let error = bed.shims.start(again).await.unwrap_err();
    assert!(error.to_string().contains("is running already"), "{error}");
    shim.signal(9).await.unwrap();
    soon(shim.wait()).await.unwrap();
    found_dead(&bed, shim.id()).await;
    let error = bed.shims.start(third).await.unwrap_err();
    assert!(error.to_string().contains("not taken yet"), "{error}");
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_later_daemon_finds_it_alive() {
    let bed = Bed::new("find");
    let (init, shim) = bed.shims.start(bed.script("cat; exit 7")).await.unwrap();
    let again = executor::shims::Shims::new("/none".into(), bed.dir.path().join("run"));
    let Found::Alive { init: found, shim: other } = again.find(shim.id(), PATIENCE).await else {
        panic!("not found")
    };
    assert_eq!(found, init);
    let mut client = attach(&other, ALL).await;
    tokio::io::AsyncWriteExt::write_all(&mut client, b"hello").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
    assert_eq!(demultiplex(&read_all(&mut client).await).0, b"hello");
    assert_eq!(soon(other.wait()).await.unwrap().code, 7);
    bed.forget(&other).await;
}

#[tokio::test]
async fn a_stopped_shim_is_unknown_and_nothing_is_deleted() {
    let bed = Bed::new("unknown");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let pid = Pid::from_raw(bed.shim_pid(&shim)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let found = bed.shims.find(shim.id(), Duration::from_millis(200)).await;
    assert!(matches!(found, Found::Unknown(_)), "{found:?}");
    assert!(bed.directory(shim.id()).join("plan.json").exists());
    kill_process(pid, Signal::CONT).unwrap();
    assert!(matches!(bed.shims.find(shim.id(), PATIENCE).await, Found::Alive { .. }));
    shim.signal(9).await.unwrap();
    soon(shim.wait()).await.unwrap();
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along() {
    let bed = Bed::new("killed");
    let (init, shim) = bed.shims.start(bed.script("sleep 1000 & sleep 1000")).await.unwrap();
    let wait = tokio::spawn({
        let shim = shim.clone();
        async move { shim.wait().await }
    });
    kill(bed.shim_pid(&shim));
    assert!(matches!(soon(wait).await.unwrap(), Err(ShimError::Gone)));
    let found = bed.shims.find(shim.id(), PATIENCE).await;
    assert!(matches!(found, Found::Dead { exit: None }), "{found:?}");
    until("process 1 is dead", || !lives(init.pid)).await;
    bed.forget(&shim).await;
    let group = executor::cgroup::Cgroup::new(Bed::cgroup(shim.id()));
    assert!(group.processes().unwrap_or_default().is_empty());
}

#[tokio::test]
async fn requests_to_end_do_not_end_a_shim() {
    let bed = Bed::new("term");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let pid = Pid::from_raw(bed.shim_pid(&shim)).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        kill_process(pid, signal).unwrap();
    }
    assert!(matches!(bed.shims.find(shim.id(), PATIENCE).await, Found::Alive { .. }));
    shim.signal(9).await.unwrap();
    assert_eq!(soon(shim.wait()).await.unwrap().code, 137);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn forgetting_what_runs_ends_it() {
    let bed = Bed::new("forget");
    let (init, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    bed.forget(&shim).await;
    assert!(!lives(init.pid));
}

#[tokio::test]
async fn a_run_root_with_a_long_path_works() {
    let bed = Bed::new("long");
    let run_root = bed.dir.path().join("x".repeat(120)).join("y".repeat(120));
    let shims = executor::shims::Shims::new(env!("CARGO_BIN_EXE_ctld-shim").into(), run_root);
    let request = bed.script("cat");
    let (_, shim) = shims.start(request).await.unwrap();
    let client = attach(&shim, ALL).await;
    drop(client);
    assert_eq!(soon(shim.wait()).await.unwrap().code, 0);
    shims.forget(shim.id(), &Bed::cgroup(shim.id())).await.unwrap();
}

/// The daemon here is a process of its own that is killed as soon as it has started a container.
#[tokio::test]
async fn the_container_outlives_a_killed_daemon() {
    let mut bed = Bed::new("parent");
    if let Some(run_root) = std::env::var_os("SHIM_TEST_DAEMON") {
        let shims = executor::shims::Shims::new(env!("CARGO_BIN_EXE_ctld-shim").into(), run_root.into());
        let script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.001; done; exit 9";
        let log = executor::shims::LogTarget::JsonFile {
            path: std::env::var_os("SHIM_TEST_LOG").unwrap().into(),
            max_size_bytes: None,
            max_files: 1,
        };
        // The root and the process' directories have to outlive this process, which is killed.
        bed.rootfs = std::env::var_os("SHIM_TEST_ROOT").unwrap().into();
        let request = StartRequest { id: "orphan".into(), log, ..bed.script(script) };
        shims.start(request).await.unwrap();
        kill(i32::try_from(std::process::id()).unwrap());
    }
    let mut daemon = tokio::process::Command::new(std::env::current_exe().unwrap());
    daemon
        .args(["--exact", "the_container_outlives_a_killed_daemon", "--nocapture"])
        .env("SHIM_TEST_DAEMON", bed.dir.path().join("run"))
        .env("SHIM_TEST_LOG", bed.log())
        .env("SHIM_TEST_ROOT", bed.dir.path().join("rootfs"));
    let status = soon(daemon.status()).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let exit = match bed.shims.find("orphan", PATIENCE).await {
        Found::Alive { shim, .. } => soon(shim.wait()).await.unwrap(),
        Found::Dead { exit } => exit.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(exit.code, 9);
    let text: Vec<_> = log_entries(&bed.log()).into_iter().map(|(text, _)| text).collect();
    assert_eq!(text, (0..300).map(|number| format!("line {number}\n")).collect::<Vec<_>>());
    bed.shims.forget("orphan", "").await.unwrap();
}

#[tokio::test]
async fn exec_codes_and_signals() {
    let bed = Bed::new("execs");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let started = shim.exec("a", exec_input("exit 3"), None, None).await.unwrap();
    assert!(started.pid > 0);
    assert_eq!(soon(shim.exec_wait("a")).await.unwrap(), 3);
    assert_eq!(soon(shim.exec_wait("a")).await.unwrap(), 3);
    shim.exec("b", exec_input("exec sleep 1000"), None, None).await.unwrap();
    shim.exec_signal("b", 15).await.unwrap();
    assert_eq!(soon(shim.exec_wait("b")).await.unwrap(), 143);
    assert!(matches!(shim.exec_signal("b", 15).await, Err(ShimError::Gone)));
    assert!(matches!(shim.exec_wait("c").await, Err(ShimError::Gone)));
    let missing = executor::plan::ExecInput { args: vec!["nothing-here".into()], ..exec_input("") };
    let Err(ShimError::Launch(error)) = shim.exec("d", missing, None, None).await else { panic!("it ran") };
    assert_eq!(error.exit_code, 127);
    // An exec'd process ends with its container.
    shim.exec("e", exec_input("sleep 1000"), None, None).await.unwrap();
    let wait = tokio::spawn({
        let shim = shim.clone();
        async move { shim.exec_wait("e").await }
    });
    shim.signal(9).await.unwrap();
    assert_eq!(soon(shim.wait()).await.unwrap().code, 137);
    let code = soon(wait).await.unwrap();
    assert!(matches!(code, Ok(137) | Err(ShimError::Gone)), "{code:?}");
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_paused_container_is_served_and_starts_nothing() {
    let bed = Bed::new("paused");
    let script = "while read x; do echo got $x; done";
    let (_, shim) = bed.shims.start(bed.script(script)).await.unwrap();
    let group = executor::cgroup::Cgroup::new(Bed::cgroup(shim.id()));
    group.freeze().unwrap();
    let error = shim.exec("a", exec_input("true"), None, None).await.unwrap_err();
    assert!(error.to_string().contains("is paused"), "{error}");
    let mut client = attach(&shim, ALL).await;
    tokio::io::AsyncWriteExt::write_all(&mut client, b"one\n").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), shim.wait()).await;
    assert!(waiting.is_err(), "it ended while it was paused");
    group.thaw().unwrap();
    assert_eq!(demultiplex(&read_all(&mut client).await).0, b"got one\n");
    soon(shim.wait()).await.unwrap();
    bed.forget(&shim).await;
    // Forgetting a paused one ends it all the same.
    let (init, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    executor::cgroup::Cgroup::new(Bed::cgroup(shim.id())).freeze().unwrap();
    bed.forget(&shim).await;
    assert!(!lives(init.pid));
}
