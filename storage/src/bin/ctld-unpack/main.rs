//! The unpack worker: a compressed layer on stdin becomes a tree and a recipe in the staging directory.
//!
//! ```text
//! stdin ─read, sha256→ inflate ─┬→ sha256 (diff id)
//!        128 KiB chunks         └→ tar ─→ fs/ (over directory fds), tar.zst
//! ```
//!
//! Before the first byte of the layer is read, the process has put itself where it can see nothing but
//! the staging directory; see [`sandbox`]. It answers with one line of JSON ([`storage::unpack::Report`]).
//!
//! Usage: `ctld-unpack STAGING LAYER_BYTES LAYER_ENTRIES`

#![deny(unsafe_code)]

mod extract;
mod failure;
mod pipeline;
mod replaced;
mod sandbox;
#[expect(unsafe_code, reason = "the system calls that no safe wrapper offers live here and nowhere else")]
mod sys;
mod tree;
mod unpack;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use failure::Failure;
use storage::unpack::Report;

/// Bounds of this run.
#[derive(Debug, Clone, Copy)]
struct Budget {
    layer_bytes: u64,
    layer_entries: u64,
}

fn main() -> ExitCode {
    let report = run().unwrap_or_else(|failure| Report::Failed { error: failure.text, kind: failure.kind });
    let done = matches!(report, Report::Done { .. });
    let mut line = serde_json::to_vec(&report).expect("a report is made of strings and numbers");
    line.push(b'\n');
    match std::io::stdout().write_all(&line) {
        Ok(()) if done => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run() -> Result<Report, Failure> {
    let usage = || Failure::local("usage: ctld-unpack STAGING LAYER_BYTES LAYER_ENTRIES");
    let mut arguments = std::env::args_os().skip(1);
    let staging = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let mut number = || -> Result<u64, Failure> {
        arguments.next().and_then(|text| text.to_str()?.parse().ok()).ok_or_else(usage)
    };
    let budget = Budget { layer_bytes: number()?, layer_entries: number()? };
    sandbox::enter(&staging, budget.layer_bytes)?;
    unpack::unpack(budget)
}
