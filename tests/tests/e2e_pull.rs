//! Pulling, with `ctl`, from a real registry: formats, damage, absence.

use serde_json::json;
use tests::daemon::Daemon;
use tests::image::{Builder, Format, Packing, Tar, busybox_layer, digest};
use tests::registry::{Options, Registry};

#[test]
fn every_format_and_packing_can_be_pulled_and_run() {
    let registry = Registry::empty();
    let mut daemon = Daemon::start();
    for (n, (format, packing)) in [
        (Format::Docker, Packing::Gzip),
        (Format::Oci, Packing::Gzip),
        (Format::Oci, Packing::Zstd),
        (Format::Oci, Packing::Plain),
    ]
    .into_iter()
    .enumerate()
    {
        let extra = Tar::new().file("which", 0o644, format!("{n}").as_bytes()).finish();
        let image = Builder::new(format).layer(busybox_layer(), packing).layer(extra, packing).build();
        let name = format!("img{n}:latest");
        registry.push(&image, &name).unwrap();
        let reference = registry.reference(&name);
        daemon.ctl(&["pull", &reference]).ok();
        assert_eq!(daemon.ctl(&["run", "--rm", &reference, "cat", "/which"]).ok().text(), n.to_string());
        assert_eq!(daemon.ctl(&["inspect", "--format", "{{.Id}}", &reference]).ok().text(), image.id);
        let again = daemon.ctl(&["pull", &reference]).ok();
        assert!(again.stdout.contains("Image is up to date"), "{again:?}");
    }
    daemon.clean();
}

#[test]
fn an_index_is_resolved_by_platform() {
    let registry = Registry::empty();
    let daemon = Daemon::start();
    let mut entries = Vec::new();
    for (arch, variant) in [("arm64", "v8"), ("amd64", ""), ("arm", "v7")] {
        let marker = Tar::new().file("arch", 0o644, arch.as_bytes()).finish();
        let image = Builder::new(Format::Oci)
            .layer(busybox_layer(), Packing::Gzip)
            .layer(marker, Packing::Gzip)
            .set_top("architecture", json!(arch))
            .build();
        registry.push(&image, &format!("multi:{arch}")).unwrap();
        let mut platform = json!({"architecture": arch, "os": "linux"});
        if !variant.is_empty() {
            platform["variant"] = json!(variant);
        }
        entries.push(json!({
            "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(), "platform": platform,
        }));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries})).unwrap();
    registry.put_manifest("multi", "latest", kind, &index).unwrap();
    let reference = registry.reference("multi:latest");
    daemon.ctl(&["pull", &reference]).ok();
    assert_eq!(daemon.ctl(&["run", "--rm", &reference, "cat", "/arch"]).ok().text(), "amd64");
    daemon.ctl(&["pull", "--platform", "linux/arm64", &reference]).ok();
    let arch = daemon.ctl(&["image", "inspect", "--format", "{{.Architecture}}", &reference]).ok();
    assert_eq!(arch.text(), "arm64");
    daemon
        .ctl(&["pull", "--platform", "linux/s390x", &reference])
        .fails_with(1)
        .says("no matching manifest for linux/s390x");
    let by_digest = registry.reference(&format!("multi@{}", digest(&index)));
    daemon.ctl(&["pull", &by_digest]).ok();
}

