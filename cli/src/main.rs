//! `ctl`: arguments -> requests -> formatted output and exit codes.
//!
//! - `app`: the table of commands, and clap's errors in Docker's words.
//! - `commands`: one type per command; its fields are its options.
//! - `create`: the options of `run` and `create`, and the request they become.
//! - `session`: the streams between a terminal and a process in a container.
//! - `template`, `table`, `units`: `--format`, aligned text, human numbers.
//!
//! Nothing here knows how the engine works; whatever can be refused by the daemon is.

#![forbid(unsafe_code)]

mod app;
mod commands;
mod context;
mod create;
mod credentials;
mod failure;
mod output;
mod progress;
mod reference;
mod rows;
mod session;
mod signals;
mod table;
mod template;
mod terminal;
mod units;

fn main() {
    let code = app::run(std::env::args_os().collect());
    terminal::restore();
    // Not a return: a thread may still be blocked in a read of standard input.
    std::process::exit(code);
}
