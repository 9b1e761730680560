//! The loop: waits for processes, streams, clients and the daemon, and acts.
//!
//! Handlers only ever add to the lists they work on; what is over is taken out in
//! [`Server::settle`], after each round, so that the indices of a round stay true.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use executor::cgroup::Cgroup;
use executor::launch::{self, LaunchError};
use executor::log::{JsonFile, Stream};
use executor::protocol::{Answer, Request, SOCKET_FILE, ShimRecord, StartRecord, process_id};
use executor::shims::{ExitRecord, LogTarget, ProcessId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit};

use crate::connection::{Awaited, Connection};
use crate::process::{Process, streams};
use crate::records;

/// Output is read in pieces of at most this size.
const PIECE_BYTES: usize = 32 << 10;

/// How long output of an ended process is awaited that a process of its own left open (as Docker).
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// How long clients may take the last output after the container's end, beyond what their sockets hold.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// After so long without anything to do, memory is given back.
const QUIET: Duration = Duration::from_millis(100);

/// So many exit codes of exec'd processes are kept for whoever asks later.
const KEPT_CODES: usize = 256;

/// So many descriptors are left for other things than connections, which wait in the socket's queue.
const SPARE_FDS: usize = 128;

/// The shim's whole state.
#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    init_id: ProcessId,
    cgroup_path: String,
    /// Process 1 comes first, and stays.
    processes: Vec<Process>,
    log: Option<JsonFile>,
    connections: Vec<Option<Connection>>,
    /// Exit codes of exec'd processes, oldest first.
    codes: VecDeque<(String, i32)>,
    /// Whether the OOM killer struck; read before the control group is removed.
    oom_killed: bool,
    exit: Option<ExitRecord>,
    /// Until when clients may still read.
    linger: Option<Instant>,
    /// Something was done since memory was last given back.
    stirred: bool,
    /// Open descriptors that the process may have.
    most_fds: usize,
    buffer: Box<[u8]>,
}

/// Who is meant by a readiness.
#[derive(Debug, Clone, Copy)]
enum Token {
    Listener,
    Connection(usize),
    Output(usize, Stream),
    Input(usize),
    Client(usize, usize),
    End(usize),
}

impl Server {
    /// Listens, waits for the daemon's word on `control`, launches, and tells it how that went.
    /// `None` where nothing runs.
    pub fn start(control: OwnedFd) -> io::Result<Option<Self>> {
        let shim = process_id(rustix::process::getpid().as_raw_nonzero().get())?;
        records::write_shim(&ShimRecord { shim: shim.clone(), init: None })?;
        let listener = listen()?;
        let mut control = Connection::new(control);
        let (attach, fds) = match control.read(true) {
            Ok(Some((Request::Start { attach }, fds))) if attach.len() == fds.len() => (attach, fds),
            // The daemon died before it said so: nothing was promised to anyone.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::other("a start was expected")),
        };
        let record = records::start_record()?;
        let (init, log) = match launch_init(&record) {
            Ok(launched) => launched,
            Err(error) => {
                control.answer(&Answer::Failed(error));
                return Ok(None);
            }
        };
        let mut server = Self {
            listener,
            init_id: process_id(init.launched.pid)?,
            cgroup_path: record.cgroup_path,
            processes: vec![init],
            log,
            connections: vec![],
            codes: VecDeque::new(),
            oom_killed: false,
            exit: None,
            linger: None,
            stirred: true,
            most_fds: getrlimit(Resource::Nofile)
                .current
                .map_or(usize::MAX, |most| most.try_into().unwrap_or(usize::MAX)),
            buffer: vec![0; PIECE_BYTES].into(),
        };
        for (fd, streams) in fds.into_iter().zip(attach) {
            server.processes[0].attach(fd, streams);
        }
        records::write_shim(&ShimRecord { shim, init: Some(server.init_id.clone()) })?;
        control.answer(&Answer::Running(server.init_id.clone()));
        Ok(Some(server))
    }

    /// Runs until the container has ended and everybody knows.
    pub fn run(mut self) -> io::Result<()> {
        while !self.is_over() {
            let ready = self.wait()?;
            if ready.is_empty() && self.stirred {
                self.stirred = false;
                executor::sys::memory::give_back()?;
            }
            for (token, flags) in ready {
                self.handle(token, flags);
            }
            self.settle();
        }
        std::fs::remove_file(SOCKET_FILE).ok();
        Ok(())
    }

