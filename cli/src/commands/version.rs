//! `version`.

use clap::Args;
use proto_api::API_VERSION;
use serde_json::{Value, json};

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;
use crate::rows::{list, text};
use crate::template::Template;

/// Prints the versions of both ends.
#[derive(Debug, Args)]
pub struct Version {
    /// Format output using a custom template: 'json' or 'TEMPLATE' (Go template)
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Subcommand for Version {
    const NAME: &'static str = "version";
    const ABOUT: &'static str = "Show the ctl version information";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("") => None,
            Some("json") => Some(Template::parse("{{json .}}")?),
            Some(format) => Some(Template::parse(format)?),
        };
        let server: Result<Value, _> = context.client.get("/version").json().await;
        let client = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": context.client.version(),
            "DefaultAPIVersion": API_VERSION,
            "Os": std::env::consts::OS,
            "Arch": architecture(),
            "Context": "default",
        });
        if let Some(template) = template {
            let data = json!({"Client": client, "Server": server.as_ref().ok()});
            output::line(template.render(&data)?)?;
            server?;
            return Ok(0);
        }
        let spoken = text(&client, "ApiVersion");
        let downgraded =
            if spoken == API_VERSION { String::new() } else { format!(" (downgraded from {API_VERSION})") };
        let mut lines = vec![
            "Client:".to_owned(),
            field(1, "Version", text(&client, "Version")),
            field(1, "API version", &format!("{spoken}{downgraded}")),
            field(1, "OS/Arch", &format!("{}/{}", text(&client, "Os"), text(&client, "Arch"))),
            field(1, "Context", text(&client, "Context")),
        ];
        if let Ok(server) = &server {
            lines.extend(server_lines(server));
        }
        output::line(lines.join("\n"))?;
        server?;
        Ok(0)
    }
}

fn field(indent: usize, name: &str, value: &str) -> String {
    let name = format!("{name}:");
    format!("{}{name:<width$}{value}", " ".repeat(indent), width = 20 - indent)
}

fn server_lines(server: &Value) -> Vec<String> {
    let platform = match text(&server["Platform"], "Name") {
        "" => "Server:".to_owned(),
        name => format!("Server: {name}"),
    };
    let mut lines = vec![String::new(), platform];
    let components = list(server, "Components");
    if components.is_empty() {
        lines.push(" Engine:".to_owned());
        lines.push(field(2, "Version", text(server, "Version")));
        return lines;
    }
    for component in components {
        lines.push(format!(" {}:", text(component, "Name")));
        lines.push(field(2, "Version", text(component, "Version")));
        let details = &component["Details"];
        if text(component, "Name") == "Engine" {
            let api = format!(
                "{} (minimum version {})",
                text(details, "ApiVersion"),
                text(details, "MinAPIVersion")
            );
            lines.push(field(2, "API version", &api));
            for (label, name) in
                [("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")]
            {
                if !text(details, name).is_empty() {
                    lines.push(field(2, label, text(details, name)));
                }
            }
            lines.push(field(2, "OS/Arch", &format!("{}/{}", text(details, "Os"), text(details, "Arch"))));
            lines.push(field(
                2,
                "Experimental",
                match text(details, "Experimental") {
                    "" => "false",
                    value => value,
                },
            ));
            continue;
        }
        let mut details: Vec<_> = details.as_object().into_iter().flatten().collect();
        details.sort_by_key(|(name, _)| *name);
        lines.extend(
            details.into_iter().map(|(name, value)| field(2, name, value.as_str().unwrap_or_default())),
        );
    }
    lines
}

/// This machine's architecture by Go's name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
