//! `kill -9` of the daemon and of shims, at any moment.

use std::collections::BTreeSet;
use std::process::Stdio;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::daemon::{Daemon, signal};
use tests::process::eventually;
use tests::registry::Registry;

fn ready() -> (Daemon, String) {
    let registry = Registry::with_images();
    let daemon = Daemon::start();
    let image = daemon.busybox(&registry);
    (daemon, image)
}

#[test]
fn containers_run_on_while_the_daemon_is_gone() {
    let (mut daemon, image) = ready();
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 33";
    daemon.ctl(&["run", "-d", "--name", "long", &image, "sh", "-c", script]).ok();
    daemon.ctl(&["run", "-d", "--name", "short", &image, "sh", "-c", "sleep 0.2; exit 7"]).ok();
    daemon.ctl(&["run", "-d", "--name", "idle", &image, "sleep", "1000"]).ok();
    let pid = daemon.field("idle", "{{.State.Pid}}");
    daemon.kill9();
    let short = daemon.run_root();
    eventually("the short one has ended and left its record", || {
        let containers = std::fs::read_dir(short.join("containers")).ok()?;
        containers.flatten().any(|dir| dir.path().join("exit.json").exists()).then_some(())
    });
    daemon.up();
    assert_eq!(daemon.field("idle", "{{.State.Running}} {{.State.Pid}}"), format!("true {pid}"));
    assert_eq!(daemon.field("short", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    assert_eq!(daemon.ctl(&["wait", "long"]).ok().text(), "33");
    let wanted: String = (1..=400).map(|n| format!("line {n}\n")).collect();
    assert_eq!(daemon.ctl(&["logs", "long"]).ok().stdout, wanted, "no line is lost or doubled");
    assert_eq!(daemon.ctl(&["exec", "idle", "echo", "still here"]).ok().text(), "still here");
    daemon.ctl(&["stop", "-t", "0", "idle"]).ok();
    daemon.ctl(&["rm", "long", "short", "idle"]).ok();
    daemon.clean();
}

#[test]
fn a_container_does_not_outlive_its_shim() {
    let (mut daemon, image) = ready();
    daemon.ctl(&["run", "-d", "--name", "held", &image, "sleep", "1000"]).ok();
    let pid: u32 = daemon.field("held", "{{.State.Pid}}").parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim: u32 =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    assert_ne!(shim, daemon.pid());
    signal(shim, rustix::process::Signal::KILL);
    eventually("its end is noticed", || {
        (daemon.field("held", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137").then_some(())
    });
    eventually("its process is gone, or waits for being reaped", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
    daemon.ctl(&["start", "held"]).ok();
    daemon.ctl(&["rm", "-f", "held"]).ok();
    daemon.clean();
}

#[test]
fn a_second_daemon_on_the_same_data_root_is_refused() {
    let (daemon, _) = ready();
    let mut second = daemon.daemon_command();
    second.arg("-H").arg(format!("unix://{}/second.sock", daemon.dir().display()));
    let output = tests::process::run(second);
    assert_ne!(output.code, 0);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("in use by another ctld"), "{said}");
    daemon.ctl(&["ps"]).ok();
}

/// A few hundred operations with the daemon or a shim killed at random moments. Afterwards `ps`, the
/// kernel and the disk must agree.
#[test]
fn random_kills_leave_every_invariant() {
    let seed =
        std::env::var("CTL_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("CTL_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let registry = Registry::with_images();
    let mut daemon = Daemon::start();
    let image = daemon.busybox(&registry);
    let many = registry.reference("many:latest");
    for round in 0..40 {
        let mut running = Vec::new();
        for _ in 0..random.random_range(3..9) {
            let name = format!("c{}", random.random_range(0..6));
            let arguments: Vec<&str> = match random.random_range(0..11) {
                0..4 => vec!["run", "-d", "--name", &name, &image, "sleep", "1000"],
                4 => vec!["run", "--rm", &image, "sh", "-c", "sleep 0.05; exit 1"],
                5 => vec!["rm", "-f", &name],
                6 => vec!["stop", "-t", "0", &name],
                7 => vec!["start", &name],
                8 => vec!["exec", &name, "true"],
                9 => vec!["pull", &many],
                _ => vec!["rmi", &many],
            };
            let mut command = daemon.ctl_command(&arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            running.push(command.spawn().unwrap());
        }
        std::thread::sleep(std::time::Duration::from_millis(random.random_range(0..120)));
        if random.random_bool(0.25)
            && let Some(shim) = some_shim(&daemon)
        {
            signal(shim, rustix::process::Signal::KILL);
        } else {
            daemon.kill9();
        }
        for mut child in running {
            // Whether it succeeded is open; that it ends is not.
            tests::process::wait(&mut child, "ctl", tests::process::DEADLINE);
        }
        if round % 4 == 3 {
            daemon.crash();
            free_of_faults(&mut daemon);
        }
        daemon.kill9();
        daemon.up();
        check(&daemon);
    }
    let ids = daemon.ctl(&["ps", "-aq"]).ok().stdout;
    for id in ids.lines() {
        daemon.ctl(&["rm", "-f", id]).ok();
    }
    free_of_faults(&mut daemon);
    let left = std::fs::read_dir(daemon.run_root().join("containers")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no shim's directory is left");
}

fn some_shim(daemon: &Daemon) -> Option<u32> {
    let pids = daemon.ctl(&["ps", "-q"]).stdout;
    let id = pids.lines().next()?;
    let pid = daemon.ctl(&["inspect", "--format", "{{.State.Pid}}", id]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.text())).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Every container that is said to run has its process, and every name is there once.
fn check(daemon: &Daemon) {
    let rows =
        daemon.ctl(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"]).ok().stdout;
    let mut names = BTreeSet::new();
    for row in rows.lines() {
        let [id, name, _] = row.split(' ').collect::<Vec<_>>()[..] else {
            panic!("a row of ps is {row:?}");
        };
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        // It may end, and a removal that was cut off may be finished, between any two looks; but what
        // goes on being said to run must run and take an exec.
        eventually(&format!("{name} runs, or is no longer said to"), || {
            let inspect = daemon.ctl(&["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", id]);
            match inspect.text().split_once(' ') {
                Some(("running", pid)) => {
                    let lives = std::path::Path::new(&format!("/proc/{pid}")).exists();
                    (lives && daemon.ctl(&["exec", id, "true"]).code == 0).then_some(())
                }
                _ => Some(()),
            }
        });
    }
}

/// Stops the daemon and checks its data root. What a start finishes in the background (removals that were
/// cut off) may be cut off by this very stop: then the next start goes on with it.
fn free_of_faults(daemon: &mut Daemon) {
    eventually("the data root is free of faults", || {
        daemon.stop();
        let fsck = daemon.fsck();
        if fsck.code == 0 {
            return Some(());
        }
        eprintln!("fsck: {}", fsck.stdout);
        daemon.up();
        None
    });
}
