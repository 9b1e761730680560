//! Published failures of container runtimes, tried on ours (SECURITY.md). Each attack aims at a
//! directory of the host that must stay as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::common::{Canary, Container};

fn replace_with_link(container: &Container, path: &str, target: &Path) {
    let place = container.image(path);
    fs::create_dir_all(place.parent().expect("a parent")).expect("mkdir");
    symlink(target, place).expect("symlink");
}

/// CVE-2026-41579 and its kin: the image's `/dev`, `/proc`, `/sys` are links.
#[test]
fn kernel_directories_that_are_links() {
    for directory in ["/dev", "/proc", "/sys"] {
        let canary = Canary::new();
        let container = Container::new(&["true"]);
        replace_with_link(&container, directory, canary.path());
        let outcome = container.run();
        let (code, message) = outcome.refusal();
        assert_eq!(code, 125);
        assert!(message.ends_with("not a directory"), "{message}");
        canary.assert_untouched();
    }
}

/// Links to nothing, relative and absolute, lead to places in the container only.
#[test]
fn mount_points_that_are_links() {
    let canary = Canary::new();
    let inside = canary.path().join("made");
    let container = Container::sh("cat /proc/mounts; ls -d /made").with(
        "mounts",
        json!([
            {"destination": "/absolute", "source": "Tmpfs", "read_only": false, "options": []},
            {"destination": "/relative/x", "source": "Tmpfs", "read_only": false, "options": []},
        ]),
    );
    replace_with_link(&container, "/absolute", &inside);
    replace_with_link(&container, "/relative", Path::new("../../../../../../../../made"));
    let outcome = container.run();
    assert!(outcome.text().contains(&format!("tmpfs {} ", inside.display())), "{outcome:?}");
    assert!(outcome.text().contains("tmpfs /made/x "), "{outcome:?}");
    canary.assert_untouched();
}

/// CVE-2025-52565, CVE-2026-88264: `/dev/console`, `/dev/null`, `/dev/pts` in the image are links.
#[test]
fn device_nodes_that_are_links() {
    for terminal in [false, true] {
        let canary = Canary::new();
        let container = Container::sh("stat -c %F /dev/null; test ! -e /dev/evil && echo fresh")
            .with("terminal", terminal);
        for name in ["console", "null", "zero", "ptmx", "pts", "shm", "evil"] {
            replace_with_link(&container, &format!("/dev/{name}"), &canary.path().join("file"));
        }
        let outcome = container.run();
        assert_eq!(outcome.text().replace('\r', ""), "character special file\nfresh");
        canary.assert_untouched();
    }
}

/// The same where the user's own volume is `/dev`.
#[test]
fn a_volume_over_dev() {
    let canary = Canary::new();
    let volume = tempfile::tempdir().unwrap();
    symlink(canary.path().join("file"), volume.path().join("null")).unwrap();
    symlink(canary.path().join("empty"), volume.path().join("pts")).unwrap();
    let mounts = json!([{"destination": "/dev", "source": {"Bind": volume.path()}, "read_only": false, "options": []}]);
    for terminal in [false, true] {
        let outcome =
            Container::new(&["true"]).with("mounts", mounts.clone()).with("terminal", terminal).run();
        assert_eq!(outcome.refusal().0, 125);
        canary.assert_untouched();
    }
}

/// CVE-2019-16884, CVE-2023-28642: something that only looks like procfs, or covers a part of it.
#[test]
fn volumes_over_proc() {
    let canary = Canary::new();
    for destination in ["/proc", "/proc/", "/proc/self/attr", "/proc/1", "/x/../proc/sys", "/linked/sys"] {
        let mounts = json!([
            {"destination": destination, "source": {"Bind": canary.path()}, "read_only": false, "options": []},
        ]);
        let container = Container::sh("cat /proc/self/attr/file /proc/self/file").with("mounts", mounts);
        replace_with_link(&container, "/linked", Path::new("/proc"));
        let outcome = container.run();
        let (code, message) = outcome.refusal();
        assert_eq!(code, 125);
        assert!(message.ends_with("cannot be mounted because it is inside /proc"), "{message}");
        canary.assert_untouched();
    }
    let mounts = json!([
        {"destination": "/proc/uptime", "source": {"Bind": canary.path().join("file")}, "read_only": true, "options": []},
    ]);
    assert_eq!(Container::sh("cat /proc/uptime").with("mounts", mounts).run().text(), "untouched");
}