    fn is_over(&self) -> bool {
        let patient = self.linger.is_some_and(|until| Instant::now() < until);
        let waited_for = |process: &Process| !process.told || !process.clients.is_empty();
        self.exit.is_some() && !(patient && self.processes.iter().any(waited_for))
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        // At most five descriptors a process: its pidfd, its terminal or three pipes.
        let open_fds = self.processes.iter().map(|process| 5 + process.clients.len()).sum::<usize>()
            + self.connections.len();
        let mut tokens = vec![];
        let mut fds = vec![];
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        for (number, process) in self.processes.iter().enumerate() {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = process.output_fd(stream)
                    && process.may_read_output()
                {
                    add(Token::Output(number, stream), fd, PollFlags::IN);
                }
            }
            let interest = process.input_interest();
            if let Some(fd) = process.input_fd()
                && (!interest.is_empty() || !process.has_console())
            {
                add(Token::Input(number), fd, interest);
            }
            for (index, client) in process.clients.iter().enumerate() {
                if let Some(flags) = client.interest(process.wants_input()) {
                    add(Token::Client(number, index), client.fd(), flags);
                }
            }
            if process.ended.is_none() {
                add(Token::End(number), process.launched.pidfd.as_fd(), PollFlags::IN);
            }
        }
        for (number, connection) in self.connections.iter().enumerate() {
            if let Some(connection) = connection {
                let flags = if connection.awaited.is_none() { PollFlags::IN } else { PollFlags::empty() };
                add(Token::Connection(number), connection.fd(), flags);
            }
        }
        if open_fds + SPARE_FDS < self.most_fds {
            add(Token::Listener, self.listener.as_fd(), PollFlags::IN);
        }
        let patience =
            self.processes.iter().filter(|process| !process.told).filter_map(|process| process.patience);
        let timeout = patience
            .chain(self.linger)
            .min()
            .map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = if self.stirred { Some(timeout.unwrap_or(QUIET).min(QUIET)) } else { timeout };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = tokens.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        let Self { processes, log, buffer, .. } = self;
        match token {
            Token::Output(number, stream) => {
                let log = if number == 0 { log.as_mut() } else { None };
                processes[number].read_output(stream, log, buffer);
            }
            Token::Input(number) => {
                if flags.contains(PollFlags::ERR) {
                    processes[number].close_input();
                } else {
                    processes[number].write_input();
                }
            }
            Token::Client(number, index) => {
                let process = &mut processes[number];
                if flags.contains(PollFlags::IN) && process.wants_input() {
                    process.read_client(index, buffer);
                }
                if flags.contains(PollFlags::OUT) {
                    process.clients[index].flush();
                }
                if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                    process.clients[index].hang_up();
                }
            }
            Token::End(number) => processes[number].reap(),
            Token::Listener => {
                self.stirred = true;
                self.accept();
            }
            Token::Connection(number) => self.serve(number, flags),
        }
    }

    fn accept(&mut self) {
        match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let peer = rustix::net::sockopt::socket_peercred(&socket).map(|peer| peer.uid);
                let own = rustix::process::geteuid();
                if peer.is_ok_and(|uid| uid.is_root() || uid == own) {
                    self.connections.push(Some(Connection::new(socket)));
                }
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => eprintln!("accept: {error}"),
        }
    }

    fn serve(&mut self, number: usize, flags: PollFlags) {
        let Some(mut connection) = self.connections[number].take() else { return };
        if connection.awaited.is_some() {
            // Whoever has a question open says nothing more; this is its leaving.
            if !flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                self.connections[number] = Some(connection);
            }
            return;
        }
        match connection.read(false) {
            Ok(Some((request, fds))) => match self.answer(request, fds) {
                Ok(answer) => connection.answer(&answer),
                Err(awaited) => {
                    connection.awaited = Some(awaited);
                    self.connections[number] = Some(connection);
                }
            },
            Ok(None) => self.connections[number] = Some(connection),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                connection.answer(&Answer::Refused(error.to_string()));
            }
            Err(_) => {}
        }
    }

    /// The answer to a request, or what has to happen first.
    fn answer(&mut self, request: Request, mut fds: Vec<OwnedFd>) -> Result<Answer, Awaited> {
        let result = match request {
            Request::Start { .. } => Err("it runs already".to_owned()),
            Request::Ping => Ok(Answer::Running(self.init_id.clone())),
            Request::Wait => match &self.exit {
                Some(exit) => Ok(Answer::Exited(exit.clone())),
                None => return Err(Awaited::Init),
            },
            Request::ExecWait { exec_id } => {
                if let Some((_, code)) = self.codes.iter().find(|(id, _)| *id == exec_id) {
                    return Ok(Answer::ExecExited(*code));
                }
                // One that has ended is told of soon: its last output goes first.
                match self.processes.iter().any(|p| p.exec_id.as_ref() == Some(&exec_id) && !p.told) {
                    true => return Err(Awaited::Exec(exec_id)),
                    false => Ok(Answer::Gone),
                }
            }
            Request::Signal { exec_id, signal } => {
                let Some(process) = self.process(exec_id.as_deref()) else { return Ok(Answer::Gone) };
                process.signal(signal)
            }
            Request::Resize { exec_id, rows, columns } => {
                let Some(process) = self.process(exec_id.as_deref()) else { return Ok(Answer::Gone) };
                process.resize(rows, columns)
            }
            Request::Attach { streams } => match (self.process(None), fds.pop()) {
                (None, _) => Ok(Answer::Gone),
                (Some(_), None) => Err("a client without a socket".to_owned()),
                (Some(process), Some(fd)) => {
                    process.attach(fd, streams);
                    Ok(Answer::Done)
                }
            },
            Request::ReopenLog => match &mut self.log {
                Some(log) => log.reopen().map(|()| Answer::Done).map_err(|error| error.to_string()),
                None => Ok(Answer::Done),
            },
            Request::Exec { exec_id, exec, console_size, streams } => {
                let client = fds.pop().zip(streams);
                self.exec(exec_id, &exec, console_size, client)
            }
        };
        Ok(result.unwrap_or_else(Answer::Refused))
    }

    /// A process that lives: process 1, or an exec'd one.
    fn process(&mut self, exec_id: Option<&str>) -> Option<&mut Process> {
        self.processes
            .iter_mut()
            .find(|process| process.exec_id.as_deref() == exec_id && !process.told && process.ended.is_none())
    }

    fn exec(
        &mut self,
        exec_id: String,
        exec: &executor::plan::ExecInput,
        console_size: Option<(u16, u16)>,
        client: Option<(OwnedFd, executor::shims::Streams)>,
    ) -> Result<Answer, String> {
        if self.process(None).is_none() {
            return Ok(Answer::Gone);
        }
        if self.process(Some(&exec_id)).is_some() {
            return Err(format!("an exec with id {exec_id} runs already"));
        }
        // A new process would freeze half-way, and the shim would wait for it, deaf to all others.
        if Cgroup::new(&self.cgroup_path).is_frozen().unwrap_or(false) {
            return Err("the container is paused, unpause it before exec".to_owned());
        }
        let record = records::start_record().map_err(|error| error.to_string())?;
        let open_stdin = client.as_ref().is_some_and(|(_, streams)| streams.stdin);
        let (stdio, ends) = streams(exec.terminal, console_size, open_stdin, client.is_some())
            .map_err(|error| error.to_string())?;
        let launched = match launch::join(&record.plan, &self.processes[0].launched, exec, stdio) {
            Ok(launched) => launched,
            Err(error) => return Ok(Answer::Failed(error)),
        };
        let pid = launched.pid;
        let mut process =
            Process::new(launched, Some(exec_id), ends, true).map_err(|error| error.to_string())?;
        if let Some((fd, streams)) = client {
            process.attach(fd, streams);
        }
        self.processes.push(process);
        Ok(Answer::ExecRunning(pid))
    }

    /// Draws the consequences of a round.
    fn settle(&mut self) {
        for number in 0..self.processes.len() {
            if self.processes[number].ended.is_some() && !self.processes[number].told {
                self.end(number);
            }
            let process = &mut self.processes[number];
            let (told, takes_input) = (process.told, process.input_fd().is_some());
            process.clients.retain(|client| {
                let left = client.is_done() || (client.is_hung_up() && !takes_input);
                !(left || told && client.is_flushed())
            });
        }
        let mut number = 0;
        self.processes.retain(|process| {
            number += 1;
            let over = process.told && process.clients.is_empty() && process.output_ended();
            number == 1 || !over
        });
        self.connections.retain(Option::is_some);
    }

    /// Goes on with a process that has ended and of which nobody was told yet.
    fn end(&mut self, number: usize) {
        let Self { processes, log, buffer, .. } = self;
        let process = &mut processes[number];
        let log = if number == 0 { log.as_mut() } else { None };
        process.drain(log, buffer);
        if number == 0 && process.patience.is_none() {
            self.oom_killed = Cgroup::new(&self.cgroup_path).usage().is_ok_and(|usage| usage.oom_kills > 0);
        }
        let process = &mut self.processes[number];
        if !process.output_ended() {
            let until = *process.patience.get_or_insert_with(|| Instant::now() + OUTPUT_PATIENCE);
            if number == 0 {
                // Without a pid namespace of its own others may have outlived process 1.
                clean_up();
            }
            if Instant::now() < until {
                return;
            }
        }
        self.tell(number);
    }

    /// The end of a process: recorded first, then told.
    fn tell(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let Some((code, at)) = process.ended else { return };
        process.told = true;
        if let Some(log) = self.log.as_mut().filter(|_| number == 0) {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Err(error) = log.end(stream) {
                    eprintln!("the log loses entries: {error}");
                }
            }
        }
        let (awaited, answer) = match process.exec_id.clone() {
            None => {
                let exit = ExitRecord { code, oom_killed: self.oom_killed, at };
                if let Err(error) = records::write_exit(&exit) {
                    eprintln!("the exit record cannot be written: {error}");
                }
                self.exit = Some(exit.clone());
                self.linger = Some(Instant::now() + CLIENT_PATIENCE);
                (Awaited::Init, Answer::Exited(exit))
            }
            Some(exec_id) => {
                if self.codes.len() == KEPT_CODES {
                    self.codes.pop_front();
                }
                self.codes.push_back((exec_id.clone(), code));
                (Awaited::Exec(exec_id), Answer::ExecExited(code))
            }
        };
        let process = &mut self.processes[number];
        for client in &mut process.clients {
            client.flush_for_good();
        }
        process.clients.retain(|client| !client.is_flushed());
        for slot in &mut self.connections {
            if let Some(connection) = slot.take_if(|connection| connection.awaited.as_ref() == Some(&awaited))
            {
                connection.answer(&answer);
            }
        }
        if number == 0 {
            clean_up();
        }
    }
}

