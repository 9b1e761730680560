//! What a process sees of its container: namespaces, mounts, capabilities, users, limits.

use std::fs;
use std::path::PathBuf;

use crate::common::{self, Container};
use serde_json::json;

#[test]
fn process_one_in_a_world_of_its_own() {
    let script = "echo $$; hostname; pwd; echo $HOME; ip -o link | wc -l; ip addr show lo | grep -c 'inet 127.0.0.1'; ls /";
    let outcome = Container::sh(script).run();
    assert_eq!(outcome.text(), "1\nboxy\n/\n/root\n1\n1\nbin\ndev\netc\nproc\nsys");
    assert_eq!(outcome.warnings, Vec::<String>::new());
}

#[test]
fn exit_codes_and_signals() {
    assert_eq!(Container::sh("exit 7").run().exit_code, 7);
    assert_eq!(Container::sh("kill -9 $$; sleep 5 & kill -15 $!; wait $!").run().exit_code, 143);
}

#[test]
fn the_default_mounts_are_dockers() {
    let script = "while read -r _ where kind options _; do echo $kind $where $options; done < /proc/mounts";
    let outcome = Container::sh(script).run();
    let lines: Vec<&str> = outcome.text().lines().collect();
    for wanted in [
        "proc /proc rw,nosuid,nodev,noexec,relatime",
        "tmpfs /dev rw,nosuid,size=65536k,mode=755",
        "devpts /dev/pts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
        "sysfs /sys ro,nosuid,nodev,noexec,relatime",
        "mqueue /dev/mqueue rw,nosuid,nodev,noexec,relatime",
        "tmpfs /dev/shm rw,nosuid,nodev,noexec,relatime,size=65536k",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted} in {lines:#?}");
    }
    let cgroups: Vec<_> = lines.iter().filter(|line| line.starts_with("cgroup")).collect();
    assert!(!cgroups.is_empty() && cgroups.iter().all(|line| line.contains(" ro,")), "{cgroups:?}");
    assert!(
        !outcome.stdout.contains(std::env::temp_dir().to_str().unwrap()) || !outcome.stdout.contains("ext4")
    );
}

#[test]
fn devices_are_dockers() {
    let outcome = Container::sh(
        "cd /dev; for f in *; do stat -c '%n %F %t:%T %a' $f; done; readlink fd; readlink ptmx",
    )
    .run();
    let text = outcome.text();
    for (name, numbers) in [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ] {
        assert!(text.contains(&format!("{name} character special file {numbers} 666")), "{text}");
    }
    assert!(text.ends_with("/proc/self/fd\npts/ptmx"), "{text}");
    // Others can be made but not opened.
    let outcome = Container::sh("mknod /sda b 8 0 && head -c1 /sda").run();
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
}

fn status(outcome: &common::Outcome, key: &str) -> String {
    let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("{key} in {outcome:?}")).trim().to_owned()
}

/// The sets of run and exec (CVE-2022-24769 and its kin): inheritable is empty everywhere.
#[test]
fn golden_capability_sets() {
    const DEFAULT: &str = "00000000a80425fb";
    const NONE: &str = "0000000000000000";
    let cases = [
        (json!({}), [NONE, DEFAULT, DEFAULT, DEFAULT, NONE]),
        (json!({"user": "app"}), [NONE, NONE, NONE, DEFAULT, NONE]),
        (json!({"cap_drop": ["ALL"]}), [NONE; 5]),
        (
            json!({"cap_drop": ["ALL"], "cap_add": ["NET_ADMIN"]}),
            [NONE, "0000000000001000", "0000000000001000", "0000000000001000", NONE],
        ),
        (json!({"no_new_privileges": true}), [NONE, DEFAULT, DEFAULT, DEFAULT, NONE]),
    ];
    for (fields, wanted) in cases {
        let user = fields["user"].as_str().unwrap_or("").to_owned();
        let mut container = Container::sh("cat /proc/self/status; sleep 1")
            .exec(json!({"args": ["cat", "/proc/self/status"], "user": user}));
        for (key, value) in fields.as_object().unwrap() {
            container = container.with(key, value.clone());
        }
        let (init, execs) = container.run_all();
        for outcome in [&init, &execs[0]] {
            assert_eq!(outcome.exit_code, 0, "{outcome:?}");
            let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|key| status(outcome, key));
            assert_eq!(sets, wanted.map(str::to_owned), "{fields}");
            assert_eq!(status(outcome, "Seccomp"), "2");
            let no_new_privileges = fields["no_new_privileges"].as_bool().unwrap_or(false);
            assert_eq!(status(outcome, "NoNewPrivs"), i32::from(no_new_privileges).to_string());
        }
    }
}

