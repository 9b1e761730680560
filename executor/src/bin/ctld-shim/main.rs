//! `ctld-shim <directory>`: one process per container. It launches the container's first process,
//! holds its streams and writes its log, serves clients, starts further processes, and records how
//! it all ended. It needs nobody: the daemon may die at any moment and find it again.
//!
//! One thread, one `poll` loop, no runtime, linked statically: what it holds in memory is counted
//! once per container. Its standard input is the control socket, its standard error `shim.log`
//! (locked, see `executor::protocol`).

#![forbid(unsafe_code)]

mod client;
mod connection;
mod process;
mod records;
mod server;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};
use rustix::stdio;

use crate::server::Server;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: ctld-shim DIRECTORY");
        return ExitCode::from(2);
    };
    match run(directory) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(directory: PathBuf) -> io::Result<ExitCode> {
    // The shim lives as long as its container: it must not hold open what its starter forgot to close.
    executor::sys::process::close_from(3)?;
    // Only the end of the container ends the shim. What is faulty still kills it.
    let mut signals = SigSet::all();
    for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT] {
        signals.remove(fault);
    }
    signals.thread_block()?;
    // A session of its own: no terminal's signals, and nobody's process group.
    rustix::process::setsid()?;
    // Everything is named relative to the directory from here on, which keeps the socket's path short.
    std::env::set_current_dir(directory)?;
    let control = take_control_socket()?;
    let Some(server) = Server::start(control)? else { return Ok(ExitCode::FAILURE) };
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

/// Moves the control socket away from standard input, where /dev/null belongs.
fn take_control_socket() -> io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    stdio::dup2_stdin(&null)?;
    Ok(control)
}