#[test]
fn what_cannot_be_pulled_is_said_and_leaves_nothing() {
    let mut registry = Registry::empty();
    let mut daemon = Daemon::start();
    let image = Builder::default().layer(busybox_layer(), Packing::Gzip).build();
    registry.push(&image, "x:latest").unwrap();
    daemon.ctl(&["pull", &registry.reference("x:nosuch")]).fails_with(1).says("manifest unknown");
    daemon.ctl(&["pull", &registry.reference("nosuch:latest")]).fails_with(1).says("not found");
    daemon.ctl(&["pull", "UPPER"]).fails_with(1).says("must be lowercase");
    daemon.ctl(&["pull", "a b"]).fails_with(1).says("invalid reference format");
    daemon
        .ctl(&["run", "--rm", "--pull", "never", "x", "true"])
        .fails_with(125)
        .says("No such image: x:latest");

    let layer = image.blobs[0].digest.clone();
    let whole = image.blobs[0].bytes.clone();
    let reference = registry.reference("x:latest");
    // Other bytes of the same length, too few bytes, and no gzip at all.
    registry.corrupt_blob(&layer, |mut bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    });
    daemon.ctl(&["pull", &reference]).fails_with(1);
    registry.corrupt_blob(&layer, |bytes| bytes[..bytes.len() / 2].to_vec());
    daemon.ctl(&["pull", &reference]).fails_with(1);
    registry.corrupt_blob(&layer, |bytes| vec![b'x'; bytes.len().max(whole.len())]);
    daemon.ctl(&["pull", &reference]).fails_with(1);
    assert_eq!(daemon.ctl(&["images", "-q"]).ok().text(), "");
    registry.corrupt_blob(&layer, |_| whole.clone());
    daemon.ctl(&["pull", &reference]).ok();
    registry.stop();
    daemon.ctl(&["pull", &registry.reference("y")]).fails_with(1).says("connection refused");
    assert_eq!(daemon.ctl(&["run", "--rm", &reference, "echo", "still"]).ok().text(), "still");
    daemon.clean();
}

#[test]
fn a_wrong_diff_id_is_refused() {
    let registry = Registry::empty();
    let mut daemon = Daemon::start();
    let mut image = Builder::default().layer(busybox_layer(), Packing::Gzip).build();
    // A configuration that promises another layer than the manifest has.
    let config = image.blobs.pop().unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&config.bytes).unwrap();
    value["rootfs"]["diff_ids"][0] = json!(digest(b"something else"));
    let bytes = serde_json::to_vec(&value).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"]["digest"] = json!(digest(&bytes));
    manifest["config"]["size"] = json!(bytes.len());
    image.blobs.push(tests::image::Blob { digest: digest(&bytes), bytes });
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    registry.push(&image, "liar:latest").unwrap();
    daemon.ctl(&["pull", &registry.reference("liar")]).fails_with(1);
    assert_eq!(daemon.ctl(&["images", "-aq"]).ok().text(), "");
    daemon.clean();
}

#[test]
fn a_registry_with_users_wants_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    // bcrypt, the only kind that the registry takes.
    let line = tests::process::run(tests::process::command(
        "python3",
        [
            "-c",
            "import crypt; print('me:' + crypt.crypt('secret', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))",
        ],
    ));
    std::fs::write(&file, line.ok().stdout).unwrap();
    let registry = Registry::empty_with(&Options { htpasswd: Some(file), tls: None });
    let daemon = Daemon::start();
    daemon.ctl(&["pull", &registry.reference("x")]).fails_with(1).says("no basic auth credentials");
}

#[test]
fn what_the_file_system_can_say_survives() {
    let registry = Registry::empty();
    let mut daemon = Daemon::start();
    let first = Tar::new()
        .dir("d/")
        .file("d/gone", 0o644, b"1")
        .dir("opaque/")
        .file("opaque/hidden", 0o644, b"1")
        .file("suid", 0o4755, b"x")
        .hard_link("suid2", "suid", 0o4755)
        .entry(tar::EntryType::Fifo, "fifo", "", 0o644, b"")
        .finish();
    let second = Tar::new()
        .dir("d/")
        .file("d/.wh.gone", 0o644, b"")
        .file("d/new", 0o600, b"22")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/seen", 0o644, b"")
        .finish();
    let image = Builder::default()
        .layer(busybox_layer(), Packing::Gzip)
        .layer(first, Packing::Gzip)
        .layer(second, Packing::Gzip)
        .build();
    registry.push(&image, "fs:latest").unwrap();
    let reference = registry.reference("fs:latest");
    daemon.ctl(&["pull", "-q", &reference]).ok();
    let sh =
        |script: &str| daemon.ctl(&["run", "--rm", &reference, "sh", "-c", script]).ok().text().to_owned();
    assert_eq!(sh("ls d opaque | tr '\\n' ' '"), "d: new  opaque: seen");
    assert_eq!(sh("stat -c '%a %h' suid suid2 | tr '\\n' ' '"), "4755 2 4755 2");
    assert_eq!(sh("stat -c '%a %s %Y' d/new"), "600 2 1700000000");
    assert_eq!(sh("test -p fifo && echo fifo"), "fifo");
    daemon.clean();
}