#[test]
fn privileged_is_unconfined() {
    let outcome = Container::sh("cat /proc/self/status; test -e /dev/loop-control || test -e /dev/mem && echo devices; touch /proc/sys/kernel/hostname && echo sys")
        .with("privileged", true)
        .run();
    assert_eq!(status(&outcome, "Seccomp"), "0");
    // Everything that this host has to give.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(status(&outcome, "CapEff"), own);
    assert!(outcome.stdout.ends_with("devices\nsys\n"), "{outcome:?}");
}

#[test]
fn masked_and_read_only_paths() {
    let script = "for f in /proc/keys /proc/timer_list /proc/interrupts; do cat $f | wc -c; done; \
        ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | grep -c .; \
        for f in /proc/sys/kernel/core_pattern /sys/kernel/mm/transparent_hugepage/enabled /proc/sys/vm/swappiness; do \
        echo x 2>&1 > $f; done 2>&1 | grep -c 'Read-only file system'";
    let outcome = Container::sh(script).run();
    assert_eq!(outcome.stdout, "0\n0\n0\n0\n3\n", "{outcome:?}");
}

#[test]
fn users_and_groups() {
    let cases = [
        ("", json!([]), "uid=0(root) gid=0(root) groups=0(root)", "/root"),
        ("app", json!([]), "uid=1001(app) gid=1001(app) groups=44(media),1001(app)", "/home/app"),
        ("1001", json!(["7"]), "uid=1001(app) gid=1001(app) groups=7,44(media),1001(app)", "/home/app"),
        ("app:media", json!([]), "uid=1001(app) gid=44(media) groups=44(media)", "/home/app"),
        ("55:66", json!(["media"]), "uid=55 gid=66 groups=44(media),66", "/"),
        // A user by that name exists and is root; the number is meant.
        ("1002", json!([]), "uid=1002 gid=0(root) groups=0(root)", "/"),
    ];
    for (user, groups, wanted, home) in cases {
        let exec = json!({"args": ["sh", "-c", "id; echo $HOME"], "user": user, "group_add": groups});
        let container =
            Container::sh("id; echo $HOME; sleep 1").with("user", user).with("group_add", groups).exec(exec);
        let (init, execs) = container.run_all();
        assert_eq!(init.text(), format!("{wanted}\n{home}"), "{user}");
        assert_eq!(execs[0].text(), format!("{wanted}\n{home}"), "exec {user}");
    }
    let refused = Container::new(&["true"]).with("user", "nobody").run();
    assert_eq!(refused.refusal(), (125, "unable to find user nobody: no matching entries in passwd file"));
    let refused = Container::new(&["true"]).with("user", "4294967295").run();
    assert_eq!(refused.refusal(), (125, "uids and gids must be in range 0-2147483647"));
}

