//! Commands that do one thing to each container named: `stop`, `kill`, `restart`, `pause`,
//! `unpause`, `wait`, `rm`, `rename`.

use clap::Args;
use proto_api::client::{Client, Request, segment};

use crate::app::Subcommand;
use crate::commands::run::Waited;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::output;

const CONTAINERS: &str = "CONTAINER [CONTAINER...]";
const OPTIONS_CONTAINERS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";

fn action(client: &Client, container: &str, verb: &str) -> Request {
    client.post(format!("/containers/{}/{verb}", segment(container)))
}

/// Sends a request for each container and prints the names of those where it succeeded.
async fn all(containers: &[String], request: impl Fn(&str) -> Request) -> Outcome {
    output::each(containers, |container| {
        let request = request(&container);
        async move { request.done().await.map(|()| Some(container)) }
    })
    .await
}

/// Stops containers.
#[derive(Debug, Args)]
pub struct Stop {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long = "timeout", alias = "time", value_name = "int", allow_negative_numbers = true)]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Stop {
    const NAME: &'static str = "stop";
    const ABOUT: &'static str = "Stop one or more running containers";
    const USAGE: &'static str = OPTIONS_CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        let timeout = self.timeout.map(|seconds| seconds.to_string());
        let request = |container: &str| {
            action(&context.client, container, "stop")
                .query_opt("signal", self.signal.as_ref())
                .query_opt("t", timeout.as_ref())
        };
        all(&self.containers, request).await
    }
}

/// Restarts containers.
#[derive(Debug, Args)]
pub struct Restart {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long = "timeout", alias = "time", value_name = "int", allow_negative_numbers = true)]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Restart {
    const NAME: &'static str = "restart";
    const ABOUT: &'static str = "Restart one or more containers";
    const USAGE: &'static str = OPTIONS_CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        let timeout = self.timeout.map(|seconds| seconds.to_string());
        let request = |container: &str| {
            action(&context.client, container, "restart")
                .query_opt("signal", self.signal.as_ref())
                .query_opt("t", timeout.as_ref())
        };
        all(&self.containers, request).await
    }
}

/// Sends a signal to containers.
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Kill {
    const NAME: &'static str = "kill";
    const ABOUT: &'static str = "Kill one or more running containers";
    const USAGE: &'static str = OPTIONS_CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        let request = |container: &str| {
            action(&context.client, container, "kill").query_opt("signal", self.signal.as_ref())
        };
        all(&self.containers, request).await
    }
}

/// Freezes containers.
#[derive(Debug, Args)]
pub struct Pause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Pause {
    const NAME: &'static str = "pause";
    const ABOUT: &'static str = "Pause all processes within one or more containers";
    const USAGE: &'static str = CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        all(&self.containers, |container| action(&context.client, container, "pause")).await
    }
}

/// Thaws containers.
#[derive(Debug, Args)]
pub struct Unpause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Unpause {
    const NAME: &'static str = "unpause";
    const ABOUT: &'static str = "Unpause all processes within one or more containers";
    const USAGE: &'static str = CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        all(&self.containers, |container| action(&context.client, container, "unpause")).await
    }
}

/// Waits for containers to stop.
#[derive(Debug, Args)]
pub struct Wait {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Wait {
    const NAME: &'static str = "wait";
    const ABOUT: &'static str = "Block until one or more containers stop, then print their exit codes";
    const USAGE: &'static str = CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        output::each(&self.containers, |container| {
            let request = action(&context.client, &container, "wait");
            async move { Ok(Some(request.json::<Waited>().await?.status_code.to_string())) }
        })
        .await
    }
}

/// Removes containers.
#[derive(Debug, Args)]
pub struct Remove {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Remove {
    const NAME: &'static str = "rm";
    const ABOUT: &'static str = "Remove one or more containers";
    const USAGE: &'static str = OPTIONS_CONTAINERS;

    async fn run(self, context: Context) -> Outcome {
        let request = |container: &str| {
            context
                .client
                .delete(format!("/containers/{}", segment(container.trim_matches('/'))))
                .flag("force", self.force)
                .flag("link", self.link)
                .flag("v", self.volumes)
        };
        all(&self.containers, request).await
    }
}

/// Gives a container another name.
#[derive(Debug, Args)]
pub struct Rename {
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "NEW_NAME")]
    new_name: String,
}

impl Subcommand for Rename {
    const NAME: &'static str = "rename";
    const ABOUT: &'static str = "Rename a container";
    const USAGE: &'static str = "CONTAINER NEW_NAME";

    async fn run(self, context: Context) -> Outcome {
        action(&context.client, &self.container, "rename")
            .query("name", self.new_name.trim())
            .done()
            .await
            .map_err(|error| {
            fail(format!("{error}\nError: failed to rename container named {}", self.container))
        })?;
        Ok(0)
    }
}
