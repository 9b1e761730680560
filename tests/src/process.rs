//! Running programs with a deadline, and waiting for conditions.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a single command may take before the test fails with what it had printed.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
    /// Standard output byte by byte.
    pub bytes: Vec<u8>,
}

impl Output {
    /// The same, after asserting that the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails_with(0)
    }

    /// The same, after asserting the exit code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "`{}` ended with {}\nstdout: {}\nstderr: {}",
            self.command, self.code, self.stdout, self.stderr
        );
        self
    }

    /// Standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Asserts that standard error has a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "`{}` should say {text:?} but said\nstdout: {}\nstderr: {}",
            self.command,
            self.stdout,
            self.stderr
        );
        self
    }

    /// The output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}` printed no JSON ({error}): {}", self.command, self.stdout))
    }
}

/// Runs a command to its end with `input` on stdin. Panics past [`DEADLINE`], saying what the
/// process and its threads were waiting for.
pub fn run_with(mut command: Command, input: &[u8]) -> Output {
    let line = format!("{command:?}").replace('"', "");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_owned();
    let feed = thread::spawn(move || {
        // The program may end without reading all: that is not this function's business.
        stdin.write_all(&input).ok();
    });
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let code = wait(&mut child, &line, DEADLINE);
    feed.join().expect("the feeding thread does not panic");
    let bytes = stdout.join().expect("the reading thread does not panic");
    let stderr = stderr.join().expect("the reading thread does not panic");
    Output {
        command: line,
        code,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        bytes,
    }
}

/// [`run_with`] an empty stdin.
pub fn run(command: Command) -> Output {
    run_with(command, b"")
}

/// Builds a command from a program and its arguments.
pub fn command<S: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<Path>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(args);
    command
}

/// Waits for a child's end; panics past the deadline. Gives 128 + n after signal n.
pub fn wait(child: &mut Child, line: &str, deadline: Duration) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if start.elapsed() > deadline {
            let threads = threads_of(child.id());
            child.kill().ok();
            panic!("`{line}` did not end within {deadline:?}; its threads: {threads}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// What each thread of a process waits for, for messages.
fn threads_of(pid: u32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return "gone".into();
    };
    tasks
        .flatten()
        .map(|task| {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            format!("{} in {} ({})", read("comm").trim(), read("wchan").trim(), read("syscall").trim())
        })
        .collect::<Vec<_>>()
        .join("; ")
}

/// Waits until `condition` gives something. Panics past [`DEADLINE`] with `what` was awaited.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still the program's output.
        stream.read_to_end(&mut bytes).ok();
        bytes
    })
}
