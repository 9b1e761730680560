//! Control groups of this host, with real processes in them. Needs root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use executor::cgroup::devices::{DeviceRule, NodeKind, program};
use executor::cgroup::hierarchies::Hierarchies;
use executor::cgroup::setup::Setup;
use executor::cgroup::{Cgroup, settings};
use executor::spec::{self, Resources, SpecInput};
use executor::sys::bpf;

/// A group that is gone in the end, whatever happens.
struct Group(Cgroup);

impl Drop for Group {
    fn drop(&mut self) {
        self.0.kill_all().ok();
        self.0.remove().ok();
    }
}

fn setup(name: &str, resources: Resources) -> (Group, Setup) {
    let path = format!("/ctl-test-group/{}-{name}", std::process::id());
    let input =
        SpecInput { args: vec!["x".into()], cgroup_path: path.clone(), resources, ..Default::default() };
    let spec = spec::build(&input).expect("a specification");
    let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).expect("resources");
    let v2 = Hierarchies::host().is_v2();
    let setup = Setup {
        settings: settings::settings(&resources, v2).expect("settings"),
        devices: settings::device_rules(resources.devices().as_deref().unwrap_or_default()),
        path: path.clone(),
    };
    (Group(Cgroup::new(path)), setup)
}

/// Starts a shell in the group.
fn spawn(setup: &Setup, script: &str) -> Child {
    setup.create().expect("the group is made");
    let hierarchies = Hierarchies::host();
    let enter: String = hierarchies
        .v2
        .iter()
        .chain(hierarchies.v1.iter().map(|h| &h.root))
        .map(|root| format!("echo 0 > {}{}/cgroup.procs; ", root.display(), setup.path))
        .collect();
    Command::new("sh").args(["-c", &format!("{enter}{script}")]).spawn().expect("sh")
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn cpu_ns(group: &Group) -> u64 {
    group.0.usage().expect("usage").cpu_ns.0
}

#[test]
fn freeze_thaw_and_kill() {
    let (group, setup) = setup("freeze", Resources::default());
    let mut child = spawn(&setup, "while true; do :; done & while true; do :; done");
    wait_until("two processes", || group.0.processes().expect("list").len() == 2);
    wait_until("some work", || cpu_ns(&group) > 0);
    group.0.freeze().unwrap();
    let before = cpu_ns(&group);
    std::thread::sleep(Duration::from_millis(50));
    assert!(cpu_ns(&group) - before < 5_000_000, "frozen processes worked on");
    group.0.thaw().unwrap();
    wait_until("work goes on", || cpu_ns(&group) > before + 5_000_000);
    // Frozen ones die as well.
    group.0.freeze().unwrap();
    group.0.kill_all().unwrap();
    assert_eq!(group.0.processes().unwrap(), Vec::<i32>::new());
    child.wait().unwrap();
    group.0.remove().unwrap();
    group.0.remove().unwrap();
    assert_eq!(group.0.usage().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(group.0.processes().unwrap(), Vec::<i32>::new());
}

#[test]
fn limits_are_updated_both_ways() {
    const MIB: i64 = 1 << 20;
    let limited = Resources { memory_bytes: Some(64 * MIB), pids_limit: Some(10), ..Default::default() };
    let (group, setup) = setup("update", limited);
    setup.create().unwrap();
    let limit = || group.0.usage().expect("usage").memory_limit_bytes;
    assert_eq!(limit(), Some(64 << 20));
    for mib in [512, 32, 2048, 6] {
        group.0.update(&Resources { memory_bytes: Some(mib * MIB), ..Default::default() }).unwrap();
        assert_eq!(limit(), Some((mib * MIB) as u64));
    }
    let unlimited = Resources { memory_bytes: Some(-1), memory_swap_bytes: Some(-1), ..Default::default() };
    group.0.update(&unlimited).unwrap();
    assert_eq!(limit(), None);
    let error = group.0.update(&Resources { cpu_period_us: Some(5), ..Default::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
    );
}

#[test]
fn out_of_memory_is_counted() {
    let limits =
        Resources { memory_bytes: Some(8 << 20), memory_swap_bytes: Some(8 << 20), ..Default::default() };
    let (group, setup) = setup("oom", limits);
    let mut child = spawn(&setup, "dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 60");
    wait_until("the OOM killer", || group.0.usage().expect("usage").oom_kills == 1);
    group.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn groups_below_are_seen_and_removed() {
    let (group, setup) = setup("nested", Resources::default());
    setup.create().unwrap();
    let inner = Setup { path: format!("{}/inner/deep", setup.path), ..setup.clone() };
    let mut child = spawn(&inner, "exec sleep 60");
    wait_until("the process below", || group.0.processes().expect("list").len() == 1);
    group.0.kill_all().unwrap();
    child.wait().unwrap();
    group.0.remove().unwrap();
    let hierarchies = Hierarchies::host();
    for root in hierarchies.v2.iter().chain(hierarchies.v1.iter().map(|h| &h.root)) {
        assert!(!root.join(setup.path.trim_start_matches('/')).exists());
    }
}

/// A v2 tree, empty or not.
fn v2_tree() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("procfs is mounted");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    line.and_then(|line| line.split(' ').nth(1)).expect("a cgroup2 mount (hybrid or unified)").into()
}

/// The eBPF program of cgroup v2, loaded into this kernel and put to the test.
#[test]
fn the_device_program_allows_and_denies() {
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: access.into(),
    };
    let rules = [
        rule(false, NodeKind::Any, None, None, "rwm"),
        rule(true, NodeKind::Character, None, None, "m"),
        rule(true, NodeKind::Character, Some(1), Some(3), "rwm"),
        rule(true, NodeKind::Character, Some(1), Some(5), "rwm"),
        rule(false, NodeKind::Character, Some(1), Some(5), "w"),
        rule(true, NodeKind::Character, Some(1), Some(9), "r"),
    ];
    let directory = v2_tree().join(format!("ctl-test-devices-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let loaded = bpf::load_device_program(&program(&rules)).unwrap();
    bpf::attach_device_program(&loaded, fs::File::open(&directory).unwrap()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let can = |script: &str, place: &Path| {
        let script = format!("echo 0 > {}/cgroup.procs; {script}", directory.display());
        Command::new("sh").args(["-c", &script]).current_dir(place).output().unwrap().status.success()
    };
    let cases = [
        ("exec 3<>/dev/null", true),
        ("exec 3</dev/zero", true),
        ("exec 3>/dev/zero", false),
        ("exec 3</dev/urandom", true),
        ("exec 3<>/dev/urandom", false),
        ("exec 3</dev/full", false),
        ("mknod c c 200 7", true),
        ("mknod b b 200 7", false),
    ];
    let results: Vec<_> = cases.iter().map(|(script, _)| (*script, can(script, scratch.path()))).collect();
    fs::remove_dir(&directory).unwrap();
    assert_eq!(results, cases);
}
