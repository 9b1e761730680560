//! Save, load, import, export and commit, on real stores and with skopeo as another reader.

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use storage::{
    ArchiveError, Budget, CommitRequest, ImageId, ImportOptions, Loaded, Store, StoreOptions, tree_tar,
};
use support::*;

struct Home {
    directory: tempfile::TempDir,
    store: Store,
}

async fn home_within(budget: Budget) -> Home {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = StoreOptions {
        data_root: directory.path().join("data"),
        unpack_worker: env!("CARGO_BIN_EXE_ctld-unpack").into(),
        registries: Default::default(),
        parallel_layers: 2,
        keep_blobs: false,
        disk_budget_bytes: None,
        budget,
    };
    let store = Store::open(options).await.expect("store");
    Home { directory, store }
}

async fn home() -> Home {
    home_within(Budget::default()).await
}

fn body(bytes: &[u8]) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + use<> {
    let chunks: Vec<_> = bytes.chunks(30_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    futures_util::stream::iter(chunks)
}

async fn collect(mut stream: storage::ArchiveStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.recv().await {
        bytes.extend_from_slice(&chunk.expect("the archive is whole"));
    }
    bytes
}

async fn load(store: &Store, bytes: &[u8]) -> Result<Vec<Loaded>, ArchiveError> {
    let (sink, _progress) = tokio::sync::mpsc::channel(100);
    store.load(body(bytes), sink).await
}

async fn import(store: &Store, tar: &[u8], reference: &str, changes: &[&str]) -> ImageId {
    let options = ImportOptions {
        reference: Some(reference.into()),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        ..ImportOptions::default()
    };
    store.import(body(tar), options).await.expect("import")
}

fn sample() -> Vec<u8> {
    archive(&[
        Raw::dir("etc"),
        Raw::file("etc/motd", "hello").owner(5, 6),
        Raw::hard_link("etc/other", "etc/motd"),
        Raw::symlink("link", "etc/motd"),
        Raw::dir("gone"),
        Raw::file("gone/x", "x"),
        Raw::dir("opaque"),
        Raw::file("opaque/x", "x"),
    ])
}

/// Two layers: an import and a commit on top.
async fn two_layers(home: &Home) -> (ImageId, ImageId) {
    let store = &home.store;
    let base = import(store, &sample(), "base:1", &["CMD [\"/bin/a\"]", "ENV A=1"]).await;
    let mount = store.prepare_snapshot("c1", &base).await.expect("snapshot");
    std::fs::write(mount.upper.join("new"), "new file").expect("new");
    let whiteout = |path: &str| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, mount.upper.join(path), kind, rustix::fs::Mode::empty(), 0)
            .expect("whiteout");
    };
    whiteout("gone");
    std::fs::create_dir(mount.upper.join("opaque")).expect("opaque");
    rustix::fs::setxattr(
        mount.upper.join("opaque"),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .expect("opaque");
    std::fs::write(mount.upper.join("opaque/y"), "y").expect("y");
    let request = CommitRequest {
        container: "c1".into(),
        parent: base.clone(),
        config: serde_json::json!({"Cmd": ["/bin/b"], "Hostname": "c1", "Labels": null, "Env": ["A=1"]}),
        changes: vec!["ENV B=2".into()],
        author: "someone".into(),
        comment: "a comment".into(),
        created_by: "/bin/sh".into(),
        reference: Some("app".into()),
    };
    let image = store.commit(request).await.expect("commit");
    (base, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_has_its_configuration() {
    let home = home().await;
    let tar = sample();
    let id = import(&home.store, &gzip(&tar), "localhost:5000/a/b", &["ENTRYPOINT /x", "LABEL a=b"]).await;
    let image = home.store.image("localhost:5000/a/b:latest").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.layers()[0].as_str(), sha256(&tar));
    let config: serde_json::Value = serde_json::from_slice(&image.raw_config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/bin/sh", "-c", "/x"]));
    assert_eq!(config["config"]["Labels"]["a"], "b");
    assert_eq!(config["comment"], "Imported from -");
    assert_eq!((config["os"].as_str(), image.size_bytes), (Some("linux"), 7));
    for (body_text, options) in [
        (&b"no tar"[..], ImportOptions::default()),
        (&tar[..], ImportOptions { changes: vec!["RUN x".into()], ..Default::default() }),
        (&tar[..], ImportOptions { reference: Some("UPPER".into()), ..Default::default() }),
    ] {
        assert!(home.store.import(body(body_text), options).await.is_err());
    }
    assert_eq!(home.store.images().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_adds_the_writable_layer() {
    let home = home().await;
    let (base, id) = two_layers(&home).await;
    let image = home.store.image("app:latest").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.parent.as_ref(), Some(&base));
    assert_eq!(image.layers().len(), 2);
    let config: serde_json::Value = serde_json::from_slice(&image.raw_config).unwrap();
    assert_eq!(config["config"], serde_json::json!({"Env": ["A=1", "B=2"], "Cmd": ["/bin/b"]}));
    assert_eq!(config["author"], "someone");
    assert_eq!(config["history"][1]["created_by"], "/bin/sh");
    let mount = home.store.prepare_snapshot("c2", &id).await.unwrap();
    let top = &mount.lower[0];
    assert_eq!(std::fs::read_to_string(top.join("new")).unwrap(), "new file");
    let gone = std::fs::symlink_metadata(top.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut mark = [0; 8];
    assert_eq!(rustix::fs::getxattr(top.join("opaque"), "trusted.overlay.opaque", &mut mark).unwrap(), 1);
    // Without a change there is no further layer.
    let request = CommitRequest {
        container: "c2".into(),
        parent: id.clone(),
        config: serde_json::json!({}),
        changes: vec![],
        author: String::new(),
        comment: String::new(),
        created_by: String::new(),
        reference: None,
    };
    let same = home.store.commit(request).await.unwrap();
    let same = home.store.image(same.as_str()).unwrap();
    assert_eq!(same.layers().len(), 2);
    let config: serde_json::Value = serde_json::from_slice(&same.raw_config).unwrap();
    assert_eq!(config["history"][2]["empty_layer"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_loaded_with_the_same_ids() {
    let one = home().await;
    let (base, app) = two_layers(&one).await;
    one.store.tag("app", "other:2").await.unwrap();
    let names = ["app:latest".to_owned(), "other".to_owned(), base.to_string()];
    let saved = collect(one.store.save(&names).await.unwrap()).await;
    let compressed = zstd::encode_all(&saved[..], 1).unwrap();
    for bytes in [saved.clone(), gzip(&saved), compressed] {
        let two = home().await;
        let mut loaded = load(&two.store, &bytes).await.unwrap();
        loaded.sort_by_key(|entry| format!("{entry:?}"));
        assert_eq!(
            loaded,
            [Loaded::Id(base.to_string()), Loaded::Name("app:latest".into()), Loaded::Name("other:2".into())]
        );
        assert_eq!(two.store.image("other:2").unwrap().id, app);
        assert_eq!(collect(two.store.save(&names[..1]).await.unwrap()).await.len(), {
            collect(one.store.save(&names[..1]).await.unwrap()).await.len()
        });
        assert!(two.store.check().await.unwrap().is_empty());
        let staging = two.directory.path().join("data/staging");
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    }
    let error = one.store.save(&["nothing".to_owned()]).await.unwrap_err();
    assert_eq!(error.to_string(), "No such image: nothing:latest");
}

fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output().expect("skopeo");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_and_writes_the_same_images() {
    let one = home().await;
    let (_, app) = two_layers(&one).await;
    let bytes = collect(one.store.save(&["app".to_owned()]).await.unwrap()).await;
    let path = |name: &str| one.directory.path().join(name).display().to_string();
    std::fs::write(path("saved.tar"), &bytes).unwrap();
    let (saved, docker, oci) = (path("saved.tar"), path("docker.tar"), path("oci.tar"));
    let inspected = skopeo(&["inspect", "--raw", "--config", &format!("docker-archive:{saved}")]);
    assert_eq!(sha256(inspected.as_bytes()), app.to_string());
    skopeo(&["copy", &format!("docker-archive:{saved}:app:latest"), &format!("docker-archive:{docker}:b:1")]);
    skopeo(&["copy", &format!("docker-archive:{saved}:app:latest"), &format!("oci-archive:{oci}:c:2")]);
    for (file, name) in [(docker, "b:1"), (oci, "c:2")] {
        let two = home().await;
        let loaded = load(&two.store, &std::fs::read(file).unwrap()).await.unwrap();
        assert_eq!(loaded, [Loaded::Name(name.into())]);
        let image = two.store.image(name).unwrap();
        assert_eq!(image.layers(), one.store.image("app").unwrap().layers());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_archives_leave_nothing() {
    let one = home().await;
    let (_, app) = two_layers(&one).await;
    let layer = sample();
    let config = one.store.image(app.as_str()).unwrap().raw_config.to_vec();
    let manifest = |config: &str, layers: &[&str]| {
        serde_json::json!([{"Config": config, "RepoTags": ["x:1"], "Layers": layers}]).to_string()
    };
    let file = |name: &str, content: &[u8]| Raw { content: content.to_vec(), ..Raw::new(b'0', name) };
    let with = |manifest: String| {
        archive(&[
            file("c.json", &config),
            file("l.tar", &layer),
            file("bad.json", b"{"),
            Raw::symlink("out", "/etc/passwd"),
            Raw::new(b'6', "fifo"),
            file("manifest.json", manifest.as_bytes()),
        ])
    };
    for (archive, word) in [
        (archive(&[Raw::file("a", "b")]), "neither manifest.json nor index.json"),
        (with(manifest("c.json", &["l.tar"])), "layers length mismatch: expected 2, got 1"),
        (with(manifest("c.json", &["l.tar", "l.tar"])), "invalid diffID for layer 1"),
        (with(manifest("../../../../etc/passwd", &[])), "etc/passwd"),
        (with(manifest("out", &[])), "open out"),
        (with(manifest("fifo", &[])), "not a regular file"),
        (with(manifest("bad.json", &[])), "image configuration"),
        (with("{}".into()), "manifest.json"),
        (b"nonsense".to_vec(), "invalid tar"),
        (archive(&[file("index.json", b"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"x\",\"digest\":\"sha256:../../x\",\"size\":1}]}")]), "digest"),
    ] {
        let two = home().await;
        let error = load(&two.store, &archive).await.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert!(two.store.images().is_empty());
        let findings = two.store.check().await.unwrap();
        assert!(findings.is_empty(), "{findings:?}");
    }
    let small = home_within(Budget { document_bytes: 100, ..Budget::default() }).await;
    let error = load(&small.store, &with(manifest("c.json", &[]))).await.unwrap_err().to_string();
    assert!(error.contains("document_bytes"), "{error}");
}

#[test]
fn an_exported_tree_unpacks_to_the_same_tree() {
    let place = Place::new();
    unpack(&place, &sample()).unwrap();
    let fs = std::fs::File::open(place.fs("")).unwrap();
    std::os::unix::net::UnixListener::bind(place.fs("socket")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tar = runtime.block_on(async { collect(tree_tar(fs.into(), "")).await });
    let again = Place::new();
    unpack(&again, &tar).unwrap();
    assert_eq!(tree(&again.fs("")), {
        std::fs::remove_file(place.fs("socket")).unwrap();
        tree(&place.fs(""))
    });
    let listed = Command::new("tar").arg("tf").arg("-").stdin(temporary(&tar)).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("etc/motd\n"));
}

fn temporary(bytes: &[u8]) -> std::fs::File {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile().expect("file");
    file.write_all(bytes).expect("write");
    file.rewind().expect("rewind");
    file
}

/// Paths with what counts of them.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("directory") {
            let path = entry.expect("entry").path();
            let metadata = path.symlink_metadata().expect("metadata");
            let mut content = String::new();
            if metadata.is_file() {
                std::fs::File::open(&path).expect("file").read_to_string(&mut content).expect("content");
            }
            if metadata.is_dir() {
                open.push(path.clone());
            }
            found.push(format!(
                "{} {:o} {}:{} {} {content}",
                path.strip_prefix(root).expect("below").display(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime()
            ));
        }
    }
    found.sort();
    found
}
