//! Running containers with `ctl`, as a user would.

use std::io::Write;
use std::process::Stdio;

use tests::daemon::{Daemon, signal};
use tests::process::{DEADLINE, eventually, wait};
use tests::registry::Registry;

fn ready() -> (Daemon, String) {
    let registry = Registry::with_images();
    let daemon = Daemon::start();
    let image = daemon.busybox(&registry);
    (daemon, image)
}

#[test]
fn a_container_runs_in_the_foreground_and_is_gone_after_rm() {
    let (mut daemon, image) = ready();
    let output = daemon.ctl(&["run", "--rm", &image, "echo", "hello  world"]).ok();
    assert_eq!(output.stdout, "hello  world\n");
    assert_eq!(output.stderr, "");
    eventually("the container is removed", || {
        daemon.ctl(&["ps", "-aq"]).ok().text().is_empty().then_some(())
    });
    daemon.clean();
}

#[test]
fn exit_codes_are_dockers() {
    let (daemon, image) = ready();
    let run = |args: &[&str]| daemon.ctl(&[&["run", "--rm", &image], args].concat());
    run(&["true"]).ok();
    run(&["sh", "-c", "exit 42"]).fails_with(42);
    // Process 1 of a namespace is immune to its own signals: a child it is.
    run(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).fails_with(137);
    run(&["/nope"]).fails_with(127).says("no such file or directory");
    run(&["nope"]).fails_with(127).says("executable file not found in $PATH");
    run(&["/etc/passwd"]).fails_with(126).says("permission denied");
    daemon.ctl(&["run", "--rm", "--memory", "1", &image, "true"]).fails_with(125).says("memory limit");
    daemon.ctl(&["run", "--no-such-option", &image]).fails_with(125);
    daemon.ctl(&["run", "--rm", "-u", "nobodyatall", &image, "true"]).says("unable to find user nobodyatall");
}

#[test]
fn stdout_and_stderr_are_apart_and_stdin_reaches_the_program() {
    let (daemon, image) = ready();
    let output = daemon.ctl(&["run", "--rm", &image, "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let output = daemon.ctl_with(&["run", "--rm", "-i", &image, "cat"], &big).ok();
    assert!(output.bytes == big, "3 MB come back as they went in");
    // Without -i the program sees the end of input at once.
    assert_eq!(daemon.ctl_with(&["run", "--rm", &image, "cat"], b"lost").ok().stdout, "");
}

#[test]
fn options_of_run_reach_the_container() {
    let (daemon, image) = ready();
    let env_file = daemon.dir().join("env");
    std::fs::write(&env_file, "# comment\nFROM_FILE=yes and more\n").unwrap();
    let script = "pwd; id -u; id -g; hostname; echo $A $FROM_FILE; cat /proc/1/comm; touch /x 2>&1";
    let output = daemon
        .ctl(&[
            "run",
            "--rm",
            "-w",
            "/var/new/dir",
            "-u",
            "www",
            "-h",
            "box",
            "-e",
            "A=b",
            "--env-file",
            env_file.to_str().unwrap(),
            "--read-only",
            "--label",
            "x=y",
            "--entrypoint",
            "/bin/sh",
            &image,
            "-c",
            script,
        ])
        .fails_with(1);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..5], ["/var/new/dir", "33", "33", "box", "b yes and more"]);
    assert_eq!(lines[5], "sh");
    assert!(lines[6].contains("Read-only file system"), "{lines:?}");
    let groups = daemon.ctl(&["run", "--rm", "-u", "www", &image, "id", "-G"]).ok();
    assert_eq!(groups.text(), "33 29 44");
}

#[test]
fn limits_hold() {
    let (daemon, image) = ready();
    let output = daemon.ctl(&[
        "run",
        "--name",
        "oom",
        "--memory",
        "32m",
        &image,
        "sh",
        "-c",
        "x=$(head -c 200000000 /dev/zero | tr '\\0' a)",
    ]);
    assert_ne!(output.code, 0, "200 MB do not fit into 32 MiB");
    assert_eq!(daemon.field("oom", "{{.State.OOMKilled}}"), "true");
    let output = daemon.ctl(&[
        "run",
        "--rm",
        "--pids-limit",
        "10",
        &image,
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done",
    ]);
    assert!(output.stderr.contains("can't fork"), "{output:?}");
    assert_eq!(daemon.ctl(&["inspect", "--format", "{{.HostConfig.Memory}}", "oom"]).ok().text(), "33554432");
}

