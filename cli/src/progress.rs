//! The progress of pull, push, load and import: a stream of JSON messages.
//!
//! On a terminal every layer has a line that is drawn over; in a pipe each change of state is a line
//! of its own, and the counting of bytes is left out.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto_api::client::Response;
use serde::Deserialize;

use crate::failure::{Outcome, fail};
use crate::terminal;
use crate::units;

/// A message of the stream.
#[derive(Debug, Default, Deserialize)]
pub struct Message {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    stream: Option<String>,
    #[serde(rename = "progressDetail", default)]
    detail: Option<Detail>,
    #[serde(default)]
    error: Option<String>,
    #[serde(rename = "errorDetail", default)]
    error_detail: Option<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
struct Detail {
    #[serde(default)]
    current: Option<i64>,
    #[serde(default)]
    total: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    message: String,
}

/// Where progress is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// What the command is about.
    Stdout,
    /// An aside of a command whose output is something else.
    Stderr,
    /// Nowhere; errors still end the stream.
    Quiet,
}

/// Shows a stream to its end. An error in it is the command's.
pub async fn show(response: Response, target: Target) -> Outcome<()> {
    let mut messages = response.objects::<Message>();
    let mut display = Display::new(target);
    while let Some(message) = messages.next().await? {
        let error = message.error_detail.map(|detail| detail.message).or(message.error);
        if let Some(error) = error {
            display.finish();
            return Err(fail(error));
        }
        display.message(&Message { error: None, error_detail: None, ..message })?;
    }
    display.finish();
    Ok(())
}

#[derive(Debug)]
enum Display {
    Bars { all: MultiProgress, bars: HashMap<String, ProgressBar> },
    Lines(Target),
}

impl Display {
    fn new(target: Target) -> Self {
        let (terminal, draw) = match target {
            Target::Stdout => (std::io::stdout().is_terminal(), ProgressDrawTarget::stdout()),
            Target::Stderr => (std::io::stderr().is_terminal(), ProgressDrawTarget::stderr()),
            Target::Quiet => (false, ProgressDrawTarget::hidden()),
        };
        match terminal {
            true => Self::Bars { all: MultiProgress::with_draw_target(draw), bars: HashMap::new() },
            false => Self::Lines(target),
        }
    }

    fn message(&mut self, message: &Message) -> Outcome<()> {
        let status = message.status.as_deref().unwrap_or_default();
        let counts = message.detail.as_ref().and_then(|detail| detail.current).unwrap_or(0) > 0;
        let (all, bars) = match self {
            Self::Lines(target) => {
                return match (&message.stream, &message.id) {
                    (Some(text), _) => write(*target, text),
                    (None, _) if status.is_empty() || counts => Ok(()),
                    (None, Some(id)) => write(*target, &format!("{id}: {status}\n")),
                    (None, None) => write(*target, &format!("{status}\n")),
                };
            }
            Self::Bars { all, bars } => (all, bars),
        };
        if let Some(text) = &message.stream {
            all.println(text.trim_end())?;
            return Ok(());
        }
        let is_layer = message.detail.is_some();
        match &message.id {
            Some(id) if is_layer || bars.contains_key(id) => {
                let bar = bars.entry(id.clone()).or_insert_with(|| {
                    let style = ProgressStyle::with_template("{prefix}: {msg}")
                        .unwrap_or_else(|_| ProgressStyle::default_bar());
                    all.add(ProgressBar::no_length().with_style(style).with_prefix(id.clone()))
                });
                bar.set_message(line(status, message.detail.as_ref()));
            }
            Some(id) => all.println(format!("{id}: {status}"))?,
            None if status.is_empty() => {}
            None => {
                // What is said at the end belongs below the layers.
                for bar in bars.values() {
                    bar.abandon();
                }
                all.println(status)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Self::Bars { bars, .. } = self {
            for bar in bars.values() {
                bar.abandon();
            }
        }
    }
}

fn write(target: Target, text: &str) -> Outcome<()> {
    match target {
        Target::Stdout => crate::output::print(text),
        Target::Stderr => Ok(std::io::stderr().write_all(text.as_bytes())?),
        Target::Quiet => Ok(()),
    }
}

/// `Downloading [====>      ]  1.2MB/3.4MB`, as wide as fits.
fn line(status: &str, detail: Option<&Detail>) -> String {
    let Some(current) = detail.and_then(|detail| detail.current).filter(|current| *current > 0) else {
        return status.to_owned();
    };
    let total = detail.and_then(|detail| detail.total).unwrap_or(0);
    let size = |bytes: i64| units::human_size_4(bytes as f64);
    if total <= 0 {
        return format!("{status} {:>8}", size(current));
    }
    let bar_width = if terminal::size().is_some_and(|(_, columns)| columns < 110) { 25 } else { 50 };
    let done = usize::try_from(current.min(total) * bar_width / total).unwrap_or(0);
    let bar_width = usize::try_from(bar_width).unwrap_or(50);
    let head = if done < bar_width { ">" } else { "" };
    let bar = "=".repeat(done) + head;
    format!("{status} [{bar:<bar_width$}] {:>8}/{}", size(current), size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_how_far_it_is() {
        let detail = Detail { current: Some(500), total: Some(1000) };
        let text = line("Downloading", Some(&detail));
        assert!(text.starts_with("Downloading [") && text.ends_with("]     500B/1kB"), "{text}");
        assert!(text.contains("=>"), "{text}");
        assert_eq!(line("Waiting", None), "Waiting");
        let unknown = Detail { current: Some(1_500_000), total: None };
        assert_eq!(line("Loading", Some(&unknown)), "Loading    1.5MB");
    }
}
