//! A bed for tests of the shim: a root with busybox, a run root, requests.

#![expect(dead_code, reason = "each test program uses its part of it")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use executor::plan::{ExecInput, Extras, Plan, RootSource};
use executor::shims::{Attachment, LogTarget, Shim, Shims, StartRequest, Streams, attachment};
use executor::spec::{self, SpecInput};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// Everything of a process.
pub const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true };
/// Its output.
pub const OUTPUT: Streams = Streams { stdin: false, stdout: true, stderr: true };

const PATH: &str = "PATH=/bin";
const APPLETS: &[&str] = &[
    "sh", "cat", "true", "sleep", "echo", "dd", "head", "yes", "stty", "printf", "seq", "kill", "grep",
    "tty", "wc", "ls", "md5sum", "tail",
];

/// Directories of one test, and its shims.
pub struct Bed {
    pub dir: tempfile::TempDir,
    pub shims: Shims,
    pub rootfs: PathBuf,
    made: AtomicU32,
    prefix: String,
}

impl Bed {
    pub fn new(name: &str) -> Self {
        Self::with_shim(name, env!("CARGO_BIN_EXE_ctld-shim").into())
    }

    pub fn with_shim(name: &str, shim: PathBuf) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).expect("bin");
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("the package busybox-static");
        for applet in APPLETS {
            std::fs::hard_link(bin.join("busybox"), bin.join(applet)).expect("a link");
        }
        let shims = Shims::new(shim, dir.path().join("run"));
        let prefix = format!("{name}-{}", std::process::id());
        let rootfs = dir.path().join("rootfs");
        Self { dir, shims, rootfs, made: AtomicU32::new(0), prefix }
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log.json")
    }

    pub fn directory(&self, id: &str) -> PathBuf {
        self.dir.path().join("run/containers").join(id)
    }

    pub fn cgroup(id: &str) -> String {
        format!("/ctl-test/{id}")
    }

    /// A container without terminal or stdin, logged to [`Bed::log`].
    pub fn request(&self, args: &[&str]) -> StartRequest {
        self.request_with(args, |_| {})
    }

    pub fn request_with(&self, args: &[&str], change: impl FnOnce(&mut SpecInput)) -> StartRequest {
        let id = format!("{}-{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed));
        let mut input = SpecInput {
            id: id.clone(),
            args: args.iter().map(ToString::to_string).collect(),
            env: vec![PATH.into()],
            cwd: "/".into(),
            cgroup_path: Self::cgroup(&id),
            ..SpecInput::default()
        };
        change(&mut input);
        let spec = spec::build(&input).expect("a valid specification");
        let root = RootSource::Directory(self.rootfs.clone());
        let plan = Plan::new(&spec, &root, &Extras::default()).expect("a plan");
        StartRequest {
            plan,
            terminal: input.terminal,
            console_size: input.console_size,
            open_stdin: false,
            stdin_once: false,
            log: LogTarget::JsonFile { path: self.log(), max_size_bytes: None, max_files: 1 },
            cgroup_path: Self::cgroup(&id),
            attach: vec![],
            id,
        }
    }

    /// The shell runs a script, with stdin open.
    pub fn script(&self, script: &str) -> StartRequest {
        StartRequest { open_stdin: true, stdin_once: true, ..self.request(&["/bin/sh", "-c", script]) }
    }

    /// The same with a terminal.
    pub fn terminal(&self, script: &str) -> StartRequest {
        let request = self.request_with(&["/bin/sh", "-c", script], |input| {
            input.terminal = true;
            input.console_size = Some((24, 80));
        });
        StartRequest { open_stdin: true, stdin_once: true, ..request }
    }

    /// Starts and attaches.
    pub async fn start_attached(&self, mut request: StartRequest, streams: Streams) -> (Shim, UnixStream) {
        let (theirs, ours) = attachment(streams).expect("a socket pair");
        request.attach.push(theirs);
        let (_, shim) = self.shims.start(request).await.expect("it starts");
        (shim, ours)
    }

    pub async fn forget(&self, shim: &Shim) {
        self.shims.forget(shim.id(), &Self::cgroup(shim.id())).await.expect("it is forgotten");
        assert!(!self.directory(shim.id()).exists());
    }

    /// The shim's process id.
    pub fn shim_pid(&self, shim: &Shim) -> i32 {
        let text = std::fs::read(self.directory(shim.id()).join("shim.json")).expect("shim.json");
        let record: executor::protocol::ShimRecord = serde_json::from_slice(&text).expect("a record");
        record.shim.pid
    }
}

/// What `exec` runs.
pub fn exec_input(script: &str) -> ExecInput {
    ExecInput {
        args: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec![PATH.into()],
        cwd: "/".into(),
        ..ExecInput::default()
    }
}

/// Fails instead of hanging.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it should not take 30 seconds")
}

/// Polls for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 30 seconds: {what}");
}

/// Everything up to the end.
pub async fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![];
    soon(stream.read_to_end(&mut bytes)).await.expect("a clean end");
    bytes
}

/// Stdout and stderr of multiplexed frames.
pub fn demultiplex(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (vec![], vec![]);
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        assert_eq!(header[1..4], [0, 0, 0]);
        match header[0] {
            1 => stdout.extend_from_slice(&rest[..length]),
            2 => stderr.extend_from_slice(&rest[..length]),
            other => panic!("stream {other}"),
        }
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a header");
    (stdout, stderr)
}

/// Attaches to what runs.
pub async fn attach(shim: &Shim, streams: Streams) -> UnixStream {
    let (theirs, ours) = attachment(streams).expect("a socket pair");
    shim.attach(theirs).await.expect("it is attached");
    ours
}

/// A client for an exec, and our end.
pub fn client(streams: Streams) -> (Attachment, UnixStream) {
    attachment(streams).expect("a socket pair")
}

/// The entries of a log: text and stream.
pub fn log_entries(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).expect("a log");
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let field = |name: &str| value[name].as_str().expect("a string").to_owned();
            (field("log"), field("stream"))
        })
        .collect()
}

/// Whether a process is there (a zombie is not).
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(')').is_some_and(|end| !stat[end..].starts_with(") Z") && !stat[end..].starts_with(") X"))
}
