//! `start`.

use clap::Args;
use proto_api::client::segment;
use serde_json::Value;

use crate::app::Subcommand;
use crate::commands::run::{self, Waited};
use crate::context::Context;
use crate::create::Attach;
use crate::failure::{Outcome, fail};
use crate::session::{self, Ended, Wiring};
use crate::signals::{self, Signals};
use crate::{output, terminal};

/// Starts containers that were created or have stopped.
#[derive(Debug, Args)]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Proxy received signals to the process
    #[arg(long, hide = true, value_name = "", default_value = "true", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Start {
    const NAME: &'static str = "start";
    const ABOUT: &'static str = "Start one or more stopped containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, context: Context) -> Outcome {
        if !(self.attach || self.interactive) {
            let client = &context.client;
            let outcome = output::each(&self.containers, |container| {
                let request = client.post(format!("/containers/{}/start", segment(&container)));
                async move { request.done().await.map(|()| Some(container)) }
            });
            return outcome.await.map_err(|failure| {
                let names = self.containers.join(", ");
                let message =
                    failure.message.map(|m| format!("{m}\nError: failed to start containers: {names}"));
                crate::failure::Failure { message, ..failure }
            });
        }
        match self.containers.as_slice() {
            [container] => self.attached(&context, container).await,
            _ => Err(fail("you cannot start and attach multiple containers at once")),
        }
    }
}

impl Start {
    async fn attached(&self, context: &Context, container: &str) -> Outcome {
        let path = format!("/containers/{}/json", segment(container));
        let state: Value = context.client.get(path).json().await?;
        let id = state["Id"].as_str().unwrap_or(container).to_owned();
        let is = |name: &str| state["Config"][name].as_bool().unwrap_or(false);
        let tty = is("Tty");
        let stdin = self.interactive && is("OpenStdin");
        if stdin && tty && !terminal::stdin_is_terminal() {
            return Err(fail("the input device is not a TTY"));
        }
        let keys = self.detach_keys.as_deref().map(session::detach_keys).transpose()?;
        let wiring = Wiring { tty, stdin, detach_keys: keys.unwrap_or_else(session::default_detach_keys) };
        let attach = Attach { stdin, stdout: true, stderr: true };
        let signals = if self.sig_proxy && !tty { Some(Signals::forwarded()?) } else { None };
        let removed = state["HostConfig"]["AutoRemove"] == true;
        let condition = if removed { "removed" } else { "next-exit" };
        let (stream, waiting) = tokio::try_join!(
            run::attach_streams(context, &id, attach, self.detach_keys.as_deref()),
            run::wait(context, &id, condition),
        )?;
        run::start(context, &id).await.map_err(|failure| failure.with_code(1))?;
        if let Some(signals) = signals {
            tokio::spawn(signals::forward(context.client.clone(), id.clone(), signals));
        }
        if tty && output::is_terminal() {
            let path = format!("/containers/{id}/resize");
            tokio::spawn(signals::follow_window(context.client.clone(), path));
        }
        match session::run(stream, &wiring).await? {
            Ended::Detached => Ok(0),
            Ended::Output => waiting.json::<Waited>().await?.code(),
        }
    }
}
