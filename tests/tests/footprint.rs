//! The memory bounds of SPECIFICATION.md.

use tests::daemon::Daemon;
use tests::process::eventually;
use tests::registry::Registry;

fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line Pss");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[test]
fn an_idle_daemon_and_a_shim_are_small() {
    let registry = Registry::with_images();
    let daemon = Daemon::start();
    assert!(pss_kib(daemon.pid()) <= 15_000, "fresh: {} KiB", pss_kib(daemon.pid()));
    let image = daemon.busybox(&registry);
    daemon.ctl(&["pull", &registry.reference("many:latest")]).ok();
    daemon.ctl(&["run", "-d", "--name", "box", &image, "sleep", "1000"]).ok();
    let pid = daemon.field("box", "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim: u32 =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().expect("a number");
    eventually("the shim is small", || (pss_kib(shim) <= 1_000).then_some(()));
    // What work needed is given back within seconds of rest.
    eventually("the daemon is small again after work", || (pss_kib(daemon.pid()) <= 15_000).then_some(()));
}
