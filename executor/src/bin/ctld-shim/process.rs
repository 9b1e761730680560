//! A process with its streams and clients: process 1, or an exec'd one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime};

use executor::launch::{Launched, Stdio};
use executor::log::{JsonFile, Stream};
use executor::protocol::Answer;
use executor::shims::Streams;
use executor::sys::process::pidfd_send_signal;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::client::{Client, set_nonblocking};

/// Two pipes of the largest size that an unprivileged process can give them.
const MOST_LEFT_BYTES: usize = 2 << 20;

/// The shim's ends of the pipes of a process that is about to start; empty with a terminal.
#[derive(Debug, Default)]
pub struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Streams for a new process.
pub fn streams(
    terminal: bool,
    size: Option<(u16, u16)>,
    open_stdin: bool,
    open_outputs: bool,
) -> io::Result<(Stdio, Ends)> {
    if terminal {
        return Ok((Stdio::Terminal { size }, Ends::default()));
    }
    let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let mut ends = Ends::default();
    let stdin = if open_stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&write)?;
        ends.stdin = Some(write);
        read
    } else {
        null()?
    };
    if !open_outputs {
        return Ok((Stdio::Pipes { stdin, stdout: null()?, stderr: null()? }, ends));
    }
    let output = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&read)?;
        Ok((read, write))
    };
    let (read, stdout) = output()?;
    ends.stdout = Some(read);
    let (read, stderr) = output()?;
    ends.stderr = Some(read);
    Ok((Stdio::Pipes { stdin, stdout, stderr }, ends))
}

/// A running or ended process.
#[derive(Debug)]
pub struct Process {
    pub launched: Launched,
    /// `None` is process 1.
    pub exec_id: Option<String>,
    pub clients: Vec<Client>,
    ends: Ends,
    /// The terminal's output has not ended.
    console_open: bool,
    stdin_once: bool,
    /// Taken from a client, not yet by the process.
    input: Vec<u8>,
    /// Stdin is closed once `input` is gone.
    input_ending: bool,
    /// Exit code, and when.
    pub ended: Option<(i32, SystemTime)>,
    /// Until when output of an ended process is awaited that others may still hold open.
    pub patience: Option<Instant>,
    read_after_end_bytes: usize,
    /// The end was told; whoever still writes to the streams is heard and ignored.
    pub told: bool,
}

impl Process {
    pub fn new(
        launched: Launched,
        exec_id: Option<String>,
        ends: Ends,
        stdin_once: bool,
    ) -> io::Result<Self> {
        if let Some(console) = &launched.console {
            set_nonblocking(console)?;
        }
        for warning in &launched.warnings {
            eprintln!("{warning}");
        }
        let console_open = launched.console.is_some();
        Ok(Self {
            launched,
            exec_id,
            clients: vec![],
            ends,
            console_open,
            stdin_once,
            input: vec![],
            input_ending: false,
            ended: None,
            patience: None,
            read_after_end_bytes: 0,
            told: false,
        })
    }

    /// Adds a client.
    pub fn attach(&mut self, socket: OwnedFd, streams: Streams) {
        let framed = self.launched.console.is_none();
        self.clients.push(Client::new(socket, streams, framed));
    }

