//! `run` and `create`.

use clap::Args;
use proto_api::client::{Error, Hijacked, Response, segment};
use serde::Deserialize;

use crate::app::Subcommand;
use crate::context::Context;
use crate::create::{self, Attach, CreateOptions};
use crate::failure::{Failure, Outcome, Style, fail};
use crate::session::{self, Ended, Wiring};
use crate::signals::{self, Signals};
use crate::{output, terminal};

/// Creates and runs a container.
#[derive(Debug, Args)]
pub struct Run {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Proxy received signals to the process (default true)
    #[arg(long, value_name = "", default_value = "true", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    sig_proxy: bool,
    #[command(flatten)]
    create: CreateOptions,
}

/// Creates a container and leaves it.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    create: CreateOptions,
}

/// What `POST /containers/{id}/wait` answers.
#[derive(Debug, Deserialize)]
pub struct Waited {
    /// The exit code.
    #[serde(rename = "StatusCode")]
    pub status_code: i64,
    /// Why waiting failed.
    #[serde(rename = "Error", default)]
    pub error: Option<WaitError>,
}

/// The reason in a [`Waited`].
#[derive(Debug, Deserialize)]
pub struct WaitError {
    #[serde(rename = "Message", default)]
    message: Option<String>,
}

impl Waited {
    /// The exit code, or the reason why there is none.
    pub fn code(self) -> Outcome {
        match self.error.and_then(|error| error.message).filter(|message| !message.is_empty()) {
            Some(message) => Err(fail(message).with_code(125)),
            None => Ok(i32::try_from(self.status_code).unwrap_or(125)),
        }
    }
}

impl Subcommand for Create {
    const NAME: &'static str = "create";
    const ABOUT: &'static str = "Create a new container";
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";

    async fn run(self, context: Context) -> Outcome {
        let options = &self.create;
        let id = create::create(&context, options, options.remove, attached(options)).await?;
        output::line(id)?;
        Ok(0)
    }
}

impl Subcommand for Run {
    const NAME: &'static str = "run";
    const ABOUT: &'static str = "Create and run a new container from an image";
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    const ERROR_CODE: i32 = 125;

    async fn run(self, context: Context) -> Outcome {
        let stdin = !self.detach && attached(&self.create).stdin;
        if stdin && self.create.tty && !terminal::stdin_is_terminal() {
            return Err(fail("the input device is not a TTY"));
        }
        // Everything that fails before the process runs is 125, unless it says otherwise.
        self.start(&context).await.map_err(|failure| match failure.code {
            _ if failure.style == Style::Usage => failure,
            1 => failure.with_code(125).with_hint(),
            125..=127 => failure.with_hint(),
            _ => failure,
        })
    }
}

/// The streams that are attached: those of `-a`, or all.
fn attached(options: &CreateOptions) -> Attach {
    let has = |name: &str| options.attach.iter().any(|stream| stream == name);
    match options.attach.is_empty() {
        true => Attach { stdin: options.interactive, stdout: true, stderr: true },
        false => Attach { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") },
    }
}

impl Run {
    async fn start(self, context: &Context) -> Outcome {
        let options = &self.create;
        if self.detach && !options.attach.is_empty() {
            return Err(fail("conflicting options: cannot specify both --attach and --detach"));
        }
        if self.detach {
            let id = create::create(context, options, options.remove, Attach::default()).await?;
            start(context, &id).await?;
            output::line(id)?;
            return Ok(0);
        }
        let attach = attached(options);
        let keys = options.detach_keys.as_deref().map(session::detach_keys).transpose()?;
        let wiring = Wiring {
            tty: options.tty,
            stdin: attach.stdin,
            detach_keys: keys.unwrap_or_else(session::default_detach_keys),
        };
        let id = create::create(context, options, options.remove, attach).await?;
        // From here on a signal is the container's; what comes before it runs is kept for it.
        let signals = if self.sig_proxy { Some(Signals::forwarded()?) } else { None };
        let condition = if options.remove { "removed" } else { "next-exit" };
        let (stream, waiting) = tokio::try_join!(
            attach_streams(context, &id, attach, options.detach_keys.as_deref()),
            wait(context, &id, condition),
        )?;
        if let Err(failure) = start(context, &id).await {
            drop(stream);
            if options.remove {
                // The daemon removes it; it is gone when this command returns.
                waiting.bytes().await.ok();
            }
            return Err(failure);
        }
        if let Some(signals) = signals {
            tokio::spawn(signals::forward(context.client.clone(), id.clone(), signals));
        }
        if options.tty && output::is_terminal() {
            let path = format!("/containers/{id}/resize");
            tokio::spawn(signals::follow_window(context.client.clone(), path));
        }
        match session::run(stream, &wiring).await? {
            Ended::Detached => Ok(0),
            Ended::Output => waiting.json::<Waited>().await?.code(),
        }
    }
}

/// Takes over the streams of a container.
pub async fn attach_streams(
    context: &Context,
    id: &str,
    attach: Attach,
    detach_keys: Option<&str>,
) -> Result<Hijacked, Error> {
    context
        .client
        .post(format!("/containers/{}/attach", segment(id)))
        .query("stream", "1")
        .flag("stdin", attach.stdin)
        .flag("stdout", attach.stdout)
        .flag("stderr", attach.stderr)
        .query_opt("detachKeys", detach_keys)
        .hijack()
        .await
}

/// Begins to wait; returns once the daemon watches the container.
pub async fn wait(context: &Context, id: &str, condition: &str) -> Result<Response, Error> {
    context
        .client
        .post(format!("/containers/{}/wait", segment(id)))
        .query("condition", condition)
        .send()
        .await
}

/// Starts a container; the failure has the exit code that a shell would have for its reason.
pub async fn start(context: &Context, id: &str) -> Result<(), Failure> {
    let request = context.client.post(format!("/containers/{}/start", segment(id)));
    request.done().await.map_err(|error| {
        let code = start_error_code(&error.to_string());
        Failure::from(error).with_code(code)
    })
}

fn start_error_code(message: &str) -> i32 {
    let has = |text: &str| message.contains(text);
    if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_start_is_its_code() {
        assert_eq!(start_error_code("exec: \"x\": executable file not found in $PATH: unknown"), 127);
        assert_eq!(start_error_code("exec: \"/x\": stat /x: no such file or directory"), 127);
        assert_eq!(start_error_code("exec: \"/etc\": permission denied"), 126);
        assert_eq!(start_error_code("exec: \"/etc\": is a directory"), 126);
        assert_eq!(start_error_code("cgroup: no space left"), 125);
    }
}
