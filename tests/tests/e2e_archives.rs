//! Images as archives, images from containers, and how much disk it takes, with `ctl`, `docker` and `skopeo`.

use tests::daemon::Daemon;
use tests::process::{command, eventually, run};
use tests::registry::{Options, Registry};

fn ready() -> (Registry, Daemon, String) {
    let registry = Registry::with_images();
    let daemon = Daemon::start();
    let image = daemon.busybox(&registry);
    (registry, daemon, image)
}

#[test]
fn what_one_daemon_saves_another_loads_with_the_same_id() {
    let (_registry, mut daemon, image) = ready();
    let id = daemon.field(&image, "{{.Id}}");
    let file = daemon.dir().join("image.tar");
    let file = file.to_str().unwrap();
    daemon.ctl(&["tag", &image, "kept:1"]).ok();
    daemon.ctl(&["save", "-o", file, "kept:1"]).ok();
    let mut other = Daemon::start();
    let loaded = other.ctl(&["load", "-i", file]).ok();
    assert!(loaded.stdout.contains("Loaded image: kept:1"), "{loaded:?}");
    assert_eq!(other.field("kept:1", "{{.Id}}"), id);
    assert_eq!(other.ctl(&["run", "--rm", "kept:1", "echo", "loaded"]).ok().text(), "loaded");
    // The same through the docker client's pipe, gzipped on the way.
    let saved = daemon.docker(&["save", "kept:1"]).ok();
    let gzipped = tests::image::pack(&saved.bytes, tests::image::Packing::Gzip);
    other.ctl(&["rmi", "kept:1"]).ok();
    other.docker_with(&["load"], &gzipped).ok();
    assert_eq!(other.field("kept:1", "{{.Id}}"), id);
    other.ctl_with(&["load"], b"this is no archive").fails_with(1);
    other.ctl(&["save", "-o", file, "nosuch"]).fails_with(1).says("No such image: nosuch");
    other.clean();
    daemon.clean();
}

#[test]
fn skopeo_reads_what_is_saved_and_writes_what_is_loaded() {
    let (_registry, mut daemon, image) = ready();
    let id = daemon.field(&image, "{{.Id}}");
    let file = daemon.dir().join("image.tar");
    daemon.ctl(&["tag", &image, "kept:1"]).ok();
    daemon.ctl(&["save", "-o", file.to_str().unwrap(), "kept:1"]).ok();
    let archive = format!("docker-archive:{}", file.display());
    let layout = daemon.dir().join("layout");
    let oci = format!("oci:{}:kept:1", layout.display());
    run(command("skopeo", ["--insecure-policy", "copy", &archive, &oci])).ok();
    let back = daemon.dir().join("back.tar");
    let back_ref = format!("docker-archive:{}:back:1", back.display());
    run(command("skopeo", ["--insecure-policy", "copy", &archive, &back_ref])).ok();
    daemon.ctl(&["load", "-i", back.to_str().unwrap()]).ok();
    assert_eq!(daemon.field("back:1", "{{.Id}}"), id);
    daemon.clean();
}

#[test]
fn a_container_is_committed_exported_and_imported() {
    let (_registry, mut daemon, image) = ready();
    let script = "echo made >/made; rm /etc/group; mkdir /new; ln -s /made /new/link";
    daemon.ctl(&["run", "--name", "work", &image, "sh", "-c", script]).ok();
    let diff = daemon.ctl(&["diff", "work"]).ok().stdout;
    for line in ["A /made", "D /etc/group", "C /etc", "A /new", "A /new/link"] {
        assert!(diff.lines().any(|other| other == line), "{line} is not in {diff}");
    }
    let id =
        daemon.ctl(&["commit", "--change", "CMD [\"cat\", \"/made\"]", "-m", "why", "work", "mine:1"]).ok();
    assert!(id.text().starts_with("sha256:"), "{id:?}");
    assert_eq!(daemon.ctl(&["run", "--rm", "mine:1"]).ok().text(), "made");
    daemon.ctl(&["run", "--rm", "mine:1", "test", "-e", "/etc/group"]).fails_with(1);
    assert!(daemon.ctl(&["history", "mine:1"]).ok().stdout.contains("why"));
    let exported = daemon.ctl(&["export", "work"]).ok();
    let names: Vec<String> = tar::Archive::new(exported.bytes.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(names.iter().any(|name| name == "made"), "{names:?}");
    assert!(!names.iter().any(|name| name == "etc/group"), "what was removed is not exported");
    let imported = daemon.ctl_with(&["import", "--change", "ENV A=b", "-", "flat:1"], &exported.bytes).ok();
    assert!(imported.text().starts_with("sha256:"), "{imported:?}");
    let said = daemon.ctl(&["run", "--rm", "flat:1", "sh", "-c", "cat /made; echo $A"]).ok();
    assert_eq!(said.stdout, "made\nb\n");
    daemon.ctl(&["rm", "work"]).ok();
    daemon.clean();
}

#[test]
fn what_is_pushed_can_be_pulled_with_its_digest() {
    let (source, mut daemon, image) = ready();
    let target = Registry::empty();
    let pushed = target.reference("copy:1");
    daemon.ctl(&["tag", &image, &pushed]).ok();
    daemon.ctl(&["push", &pushed]).ok();
    let digest = daemon.field(&image, "{{index .RepoDigests 0}}");
    let digest = digest.split_once('@').unwrap().1;
    let mut other = Daemon::start();
    other.docker(&["pull", &target.reference(&format!("copy@{digest}"))]).ok();
    other.ctl(&["pull", &pushed]).ok();
    assert_eq!(other.ctl(&["run", "--rm", &pushed, "echo", "there"]).ok().text(), "there");
    // A layer made here has no compressed form yet.
    daemon.ctl(&["run", "--name", "work", &image, "touch", "/x"]).ok();
    let own = target.reference("own:1");
    daemon.ctl(&["commit", "work", &own]).ok();
    daemon.docker(&["push", &own]).ok();
    other.ctl(&["pull", &own]).ok();
    assert_eq!(other.field(&own, "{{.Id}}"), daemon.field(&own, "{{.Id}}"));
    daemon.ctl(&["rm", "work"]).ok();
    drop(source);
    daemon.ctl(&["push", "127.0.0.1:1/nowhere"]).fails_with(1);
    daemon.clean();
    other.clean();
}

#[test]
fn a_registry_with_users_is_logged_in_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let script =
        "import crypt; print('me:' + crypt.crypt('secret', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))";
    std::fs::write(&file, run(command("python3", ["-c", script])).ok().stdout).unwrap();
    let private = Registry::empty_with(&Options { htpasswd: Some(file), tls: None });
    let (_registry, daemon, image) = ready();
    let name = private.reference("secret:1");
    daemon.ctl(&["tag", &image, &name]).ok();
    daemon.ctl(&["push", &name]).fails_with(1);
    daemon.ctl_with(&["login", "-u", "me", "--password-stdin", &private.host], b"wrong").fails_with(1);
    daemon.ctl_with(&["login", "-u", "me", "--password-stdin", &private.host], b"secret").ok();
    daemon.ctl(&["push", &name]).ok();
    daemon.ctl(&["rmi", &name]).ok();
    daemon.ctl(&["pull", &name]).ok();
    daemon.docker(&["pull", &name]).ok();
    daemon.ctl(&["logout", &private.host]).ok();
    daemon.ctl(&["pull", &name]).fails_with(1).says("no basic auth credentials");
}

