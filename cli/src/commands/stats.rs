//! `stats`.
//!
//! The live view asks for one sample of each container per turn and compares it with the one of
//! the turn before, so that nothing is kept open between turns and containers may come and go.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use proto_api::client::{Error, segment};
use serde_json::{Value, json};

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::Outcome;
use crate::rows::{list, short_id, text};
use crate::signals::Signals;
use crate::table::{self, Layout, Row};
use crate::{output, units};

const HEADERS: &[(&str, &str)] = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];

const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what containers use.
#[derive(Debug, Args)]
pub struct Stats {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Subcommand for Stats {
    const NAME: &'static str = "stats";
    const ABOUT: &'static str = "Display a live stream of container(s) resource usage statistics";
    const USAGE: &'static str = "[OPTIONS] [CONTAINER...]";

    async fn run(self, context: Context) -> Outcome {
        if self.no_stream {
            output::print(self.table(&self.samples(&context, false).await?, &HashMap::new())?)?;
            return Ok(0);
        }
        let mut interrupts = Signals::interrupts()?;
        let mut before: HashMap<String, Value> = HashMap::new();
        loop {
            let turn = async {
                let samples = self.samples(&context, true).await?;
                let text = self.table(&samples, &before)?;
                let clear = if self.format.is_none() && output::is_terminal() { "\x1b[H\x1b[J" } else { "" };
                output::print(format!("{clear}{text}"))?;
                tokio::time::sleep(INTERVAL).await;
                Outcome::Ok(samples)
            };
            tokio::select! {
                samples = turn => {
                    before = samples?.into_iter().map(|(name, sample)| (name, sample.unwrap_or_default())).collect();
                }
                _ = interrupts.next() => return Ok(0),
            }
        }
    }
}

type Sample = (String, Option<Value>);

impl Stats {
    async fn names(&self, context: &Context) -> Outcome<Vec<String>> {
        if !self.containers.is_empty() {
            return Ok(self.containers.clone());
        }
        let all: Vec<Value> = context.client.get("/containers/json").flag("all", self.all).json().await?;
        Ok(all.iter().map(|container| text(container, "Id").to_owned()).collect())
    }

    /// A sample of each container; none for one that is gone, unless it was asked for by name.
    async fn samples(&self, context: &Context, once: bool) -> Outcome<Vec<Sample>> {
        let names = self.names(context).await?;
        let asked = names.iter().map(|name| {
            let request = context.client.get(format!("/containers/{}/stats", segment(name)));
            request.query("stream", "false").flag("one-shot", once).json::<Value>()
        });
        let answers = join_all(asked).await;
        names
            .into_iter()
            .zip(answers)
            .filter_map(|(name, answer)| match answer {
                Ok(sample) => Some(Ok((name, Some(sample)))),
                Err(Error::Api { status: 404, .. }) if self.containers.is_empty() => None,
                Err(error) => Some(Err(error.into())),
            })
            .collect()
    }

    fn table(&self, samples: &[Sample], before: &HashMap<String, Value>) -> Outcome<String> {
        let rows: Vec<Row> = samples
            .iter()
            .filter_map(|(name, sample)| Some(row(name, sample.as_ref()?, before.get(name), self.no_trunc)))
            .collect();
        let layout = Layout { headers: HEADERS, table: TABLE, quiet: TABLE };
        table::render(self.format.as_deref(), false, layout, &rows)
    }
}

fn row(name: &str, sample: &Value, before: Option<&Value>, no_trunc: bool) -> Row {
    let memory = &sample["memory_stats"];
    let limit = memory["limit"].as_f64().unwrap_or_default();
    let used = used_memory(memory);
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (received, sent) = traffic(sample);
    let (read, written) = block_io(sample);
    let earlier = before.map_or(&sample["precpu_stats"], |before| &before["cpu_stats"]);
    let cpu = cpu_percent(&sample["cpu_stats"], earlier);
    let container = match text(sample, "name") {
        "" => name,
        name => name.trim_start_matches('/'),
    };
    let id = text(sample, "id");
    let id = if id.is_empty() { name } else { id };
    Row::new([
        ("BlockIO", json!(format!("{} / {}", units::human_size(read), units::human_size(written)))),
        ("CPUPerc", json!(format!("{cpu:.2}%"))),
        ("Container", json!(short_id(name, no_trunc))),
        ("ID", json!(short_id(id, no_trunc))),
        ("MemPerc", json!(format!("{share:.2}%"))),
        ("MemUsage", json!(format!("{} / {}", units::binary_size(used), units::binary_size(limit)))),
        ("Name", json!(container)),
        ("NetIO", json!(format!("{} / {}", units::human_size(received), units::human_size(sent)))),
        ("PIDs", json!(sample["pids_stats"]["current"].as_u64().unwrap_or(0).to_string())),
    ])
}

/// Memory without the page cache that the kernel would give back first.
fn used_memory(memory: &Value) -> f64 {
    let usage = memory["usage"].as_f64().unwrap_or_default();
    let stats = &memory["stats"];
    let cache = stats["total_inactive_file"].as_f64().or_else(|| stats["inactive_file"].as_f64());
    match cache {
        Some(cache) if cache < usage => usage - cache,
        _ => usage,
    }
}

fn cpu_percent(now: &Value, before: &Value) -> f64 {
    let delta = |of: &dyn Fn(&Value) -> &Value| {
        of(now).as_f64().unwrap_or_default() - of(before).as_f64().unwrap_or_default()
    };
    let used = delta(&|stats| &stats["cpu_usage"]["total_usage"]);
    let system = delta(&|stats| &stats["system_cpu_usage"]);
    // Without an earlier sample there is no interval to speak of.
    if used <= 0.0 || system <= 0.0 || before["system_cpu_usage"].as_f64().unwrap_or_default() == 0.0 {
        return 0.0;
    }
    let listed = list(&now["cpu_usage"], "percpu_usage").len() as f64;
    let cpus = now["online_cpus"].as_f64().filter(|cpus| *cpus > 0.0).unwrap_or(listed);
    used / system * cpus * 100.0
}

fn traffic(sample: &Value) -> (f64, f64) {
    let networks = sample["networks"].as_object().into_iter().flatten();
    networks.fold((0.0, 0.0), |(received, sent), (_, network)| {
        let bytes = |name: &str| network[name].as_f64().unwrap_or_default();
        (received + bytes("rx_bytes"), sent + bytes("tx_bytes"))
    })
}

fn block_io(sample: &Value) -> (f64, f64) {
    let entries = list(&sample["blkio_stats"], "io_service_bytes_recursive");
    entries.iter().fold((0.0, 0.0), |(read, written), entry| {
        let bytes = entry["value"].as_f64().unwrap_or_default();
        match text(entry, "op").to_ascii_lowercase().as_str() {
            "read" => (read + bytes, written),
            "write" => (read, written + bytes),
            _ => (read, written),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_interval() {
        let cpu = |total: u64, system: u64| json!({"cpu_usage": {"total_usage": total}, "system_cpu_usage": system, "online_cpus": 2});
        assert_eq!(cpu_percent(&cpu(150, 1200), &cpu(50, 1000)), 100.0);
        assert_eq!(cpu_percent(&cpu(150, 1200), &json!({})), 0.0);
        let memory = json!({"usage": 100, "stats": {"inactive_file": 40}});
        assert_eq!(used_memory(&memory), 60.0);
    }
}
