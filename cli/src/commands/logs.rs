//! `logs`.

use clap::Args;
use proto_api::client::segment;
use serde_json::Value;

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::session;
use crate::units;

/// Prints what a container wrote.
#[derive(Debug, Args)]
pub struct Logs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs (default "all")
    #[arg(short = 'n', long, value_name = "string", allow_hyphen_values = true)]
    tail: Option<String>,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Subcommand for Logs {
    const NAME: &'static str = "logs";
    const ABOUT: &'static str = "Fetch the logs of a container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, context: Context) -> Outcome {
        let time = |name: &str, text: &Option<String>| match text {
            Some(text) => units::api_time(text)
                .map(Some)
                .map_err(|reason| fail(format!("invalid value for \"{name}\": {reason}"))),
            None => Ok(None),
        };
        let (since, until) = (time("since", &self.since)?, time("until", &self.until)?);
        let container = segment(&self.container);
        let response = context
            .client
            .get(format!("/containers/{container}/logs"))
            .query("stdout", "1")
            .query("stderr", "1")
            .flag("details", self.details)
            .flag("follow", self.follow)
            .flag("timestamps", self.timestamps)
            .query_opt("since", since)
            .query_opt("until", until)
            .query("tail", self.tail.as_deref().unwrap_or("all"))
            .send()
            .await?;
        let raw = match session::is_raw(response.header("content-type")) {
            Some(raw) => raw,
            None => {
                let state: Value = context.client.get(format!("/containers/{container}/json")).json().await?;
                state["Config"]["Tty"] == true
            }
        };
        session::copy_body(response, raw).await?;
        Ok(0)
    }
}
