//! `exec`.

use std::path::PathBuf;

use clap::Args;
use proto_api::client::segment;
use proto_api::models::ExecConfig;
use serde::Deserialize;
use serde_json::json;

use crate::app::Subcommand;
use crate::context::Context;
use crate::create;
use crate::failure::{Outcome, fail};
use crate::session::{self, Ended, Wiring};
use crate::{output, signals, terminal};

/// Runs a command in a running container.
#[derive(Debug, Args)]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<PathBuf>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    /// The container, and the command with its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG...]")]
    container_and_command: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "ExitCode")]
    exit_code: Option<i32>,
}

impl Subcommand for Exec {
    const NAME: &'static str = "exec";
    const ABOUT: &'static str = "Execute a command in a running container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER COMMAND [ARG...]";

    async fn run(self, context: Context) -> Outcome {
        let Some((container, command)) = self.container_and_command.split_first() else {
            return Err(fail("a container and a command are needed"));
        };
        let stdin = self.interactive && !self.detach;
        if stdin && self.tty && !terminal::stdin_is_terminal() {
            return Err(fail("the input device is not a TTY"));
        }
        let keys = self.detach_keys.as_deref().map(session::detach_keys).transpose()?;
        let window = self.tty.then(terminal::size).flatten().map(|(rows, columns)| [rows, columns]);
        let environment = create::resolve(&self.env_file, &self.env)?;
        let config = ExecConfig {
            attach_stdin: Some(stdin),
            attach_stdout: Some(!self.detach),
            attach_stderr: Some(!self.detach),
            console_size: window.map(|size| size.map(usize::from).to_vec()),
            detach_keys: self.detach_keys.clone(),
            tty: Some(self.tty),
            env: (!environment.is_empty()).then_some(environment),
            cmd: Some(command.to_vec()),
            privileged: Some(self.privileged),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
        };
        let client = &context.client;
        let create = client.post(format!("/containers/{}/exec", segment(container))).body(&config);
        let id = create.json::<Created>().await?.id;
        let mut start = json!({"Detach": self.detach, "Tty": self.tty});
        if let Some(size) = window {
            start["ConsoleSize"] = json!(size);
        }
        let start = client.post(format!("/exec/{id}/start")).body(&start);
        if self.detach {
            start.done().await?;
            return Ok(0);
        }
        let stream = start.hijack().await?;
        if self.tty && output::is_terminal() {
            tokio::spawn(signals::follow_window(client.clone(), format!("/exec/{id}/resize")));
        }
        let detach_keys = keys.unwrap_or_else(session::default_detach_keys);
        let wiring = Wiring { tty: self.tty, stdin, detach_keys };
        match session::run(stream, &wiring).await? {
            Ended::Detached => Err(fail("read escape sequence")),
            Ended::Output => {
                let state: State = client.get(format!("/exec/{id}/json")).json().await?;
                Ok(state.exit_code.unwrap_or(0))
            }
        }
    }
}
