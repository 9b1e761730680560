//! `system df`.
//!
//! Two forms of the answer are read: the sums per kind of API 1.52 and newer (`ImageUsage`, …), and
//! the plain lists of the older ones, from which the sums are made here.

use clap::Args;
use serde_json::{Value, json};

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::rows::{self, list, text};
use crate::table::{self, Layout, Row};
use crate::{output, units};

const HEADERS: &[(&str, &str)] = &[
    ("Active", "ACTIVE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("TotalCount", "TOTAL"),
    ("Type", "TYPE"),
];

/// Shows what the daemon's data needs.
#[derive(Debug, Args)]
pub struct Df {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

impl Subcommand for Df {
    const NAME: &'static str = "df";
    const ABOUT: &'static str = "Show ctl disk usage";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let request = context.client.get("/system/df").flag("verbose", self.verbose);
        let usage: Value = request.json().await?;
        if self.verbose {
            if self.format.as_deref().is_some_and(|format| !matches!(format, "" | "table")) {
                return Err(fail("the verbose and the format options conflict"));
            }
            output::print(details(&usage)?)?;
            return Ok(0);
        }
        let rows: Vec<Row> = KINDS.iter().map(|kind| Summary::of(kind, &usage).row(kind)).collect();
        let table = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
        table::print(self.format.as_deref(), false, Layout { headers: HEADERS, table, quiet: table }, &rows)?;
        Ok(0)
    }
}

/// A kind of data: its title, its field in the newer form, its list in the older one.
struct Kind {
    title: &'static str,
    usage: &'static str,
    list: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind { title: "Images", usage: "ImageUsage", list: "Images" },
    Kind { title: "Containers", usage: "ContainerUsage", list: "Containers" },
    Kind { title: "Local Volumes", usage: "VolumeUsage", list: "Volumes" },
    Kind { title: "Build Cache", usage: "BuildCacheUsage", list: "BuildCache" },
];

impl Kind {
    fn items<'a>(&self, usage: &'a Value) -> &'a [Value] {
        match list(&usage[self.usage], "Items") {
            [] => list(usage, self.list),
            items => items,
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Summary {
    total: i64,
    active: i64,
    size: f64,
    reclaimable: f64,
}

impl Summary {
    fn of(kind: &Kind, usage: &Value) -> Self {
        let new = &usage[kind.usage];
        if new.is_object() {
            let number = |name: &str| new[name].as_f64().unwrap_or_default();
            return Self {
                total: number("TotalCount") as i64,
                active: number("ActiveCount") as i64,
                size: number("TotalSize"),
                reclaimable: number("Reclaimable"),
            };
        }
        let items = list(usage, kind.list);
        let size = |item: &Value| match kind.list {
            "Containers" => item["SizeRw"].as_f64().unwrap_or_default(),
            "Volumes" => item["UsageData"]["Size"].as_f64().unwrap_or_default().max(0.0),
            _ => item["Size"].as_f64().unwrap_or_default(),
        };
        let is_active = |item: &Value| match kind.list {
            "Images" => item["Containers"].as_i64().unwrap_or_default() > 0,
            "Containers" => matches!(text(item, "State"), "running" | "paused" | "restarting"),
            "Volumes" => item["UsageData"]["RefCount"].as_i64().unwrap_or_default() > 0,
            _ => item["InUse"] == true,
        };
        let sum = |of: &dyn Fn(&&Value) -> bool| items.iter().filter(|item| of(item)).map(size).sum::<f64>();
        let (size, reclaimable) = match kind.list {
            // Layers are shared: their sum is not that of the images.
            "Images" => {
                let whole = usage["LayersSize"].as_f64().unwrap_or_default();
                let used = items.iter().filter(|item| is_active(item)).map(|item| {
                    item["Size"].as_f64().unwrap_or_default()
                        - item["SharedSize"].as_f64().unwrap_or_default().max(0.0)
                });
                (whole, (whole - used.sum::<f64>()).max(0.0))
            }
            _ => (sum(&|_| true), sum(&|item| !is_active(item))),
        };
        let active = items.iter().filter(|item| is_active(item)).count();
        Self {
            total: i64::try_from(items.len()).unwrap_or(i64::MAX),
            active: i64::try_from(active).unwrap_or(i64::MAX),
            size,
            reclaimable,
        }
    }

    fn row(&self, kind: &Kind) -> Row {
        let share = match self.size > 0.0 {
            true => format!(" ({}%)", (self.reclaimable / self.size * 100.0) as i64),
            false => String::new(),
        };
        Row::new([
            ("Active", json!(self.active.to_string())),
            ("Reclaimable", json!(format!("{}{share}", units::human_size_4(self.reclaimable)))),
            ("Size", json!(units::human_size_4(self.size))),
            ("TotalCount", json!(self.total.to_string())),
            ("Type", json!(kind.title)),
        ])
    }
}

/// Every object with its size.
fn details(usage: &Value) -> Outcome<String> {
    let [images, containers, volumes, build] = &KINDS;
    let size = |bytes: &Value| units::human_size_4(bytes.as_f64().unwrap_or_default().max(0.0));
    let mut lines =
        vec!["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS".to_owned()];
    let layout = |table| Layout { headers: &[], table, quiet: table };
    for image in images.items(usage) {
        // One of its names is enough here: a size is to be seen once.
        let rows = &rows::image(image, false, false)[..1];
        let format = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
        lines.extend(table::render(Some(format), false, layout(format), rows)?.lines().map(str::to_owned));
    }
    let mut out = format!("Images space usage:\n\n{}\n", table::align(&lines));
    let mut lines =
        vec!["CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES".to_owned()];
    for container in containers.items(usage) {
        let format = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\tSIZE\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
        let row = [rows::container(container, false)];
        let line = table::render(Some(format), false, layout(format), &row)?;
        lines.push(line.trim_end().replacen("\tSIZE\t", &format!("\t{}\t", size(&container["SizeRw"])), 1));
    }
    out.push_str(&format!("Containers space usage:\n\n{}\n", table::align(&lines)));
    let mut lines = vec!["VOLUME NAME\tLINKS\tSIZE".to_owned()];
    for volume in volumes.items(usage) {
        let links = volume["UsageData"]["RefCount"].as_i64().unwrap_or_default();
        lines.push(format!("{}\t{links}\t{}", text(volume, "Name"), size(&volume["UsageData"]["Size"])));
    }
    out.push_str(&format!("Local Volumes space usage:\n\n{}\n", table::align(&lines)));
    let total = Summary::of(build, usage).size;
    let mut lines = vec!["CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED".to_owned()];
    for record in build.items(usage) {
        let since = |name: &str| units::timestamp(text(record, name)).map(units::ago).unwrap_or_default();
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}",
            rows::short_id(text(record, "ID"), false),
            text(record, "Type"),
            size(&record["Size"]),
            since("CreatedAt"),
            since("LastUsedAt"),
            record["UsageCount"].as_i64().unwrap_or_default(),
            record["Shared"] == true,
        ));
    }
    out.push_str(&format!("Build cache usage: {}\n\n{}", units::human_size_4(total), table::align(&lines)));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_answer_are_read() {
        let new =
            json!({"ImageUsage": {"TotalCount": 2, "ActiveCount": 1, "TotalSize": 1000, "Reclaimable": 400}});
        let expected = Summary { total: 2, active: 1, size: 1000.0, reclaimable: 400.0 };
        assert_eq!(Summary::of(&KINDS[0], &new), expected);
        let old = json!({"LayersSize": 1000, "Images": [
            {"Size": 700, "SharedSize": 100, "Containers": 1}, {"Size": 500, "SharedSize": 100, "Containers": 0},
        ]});
        assert_eq!(Summary::of(&KINDS[0], &old), expected);
        let containers =
            json!({"Containers": [{"State": "running", "SizeRw": 5}, {"State": "exited", "SizeRw": 7}]});
        let expected = Summary { total: 2, active: 1, size: 12.0, reclaimable: 7.0 };
        assert_eq!(Summary::of(&KINDS[1], &containers), expected);
    }
}