#[test]
fn disk_use_is_told_and_given_back() {
    let (registry, mut daemon, _image) = ready();
    let many = registry.reference("many:latest");
    daemon.ctl(&["pull", "-q", &many]).ok();
    daemon.ctl(&["image", "verify", &many]).ok();
    let df = daemon.ctl(&["system", "df"]).ok();
    assert!(df.stdout.contains("Images") && df.stdout.contains("Containers"), "{df:?}");
    daemon.docker(&["system", "df", "-v"]).ok();
    let du = || {
        // It complains of what is deleted while it looks.
        let du = run(command("du", ["-s", "--block-size=1", daemon.data_root().to_str().unwrap()]));
        du.text().split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = du();
    daemon.ctl(&["image", "prune", "-af"]).ok();
    assert_eq!(daemon.ctl(&["images", "-aq"]).ok().text(), "");
    eventually("the space is given back", || (du() < before / 10).then_some(()));
    daemon.clean();
}

#[test]
fn fsck_finds_and_repairs_a_damaged_layer() {
    let (registry, mut daemon, _image) = ready();
    let reference = registry.reference("many:latest");
    daemon.ctl(&["pull", "-q", &reference]).ok();
    daemon.stop();
    let layers = daemon.data_root().join("layers");
    let victim = std::fs::read_dir(&layers)
        .unwrap()
        .flatten()
        .map(|layer| layer.path().join("fs/bin/bash"))
        .find(|path| path.exists())
        .expect("a layer has bash");
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let fsck = |arguments: &[&str]| {
        let mut fsck = command(tests::bin("ctld"), ["fsck"]);
        fsck.arg("--data-root").arg(daemon.data_root()).args(arguments);
        run(fsck)
    };
    let found = fsck(&["--verify"]).fails_with(1);
    assert!(found.stdout.contains("sha256:"), "the layer is named: {found:?}");
    fsck(&["--verify", "--repair"]);
    fsck(&["--verify"]).ok();
    daemon.up();
    daemon.ctl(&["image", "verify", &reference]).ok();
}

#[test]
fn the_store_is_served_as_a_registry() {
    let (registry, mut daemon, image) = ready();
    let many = registry.reference("many:latest");
    daemon.ctl(&["pull", "-q", &many]).ok();
    daemon.ctl(&["tag", &many, "many:served"]).ok();
    daemon.ctl(&["tag", &image, "small:served"]).ok();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    daemon.stop();
    let id = |daemon: &Daemon, name: &str| daemon.field(name, "{{.Id}}");
    let mut server = daemon.restarted_with(&format!("serve-registry = \"127.0.0.1:{port}\"\n"));
    let mut client = Daemon::start();
    for name in ["many:served", "small:served"] {
        let reference = format!("127.0.0.1:{port}/library/{name}");
        client.ctl(&["pull", &reference]).ok();
        assert_eq!(id(&client, &reference), id(&server, name));
        let copied = format!("oci:{}", client.dir().join("copied").display());
        let source = format!("docker://{reference}");
        run(command("skopeo", ["--insecure-policy", "copy", "--src-tls-verify=false", &source, &copied]))
            .ok();
    }
    client.clean();
    server.clean();
}
