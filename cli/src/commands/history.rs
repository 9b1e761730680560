//! `history` and `diff`: how an image came to be, and what a container changed.

use clap::Args;
use proto_api::client::{image_path, segment};
use serde_json::{Value, json};

use crate::app::Subcommand;
use crate::commands::archive;
use crate::context::Context;
use crate::failure::Outcome;
use crate::rows::{ellipsis, short_id, text};
use crate::table::{self, Layout, Row};
use crate::{output, units};

const HEADERS: &[(&str, &str)] = &[
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

/// Shows an image's history.
#[derive(Debug, Args)]
pub struct History {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print sizes and dates in human readable format (default true)
    #[arg(short = 'H', long, value_name = "", default_value = "true", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Subcommand for History {
    const NAME: &'static str = "history";
    const ABOUT: &'static str = "Show the history of an image";
    const USAGE: &'static str = "[OPTIONS] IMAGE";

    async fn run(self, context: Context) -> Outcome {
        let request = context.client.get(format!("/images/{}/history", image_path(&self.image)));
        let request = request.query_opt("platform", archive::platform(self.platform.as_deref())?);
        let layers: Vec<Value> = request.json().await?;
        let rows: Vec<Row> = layers.iter().map(|layer| self.row(layer)).collect();
        let created = if self.human { "{{.CreatedSince}}" } else { "{{.CreatedAt}}" };
        let table = format!("{{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
        let layout = Layout { headers: HEADERS, table: &table, quiet: "{{.ID}}" };
        table::print(self.format.as_deref(), self.quiet, layout, &rows)?;
        Ok(0)
    }
}

impl History {
    fn row(&self, layer: &Value) -> Row {
        let created = layer["Created"].as_i64().unwrap_or_default();
        let bytes = layer["Size"].as_i64().unwrap_or_default();
        let by = text(layer, "CreatedBy").replace('\t', " ");
        let by = if self.no_trunc { by } else { ellipsis(&by, 45) };
        let known = created > 0;
        let size = if self.human { units::human_size(bytes as f64) } else { bytes.to_string() };
        Row::new([
            ("Comment", json!(text(layer, "Comment"))),
            ("CreatedAt", json!(if known { units::rfc3339(created) } else { String::new() })),
            ("CreatedBy", json!(by)),
            ("CreatedSince", json!(if known { units::ago(created) } else { "N/A".to_owned() })),
            ("ID", json!(short_id(text(layer, "Id"), self.no_trunc))),
            ("Size", json!(size)),
        ])
    }
}

/// Shows what a container changed in its file system.
#[derive(Debug, Args)]
pub struct Diff {
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Subcommand for Diff {
    const NAME: &'static str = "diff";
    const ABOUT: &'static str = "Inspect changes to files or directories on a container's filesystem";
    const USAGE: &'static str = "CONTAINER";

    async fn run(self, context: Context) -> Outcome {
        let request = context.client.get(format!("/containers/{}/changes", segment(&self.container)));
        let changes: Option<Vec<Value>> = request.json().await?;
        let mut out = String::new();
        for change in changes.into_iter().flatten() {
            let kind = match change["Kind"].as_i64() {
                Some(0) => 'C',
                Some(1) => 'A',
                Some(2) => 'D',
                _ => '?',
            };
            out.push_str(&format!("{kind} {}\n", text(&change, "Path")));
        }
        output::print(out)?;
        Ok(0)
    }
}
