//! `attach`.

use clap::Args;
use proto_api::client::segment;
use serde_json::Value;

use crate::app::Subcommand;
use crate::commands::run::{self, Waited};
use crate::context::Context;
use crate::create;
use crate::failure::{Outcome, fail};
use crate::session::{self, Ended, Wiring};
use crate::signals::{self, Signals};
use crate::{output, terminal};

/// Connects to a running container.
#[derive(Debug, Args)]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process (default true)
    #[arg(long, value_name = "", default_value = "true", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    sig_proxy: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Subcommand for Attach {
    const NAME: &'static str = "attach";
    const ABOUT: &'static str =
        "Attach local standard input, output, and error streams to a running container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, context: Context) -> Outcome {
        let path = format!("/containers/{}/json", segment(&self.container));
        let container: Value = context.client.get(path).json().await?;
        let state = |name: &str| container["State"][name].as_bool().unwrap_or(false);
        if !state("Running") {
            return Err(fail("You cannot attach to a stopped container, start it first"));
        }
        if state("Paused") {
            return Err(fail("You cannot attach to a paused container, unpause it first"));
        }
        if state("Restarting") {
            return Err(fail("You cannot attach to a restarting container, wait until it is running"));
        }
        let id = container["Id"].as_str().unwrap_or(&self.container).to_owned();
        let is = |name: &str| container["Config"][name].as_bool().unwrap_or(false);
        let (tty, stdin) = (is("Tty"), !self.no_stdin && is("OpenStdin"));
        if stdin && tty && !terminal::stdin_is_terminal() {
            return Err(fail("the input device is not a TTY"));
        }
        let keys = self.detach_keys.as_deref().map(session::detach_keys).transpose()?;
        let wiring = Wiring { tty, stdin, detach_keys: keys.unwrap_or_else(session::default_detach_keys) };
        let attach = create::Attach { stdin, stdout: true, stderr: true };
        let signals = if self.sig_proxy && !tty { Some(Signals::forwarded()?) } else { None };
        let (stream, waiting) = tokio::try_join!(
            run::attach_streams(&context, &id, attach, self.detach_keys.as_deref()),
            run::wait(&context, &id, "not-running"),
        )?;
        if let Some(signals) = signals {
            tokio::spawn(signals::forward(context.client.clone(), id.clone(), signals));
        }
        if tty && output::is_terminal() {
            let path = format!("/containers/{id}/resize");
            tokio::spawn(signals::follow_window(context.client.clone(), path));
        }
        match session::run(stream, &wiring).await? {
            Ended::Detached => Err(fail("read escape sequence")),
            Ended::Output => waiting.json::<Waited>().await?.code(),
        }
    }
}