/// CVE-2024-21626, CVE-2026-55686: a working directory that leads out.
#[test]
fn working_directories_that_lead_out() {
    for number in 0..30 {
        let cwd = format!("/proc/self/fd/{number}");
        let (init, execs) =
            Container::new(&["sleep", "1"]).exec(json!({"args": ["pwd"], "cwd": cwd})).run_all();
        assert_eq!(init.exit_code, 0, "{init:?}");
        assert!(execs[0].error.is_some(), "{cwd}: {execs:?}");
        if number % 5 == 0 {
            let outcome = Container::new(&["pwd"]).with("cwd", cwd.clone()).run();
            assert!(outcome.error.is_some(), "{cwd}: {outcome:?}");
        }
    }
    let canary = Canary::new();
    let container = Container::sh("pwd").with("cwd", "/link/x");
    replace_with_link(&container, "/link", canary.path());
    let path = format!("{}/x", canary.path().display());
    assert_eq!(container.run().text(), path);
    canary.assert_untouched();
}

/// CVE-2024-9676: `/etc/passwd` and `/etc/group` that are no files.
#[test]
fn user_databases_that_are_traps() {
    let message = |container: &Container| container.run().refusal().1.to_owned();
    for file in ["passwd", "group"] {
        let prefix = format!("reading /etc/{file} of the container: ");
        let place = format!("/etc/{file}");
        let fresh = || {
            let container = Container::new(&["true"]).with("user", "app");
            fs::remove_file(container.image(&place)).unwrap();
            container
        };
        let container = fresh();
        let status = std::process::Command::new("mkfifo").arg(container.image(&place)).status().unwrap();
        assert!(status.success());
        assert_eq!(message(&container), format!("{prefix}not a regular file"));

        let container = fresh();
        fs::File::create(container.image(&place)).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(message(&container), format!("{prefix}file too large"));

        let container = fresh();
        symlink("/dev/zero", container.image(&place)).unwrap();
        assert_eq!(message(&container), format!("{prefix}not a regular file"));
    }
    // A link to the host's is a link into the container.
    let canary = Canary::new();
    fs::write(canary.path().join("file"), "secret:x:0:0::/:\n").unwrap();
    let container = Container::new(&["true"]).with("user", "secret");
    fs::remove_file(container.image("/etc/passwd")).unwrap();
    symlink(canary.path().join("file"), container.image("/etc/passwd")).unwrap();
    assert_eq!(message(&container), "unable to find user secret: no matching entries in passwd file");
}

/// CVE-2016-9962, CVE-2019-5736: a process of the container cannot look into one that is joining,
/// nor find the runtime's binary. Process 1 watches every newcomer while many join.
#[test]
fn joining_processes_cannot_be_looked_into() {
    let script = "i=0; while test $i -lt 100000; do i=$((i+1)); for p in /proc/[0-9]*; do \
        test $p = /proc/1 && continue; \
        case $(readlink $p/exe 2>/dev/null) in *run-container*) echo LEAK exe $p;; esac; \
        for f in $p/fd/*; do case $(readlink $f 2>/dev/null) in *cgroup*|*ns*|*socket*) echo LEAK $f;; esac; done; \
        done; test -e /stop && break; done";
    let mut container = Container::sh(script);
    for _ in 0..40 {
        container = container.exec(json!({"args": ["true"]}));
    }
    container = container.exec(json!({"args": ["touch", "/stop"]}));
    let (init, execs) = container.run_all();
    assert!(execs.iter().all(|exec| exec.exit_code == 0), "{execs:?}");
    assert_eq!(init.text(), "");
}

/// CVE-2022-0492: nothing of the cgroup file systems can be written.
#[test]
fn cgroups_are_read_only() {
    let script = "for f in $(ls -d /sys/fs/cgroup/*/ /sys/fs/cgroup/); do mkdir $f/x 2>/dev/null && echo LEAK $f; \
        echo 1 2>/dev/null > $f/notify_on_release && echo LEAK $f; done; echo done";
    assert_eq!(Container::sh(script).run().text(), "done");
}

/// CVE-2025-31133: masked paths are masked by the host's null device, whatever the image has.
#[test]
fn masks_hold_whatever_the_image_has() {
    let canary = Canary::new();
    let container = Container::sh("for f in /proc/keys /proc/timer_list; do stat -c %t:%T $f; done");
    replace_with_link(&container, "/dev/null", &canary.path().join("file"));
    assert_eq!(container.run().text(), "1:3\n1:3");
    canary.assert_untouched();
}
