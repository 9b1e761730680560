//! `events`.

use clap::Args;
use serde_json::Value;

use crate::app::Subcommand;
use crate::commands::filters;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::rows::text;
use crate::signals::Signals;
use crate::template::Template;
use crate::{output, units};

/// Follows what happens in the daemon.
#[derive(Debug, Args)]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'json' or 'TEMPLATE' (Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    until: Option<String>,
}

impl Subcommand for Events {
    const NAME: &'static str = "events";
    const ABOUT: &'static str = "Get real time events from the server";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("") => None,
            Some("json") => Some(Template::parse("{{json .}}")?),
            Some(format) => Some(Template::parse(format)?),
        };
        let by_field = !matches!(self.format.as_deref(), Some("json" | "{{json .}}" | "{{ json . }}"));
        let time = |text: &Option<String>| text.as_deref().map(units::api_time).transpose().map_err(fail);
        let mut interrupts = Signals::interrupts()?;
        let response = context
            .client
            .get("/events")
            .query_opt("since", time(&self.since)?)
            .query_opt("until", time(&self.until)?)
            .query_opt("filters", filters(&self.filter)?)
            .send()
            .await?;
        let mut events = response.objects::<Value>();
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                name = interrupts.next() => return Ok(if name == "INT" { 130 } else { 143 }),
            };
            let Some(event) = event else { return Ok(0) };
            output::line(match &template {
                Some(template) if by_field => template.render(&fields(event))?,
                Some(template) => template.render(&event)?,
                None => plain(&event),
            })?;
        }
    }
}

/// The event with its fields under the names that templates use.
fn fields(mut event: Value) -> Value {
    for (name, field) in [
        ("status", "Status"),
        ("id", "ID"),
        ("from", "From"),
        ("scope", "Scope"),
        ("time", "Time"),
        ("timeNano", "TimeNano"),
    ] {
        let value = event.get(name).cloned();
        let default = if name.starts_with("time") { Value::from(0) } else { Value::from("") };
        event[field] = value.unwrap_or(default);
    }
    event
}

/// `2026-01-02T15:04:05.000000000Z container start ID (image=x, name=y)`.
fn plain(event: &Value) -> String {
    let time = match event["timeNano"].as_i64() {
        Some(nanos) if nanos != 0 => units::local_nanos(nanos),
        _ => units::local_nanos(event["time"].as_i64().unwrap_or_default().saturating_mul(1_000_000_000)),
    };
    let actor = &event["Actor"];
    let mut attributes: Vec<String> = actor["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    attributes.sort();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{time} {} {} {}{attributes}", text(event, "Type"), text(event, "Action"), text(actor, "ID"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_one_line() {
        let event = json!({
            "Type": "container", "Action": "start", "timeNano": 1_500_000_000_000_000_001i64,
            "Actor": {"ID": "abc", "Attributes": {"name": "x", "image": "y"}},
        });
        let line = plain(&event);
        assert!(line.ends_with("container start abc (image=y, name=x)"), "{line}");
        assert!(line.contains(".000000001"), "{line}");
    }
}