    /// Where stdin goes; `None` where it is closed.
    pub fn input_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.launched.console {
            Some(console) => self.console_open.then(|| console.as_fd()),
            None => self.ends.stdin.as_ref().map(AsFd::as_fd),
        }
    }

    /// What to wait for at [`Process::input_fd`]: room, or (with nothing) its being closed.
    pub fn input_interest(&self) -> PollFlags {
        if self.input.is_empty() { PollFlags::empty() } else { PollFlags::OUT }
    }

    /// Whether a client's stdin can be taken.
    pub fn wants_input(&self) -> bool {
        self.input.is_empty() && !self.input_ending && self.ended.is_none() && self.input_fd().is_some()
    }

    /// Where a stream's output comes from; `None` where it has ended.
    pub fn output_fd(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        match (&self.launched.console, stream) {
            (Some(console), Stream::Stdout) => self.console_open.then(|| console.as_fd()),
            (Some(_), Stream::Stderr) => None,
            (None, Stream::Stdout) => self.ends.stdout.as_ref().map(AsFd::as_fd),
            (None, Stream::Stderr) => self.ends.stderr.as_ref().map(AsFd::as_fd),
        }
    }

    /// Whether output may be read: a living process waits for its slowest client. An ended one waits
    /// for nobody, up to what the pipes can have held.
    pub fn may_read_output(&self) -> bool {
        (self.ended.is_some() && self.read_after_end_bytes < MOST_LEFT_BYTES)
            || self.clients.iter().all(Client::has_room)
    }

    /// Whether it has a terminal.
    pub fn has_console(&self) -> bool {
        self.launched.console.is_some()
    }

    /// Whether all output was read.
    pub fn output_ended(&self) -> bool {
        self.output_fd(Stream::Stdout).is_none() && self.output_fd(Stream::Stderr).is_none()
    }

    /// Reads once from a stream, to the log first and to the clients then.
    /// Says whether there was something.
    pub fn read_output(&mut self, stream: Stream, log: Option<&mut JsonFile>, buffer: &mut [u8]) -> bool {
        let Some(fd) = self.output_fd(stream) else { return false };
        match rustix::io::read(fd, &mut *buffer) {
            // EIO: the last process closed the terminal.
            Ok(0) | Err(Errno::IO) => {
                self.close_output(stream, log);
                false
            }
            Ok(length) => {
                let piece = &buffer[..length];
                if self.ended.is_some() {
                    self.read_after_end_bytes = self.read_after_end_bytes.saturating_add(length);
                }
                if let Some(log) = log {
                    warn_once(log.write(stream, piece));
                }
                for client in &mut self.clients {
                    client.output(stream, piece);
                }
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(error) => {
                eprintln!("reading output: {error}");
                self.close_output(stream, log);
                false
            }
        }
    }

    fn close_output(&mut self, stream: Stream, log: Option<&mut JsonFile>) {
        match stream {
            Stream::Stdout => {
                self.console_open = false;
                self.ends.stdout = None;
            }
            Stream::Stderr => self.ends.stderr = None,
        }
        if let Some(log) = log {
            warn_once(log.end(stream));
        }
    }

    /// Reads what is there now, up to what can have been there at the end.
    pub fn drain(&mut self, mut log: Option<&mut JsonFile>, buffer: &mut [u8]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.may_read_output() && self.read_output(stream, log.as_deref_mut(), buffer) {
                if self.read_after_end_bytes >= MOST_LEFT_BYTES {
                    return;
                }
            }
        }
    }

    /// Takes a client's stdin and passes on what goes.
    pub fn read_client(&mut self, index: usize, buffer: &mut [u8]) {
        match self.clients[index].read(buffer) {
            Some(piece) => {
                self.input.extend_from_slice(piece);
                self.write_input();
            }
            // A terminal has no end of input that could be passed on.
            None if self.stdin_once && self.launched.console.is_none() => {
                self.input_ending = true;
                self.write_input();
            }
            None => {}
        }
    }

    /// Sends a signal, by pidfd.
    pub fn signal(&self, signal: i32) -> Result<Answer, String> {
        match pidfd_send_signal(&self.launched.pidfd, signal) {
            Ok(()) => Ok(Answer::Done),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(Answer::Gone),
            Err(error) => Err(format!("signal {signal}: {error}")),
        }
    }

    /// Sets the size of the terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<Answer, String> {
        let console = self.launched.console.as_ref().ok_or("the process has no terminal")?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(console, size).map(|()| Answer::Done).map_err(|error| error.to_string())
    }

    /// Passes waiting stdin on, as far as it is taken.
    pub fn write_input(&mut self) {
        while !self.input.is_empty() {
            let Some(fd) = self.input_fd() else { break };
            match rustix::io::write(fd, &self.input) {
                Ok(length) => {
                    self.input.drain(..length);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.close_input(),
            }
        }
        self.input = vec![];
        if self.input_ending {
            self.close_input();
        }
    }

    /// Closes stdin; a terminal stays.
    pub fn close_input(&mut self) {
        self.input = vec![];
        self.ends.stdin = None;
    }

    /// Takes note of the end, if it has come. Its status is taken from the pidfd, so a reused
    /// process id cannot be meant.
    pub fn reap(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let code = match waitid(WaitId::PidFd(self.launched.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => return,
            Ok(Some(status)) => {
                status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
            }
            Err(error) => {
                eprintln!("the status of process {} is lost: {error}", self.launched.pid);
                None
            }
        };
        self.ended = Some((code.unwrap_or(255), SystemTime::now()));
        self.close_input();
    }
}

/// A full disk or the like is said once, in `shim.log`, which is not to grow.
fn warn_once(result: io::Result<()>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static WARNED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = result
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        eprintln!("the log loses entries: {error}");
    }
}
