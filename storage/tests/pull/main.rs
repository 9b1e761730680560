//! Pulls from a registry that behaves, and from one that does not.

mod bench;
mod fake;
mod image;
mod real;
mod serve;

use std::collections::VecDeque;

use bench::{Pulled, names, options, pull, request, until};
use bytes::Bytes;
use fake::{Access, Fake, Fault, Scripted};
use image::{Layer, OCI_INDEX, Packing, build, build_for, digest, index, layer, noise};
use storage::{Credentials, PullError, PullRequest, Store};

struct Bench {
    root: tempfile::TempDir,
    fake: Fake,
    store: Store,
}

impl Bench {
    async fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(options(root.path())).await.expect("a new store");
        Self { root, fake: Fake::start().await, store }
    }

    async fn pull(&self, name: &str) -> Pulled {
        pull(&self.store, request(&self.fake.reference(name))).await
    }

    /// Nothing of a failed pull is left.
    fn assert_clean(&self) {
        for directory in ["staging", "layers", "partial"] {
            assert_eq!(names(self.root.path(), directory), Vec::<String>::new(), "{directory}");
        }
        assert_eq!(self.store.images().len(), 0);
    }

    fn file(&self, layer: &Layer, path: &str) -> Option<Vec<u8>> {
        let diff_id = digest(&layer.tar);
        let hex = diff_id.trim_start_matches("sha256:");
        std::fs::read(self.root.path().join("layers").join(hex).join("fs").join(path)).ok()
    }
}