#[test]
fn an_image_of_many_layers_works() {
    let registry = Registry::empty();
    let mut daemon = Daemon::start();
    let mut builder = Builder::default().layer(busybox_layer(), Packing::Gzip);
    for n in 0..119 {
        builder = builder.layer(Tar::new().file(&format!("f{n}"), 0o644, b"x").finish(), Packing::Gzip);
    }
    registry.push(&builder.build(), "deep:latest").unwrap();
    let reference = registry.reference("deep:latest");
    daemon.ctl(&["pull", "-q", &reference]).ok();
    assert_eq!(daemon.ctl(&["run", "--rm", &reference, "sh", "-c", "ls -d /f* | wc -l"]).ok().text(), "119");
    daemon.clean();
}

#[test]
fn images_are_listed_tagged_and_removed() {
    let registry = Registry::with_images();
    let mut daemon = Daemon::start();
    let reference = daemon.busybox(&registry);
    let id = daemon.ctl(&["images", "-q", "--no-trunc"]).ok().text().to_owned();
    assert!(id.starts_with("sha256:"), "{id}");
    daemon.ctl(&["tag", &reference, "mine:1"]).ok();
    let rows = daemon.ctl(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert!(rows.stdout.contains("mine:1"), "{rows:?}");
    daemon.ctl(&["rmi", &id[7..19]]).fails_with(1).says("must be forced");
    daemon.ctl(&["create", "--name", "user", "mine:1", "true"]).ok();
    assert!(daemon.ctl(&["rmi", "mine:1"]).ok().stdout.contains("Untagged: mine:1"));
    daemon.ctl(&["rmi", &reference]).fails_with(1).says("container");
    daemon.ctl(&["rm", "user"]).ok();
    let removed = daemon.ctl(&["rmi", &reference]).ok().stdout;
    assert!(removed.contains("Untagged: ") && removed.contains("Deleted: sha256:"), "{removed}");
    daemon.ctl(&["rmi", "nosuch"]).fails_with(1).says("No such image: nosuch");
    assert_eq!(daemon.ctl(&["images", "-aq"]).ok().text(), "");
    daemon.clean();
    let layers = std::fs::read_dir(daemon.data_root().join("layers")).map_or(0, Iterator::count);
    assert_eq!(layers, 0, "the layer's space is given back");
}

#[test]
fn a_health_check_of_an_image_is_shown_and_said_not_to_run() {
    let registry = Registry::empty();
    let mut daemon = Daemon::start();
    let check = json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000});
    let image = Builder::default().layer(busybox_layer(), Packing::Gzip).set("Healthcheck", check).build();
    registry.push(&image, "healthy:latest").unwrap();
    let reference = registry.reference("healthy");
    daemon.ctl(&["pull", "-q", &reference]).ok();
    daemon
        .ctl(&["create", "--name", "checked", &reference])
        .ok()
        .says("health check of the image is not run");
    assert_eq!(daemon.field("checked", "{{json .Config.Healthcheck.Test}}"), r#"["CMD","true"]"#);
    daemon.ctl(&["rm", "checked"]).ok();
    daemon.clean();
}
