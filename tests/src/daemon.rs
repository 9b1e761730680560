//! A `ctld` with a data root, run root and socket of its own.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Output, command, eventually, run, run_with, wait};

/// A running daemon. When it is dropped, its containers are removed and it is stopped; a test that
/// failed prints the end of the daemon's log.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    child: Option<Child>,
    config: String,
    arguments: Vec<String>,
}

impl Daemon {
    /// Starts one with default settings.
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// Starts one with a TOML configuration and further arguments.
    pub fn start_with(config: &str, arguments: &[&str]) -> Self {
        let base = std::env::var_os("CTL_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("ctl-").tempdir_in(base).expect("a directory can be made");
        let mut daemon = Self {
            dir,
            child: None,
            config: config.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        daemon.up();
        daemon
    }

    /// The directory that holds everything of this daemon.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data root.
    pub fn data_root(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Its run root.
    pub fn run_root(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Its socket's path.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("ctl.sock")
    }

    /// Its socket as a URL.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// The command that starts it (again).
    pub fn daemon_command(&self) -> Command {
        let config = self.dir().join("ctld.toml");
        std::fs::write(&config, &self.config).expect("the configuration can be written");
        let mut daemon = Command::new(crate::bin("ctld"));
        daemon
            .arg("--config")
            .arg(config)
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--run-root")
            .arg(self.run_root())
            .arg("-H")
            .arg(self.host())
            .args(&self.arguments);
        daemon
    }

    /// Starts it and waits until it answers.
    pub fn up(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir().join("log"))
            .expect("the log can be opened");
        let mut daemon = self.daemon_command();
        daemon
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be duplicated"))
            .stderr(log)
            .process_group(0);
        let mut child = daemon.spawn().expect("ctld can be run");
        eventually("the daemon answers", || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("ctld ended with {status}:\n{}", self.log());
            }
            self.answers().then_some(())
        });
        self.child = Some(child);
    }

    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = UnixStream::connect(self.socket()) else {
            return false;
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
        let mut answer = [0; 12];
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer.ends_with(b"200")
    }

    /// The same data under another configuration; it must not run.
    pub fn restarted_with(mut self, config: &str) -> Self {
        assert!(self.child.is_none(), "a running daemon keeps its configuration");
        config.clone_into(&mut self.config);
        self.up();
        self
    }

    /// `kill -9`, and waits for its end.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// SIGTERM, and asserts that it ends well.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), rustix::process::Signal::TERM);
            let code = wait(&mut child, "ctld", Duration::from_secs(60));
            assert_eq!(code, 0, "ctld did not end well:\n{}", self.log());
        }
    }

    /// `kill -9` and a new start.
    pub fn crash(&mut self) {
        self.kill9();
        self.up();
    }

    /// `ctl` with arguments, to be run or spawned.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut ctl = command(crate::bin("ctl"), arguments);
        ctl.env("CTL_HOST", self.host()).env("HOME", self.dir()).env_remove("DOCKER_HOST");
        ctl
    }

    /// Runs `ctl` with arguments.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        run(self.ctl_command(arguments))
    }

    /// Runs `ctl` with arguments and an input.
    pub fn ctl_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        run_with(self.ctl_command(arguments), input)
    }

    /// The unmodified `docker` client with arguments.
    pub fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut docker = command(docker_client(), arguments);
        docker.env("DOCKER_HOST", self.host()).env("HOME", self.dir()).env("DOCKER_CLI_HINTS", "false");
        docker
    }

    /// Runs the `docker` client.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        run(self.docker_command(arguments))
    }

    /// Runs the `docker` client with an input.
    pub fn docker_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        run_with(self.docker_command(arguments), input)
    }

    /// One request to the API: status and body.
    pub fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(self.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(crate::process::DEADLINE)).expect("a timeout can be set");
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: ctl\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("the request can be sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the answer can be read");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (status, body.to_owned())
    }

    /// One field of `ctl inspect`, by a template.
    pub fn field(&self, container: &str, template: &str) -> String {
        self.ctl(&["inspect", "--format", template, container]).ok().text().to_owned()
    }

    /// Pulls the prepared busybox from a registry; gives its reference.
    pub fn busybox(&self, registry: &crate::registry::Registry) -> String {
        let reference = registry.reference("busybox:latest");
        self.ctl(&["pull", "-q", &reference]).ok();
        reference
    }

    /// Runs `ctld fsck` over the data root; the daemon must not run.
    pub fn fsck(&self) -> Output {
        assert!(self.child.is_none(), "fsck wants the data root for itself");
        let mut fsck = Command::new(crate::bin("ctld"));
        fsck.arg("fsck").arg("--data-root").arg(self.data_root());
        run(fsck)
    }

    /// Stops the daemon and asserts that its data root has no fault. What is deleted in the background is
    /// waited for.
    pub fn clean(&mut self) {
        eventually("nothing is left that is being deleted", || {
            let entries = std::fs::read_dir(self.data_root().join("trash")).ok()?;
            (entries.count() == 0).then_some(())
        });
        self.stop();
        self.fsck().ok();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("---- the daemon's log ends with ----\n{}", tail.join("\n"));
        }
        self.kill9();
        end_shims(&self.run_root());
    }
}

/// Kills every shim below a run root (their containers die with them) and waits for their end, so
/// that a failed test leaves nothing running.
fn end_shims(run_root: &Path) {
    let wanted = run_root.as_os_str().as_encoded_bytes();
    let shims = || -> Vec<u32> {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.windows(wanted.len()).any(|window| window == wanted))
            })
            .collect()
    };
    for _ in 0..200 {
        let left = shims();
        if left.is_empty() {
            return;
        }
        for pid in left {
            signal(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a process of the host.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself.
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// The docker client: `CTL_DOCKER`, or the first of the usual places.
pub fn docker_client() -> PathBuf {
    std::env::var_os("CTL_DOCKER").map_or_else(|| PathBuf::from("docker"), PathBuf::from)
}
