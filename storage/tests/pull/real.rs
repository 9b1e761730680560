//! Against Debian's `docker-registry`: plain, and with TLS of a private authority and a password.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use storage::{Credentials, LoginError, Progress, PullRequest, PushRequest, Pushed, RegistryOptions, Store};

use crate::bench::{names, options, pull, request};
use crate::fake::Fake;
use crate::image::{Packing, build, layer, noise};

/// bcrypt of `secret`.
const PASSWORDS: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry; it ends with this value.
struct Real {
    host: String,
    directory: tempfile::TempDir,
    child: Child,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let status = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed");
    assert!(status.success(), "openssl {arguments}");
}

impl Real {
    fn start(secured: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        let mut settings = String::new();
        if secured {
            let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
            openssl(at, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 30"));
            openssl(at, &format!("req {key} -keyout key.pem -out leaf.csr -subj /CN=registry"));
            std::fs::write(at.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
                .expect("writable");
            openssl(
                at,
                "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out cert.pem",
            );
            std::fs::write(at.join("htpasswd"), PASSWORDS).expect("writable");
            settings = format!(
                "  tls:\n    certificate: {0}/cert.pem\n    key: {0}/key.pem\nauth:\n  htpasswd:\n    realm: test\n    path: {0}/htpasswd\n",
                at.display()
            );
        }
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}/storage\nhttp:\n  addr: 127.0.0.1:{port}\n{settings}",
                at.display()
            );
            std::fs::write(at.join("config.yml"), config).expect("writable");
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(at.join("config.yml"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry is installed");
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && child.try_wait().expect("a child").is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { host: format!("127.0.0.1:{port}"), directory, child };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            child.kill().ok();
            child.wait().ok();
        }
        panic!("no registry could be started");
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

async fn push(
    store: &Store,
    reference: &str,
    credentials: Credentials,
) -> (Result<Vec<Pushed>, String>, Vec<String>) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    let reader = async {
        let mut lines = Vec::new();
        while let Some(progress) = receiver.recv().await {
            if let Progress::Status { status, .. } = progress {
                lines.push(status);
            }
        }
        lines
    };
    let request = PushRequest { reference: reference.to_owned(), all_tags: false, credentials };
    let pushing = async { store.push(request, sender).await.map_err(|error| error.to_string()) };
    tokio::join!(pushing, reader)
}

async fn new_store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(options(root.path())).await.expect("a new store");
    (root, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_comes_back_and_keeps_its_digests_where_it_can() {
    let (fake, real) = (Fake::start().await, Real::start(false));
    let built = build(vec![
        noise(20, 700 << 10),
        layer(&[("etc/motd", b"hello")], Packing::Zstd),
        layer(&[("plain", b"text")], Packing::Plain),
    ]);
    built.put(&fake, "app", "1");
    let (_root, store) = new_store().await;
    pull(&store, request(&fake.reference("app:1"))).await.image();

    // The blobs can be fetched from where they came.
    store.tag(&fake.reference("app:1"), &real.reference("first:1")).await.expect("a tag");
    let (pushed, lines) = push(&store, &real.reference("first:1"), Credentials::Anonymous).await;
    let pushed = pushed.expect("the push works");
    assert_eq!(pushed[0].digest, built.manifest_digest(), "{lines:?}");
    assert_eq!(lines[0], format!("The push refers to repository [{}]", real.reference("first")));
    assert_eq!(lines.iter().filter(|line| *line == "Pushed").count(), 3, "{lines:?}");
    assert_eq!(
        lines.last(),
        Some(&format!("1: digest: {} size: {}", built.manifest_digest(), built.manifest.len()))
    );

    // Another repository of the same registry takes them from there.
    store.tag(&fake.reference("app:1"), &real.reference("second:1")).await.expect("a tag");
    let (pushed, lines) = push(&store, &real.reference("second:1"), Credentials::Anonymous).await;
    assert_eq!(pushed.expect("the push works")[0].digest, built.manifest_digest());
    assert_eq!(lines.iter().filter(|line| *line == "Mounted from first").count(), 3, "{lines:?}");

    // Where nobody has the blobs any more the layers are compressed anew, and that is said.
    let (_other_root, other) = new_store().await;
    pull(&other, request(&fake.reference("app:1"))).await.image();
    fake.forget_blobs();
    let bare = Real::start(false);
    other.tag(&fake.reference("app:1"), &bare.reference("anew:1")).await.expect("a tag");
    let (pushed, lines) = push(&other, &bare.reference("anew:1"), Credentials::Anonymous).await;
    let anew = pushed.expect("the push works");
    assert_ne!(anew[0].digest, built.manifest_digest());
    assert!(lines.iter().any(|line| line.starts_with("3 of 3 layers were compressed anew")), "{lines:?}");
    let (pushed, lines) = push(&other, &bare.reference("anew:1"), Credentials::Anonymous).await;
    assert_eq!(pushed.expect("the push works"), anew);
    assert_eq!(lines.iter().filter(|line| *line == "Layer already exists").count(), 3, "{lines:?}");

    // All of it comes back under the same image id.
    let (third_root, third) = new_store().await;
    for reference in [real.reference("first:1"), real.reference("second:1"), bare.reference("anew:1")] {
        let image = pull(&third, request(&reference)).await.image();
        assert_eq!(image.id.as_str(), built.id());
    }
    assert_eq!(names(third_root.path(), "layers").len(), 3);

    let (missing, _) = push(&store, &real.reference("none"), Credentials::Anonymous).await;
    assert_eq!(
        missing.unwrap_err(),
        format!("An image does not exist locally with the tag: {}", real.reference("none"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_of_a_private_authority_and_a_password() {
    let (fake, real) = (Fake::start().await, Real::start(true));
    let built = build(vec![noise(21, 300 << 10)]);
    built.put(&fake, "app", "1");
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut settings = options(root.path());
    let trusted = RegistryOptions { ca_file: Some(real.authority()), ..RegistryOptions::default() };
    settings.registries.insert(real.host.clone(), trusted);
    let store = Store::open(settings).await.expect("a new store");
    let login = Credentials::Basic("user".to_owned(), "secret".to_owned());
    let wrong = Credentials::Basic("user".to_owned(), "wrong".to_owned());

    let checked = store.login_check(&real.host, &login).await.expect("the password is right");
    assert_eq!((checked.status.as_str(), checked.identity_token), ("Login Succeeded", None));
    let refused = store.login_check(&real.host, &wrong).await.unwrap_err();
    assert!(matches!(refused, LoginError::Unauthorized(_)), "{refused:?}");
    assert!(refused.to_string().ends_with("failed with status: 401 Unauthorized"), "{refused}");

    pull(&store, request(&fake.reference("app:1"))).await.image();
    store.tag(&fake.reference("app:1"), &real.reference("app:1")).await.expect("a tag");
    let (denied, _) = push(&store, &real.reference("app:1"), Credentials::Anonymous).await;
    assert!(denied.as_ref().is_err_and(|text| text.ends_with("no basic auth credentials")), "{denied:?}");
    let (denied, _) = push(&store, &real.reference("app:1"), wrong.clone()).await;
    assert_eq!(denied.unwrap_err(), "unauthorized: authentication required");
    let (pushed, _) = push(&store, &real.reference("app:1"), login.clone()).await;
    assert_eq!(pushed.expect("the push works")[0].digest, built.manifest_digest());

    let wanted = PullRequest { credentials: login, ..request(&real.reference("app:1")) };
    let image = pull(&store, wanted.clone()).await.image();
    assert_eq!(image.id.as_str(), built.id());

    // Without the authority the registry is not trusted; loopback is asked without TLS then, which it refuses.
    let (_other_root, other) = new_store().await;
    let error = pull(&other, wanted).await.error();
    assert!(error.contains("400 Bad Request"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_of_a_repository_are_pulled() {
    let fake = Fake::start().await;
    let real = Real::start(false);
    let (_root, store) = new_store().await;
    for tag in ["a", "b", "c"] {
        build(vec![layer(&[("tag", tag.as_bytes())], Packing::Gzip)]).put(&fake, "app", tag);
        pull(&store, request(&fake.reference(&format!("app:{tag}")))).await.image();
        let name = real.reference(&format!("app:{tag}"));
        store.tag(&fake.reference(&format!("app:{tag}")), &name).await.expect("a tag");
    }
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1024);
    let all =
        PushRequest { reference: real.reference("app"), all_tags: true, credentials: Credentials::Anonymous };
    let pushed = store.push(all, sender.clone()).await.expect("the push works");
    assert_eq!(pushed.iter().map(|pushed| pushed.tag.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let (_other_root, other) = new_store().await;
    let images = other.pull_all_tags(request(&real.reference("app")), sender).await.expect("the pull works");
    assert_eq!(images.len(), 3);
    assert_eq!(other.images().len(), 3);
    receiver.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_answered_by_the_registry_that_the_term_names() {
    let fake = Fake::start().await;
    let body = r#"{"num_results":2,"results":[
        {"name":"nginx","description":"a server","star_count":7,"is_official":true,"is_automated":false},
        {"name":"x/nginx","description":null,"star_count":1}]}"#;
    for _ in 0..2 {
        let answer = crate::fake::Scripted { status: 200, headers: vec![], body: body.to_owned() };
        fake.script("/v1/search", answer);
    }
    let (_root, store) = new_store().await;
    let term = fake.reference("nginx");
    let found = store.search(&term, 25, &Credentials::Anonymous).await.expect("the search works");
    assert_eq!(found.len(), 2);
    assert!(found[0].is_official && found[0].star_count == 7);
    assert_eq!(found[1].description, "");
    assert!(fake.seen()[0].path.ends_with("/v1/search?q=nginx&n=25"), "{:?}", fake.seen());
    let one = store.search(&term, 1, &Credentials::Anonymous).await.expect("the search works");
    assert_eq!(one.len(), 1);
}
