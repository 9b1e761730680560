//! `top`.

use clap::Args;
use proto_api::client::segment;
use serde::Deserialize;

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::{output, table};

/// Lists the processes of a container.
#[derive(Debug, Args)]
pub struct Top {
    /// The container, and options for `ps`
    #[arg(required = true, trailing_var_arg = true, value_name = "CONTAINER [ps OPTIONS]")]
    container_and_options: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Processes {
    #[serde(rename = "Titles")]
    titles: Vec<String>,
    #[serde(rename = "Processes")]
    processes: Option<Vec<Vec<String>>>,
}

impl Subcommand for Top {
    const NAME: &'static str = "top";
    const ABOUT: &'static str = "Display the running processes of a container";
    const USAGE: &'static str = "CONTAINER [ps OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let Some((container, options)) = self.container_and_options.split_first() else {
            return Err(fail("a container is needed"));
        };
        let options = (!options.is_empty()).then(|| options.join(" "));
        let request = context.client.get(format!("/containers/{}/top", segment(container)));
        let list: Processes = request.query_opt("ps_args", options).json().await?;
        let rows = std::iter::once(list.titles).chain(list.processes.unwrap_or_default());
        let lines: Vec<String> = rows.map(|row| row.join("\t")).collect();
        output::print(table::align_wide(&lines, 20))?;
        Ok(0)
    }
}
