//! Hostile images against `ctld`: each test runs an attack and then looks at the host.
//! The rows are published failures of this class of software.

use serde_json::json;
use tests::daemon::Daemon;
use tests::image::{Builder, Packing, Tar, busybox_layer};
use tests::registry::Registry;

/// A directory of the host that nothing may change, with what it held at the start.
struct Canary {
    dir: tempfile::TempDir,
}

impl Canary {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join("file"), "untouched").expect("a file can be written");
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().display().to_string()
    }

    #[track_caller]
    fn is_untouched(&self) {
        use std::os::unix::fs::MetadataExt;
        let names: Vec<_> = std::fs::read_dir(self.dir.path()).expect("it is there").flatten().collect();
        assert_eq!(names.len(), 1, "something was made on the host: {names:?}");
        let file = self.dir.path().join("file");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "untouched");
        let meta = std::fs::metadata(&file).expect("it is there");
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o644));
    }
}

struct Lab {
    registry: Registry,
    daemon: Daemon,
    canary: Canary,
}

impl Lab {
    fn new() -> Self {
        Self { registry: Registry::empty(), daemon: Daemon::start(), canary: Canary::new() }
    }

    /// Pushes an image made of busybox and a hostile layer; gives its reference.
    fn image(&self, name: &str, change: impl FnOnce(Builder) -> Builder, layer: Tar) -> String {
        let builder =
            Builder::default().layer(busybox_layer(), Packing::Gzip).layer(layer.finish(), Packing::Gzip);
        self.registry
            .push(&change(builder).build(), &format!("{name}:latest"))
            .expect("the registry takes it");
        self.registry.reference(name)
    }

    fn refuses_or_contains(&self, reference: &str) {
        let pulled = self.daemon.ctl(&["pull", "-q", reference]);
        if pulled.code == 0 {
            self.daemon.ctl(&["run", "--rm", reference, "true"]);
        }
        self.canary.is_untouched();
    }

    fn finish(mut self) {
        self.canary.is_untouched();
        self.daemon.clean();
    }
}

#[test]
fn paths_out_of_the_layer_reach_nothing() {
    let lab = Lab::new();
    let canary = lab.canary.path();
    let up = format!("../../../../../../../../..{canary}");
    let plain = |b: Builder| b;
    let attacks = [
        ("dotdot", Tar::new().file(&format!("{up}/made"), 0o644, b"x")),
        ("absolute", Tar::new().file(&format!("{canary}/made"), 0o644, b"x")),
        ("through", Tar::new().symlink("l", &canary).file("l/made", 0o644, b"x")),
        ("throughup", Tar::new().symlink("l", &up).file("l/made", 0o644, b"x")),
        ("overwrite", Tar::new().symlink("l", &format!("{canary}/file")).file("l", 0o777, b"x")),
        ("hard", Tar::new().hard_link("h", &format!("{canary}/file"), 0o777).file("h", 0o777, b"x")),
        ("hardthrough", Tar::new().symlink("l", &canary).hard_link("h", "l/file", 0o777)),
        ("chmod", Tar::new().symlink("l", &canary).dir("l")),
        ("whiteout", Tar::new().symlink("l", &canary).file("l/.wh.file", 0, b"")),
        ("opaque", Tar::new().symlink("l", &canary).file("l/.wh..wh..opq", 0, b"")),
        ("chain", Tar::new().symlink("a", "b").symlink("b", &canary).file("a/made", 0o644, b"")),
    ];
    for (name, layer) in attacks {
        let reference = lab.image(name, plain, layer);
        lab.refuses_or_contains(&reference);
    }
    lab.finish();
}

#[test]
fn links_in_place_of_what_the_engine_mounts_on_reach_nothing() {
    let lab = Lab::new();
    let canary = lab.canary.path();
    let file = format!("{canary}/file");
    let plain = |b: Builder| b;
    for (name, layer) in [
        ("dev", Tar::new().file(".wh.dev", 0, b"").symlink("dev", &canary)),
        ("proc", Tar::new().file(".wh.proc", 0, b"").symlink("proc", &canary)),
        ("sys", Tar::new().file(".wh.sys", 0, b"").symlink("sys", &canary)),
        ("console", Tar::new().dir("dev").symlink("dev/console", &file)),
        ("null", Tar::new().dir("dev").symlink("dev/null", &file)),
        ("shm", Tar::new().dir("dev").symlink("dev/shm", &canary)),
        ("pts", Tar::new().dir("dev").symlink("dev/pts", &canary)),
        ("hosts", Tar::new().dir("etc").symlink("etc/hosts", &file)),
        ("resolv", Tar::new().dir("etc").symlink("etc/resolv.conf", &format!("{canary}/made"))),
        ("hostname", Tar::new().dir("etc").symlink("etc/hostname", &file)),
        ("mtab", Tar::new().dir("etc").symlink("etc/mtab", &file)),
    ] {
        let reference = lab.image(name, plain, layer);
        lab.refuses_or_contains(&reference);
    }
    lab.finish();
}

