//! Containers for the executor's tests: a root made of a static busybox, started by the
//! `run-container` example in a process of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

const APPLETS: [&str; 32] = [
    "sh", "ls", "cat", "id", "mount", "ps", "true", "false", "sleep", "hostname", "ip", "stat", "env",
    "head", "dd", "echo", "test", "readlink", "mkdir", "touch", "kill", "grep", "tail", "wc", "mknod",
    "chmod", "umount", "stty", "tty", "pwd", "seq", "usleep",
];

/// A container to be run.
pub struct Container {
    pub directory: TempDir,
    pub request: Value,
}

/// How a process went.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub exit_code: i64,
    pub stdout: String,
    pub stderr: String,
    pub error: Option<String>,
    pub warnings: Vec<String>,
}

impl Outcome {
    fn new(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Self {
            exit_code: value["exit_code"].as_i64().expect("an exit code"),
            stdout: text("stdout"),
            stderr: text("stderr"),
            error: value["error"].as_str().map(str::to_owned),
            warnings: serde_json::from_value(value["warnings"].clone()).expect("warnings"),
        }
    }

    /// What it wrote, where it went well.
    #[track_caller]
    pub fn text(&self) -> &str {
        assert_eq!((self.exit_code, &self.error), (0, &None), "{self:?}");
        self.stdout.trim_end()
    }

    /// Message and exit code, where it could not be started.
    #[track_caller]
    pub fn refusal(&self) -> (i64, &str) {
        (self.exit_code, self.error.as_deref().unwrap_or_else(|| panic!("it ran: {self:?}")))
    }
}

impl Container {
    /// A container that runs these arguments.
    pub fn new(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Nobody's business but root's, as the engine's own directories are; users inside do not mind.
        let path = directory.path();
        for name in ["root/bin", "root/etc", "upper", "work"] {
            fs::create_dir_all(path.join(name)).expect("mkdir");
        }
        fs::copy("/usr/bin/busybox", path.join("root/bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", path.join("root/bin").join(applet)).expect("symlink");
        }
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1001::/home/app:/bin/sh\n1002:x:0:0::/:/bin/sh\n";
        fs::write(path.join("root/etc/passwd"), passwd).expect("write");
        fs::write(path.join("root/etc/group"), "root:x:0:\napp:x:1001:\nmedia:x:44:app\n").expect("write");
        let id = format!("test-{}-{number}", std::process::id());
        let request = json!({
            "spec": {
                "id": id,
                "args": args,
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
                "hostname": "boxy",
                "cgroup_path": format!("/ctl-test/{id}"),
            },
            "root": { "Overlay": {
                "lower": [path.join("root")],
                "upper": path.join("upper"),
                "work": path.join("work"),
            }},
            "execs": [],
        });
        Self { directory, request }
    }

    /// One that runs a shell script.
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// Sets a field of the specification's input.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.request["spec"][key] = value.into();
        self
    }

    /// A path below the image's root.
    pub fn image(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Adds a process to be run beside the first.
    pub fn exec(mut self, exec: Value) -> Self {
        let mut full = json!({ "env": ["PATH=/bin"], "cwd": "/" });
        for (key, value) in exec.as_object().expect("an object") {
            full[key] = value.clone();
        }
        self.request["execs"].as_array_mut().expect("a list").push(full);
        self
    }

    /// Runs it to its end: process 1, then the others.
    pub fn run_all(&self) -> (Outcome, Vec<Outcome>) {
        let example = std::env::current_exe().expect("our own path");
        let example = example.ancestors().nth(2).expect("target/debug").join("examples/run-container");
        let mut child = Command::new(&example)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        child.stdin.take().expect("piped").write_all(self.request.to_string().as_bytes()).expect("written");
        let output = child.wait_with_output().expect("finished");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "run-container: {:?} {stderr}", output.status);
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let execs = answer["execs"].as_array().expect("a list").iter().map(Outcome::new).collect();
        (Outcome::new(&answer["init"]), execs)
    }

    /// Runs it and gives process 1's outcome.
    pub fn run(&self) -> Outcome {
        self.run_all().0
    }
}

/// A host directory that nothing in a container may reach, and a way to see that it did not.
pub struct Canary {
    directory: TempDir,
    before: String,
}

impl Canary {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("file"), "untouched").expect("write");
        fs::set_permissions(directory.path().join("file"), fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::create_dir(directory.path().join("empty")).expect("mkdir");
        let before = Self::state(directory.path());
        Self { directory, before }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn state(path: &Path) -> String {
        let output = Command::new("sh")
            .args(["-c", "find . -printf '%p %m %U %G %s %y %l\\n' | sort; cat file"])
            .current_dir(path)
            .output()
            .expect("find");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(Self::state(self.path()), self.before);
    }
}
