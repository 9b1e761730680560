//! `ps`.

use clap::Args;
use serde_json::Value;

use crate::app::Subcommand;
use crate::commands::filters;
use crate::context::Context;
use crate::failure::Outcome;
use crate::rows;
use crate::table::{self, Layout};

const HEADERS: &[(&str, &str)] = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

/// Lists containers.
#[derive(Debug, Args)]
pub struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show n last created containers (includes all states) (default -1)
    #[arg(short = 'n', long, value_name = "int", allow_negative_numbers = true)]
    last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

impl Subcommand for Ps {
    const NAME: &'static str = "ps";
    const ABOUT: &'static str = "List containers";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let last = if self.latest { Some(1) } else { self.last.filter(|count| *count > 0) };
        let size = self.size || self.format.as_deref().is_some_and(|format| format.contains(".Size"));
        let containers: Vec<Value> = context
            .client
            .get("/containers/json")
            .flag("all", self.all)
            .flag("size", size)
            .query_opt("limit", last.map(|count| count.to_string()))
            .query_opt("filters", filters(&self.filter)?)
            .json()
            .await?;
        let rows: Vec<_> =
            containers.iter().map(|container| rows::container(container, self.no_trunc)).collect();
        let with_size = format!("{TABLE}\t{{{{.Size}}}}");
        let table = if self.size { with_size.as_str() } else { TABLE };
        table::print(
            self.format.as_deref(),
            self.quiet,
            Layout { headers: HEADERS, table, quiet: "{{.ID}}" },
            &rows,
        )?;
        Ok(0)
    }
}