#[test]
fn a_working_directory_or_volume_through_a_link_makes_nothing_on_the_host() {
    let lab = Lab::new();
    let canary = lab.canary.path();
    let layer = || Tar::new().symlink("l", &canary);
    let workdir = lab.image("workdir", |b| b.set("WorkingDir", json!("/l/made/deep")), layer());
    lab.refuses_or_contains(&workdir);
    let target = lab.image("target", |b| b, layer());
    lab.daemon.ctl(&["pull", "-q", &target]).ok();
    lab.daemon.ctl(&["run", "--rm", "--tmpfs", "/l/made", &target, "true"]);
    lab.canary.is_untouched();
    let source = tempfile::tempdir().expect("a temporary directory can be made");
    let bind = format!("{}:/l/made", source.path().display());
    lab.daemon.ctl(&["run", "--rm", "-v", &bind, &target, "true"]);
    lab.finish();
}

#[test]
fn odd_user_files_are_refused_and_bounded() {
    let lab = Lab::new();
    let run = |reference: &str, user: &str| {
        lab.daemon.ctl(&["pull", "-q", reference]).ok();
        lab.daemon.ctl(&["run", "--rm", "-u", user, reference, "id", "-u"])
    };
    let fifo = lab.image(
        "fifo",
        |b| b,
        Tar::new().dir("etc").file("etc/.wh.passwd", 0, b"").entry(
            tar::EntryType::Fifo,
            "etc/passwd",
            "",
            0o644,
            b"",
        ),
    );
    assert_ne!(run(&fifo, "someone").code, 0, "a FIFO is not read");
    let link = lab.image("pwlink", |b| b, Tar::new().dir("etc").symlink("etc/passwd", "/proc/self/environ"));
    assert_ne!(run(&link, "someone").code, 0);
    let odd = b"evil:x:4294967296:0::/:/bin/sh\nplus:x:+0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\nbig:x:2147483648:1::/:/bin/sh\n";
    let odd = lab.image("odd", |b| b, Tar::new().dir("etc").file("etc/passwd", 0o644, odd));
    for user in ["evil", "plus", "4294967296", "4294967295", "-1", "+1", "0x0"] {
        let output = run(&odd, user);
        assert_ne!(output.text(), "0", "{user} is not root by accident");
    }
    lab.finish();
}

#[test]
fn an_images_labels_and_environment_give_no_power() {
    let lab = Lab::new();
    let image = lab.image(
        "meta",
        |b| {
            b.set("Env", json!(["PATH=/bin", "HOME", "*", "=x", "LD_PRELOAD=/evil.so"])).set(
                "Labels",
                json!({
                    "run.oci.keep_original_groups": "1",
                    "io.kubernetes.cri-o.Devices": "/dev/vda",
                    "com.docker.security.privileged": "true",
                    "org.systemd.property.DeviceAllow": "'/dev/vda rwm'",
                }),
            )
        },
        Tar::new().file("x", 0o644, b""),
    );
    lab.daemon.ctl(&["pull", "-q", &image]).ok();
    let run =
        lab.daemon.ctl(&["run", "--rm", &image, "sh", "-c", "env; grep CapEff /proc/self/status; ls /dev"]);
    assert!(
        !run.stdout.contains("SUDO") && !run.stdout.contains("CARGO"),
        "nothing of the host's environment: {run:?}"
    );
    assert!(run.stdout.contains("00000000a80425fb"), "{run:?}");
    assert!(!run.stdout.contains("vda"), "{run:?}");
    lab.finish();
}

#[test]
fn crypto_sockets_and_host_interfaces_are_closed() {
    let lab = Lab::new();
    let image = lab.image("plain", |b| b, Tar::new().file("x", 0o644, b""));
    lab.daemon.ctl(&["pull", "-q", &image]).ok();
    let run = |args: &[&str]| lab.daemon.ctl(&[&["run", "--rm"], args].concat());
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"] {
        let script = format!("cat {masked} 2>/dev/null | wc -c");
        assert_eq!(run(&[&image, "sh", "-c", &script]).ok().text(), "0", "{masked}");
    }
    let writes = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper /sys/fs/cgroup/*/release_agent; do (echo x >$f) 2>/dev/null && echo wrote $f; done; true";
    assert_eq!(run(&[&image, "sh", "-c", writes]).ok().text(), "");
    let unix = run(&["--network", "host", &image, "cat", "/proc/net/unix"]).ok().stdout;
    let ours = unix.lines().filter(|line| line.contains(" @") && line.contains("ctl")).collect::<Vec<_>>();
    assert!(ours.is_empty(), "abstract sockets can be reached from every network namespace: {ours:?}");
    lab.finish();
}

#[test]
fn state_is_not_readable_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let image = lab.image("plain", |b| b, Tar::new().file("x", 0o644, b""));
    lab.daemon.ctl(&["pull", "-q", &image]).ok();
    lab.daemon.ctl(&["run", "-d", "--name", "box", &image, "sleep", "1000"]).ok();
    for root in [lab.daemon.data_root(), lab.daemon.run_root().join("containers")] {
        let mode = std::fs::metadata(&root).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", root.display());
    }
    // The run root itself may hold the socket, so that it can be passed, but not read.
    let mode = std::fs::metadata(lab.daemon.run_root()).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode & 0o066, 0, "the run root has mode {mode:o}");
    let mode = std::fs::metadata(lab.daemon.socket()).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o660, "the socket has mode {mode:o}");
    lab.daemon.ctl(&["rm", "-f", "box"]).ok();
    lab.finish();
}