#[test]
fn capabilities_seccomp_and_masked_paths_are_dockers_defaults() {
    let (daemon, image) = ready();
    let status = daemon.ctl(&["run", "--rm", &image, "cat", "/proc/self/status"]).ok().stdout;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()).unwrap()
    };
    assert_eq!(field("CapInh:"), "0000000000000000");
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    let run = |args: &[&str]| daemon.ctl(&[&["run", "--rm"], args].concat());
    assert_eq!(
        run(&[&image, "sh", "-c", "cat /proc/keys /proc/timer_list 2>/dev/null | wc -c"]).ok().text(),
        "0"
    );
    assert_eq!(run(&[&image, "ls", "/proc/acpi"]).ok().text(), "");
    run(&[&image, "sh", "-c", "echo 1 >/proc/sys/kernel/panic"]).fails_with(1);
    run(&[&image, "mount", "-t", "tmpfs", "x", "/tmp"]).fails_with(1);
    let dropped = run(&[
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_BIND_SERVICE",
        &image,
        "grep",
        "CapEff",
        "/proc/self/status",
    ]);
    assert_eq!(dropped.ok().text(), "CapEff:\t0000000000000400");
    let seen = run(&[&image, "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).ok();
    assert!(seen.text().parse::<u32>().unwrap() <= 3, "no process of the host is seen: {seen:?}");
}

#[test]
fn networks_none_and_host() {
    let (daemon, image) = ready();
    let none = daemon.ctl(&["run", "--rm", "--network", "none", &image, "ls", "/sys/class/net"]).ok();
    assert_eq!(none.text(), "lo");
    let host =
        daemon.ctl(&["run", "--rm", "--network", "host", &image, "readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(host.text(), std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy());
    daemon.ctl(&["run", "--rm", "--network", "nosuch", &image, "true"]).fails_with(125).says("nosuch");
}

#[test]
fn logs_are_kept_followed_and_cut() {
    let (daemon, image) = ready();
    daemon
        .ctl(&[
            "run",
            "-d",
            "--name",
            "talk",
            &image,
            "sh",
            "-c",
            "for i in 1 2 3; do echo line $i; done; echo no >&2; sleep 1000",
        ])
        .ok();
    eventually("all is logged", || {
        let logs = daemon.ctl(&["logs", "talk"]).ok();
        (logs.stdout == "line 1\nline 2\nline 3\n" && logs.stderr == "no\n").then_some(())
    });
    assert_eq!(daemon.ctl(&["logs", "--tail", "2", "talk"]).ok().stdout, "line 3\n");
    let stamped = daemon.ctl(&["logs", "-t", "--tail", "2", "talk"]).ok().stdout;
    assert!(stamped.contains("T") && stamped.contains("Z line 3"), "{stamped}");
    assert_eq!(daemon.ctl(&["logs", "--since", "2099-01-01T00:00:00Z", "talk"]).ok().stdout, "");
    let mut follow = daemon.ctl_command(&["logs", "-f", "talk"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    daemon.ctl(&["kill", "talk"]).ok();
    assert_eq!(wait(&mut follow, "ctl logs -f", DEADLINE), 0, "following ends with the container");
    daemon.ctl(&["logs", "nosuch"]).fails_with(1).says("No such container: nosuch");
}

#[test]
fn the_life_of_a_detached_container() {
    let (mut daemon, image) = ready();
    let id = daemon.ctl(&["run", "-d", "--name", "life", "--label", "a=b", &image, "sleep", "1000"]).ok();
    let id = id.text().to_owned();
    assert_eq!(id.len(), 64);
    let row = daemon.ctl(&["ps", "--format", "{{.ID}} {{.Names}} {{.State}}"]).ok();
    assert_eq!(row.text(), format!("{} life running", &id[..12]));
    assert_eq!(daemon.ctl(&["ps", "-q", "--filter", "label=a=b"]).ok().text(), &id[..12]);
    assert_eq!(daemon.ctl(&["ps", "-q", "--filter", "label=a=c"]).ok().text(), "");
    daemon.ctl(&["run", "--name", "life", &image, "true"]).fails_with(125).says("is already in use");
    assert_eq!(daemon.ctl(&["exec", "life", "hostname"]).ok().text(), &id[..12]);
    daemon.ctl(&["exec", "life", "sh", "-c", "exit 7"]).fails_with(7);
    daemon.ctl(&["exec", "life", "nope"]).fails_with(127);
    assert_eq!(daemon.ctl_with(&["exec", "-i", "life", "wc", "-c"], b"12345").ok().text(), "5");
    assert_eq!(
        daemon
            .ctl(&["exec", "-e", "Q=r", "-w", "/tmp", "-u", "33", "life", "sh", "-c", "echo $Q $PWD; id -u"])
            .ok()
            .stdout,
        "r /tmp\n33\n"
    );
    daemon.ctl(&["rm", "life"]).fails_with(1).says("is running");
    daemon.ctl(&["pause", "life"]).ok();
    assert_eq!(daemon.field("life", "{{.State.Status}}"), "paused");
    daemon.ctl(&["unpause", "life"]).ok();
    let mut waiting = daemon.ctl_command(&["wait", "life"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(daemon.ctl(&["stop", "-t", "0", "life"]).ok().text(), "life");
    let waited = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&waited.stdout).trim(), "137");
    assert_eq!(daemon.field("life", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    daemon.ctl(&["start", "life"]).ok();
    assert_eq!(daemon.field("life", "{{.State.Running}}"), "true");
    daemon.ctl(&["restart", "-t", "0", "life"]).ok();
    daemon.ctl(&["kill", "-s", "KILL", "life"]).ok();
    eventually("it has ended", || (daemon.field("life", "{{.State.Running}}") == "false").then_some(()));
    daemon.ctl(&["kill", "life"]).fails_with(1).says("is not running");
    daemon.ctl(&["rename", "life", "death"]).ok();
    assert_eq!(daemon.ctl(&["rm", "death"]).ok().text(), "death");
    daemon.ctl(&["inspect", "death"]).fails_with(1).says("No such object: death");
    daemon.clean();
}

#[test]
fn a_terminal_is_a_terminal() {
    let (daemon, image) = ready();
    // script(1) gives the client a terminal of its own.
    let line =
        format!("{} run --rm -it {image} sh -c 'tty; stty size; echo $TERM'", tests::bin("ctl").display());
    let mut script = tests::process::command("script", ["-qec", &line, "/dev/null"]);
    script.env("CTL_HOST", daemon.host()).env("HOME", daemon.dir()).env("TERM", "xterm");
    let output = tests::process::run(script).ok();
    assert!(output.stdout.contains("/dev/pts/0") || output.stdout.contains("/dev/console"), "{output:?}");
    assert!(output.stdout.contains("xterm"), "{output:?}");
    // Without a terminal, -t is refused as Docker does.
    daemon.ctl(&["run", "--rm", "-it", &image, "true"]).fails_with(1).says("the input device is not a TTY");
}

#[test]
fn signals_are_forwarded_in_the_foreground() {
    let (daemon, image) = ready();
    let mut run = daemon.ctl_command(&[
        "run",
        "--rm",
        "--name",
        "sig",
        &image,
        "sh",
        "-c",
        "trap 'echo got it; exit 9' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the trap is set", || daemon.ctl(&["logs", "sig"]).stdout.contains("up").then_some(()));
    signal(run.id(), rustix::process::Signal::TERM);
    assert_eq!(wait(&mut run, "ctl run", DEADLINE), 9);
}

#[test]
fn attach_and_start_reconnect_to_a_container() {
    let (daemon, image) = ready();
    let id = daemon.ctl(&["create", "-i", "--name", "cat", &image, "cat"]).ok();
    assert_eq!(id.text().len(), 64);
    assert_eq!(daemon.field("cat", "{{.State.Status}}"), "created");
    let mut start = daemon.ctl_command(&["start", "-ai", "cat"]);
    let mut start = start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    start.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = start.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\n");
    assert!(output.status.success());
}

#[test]
fn init_reaps_and_forwards() {
    let (daemon, image) = ready();
    let output = daemon.ctl(&[
        "run",
        "--rm",
        "--init",
        &image,
        "sh",
        "-c",
        "echo $$; (sleep 0.01 &) ; sleep 0.1; ps -o stat | grep -c Z",
    ]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_ne!(lines[0], "1", "the program is not process 1");
    assert_eq!(lines[1], "0", "no zombie is left");
}

#[test]
fn a_binary_named_by_proc_self_exe_does_not_reach_the_host() {
    let (daemon, image) = ready();
    let shim = tests::bin("ctld-shim");
    let before = tests::image::digest(&std::fs::read(&shim).unwrap());
    let run = daemon.ctl(&["run", "--rm", "--entrypoint", "/proc/self/exe", &image, "--help"]);
    assert_ne!(run.code, 137, "{run:?}");
    daemon.ctl(&["run", "-d", "--name", "box", &image, "sleep", "1000"]).ok();
    let exec = daemon.ctl(&[
        "exec",
        "box",
        "sh",
        "-c",
        "for p in /proc/[0-9]*/exe; do echo x 2>/dev/null >$p; done; true",
    ]);
    exec.ok();
    assert_eq!(tests::image::digest(&std::fs::read(&shim).unwrap()), before);
    for n in 3..20 {
        let wd = format!("/proc/self/fd/{n}");
        let out = daemon.ctl(&["run", "--rm", "-w", &wd, &image, "ls"]);
        assert_ne!(out.code, 0, "a working directory {wd} is refused");
        let out = daemon.ctl(&["exec", "-w", &wd, "box", "ls"]);
        assert_ne!(out.code, 0, "a working directory {wd} is refused for exec");
    }
}
