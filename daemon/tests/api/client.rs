//! A server of its own for each test, and requests byte by byte.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::api::{Api, Service};
use daemon::config::{Config, FileConfig, Listen, Overrides};
use daemon::engine::{Engine, EngineOptions};
use daemon::server::{self, Listener};
use storage::Store;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running server.
pub struct Server {
    dir: TempDir,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    serving: Option<JoinHandle<()>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The message of an error.
    pub fn message(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_bad(&self, beginning: &str) -> bool {
        self.status == 400 && self.message().starts_with(beginning)
    }
}

impl Server {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let flags = Overrides {
            data_root: Some(dir.path().join("data")),
            run_root: Some(dir.path().join("run")),
            ..Overrides::default()
        };
        let config = Config::new(FileConfig::default(), flags).expect("a configuration");
        let store = Store::open(config.store_options()).await.expect("a store");
        let options = EngineOptions::new(store.clone(), config.shim.clone(), config.run_root.clone());
        let engine = Engine::open(options).await.expect("an engine");
        let listen = Listen::Unix(dir.path().join("s.sock"));
        let listeners = Listener::bind(&listen, None).expect("a socket");
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let service = Service::new(Api::new(engine, store, config, shutdown.clone(), tasks.clone()));
        let serving = tokio::spawn(server::serve(listeners, service, shutdown.clone(), tasks.clone()));
        Self { dir, shutdown, tasks, serving: Some(serving) }
    }

    pub fn socket(&self) -> PathBuf {
        Path::join(self.dir.path(), "s.sock")
    }

    pub fn connections(&self) -> usize {
        self.tasks.len()
    }

    /// Connects and sends.
    pub async fn open(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        stream
    }

    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut stream = self.open(&request).await;
        // A server may answer and close before it has read all of a body that is too large.
        stream.write_all(body.as_bytes()).await.ok();
        let mut answer = Vec::new();
        let reading = async {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                answer.extend_from_slice(&piece[..count]);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the server answers");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub async fn shut_down(&mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().expect("it is shut down once");
        tokio::time::timeout(Duration::from_secs(30), serving).await.expect("in time").expect("well");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Reads up to the end of the head.
pub async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(Duration::from_secs(30), stream.read_u8()).await;
        head.push(byte.expect("the server answers").expect("a byte"));
    }
    String::from_utf8(head).expect("text")
}

/// Waits for a condition, at most 30 seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let polling = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polling).await.expect(what);
}
