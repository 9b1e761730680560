//! `completion`.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::app::{self, Subcommand};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;

/// Shells with completion.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

/// Writes a completion script.
#[derive(Debug, Args)]
pub struct Completion {
    #[arg(value_enum, value_name = "bash|zsh|fish")]
    shell: Supported,
}

impl Subcommand for Completion {
    const NAME: &'static str = "completion";
    const ABOUT: &'static str = "Generate the autocompletion script for the specified shell";
    const USAGE: &'static str = "bash|zsh|fish";

    async fn run(self, _context: Context) -> Outcome {
        let shell = match self.shell {
            Supported::Bash => Shell::Bash,
            Supported::Zsh => Shell::Zsh,
            Supported::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut app::command(), "ctl", &mut script);
        output::print(script)?;
        Ok(0)
    }
}
