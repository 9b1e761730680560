//! Starts one container from a JSON description on standard input and reports as JSON.
//!
//! The executor's tests use it, since a launch forks and wants a process with one thread only.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use executor::launch::{self, LaunchError, Launched, Stdio};
use executor::plan::{ExecInput, Extras, Plan, RootSource};
use executor::spec::{self, SpecInput};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

/// What to do.
#[derive(Deserialize)]
struct Request {
    spec: SpecInput,
    root: RootSource,
    #[serde(default)]
    stdin: String,
    /// Run one after the other while the container runs.
    #[serde(default)]
    execs: Vec<ExecInput>,
    /// How often the whole is repeated, for timing.
    #[serde(default)]
    repeat: u32,
}

/// How a process went.
#[derive(Serialize, Default)]
struct Outcome {
    exit_code: i32,
    stdout: String,
    stderr: String,
    error: Option<String>,
    warnings: Vec<String>,
}

/// The whole.
#[derive(Serialize)]
struct Answer {
    init: Outcome,
    execs: Vec<Outcome>,
    microseconds: Vec<u128>,
}

struct Running {
    launched: Launched,
    stdin: Option<std::fs::File>,
    stdout: std::fs::File,
    stderr: std::fs::File,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn start(
    terminal: bool,
    how: impl FnOnce(Stdio) -> std::result::Result<Launched, LaunchError>,
) -> Result<std::result::Result<Running, LaunchError>> {
    let (stdin, stdin_write) = pipe()?;
    let (stdout_read, stdout) = pipe()?;
    let (stderr_read, stderr) = pipe()?;
    let stdio = if terminal {
        drop((stdin, stdout, stderr));
        Stdio::Terminal { size: Some((24, 80)) }
    } else {
        Stdio::Pipes { stdin, stdout, stderr }
    };
    Ok(how(stdio).and_then(|mut launched| {
        let stdout = launched.console.take().unwrap_or(stdout_read);
        let stdin = if terminal { stdout.try_clone() } else { Ok(stdin_write) };
        let stdin = stdin.map_err(|e| LaunchError { exit_code: 125, message: e.to_string() })?;
        Ok(Running { launched, stdin: Some(stdin.into()), stdout: stdout.into(), stderr: stderr_read.into() })
    }))
}

/// Reads both outputs to their end, side by side, and reaps.
fn finish(mut running: Running) -> Result<Outcome> {
    let mut outcome =
        Outcome { warnings: std::mem::take(&mut running.launched.warnings), ..Default::default() };
    running.stdin = None;
    let (mut stdout, mut stderr) = (vec![], vec![]);
    let (mut stdout_open, mut stderr_open) = (true, true);
    while stdout_open || stderr_open {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = vec![];
        if stdout_open {
            fds.push(PollFd::from_borrowed_fd(running.stdout.as_fd(), PollFlags::IN));
        }
        if stderr_open {
            fds.push(PollFd::from_borrowed_fd(running.stderr.as_fd(), PollFlags::IN));
        }
        poll(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut buffer = [0u8; 65536];
        // A terminal ends with EIO.
        if stdout_open && ready[0] {
            let n = running.stdout.read(&mut buffer).unwrap_or(0);
            stdout.extend_from_slice(&buffer[..n]);
            stdout_open = n > 0;
        }
        if stderr_open && ready.last() == Some(&true) && (ready.len() == 2 || !stdout_open) {
            let n = running.stderr.read(&mut buffer).unwrap_or(0);
            stderr.extend_from_slice(&buffer[..n]);
            stderr_open = n > 0;
        }
    }
    let pid = Pid::from_raw(running.launched.pid);
    let (_, status): (Pid, WaitStatus) = waitpid(pid, WaitOptions::empty())?.ok_or("not reaped")?;
    outcome.exit_code =
        status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0));
    outcome.stdout = String::from_utf8_lossy(&stdout).into_owned();
    outcome.stderr = String::from_utf8_lossy(&stderr).into_owned();
    Ok(outcome)
}

fn failed(error: &LaunchError) -> Outcome {
    Outcome { exit_code: error.exit_code, error: Some(error.message.clone()), ..Default::default() }
}

fn run(request: &Request, answer: &mut Answer) -> Result<()> {
    let input = &request.spec;
    let extras = Extras {
        user: Some(input.user.clone()),
        group_add: input.group_add.clone(),
        create_cwd: true,
        init: input.init,
    };
    let plan = match spec::build(input).and_then(|spec| Plan::new(&spec, &request.root, &extras)) {
        Ok(plan) => plan,
        Err(error) => {
            answer.init = Outcome { exit_code: 125, error: Some(error.to_string()), ..Default::default() };
            return Ok(());
        }
    };
    // As it travels to the shim.
    let plan: Plan = serde_json::from_str(&serde_json::to_string(&plan)?)?;
    let started = Instant::now();
    let running = start(input.terminal, |stdio| launch::launch(&plan, stdio))?;
    answer.microseconds.push(started.elapsed().as_micros());
    let mut running = match running {
        Ok(running) => running,
        Err(error) => {
            answer.init = failed(&error);
            return Ok(());
        }
    };
    answer.execs.clear();
    for exec in &request.execs {
        let outcome = match start(exec.terminal, |stdio| launch::join(&plan, &running.launched, exec, stdio))?
        {
            Ok(exec) => finish(exec)?,
            Err(error) => failed(&error),
        };
        answer.execs.push(outcome);
    }
    if let Some(stdin) = &mut running.stdin {
        stdin.write_all(request.stdin.as_bytes())?;
    }
    answer.init = finish(running)?;
    launch::clean_up(&plan)?;
    Ok(())
}

fn main() -> Result<()> {
    let request: Request = serde_json::from_reader(std::io::stdin())?;
    let mut answer = Answer { init: Outcome::default(), execs: vec![], microseconds: vec![] };
    for _ in 0..request.repeat.max(1) {
        run(&request, &mut answer)?;
    }
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
