//! `info`.

use clap::Args;
use serde_json::{Value, json};

use crate::app::Subcommand;
use crate::context::Context;
use crate::failure::Outcome;
use crate::rows::{list, text};
use crate::template::Template;
use crate::{output, units};

/// Prints what the daemon says of itself and its host.
#[derive(Debug, Args)]
pub struct Info {
    /// Format output using a custom template: 'json' or 'TEMPLATE' (Go template)
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Subcommand for Info {
    const NAME: &'static str = "info";
    const ABOUT: &'static str = "Display system-wide information";
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, context: Context) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("") => None,
            Some("json") => Some(Template::parse("{{json .}}")?),
            Some(format) => Some(Template::parse(format)?),
        };
        let answer: Result<Value, _> = context.client.get("/info").json().await;
        if let Some(template) = template {
            let mut info = answer?;
            info["ClientInfo"] = json!({"Context": "default", "Version": env!("CARGO_PKG_VERSION")});
            output::line(template.render(&info)?)?;
            return Ok(0);
        }
        let version = env!("CARGO_PKG_VERSION");
        let mut lines = vec![format!("Client:\n Version:    {version}\n Context:    default\n\nServer:")];
        if let Ok(info) = &answer {
            lines.extend(server(info));
        }
        output::line(lines.join("\n"))?;
        for warning in answer.as_ref().map(|info| list(info, "Warnings")).unwrap_or_default() {
            eprintln!("{}", warning.as_str().unwrap_or_default());
        }
        answer?;
        Ok(0)
    }
}

fn server(info: &Value) -> Vec<String> {
    let number = |name: &str| info[name].as_i64().unwrap_or_default();
    let yes = |name: &str| info[name].as_bool().unwrap_or_default();
    let mut lines = vec![
        format!(" Containers: {}", number("Containers")),
        format!("  Running: {}", number("ContainersRunning")),
        format!("  Paused: {}", number("ContainersPaused")),
        format!("  Stopped: {}", number("ContainersStopped")),
        format!(" Images: {}", number("Images")),
        format!(" Server Version: {}", text(info, "ServerVersion")),
        format!(" Storage Driver: {}", text(info, "Driver")),
    ];
    for pair in list(info, "DriverStatus") {
        let of = |at: usize| pair[at].as_str().unwrap_or_default();
        lines.push(format!("  {}: {}", of(0), of(1)));
    }
    let mut add = |label: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!(" {label}: {value}"));
        }
    };
    add("Logging Driver", text(info, "LoggingDriver"));
    add("Cgroup Driver", text(info, "CgroupDriver"));
    add("Cgroup Version", text(info, "CgroupVersion"));
    lines.push(" Plugins:".to_owned());
    for (label, name) in [("Volume", "Volume"), ("Network", "Network"), ("Log", "Log")] {
        let names: Vec<_> = list(&info["Plugins"], name).iter().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            lines.push(format!("  {label}: {}", names.join(" ")));
        }
    }
    let runtimes: Vec<_> =
        info["Runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if !runtimes.is_empty() {
        lines.push(format!(" Runtimes: {}", runtimes.join(" ")));
    }
    let mut add = |label: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!(" {label}: {value}"));
        }
    };
    add("Default Runtime", text(info, "DefaultRuntime"));
    add("Init Binary", text(info, "InitBinary"));
    let security: Vec<_> = list(info, "SecurityOptions").iter().filter_map(Value::as_str).collect();
    if !security.is_empty() {
        lines.push(" Security Options:".to_owned());
        for option in security {
            let mut parts = option.split(',').filter_map(|part| part.split_once('='));
            match parts.next() {
                Some(("name", name)) => {
                    lines.push(format!("  {name}"));
                    lines.extend(parts.map(|(key, value)| format!("   {}: {value}", capitalized(key))));
                }
                _ => lines.push(format!("  {option}")),
            }
        }
    }
    let memory = units::binary_size(info["MemTotal"].as_f64().unwrap_or_default());
    for (label, value) in [
        ("Kernel Version", text(info, "KernelVersion")),
        ("Operating System", text(info, "OperatingSystem")),
        ("OSType", text(info, "OSType")),
        ("Architecture", text(info, "Architecture")),
        ("CPUs", &number("NCPU").to_string()),
        ("Total Memory", &memory),
        ("Name", text(info, "Name")),
        ("ID", text(info, "ID")),
        ("Docker Root Dir", text(info, "DockerRootDir")),
        ("Debug Mode", if yes("Debug") { "true" } else { "false" }),
        ("Experimental", if yes("ExperimentalBuild") { "true" } else { "false" }),
    ] {
        if !value.is_empty() {
            lines.push(format!(" {label}: {value}"));
        }
    }
    let labels = list(info, "Labels");
    if !labels.is_empty() {
        lines.push(" Labels:".to_owned());
        lines.extend(labels.iter().map(|label| format!("  {}", label.as_str().unwrap_or_default())));
    }
    let registries = &info["RegistryConfig"];
    let mut insecure: Vec<&str> = registries["IndexConfigs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, config)| config["Secure"] == false)
        .map(|(name, _)| name.as_str())
        .collect();
    insecure.extend(list(registries, "InsecureRegistryCIDRs").iter().filter_map(Value::as_str));
    if !insecure.is_empty() {
        lines.push(" Insecure Registries:".to_owned());
        lines.extend(insecure.iter().map(|name| format!("  {name}")));
    }
    let live = if yes("LiveRestoreEnabled") { "true" } else { "false" };
    lines.push(format!(" Live Restore Enabled: {live}\n"));
    lines
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