fn short(blob: &Bytes) -> String {
    digest(blob)["sha256:".len()..][..12].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_all_packings_come_with_dockers_words() {
    let bench = Bench::new().await;
    let layers = vec![
        layer(&[("a", b"gzip")], Packing::Gzip),
        layer(&[("b", b"zstd")], Packing::Zstd),
        layer(&[("c", b"plain")], Packing::Plain),
    ];
    let built = build(layers.clone());
    built.put(&bench.fake, "a/b", "1");
    let pulled = bench.pull("a/b:1").await;
    let lines = pulled.lines.clone();
    let image = pulled.image();
    assert_eq!(image.id.as_str(), built.id());
    assert_eq!(image.tags, [bench.fake.reference("a/b:1")]);
    assert_eq!(image.repo_digests, [format!("{}@{}", bench.fake.reference("a/b"), built.manifest_digest())]);
    assert_eq!(lines[0], "1: Pulling from a/b");
    for layer in &layers {
        let id = short(&layer.blob);
        let of_layer: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix(&format!("{id}: "))).collect();
        assert_eq!(of_layer.first(), Some(&"Pulling fs layer"));
        assert_eq!(
            of_layer[of_layer.len() - 3..],
            ["Verifying Checksum", "Download complete", "Pull complete"]
        );
    }
    assert_eq!(lines[lines.len() - 2], format!("Digest: {}", built.manifest_digest()));
    let name = bench.fake.reference("a/b:1");
    assert_eq!(lines[lines.len() - 1], format!("Status: Downloaded newer image for {name}"));
    assert_eq!(bench.file(&layers[0], "a").as_deref(), Some(b"gzip".as_slice()));
    assert_eq!(bench.file(&layers[1], "b").as_deref(), Some(b"zstd".as_slice()));
    assert_eq!(bench.file(&layers[2], "c").as_deref(), Some(b"plain".as_slice()));

    bench.fake.forget_seen();
    let again = bench.pull("a/b:1").await;
    assert_eq!(again.lines.last(), Some(&format!("Status: Image is up to date for {name}")));
    assert!(bench.fake.seen().iter().all(|seen| seen.method == "HEAD"), "{:?}", bench.fake.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_layer_is_not_fetched_again() {
    let bench = Bench::new().await;
    let base = layer(&[("base", b"1")], Packing::Gzip);
    let top = layer(&[("top", b"2")], Packing::Gzip);
    build(vec![base.clone()]).put(&bench.fake, "base", "latest");
    build(vec![base.clone(), top]).put(&bench.fake, "top", "latest");
    bench.pull("base").await.image();
    let pulled = bench.pull("top").await;
    assert!(pulled.lines.contains(&format!("{}: Already exists", short(&base.blob))), "{:?}", pulled.lines);
    pulled.image();
    assert_eq!(bench.fake.gets(&base.blob).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_from_an_index() {
    let bench = Bench::new().await;
    let one = |text: &'static str| vec![layer(&[("arch", text.as_bytes())], Packing::Gzip)];
    let (amd64, v6, v7) =
        (build_for("amd64", one("amd64")), build_for("arm", one("v6")), build_for("arm", one("v7")));
    for built in [&amd64, &v6, &v7] {
        built.put(&bench.fake, "multi", "none");
    }
    let entries =
        [v6.descriptor("arm", Some("v6")), v7.descriptor("arm", Some("v7")), amd64.descriptor("amd64", None)];
    let index = index(&entries);
    bench.fake.put_manifest("multi", "latest", OCI_INDEX, &index);
    let mut request = request(&bench.fake.reference("multi"));
    for (platform, built) in
        [("linux/amd64", &amd64), ("linux/arm/v6", &v6), ("linux/arm", &v7), ("linux/arm64", &v7)]
    {
        request.platform = Some(platform.to_owned());
        let image = pull(&bench.store, request.clone()).await.image();
        assert_eq!(image.id.as_str(), built.id(), "{platform}");
        let name = bench.fake.reference("multi");
        assert!(
            image.repo_digests.contains(&format!("{name}@{}", digest(&index))),
            "{:?}",
            image.repo_digests
        );
    }
    request.platform = Some("linux/s390x".to_owned());
    let error = pull(&bench.store, request.clone()).await.error();
    assert_eq!(error, "no matching manifest for linux/s390x in the manifest list entries");
    request.reference = bench.fake.reference("multi:none");
    let error = pull(&bench.store, request).await.error();
    assert!(error.contains("does not match the specified platform: wanted linux/s390x"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_leave_nothing_behind() {
    let bench = Bench::new().await;
    let good = noise(1, 400 << 10);
    let other = noise(2, 400 << 10);
    build(vec![good.clone()]).put(&bench.fake, "lie", "latest");
    bench.fake.fault(&good.blob, Fault { lie: Some(other.blob.clone()), ..Fault::default() });
    let pulled = bench.pull("lie").await;
    assert!(matches!(pulled.result, Err(PullError::Corrupt(_))), "{:?}", pulled.result);
    assert!(pulled.error().contains(&digest(&good.blob)));
    bench.assert_clean();

    // The blob is right, but it is not the layer that the configuration promises.
    let mut built = build(vec![good.clone()]);
    built.config = Bytes::from(
        String::from_utf8(built.config.to_vec())
            .expect("json")
            .replace(&digest(&good.tar), &digest(&other.tar)),
    );
    let manifest = String::from_utf8(built.manifest.to_vec()).expect("json");
    let honest = build(vec![good.clone()]);
    built.manifest = Bytes::from(manifest.replace(&honest.id(), &built.id()));
    bench.fake.fault(&good.blob, Fault::default());
    built.put(&bench.fake, "diff", "latest");
    let error = bench.pull("diff").await.error();
    assert!(error.contains("its diff id is"), "{error}");
    bench.assert_clean();

    bench.fake.put_manifest("manifest", "latest", image::OCI_MANIFEST, &built.manifest);
    let wrong = bench.fake.reference(&format!("manifest@{}", digest(b"else")));
    let error = pull(&bench.store, request(&wrong)).await.error();
    assert_eq!(error, format!("manifest for {wrong} not found: manifest unknown: manifest unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_broken_layers_are_told() {
    let bench = Bench::new().await;
    let good = noise(3, 300 << 10);
    let built = build(vec![good.clone()]);
    built.put(&bench.fake, "short", "latest");
    let truncated = good.blob.slice(..good.blob.len() / 2);
    bench.fake.fault(&good.blob, Fault { lie: Some(truncated), ..Fault::default() });
    let error = bench.pull("short").await.error();
    assert!(error.contains("shorter than") && error.contains(&digest(&good.blob)), "{error}");
    bench.assert_clean();

    let broken = Layer { blob: Bytes::from_static(b"this is no tar"), ..good };
    build(vec![broken]).put(&bench.fake, "broken", "latest");
    let error = bench.pull("broken").await.error();
    assert!(error.starts_with("failed to register layer: "), "{error}");
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_goes_on_where_it_stopped() {
    let bench = Bench::new().await;
    let big = noise(4, 1 << 20);
    build(vec![big.clone()]).put(&bench.fake, "cut", "latest");
    bench.fake.fault(&big.blob, Fault { cuts: VecDeque::from([200 << 10, 300 << 10]), ..Fault::default() });
    bench.pull("cut").await.image();
    let gets = bench.fake.gets(&big.blob);
    assert_eq!(gets.len(), 3);
    assert!(gets[1].range.is_some() && gets[2].range.is_some(), "{gets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_is_read_again() {
    let bench = Bench::new().await;
    let big = noise(5, 1 << 20);
    build(vec![big.clone()]).put(&bench.fake, "cut", "latest");
    bench.fake.no_ranges();
    bench.fake.fault(&big.blob, Fault { cuts: VecDeque::from([500 << 10]), ..Fault::default() });
    bench.pull("cut").await.image();
    assert_eq!(bench.fake.gets(&big.blob).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_resumes_even_after_a_restart() {
    let bench = Bench::new().await;
    let big = noise(6, 2 << 20);
    build(vec![big.clone()]).put(&bench.fake, "resume", "latest");
    bench.fake.fault(&big.blob, Fault { stall_after: Some(1 << 20), ..Fault::default() });
    let partial = bench.root.path().join("partial").join(digest(&big.blob).trim_start_matches("sha256:"));
    let recorded = || std::fs::metadata(&partial).map_or(0, |metadata| metadata.len());
    tokio::select! {
        _ = bench.pull("resume") => panic!("the gate is closed"),
        () = until("a megabyte is recorded", || recorded() >= 1 << 20) => {}
    }
    until("the unpack worker's staging directory is gone", || names(bench.root.path(), "staging").is_empty())
        .await;
    let before = recorded();
    assert_eq!(bench.store.images().len(), 0);
    let Bench { root, fake, store } = bench;
    drop(store);
    let store = reopen(root.path()).await;
    fake.fault(&big.blob, Fault::default());
    pull(&store, request(&fake.reference("resume"))).await.image();
    let gets = fake.gets(&big.blob);
    assert_eq!(gets.last().and_then(|seen| seen.range.clone()), Some(format!("bytes={before}-")));
    assert!(!partial.exists());
}

/// Opens a data root whose last user may need a moment to let go.
async fn reopen(root: &std::path::Path) -> Store {
    for _ in 0..200 {
        if let Ok(store) = Store::open(options(root)).await {
            return store;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Store::open(options(root)).await.expect("the lock is free")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_fetched_anew() {
    let bench = Bench::new().await;
    let big = noise(7, 1 << 20);
    build(vec![big.clone()]).put(&bench.fake, "zeros", "latest");
    let partial = bench.root.path().join("partial").join(digest(&big.blob).trim_start_matches("sha256:"));
    std::fs::write(&partial, vec![0; 500 << 10]).expect("a writable data root");
    bench.pull("zeros").await.image();
    assert_eq!(bench.fake.gets(&big.blob).last().and_then(|seen| seen.range.clone()), None);
    assert!(!partial.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_layer_share_the_work() {
    let bench = Bench::new().await;
    let big = noise(8, 1 << 20);
    build(vec![big.clone()]).put(&bench.fake, "one", "latest");
    build(vec![big.clone(), layer(&[("x", b"y")], Packing::Gzip)]).put(&bench.fake, "two", "latest");
    bench.fake.fault(&big.blob, Fault { stall_after: Some(500 << 10), ..Fault::default() });
    let second = {
        let (store, reference) = (bench.store.clone(), bench.fake.reference("two"));
        let first = bench.pull("one");
        tokio::pin!(first);
        let (fake, blob) = (bench.fake.clone(), big.blob.clone());
        tokio::select! {
            _ = &mut first => panic!("the gate is closed"),
            () = until("the layer is asked for", || fake.gets(&blob).len() == 1) => {}
        }
        let second = tokio::spawn(async move { pull(&store, request(&reference)).await });
        let config =
            format!("/v2/two/blobs/{}", build(vec![big.clone(), layer(&[("x", b"y")], Packing::Gzip)]).id());
        tokio::select! {
            _ = &mut first => panic!("the gate is closed"),
            () = until("the second pull is at its layers", || {
                fake.seen().iter().any(|seen| seen.path == config)
                    && fake.seen().iter().filter(|seen| seen.path.starts_with("/v2/two/blobs/")).count() > 1
            }) => {}
        }
        second
        // The first is dropped here; the second still wants the layer.
    };
    bench.fake.open_gate();
    second.await.expect("no panic").image();
    assert_eq!(bench.fake.gets(&big.blob).len(), 1);
    assert_eq!(bench.store.images().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_waited_for() {
    let bench = Bench::new().await;
    build(vec![layer(&[("a", b"b")], Packing::Gzip)]).put(&bench.fake, "busy", "latest");
    for status in [429, 503] {
        bench.fake.script(
            "/v2/busy/manifests/latest",
            Scripted { status, headers: vec![("retry-after", "1".to_owned())], body: String::new() },
        );
    }
    let start = std::time::Instant::now();
    bench.pull("busy").await.image();
    assert!(start.elapsed() >= std::time::Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_read_as_dockers() {
    let bench = Bench::new().await;
    let name = bench.fake.reference("none");
    let pulled = bench.pull("none").await;
    assert!(matches!(pulled.result, Err(PullError::NotFound(_))));
    assert_eq!(
        pulled.error(),
        format!("manifest for {name}:latest not found: manifest unknown: manifest unknown")
    );
    let error = pull(&bench.store, request("127.0.0.1:1/x")).await.error();
    assert_eq!(error, "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused");
    bench.fake.script(
        "/v2/none/manifests/latest",
        Scripted {
            status: 401,
            headers: vec![],
            body: r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#
                .into(),
        },
    );
    assert_eq!(
        bench.pull("none").await.error(),
        format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': \
             denied: requested access to the resource is denied"
        )
    );
    let pulled = pull(&bench.store, request("Bad Name")).await;
    assert!(matches!(pulled.result, Err(PullError::Reference(_))));
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_bounded() {
    let bench = Bench::new().await;
    let huge = Bytes::from(vec![b' '; 9 << 20]);
    bench.fake.put_manifest("huge", "latest", image::OCI_MANIFEST, &huge);
    let pulled = bench.pull("huge").await;
    assert!(matches!(pulled.result, Err(PullError::OverBudget(_))), "{:?}", pulled.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_tokens_stay_where_they_belong() {
    let bench = Bench::new().await;
    let top = layer(&[("a", b"b")], Packing::Gzip);
    build(vec![top.clone()]).put(&bench.fake, "private", "latest");
    let login = Credentials::Basic("user".to_owned(), "secret".to_owned());
    let basic = "Basic dXNlcjpzZWNyZXQ=";
    let with_login = PullRequest { credentials: login.clone(), ..request(&bench.fake.reference("private")) };

    // Basic; the blobs are elsewhere, and the password does not go there.
    let elsewhere = Fake::start_on("127.0.0.2:0").await;
    build(vec![top.clone()]).put(&elsewhere, "private", "latest");
    bench.fake.access(Access::Basic(basic.to_owned()));
    bench.fake.redirect_blobs(&format!("http://{}", elsewhere.host()));
    let error = bench.pull("private").await.error();
    assert!(error.ends_with("no basic auth credentials"), "{error}");
    let wrong = PullRequest {
        credentials: Credentials::Basic("user".to_owned(), "wrong".to_owned()),
        ..with_login.clone()
    };
    assert_eq!(pull(&bench.store, wrong).await.error(), "unauthorized: authentication required");
    pull(&bench.store, with_login.clone()).await.image();
    assert!(!elsewhere.seen().is_empty());
    assert!(elsewhere.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", elsewhere.seen());

    // A token server on the registry's host gets the password, and the registry the token.
    let second = Fake::start().await;
    build(vec![layer(&[("c", b"d")], Packing::Gzip)]).put(&second, "private", "latest");
    let realm = format!("http://{}/token", second.host());
    second.access(Access::Bearer { realm, token: "t0ken".to_owned() });
    second.serve_token("t0ken");
    let reference = second.reference("private");
    pull(&bench.store, PullRequest { reference: reference.clone(), ..with_login.clone() }).await.image();
    let token_requests: Vec<_> = second.seen().into_iter().filter(|s| s.path.starts_with("/token")).collect();
    assert_eq!(token_requests.len(), 1);
    assert_eq!(token_requests[0].authorization.as_deref(), Some(basic));
    assert!(token_requests[0].path.contains("scope=repository%3Aprivate%3Apull"), "{token_requests:?}");

    // An evil realm gets nothing.
    let evil = Fake::start_on("127.0.0.2:0").await;
    evil.serve_token("t0ken");
    let third = Fake::start().await;
    build(vec![layer(&[("e", b"f")], Packing::Gzip)]).put(&third, "private", "latest");
    let realm = format!("http://{}/token", evil.host());
    third.access(Access::Bearer { realm, token: "t0ken".to_owned() });
    let reference = third.reference("private");
    let error = pull(&bench.store, PullRequest { reference, ..with_login }).await.error();
    assert!(error.starts_with("refusing the token server"), "{error}");
    assert!(evil.seen().is_empty(), "{:?}", evil.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_fallen_back_from() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    let mut settings = options(root.path());
    settings.registries.insert(
        origin.host(),
        storage::RegistryOptions {
            mirrors: vec!["http://127.0.0.1:1".to_owned(), format!("http://{}", mirror.host())],
            ..Default::default()
        },
    );
    let store = Store::open(settings).await.expect("a new store");
    let (first, second) = (noise(9, 100 << 10), noise(10, 100 << 10));
    let built = build(vec![first.clone(), second.clone()]);
    built.put(&mirror, "m", "latest");
    built.put(&origin, "m", "latest");
    // The mirror has lost one blob.
    mirror.fault(&second.blob, Fault { cuts: VecDeque::from(vec![0; 100]), ..Fault::default() });
    let login = Credentials::Basic("user".to_owned(), "secret".to_owned());
    let wanted = PullRequest { credentials: login, ..request(&origin.reference("m")) };
    pull(&store, wanted).await.image();
    assert_eq!(mirror.gets(&first.blob).len(), 1);
    assert_eq!(origin.gets(&first.blob).len(), 0);
    assert_eq!(origin.gets(&second.blob).len(), 1);
    assert!(mirror.seen().iter().all(|seen| seen.authorization.is_none()));

    build(vec![first]).put(&origin, "only", "latest");
    pull(&store, request(&origin.reference("only"))).await.image();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_fetched_again() {
    let bench = Bench::new().await;
    let layers = vec![layer(&[("a", b"first")], Packing::Gzip), layer(&[("b", b"second")], Packing::Zstd)];
    build(layers.clone()).put(&bench.fake, "app", "1");
    let image = bench.pull("app:1").await.image();
    assert_eq!(bench.store.verify_image(image.id.as_str()).await.expect("verify"), []);

    let hex = digest(&layers[1].tar).trim_start_matches("sha256:").to_owned();
    let file = bench.root.path().join("layers").join(hex).join("fs/b");
    std::fs::write(&file, "sEcond").expect("damage of the same size");
    assert_eq!(bench.store.check().await.expect("check"), [], "sizes alone do not tell");
    let damages = bench.store.verify_image(image.id.as_str()).await.expect("verify");
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(damages[0].digest.as_str(), digest(&layers[1].tar));

    bench.store.prepare_snapshot("c1", &image.id).await.expect("a container");
    let (progress, _unseen) = tokio::sync::mpsc::channel(1);
    let repair = bench.store.repair_image(image.id.as_str(), Credentials::Anonymous, progress.clone());
    let refused = repair.await.expect_err("a container stands on it").to_string();
    assert_eq!(refused, "conflict: container c1 stands on a damaged layer; remove it first");
    bench.store.remove_snapshot("c1").await.expect("remove");

    let repair = bench.store.repair_image(image.id.as_str(), Credentials::Anonymous, progress);
    assert_eq!(repair.await.expect("repair"), damages);
    assert_eq!(bench.store.verify_image(image.id.as_str()).await.expect("verify"), []);
    assert_eq!(bench.file(&layers[1], "b").expect("the file is back"), b"second");
    assert_eq!(bench.store.image(image.id.as_str()).expect("still there").tags, image.tags);
    bench.store.close().await;
}

fn openssl(directory: &std::path::Path, arguments: &str) {
    let mut command = std::process::Command::new("openssl");
    let status =
        command.args(arguments.split(' ')).current_dir(directory).status().expect("openssl is there");
    assert!(status.success(), "openssl {arguments}");
}

/// Puts a cosign signature over `payload` beside an image.
fn sign(bench: &Bench, keys: &std::path::Path, key: &str, repository: &str, signed: &str, payload: &str) {
    std::fs::write(keys.join("payload"), payload).expect("writable");
    openssl(keys, &format!("dgst -sha256 -sign {key} -out signature payload"));
    openssl(keys, "base64 -A -in signature -out signature.txt");
    let signature = std::fs::read_to_string(keys.join("signature.txt")).expect("readable");
    let payload = Bytes::from(payload.to_owned());
    let config = Bytes::from_static(b"{}");
    bench.fake.put_blob(&payload);
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": image::OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": 2},
        "layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": digest(&payload), "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature.trim()}}]});
    let tag = format!("{}.sig", signed.replace(':', "-"));
    bench.fake.put_manifest(repository, &tag, image::OCI_MANIFEST, &Bytes::from(manifest.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_policy_is_kept_before_anything_is_unpacked() {
    let mut bench = Bench::new().await;
    let keys = tempfile::tempdir().expect("a temporary directory");
    for name in ["good", "other"] {
        openssl(keys.path(), &format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        openssl(keys.path(), &format!("ec -in {name}.key -pubout -out {name}.pub"));
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut settings = options(root.path());
    let policies = [
        ("signed".to_owned(), storage::Policy::Signed { keys: vec![keys.path().join("good.pub")] }),
        ("evil".to_owned(), storage::Policy::Reject),
    ];
    let registry = storage::RegistryOptions { policies: policies.into(), ..Default::default() };
    settings.registries.insert(bench.fake.host(), registry);
    bench.store = Store::open(settings).await.expect("a new store");
    bench.root = root;

    let top = noise(30, 100 << 10);
    let built = build(vec![top.clone()]);
    for repository in ["signed/app", "evil/app", "free/app"] {
        built.put(&bench.fake, repository, "latest");
    }
    let error = bench.pull("evil/app").await.error();
    assert!(error.ends_with("its repository is rejected"), "{error}");
    let error = bench.pull("signed/app").await.error();
    assert!(error.ends_with("it has no signature"), "{error}");

    let payload = |signed: &str| {
        serde_json::json!({"critical": {"identity": {"docker-reference": "signed/app"},
            "image": {"docker-manifest-digest": signed}, "type": "cosign container image signature"},
            "optional": null})
        .to_string()
    };
    let (signed, elsewhere) = (built.manifest_digest(), digest(b"another image"));
    sign(&bench, keys.path(), "other.key", "signed/app", &signed, &payload(&signed));
    let error = bench.pull("signed/app").await.error();
    assert!(error.ends_with("no signature is by a key of the policy"), "{error}");
    // A signature by the right key over another image, put beside this one.
    sign(&bench, keys.path(), "good.key", "signed/app", &signed, &payload(&elsewhere));
    assert!(bench.pull("signed/app").await.result.is_err());
    assert_eq!(bench.fake.gets(&top.blob).len(), 0);
    bench.assert_clean();

    sign(&bench, keys.path(), "good.key", "signed/app", &signed, &payload(&signed));
    bench.pull("signed/app").await.image();
    bench.pull("free/app").await.image();
}