fn clean_up() {
    let done = records::start_record().map(|record| launch::clean_up(&record.plan));
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("clean-up: {error}"),
        Err(error) => eprintln!("clean-up: {error}"),
    }
}

/// The socket's path is short, since it is relative, and its directory is nobody else's.
fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(SOCKET_FILE)?)?;
    std::fs::set_permissions(SOCKET_FILE, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&listener, 128)?;
    Ok(listener)
}

fn launch_init(record: &StartRecord) -> Result<(Process, Option<JsonFile>), LaunchError> {
    let own =
        |what: &str, error: io::Error| LaunchError { exit_code: 125, message: format!("{what}: {error}") };
    let log = match &record.log {
        LogTarget::None => None,
        LogTarget::JsonFile { path, max_size_bytes, max_files } => {
            let log = JsonFile::open(path.clone(), *max_size_bytes, *max_files);
            Some(log.map_err(|error| own("failed to initialize logging driver", error))?)
        }
    };
    let (stdio, ends) = streams(record.terminal, record.console_size, record.open_stdin, true)
        .map_err(|error| own("failed to create the container's streams", error))?;
    let launched = launch::launch(&record.plan, stdio)?;
    let process = Process::new(launched, None, ends, record.stdin_once)
        .map_err(|error| own("failed to prepare the container's terminal", error))?;
    Ok((process, log))
}
