//! Giving disk space back: `container prune`, `image prune`, `system prune`.

use clap::Args;
use serde_json::Value;

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rows::list;
use crate::{output, units};
use proto_api::client::Error;
use proto_api::filters::Filters;

const SURE: &str = "Are you sure you want to continue?";

/// What a prune removed, as it is printed, and the bytes that it gave back.
type Pruned = (String, f64);

fn parse(options: &[String]) -> Outcome<Filters> {
    let mut filters = Filters::default();
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            Failure::option(format!(
                "invalid argument \"{option}\" for \"--filter\" flag: bad format of filter (expected name=value)"
            ))
        })?;
        filters.add(name.trim().to_lowercase(), value.trim());
    }
    Ok(filters)
}

async fn request(context: &Context, what: &str, filters: &Filters) -> Result<Value, Error> {
    let filters = (!filters.is_empty()).then(|| filters.to_json());
    context.client.post(format!("/{what}/prune")).query_opt("filters", filters).json().await
}

fn named(title: &str, names: &Value, key: &str) -> String {
    let names: Vec<&str> = list(names, key).iter().filter_map(Value::as_str).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("Deleted {title}:\n{}\n\n", names.join("\n")),
    }
}

fn reclaimed(answer: &Value) -> f64 {
    answer["SpaceReclaimed"].as_f64().unwrap_or_default()
}

async fn containers(context: &Context, filters: &Filters) -> Outcome<Pruned> {
    let answer = request(context, "containers", filters).await?;
    Ok((named("Containers", &answer, "ContainersDeleted"), reclaimed(&answer)))
}

async fn images(context: &Context, filters: &Filters, all: bool) -> Outcome<Pruned> {
    let mut filters = filters.clone();
    filters.add("dangling", if all { "false" } else { "true" });
    let answer = request(context, "images", &filters).await?;
    let mut lines = Vec::new();
    for item in list(&answer, "ImagesDeleted") {
        match (item["Untagged"].as_str(), item["Deleted"].as_str()) {
            (Some(name), _) if !name.is_empty() => lines.push(format!("untagged: {name}")),
            (_, Some(id)) => lines.push(format!("deleted: {id}")),
            _ => {}
        }
    }
    let text =
        if lines.is_empty() { String::new() } else { format!("Deleted Images:\n{}\n\n", lines.join("\n")) };
    Ok((text, reclaimed(&answer)))
}

fn finish((text, bytes): Pruned) -> Outcome {
    output::line(format!("{text}Total reclaimed space: {}", units::human_size_4(bytes)))?;
    Ok(0)
}

/// Removes stopped containers.
#[derive(Debug, Args)]
pub struct Containers {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

impl Subcommand for Containers {
    const NAME: &'static str = "prune";
    const ABOUT: &'static str = "Remove all stopped containers";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let filters = parse(&self.filter)?;
        if !self.force
            && !output::confirm(&format!("WARNING! This will remove all stopped containers.\n{SURE}"))?
        {
            return Ok(0);
        }
        finish(containers(&context, &filters).await?)
    }
}

/// Removes images that nothing uses.
#[derive(Debug, Args)]
pub struct Images {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

impl Subcommand for Images {
    const NAME: &'static str = "prune";
    const ABOUT: &'static str = "Remove unused images";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let filters = parse(&self.filter)?;
        let what = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        if !self.force && !output::confirm(&format!("WARNING! This will remove {what}.\n{SURE}"))? {
            return Ok(0);
        }
        finish(images(&context, &filters, self.all).await?)
    }
}

/// Removes everything that nothing uses.
#[derive(Debug, Args)]
pub struct System {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

impl Subcommand for System {
    const NAME: &'static str = "prune";
    const ABOUT: &'static str = "Remove unused data";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let filters = parse(&self.filter)?;
        if !self.force && !output::confirm(&self.warning())? {
            return Ok(0);
        }
        let (mut text, mut bytes) = (String::new(), 0.0);
        let mut add = |(part, freed): Pruned| {
            text.push_str(&part);
            bytes += freed;
        };
        add(containers(&context, &filters).await?);
        match request(&context, "networks", &filters).await {
            Ok(answer) => add((named("Networks", &answer, "NetworksDeleted"), 0.0)),
            // A daemon without networks has none to remove.
            Err(error) if matches!(error.status(), Some(404 | 501)) => {}
            Err(error) => return Err(error.into()),
        }
        if self.volumes {
            let answer = request(&context, "volumes", &filters).await?;
            add((named("Volumes", &answer, "VolumesDeleted"), reclaimed(&answer)));
        }
        add(images(&context, &filters, self.all).await?);
        finish((text, bytes))
    }
}

impl System {
    fn warning(&self) -> String {
        let images = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
        if self.volumes {
            lines.push("all anonymous volumes not used by at least one container");
        }
        lines.push(images);
        let mut text = format!("WARNING! This will remove:\n  - {}\n", lines.join("\n  - "));
        if !self.filter.is_empty() {
            text.push_str("\n  Items to be pruned will be filtered with:\n");
            text.extend(self.filter.iter().map(|filter| format!("  - {filter}\n")));
        }
        format!("{text}\n{SURE}")
    }
}