#[test]
fn programs_that_cannot_run() {
    let cases = [
        ("foo", 127, "exec: \"foo\": executable file not found in $PATH"),
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("/script", 126, "exec /script: exec format error"),
        ("/lost", 127, "exec /lost: no such file or directory"),
    ];
    for (program, code, message) in cases {
        let container = Container::new(&[program]);
        for (name, text) in [("script", "no magic\n"), ("lost", "#!/no/such/interpreter\n")] {
            fs::write(container.image(name), text).unwrap();
            fs::set_permissions(container.image(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
        }
        assert_eq!(container.run().refusal(), (code, message));
        let mut with_exec = container.exec(json!({"args": [program]}));
        with_exec.request["spec"]["args"] = json!(["sleep", "1"]);
        let (init, execs) = with_exec.run_all();
        assert_eq!(init.exit_code, 0);
        assert_eq!(execs[0].refusal(), (code, message), "exec");
    }
}

#[test]
fn the_working_directory() {
    assert_eq!(
        Container::sh("pwd; stat -c %a:%u .").with("cwd", "/new/deep").run().text(),
        "/new/deep\n755:0"
    );
    let (_, execs) = Container::new(&["sleep", "1"]).exec(json!({"args": ["pwd"], "cwd": "/nope"})).run_all();
    let message = "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory";
    assert_eq!(execs[0].refusal(), (127, message));
    let refused = Container::new(&["true"]).with("cwd", "/etc/passwd").run();
    assert_eq!(
        refused.refusal(),
        (126, "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory")
    );
}

#[test]
fn nothing_of_the_shim_leaks() {
    let script = "ls /proc/self/fd; echo $(env | wc -l)";
    let (init, execs) =
        Container::sh(&format!("{script}; sleep 1")).exec(json!({"args": ["sh", "-c", script]})).run_all();
    // The directory being read is 3.
    assert_eq!(init.stdout.lines().take(4).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(execs[0].stdout.lines().take(4).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let signals = Container::new(&["cat", "/proc/self/status"]).run();
    assert_eq!(status(&signals, "SigIgn"), "0000000000000000");
    assert_eq!(status(&signals, "SigBlk"), "0000000000000000");
}

#[test]
fn memory_limit_kills() {
    let outcome = Container::sh("dd if=/dev/zero of=/dev/null bs=64M count=1")
        .with("resources", json!({"memory_bytes": 16 << 20}))
        .run();
    assert_eq!(outcome.exit_code, 137, "{outcome:?}");
}

#[test]
fn pids_limit_refuses_forks() {
    let outcome = Container::sh("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 2 & done; wait")
        .with("resources", json!({"pids_limit": 5}))
        .run();
    assert_ne!(outcome.exit_code, 0);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

#[test]
fn cpu_and_memory_limits_are_visible_inside() {
    let resources = json!({"memory_bytes": 64 << 20, "nano_cpus": 500_000_000, "cpuset_cpus": "0"});
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
        /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null; grep Cpus_allowed_list /proc/self/status";
    let outcome = Container::sh(script).with("resources", resources).run();
    let text = outcome.text();
    assert!(text.starts_with("67108864\n50000"), "{text}");
    assert!(text.ends_with("Cpus_allowed_list:\t0"), "{text}");
}

#[test]
fn a_terminal() {
    let (init, execs) = Container::sh("tty; test -t 0 && stty size; stat -c '%t:%T' /dev/console; sleep 1")
        .with("terminal", true)
        .exec(json!({"args": ["sh", "-c", "tty; stty size"], "terminal": true, "user": "app"}))
        .run_all();
    assert_eq!(init.stdout, "/dev/pts/0\r\n24 80\r\n88:0\r\n", "{init:?}");
    assert_eq!(execs[0].stdout, "/dev/pts/1\r\n24 80\r\n", "{:?}", execs[0]);
}

#[test]
fn our_init_reaps_forwards_and_passes_the_code_on() {
    let script = "echo $$; grep -c . /proc/1/cmdline; (sleep 0.1 &) ; exit 3";
    let outcome = Container::sh(script).with("init", true).run();
    assert_eq!((outcome.exit_code, outcome.stdout.lines().next()), (3, Some("2")), "{outcome:?}");
    // A signal to process 1 reaches the program.
    let outcome =
        Container::sh("trap 'echo got; exit 5' TERM; kill -TERM 1; while true; do usleep 10000; done")
            .with("init", true)
            .run();
    assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (5, "got\n"), "{outcome:?}");
    // Orphans do not stay behind as zombies.
    let script = "sh -c 'sleep 0.1 & sleep 0.1 &'; i=0; while set -- /proc/[0-9]*; test $# -gt 2; \
        do i=$((i+1)); test $i -gt 500 && exit 9; usleep 10000; done; exit 0";
    assert_eq!(Container::sh(script).with("init", true).run().exit_code, 0);
    let missing = Container::new(&["foo"]).with("init", true).run();
    assert_eq!(missing.refusal(), (127, "exec: \"foo\": executable file not found in $PATH"));
}

#[test]
fn a_read_only_root() {
    let outcome = Container::sh("touch /x; touch /dev/shm/y && pwd")
        .with("read_only_root", true)
        .with("cwd", "/w")
        .run();
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert_eq!(outcome.stdout, "/w\n");
}

#[test]
fn binds_and_tmpfs() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "hello").unwrap();
    let source = |path: PathBuf| json!({"Bind": path});
    let mounts = json!([
        {"destination": "/data", "source": source(host.path().into()), "read_only": false, "options": []},
        {"destination": "/etc/one", "source": source(host.path().join("f")), "read_only": true, "options": []},
        {"destination": "/scratch", "source": "Tmpfs", "read_only": false, "options": ["size=1m", "mode=1777"]},
    ]);
    let script = "echo new > /data/g; cat /etc/one; echo no > /etc/one; grep ' /scratch ' /proc/mounts";
    let outcome = Container::sh(script).with("mounts", mounts).run();
    assert!(outcome.stdout.starts_with("hello"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert!(outcome.stdout.contains("rw,nosuid,nodev,noexec,relatime,size=1024k"), "{outcome:?}");
    assert_eq!(fs::read_to_string(host.path().join("g")).unwrap(), "new\n");
    let missing =
        json!([{"destination": "/x", "source": {"Bind": "/no/such"}, "read_only": false, "options": []}]);
    let outcome = Container::new(&["true"]).with("mounts", missing).run();
    let message = "invalid mount config for type \"bind\": bind source path does not exist: /no/such";
    assert_eq!(outcome.refusal(), (125, message));
}

#[test]
fn sysctls_limits_and_oom_score() {
    let outcome = Container::sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/self/oom_score_adj; ulimit -n; ulimit -c")
        .with("sysctls", json!([["net.ipv4.ip_forward", "1"], ["kernel.shmmni", "1234"]]))
        .with("oom_score_adj", 321)
        .with("rlimits", json!([["nofile", 100, 200], ["core", 0, 0]]))
        .run();
    assert_eq!(outcome.text(), "1\n1234\n321\n100\n0");
    let refused = Container::new(&["true"]).with("sysctls", json!([["kernel.panic", "1"]])).run();
    let message = "invalid argument: sysctl \"kernel.panic\" is not in a separate kernel namespace";
    assert_eq!(refused.refusal(), (125, message));
}

#[test]
fn a_hundred_and_twenty_layers() {
    let mut container = Container::sh("ls /layers | wc -l; cat /top");
    let mut lower = vec![];
    for number in (0..119).rev() {
        let layer = container
            .directory
            .path()
            .join(format!("layer-with-a-rather-long-name-as-of-a-digest-{number:064}"));
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join("layers").join(number.to_string()), "").unwrap();
        fs::write(layer.join("top"), format!("{number}\n")).unwrap();
        lower.push(json!(layer));
    }
    lower.push(container.request["root"]["Overlay"]["lower"][0].clone());
    container.request["root"]["Overlay"]["lower"] = json!(lower);
    assert_eq!(container.run().text(), "119\n118");
}

#[test]
fn host_namespaces_and_those_of_others() {
    let own =
        |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned();
    let script = "for n in pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    let host = json!({"pid": "Host", "net": "Host", "ipc": "Host", "uts": "Host", "cgroup": "Host"});
    let outcome = Container::sh(script).with("namespaces", host).with("hostname", json!(null)).run();
    let wanted = ["pid", "net", "ipc", "uts", "cgroup"].map(own);
    assert_eq!(outcome.text().lines().collect::<Vec<_>>(), wanted);

    // A process in namespaces of its own, as another container would be.
    let mut other = std::process::Command::new("unshare")
        .args(["--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "sleep", "60"])
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", other.id());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let pid = loop {
        let text = fs::read_to_string(&children).unwrap();
        if let Some(pid) = text.split_whitespace().next() {
            break pid.to_owned();
        }
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    };
    let path = |kind: &str| json!({"Path": format!("/proc/{pid}/ns/{kind}")});
    let joined = json!({"pid": path("pid"), "net": path("net"), "ipc": path("ipc"), "uts": path("uts")});
    let theirs = ["pid", "net", "ipc", "uts"]
        .map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned());
    let outcome = Container::sh(&format!("{script}; tail -c 3 /proc/1/cmdline"))
        .with("namespaces", joined)
        .with("hostname", json!(null))
        .run();
    other.kill().unwrap();
    other.wait().unwrap();
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines[..4], theirs);
    assert_eq!(lines[5], "60\0");
}

#[test]
fn seccomp_refuses_what_it_should() {
    // unshare is not among busybox' applets here; mount is refused by the filter before capabilities count.
    let outcome = Container::sh("mount -t tmpfs x /bin").run();
    assert!(
        outcome.stderr.contains("Operation not permitted") || outcome.stderr.contains("ermission denied")
    );
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    let outcome = Container::sh("mkdir /x").with("seccomp", json!({"Custom": profile.to_string()})).run();
    assert!(outcome.stderr.contains("No space left on device"), "{outcome:?}");
    let outcome = Container::new(&["true"])
        .with("seccomp", json!({"Custom": "{\"defaultAction\": \"SCMP_ACT_SING\"}"}))
        .run();
    assert_eq!(
        outcome.refusal(),
        (125, "invalid seccomp profile: action \"SCMP_ACT_SING\" is not supported")
    );
}

#[test]
fn a_failure_leaves_no_cgroup() {
    let container = Container::new(&["/nope"]);
    container.run().refusal();
    let path = container.request["spec"]["cgroup_path"].as_str().unwrap();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let left = hierarchy.unwrap().path().join(path.trim_start_matches('/'));
        assert!(!left.exists(), "{}", left.display());
    }
}
