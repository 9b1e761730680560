//! Standard output: whole texts at once, and the answers to several names.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// Writes `text` as it is.
pub fn print(text: impl AsRef<[u8]>) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()?;
    Ok(())
}

/// Writes `text` and a newline.
pub fn line(text: impl AsRef<str>) -> Outcome<()> {
    print(format!("{}\n", text.as_ref()))
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Does `action` for each name in turn. What succeeds is printed at once as the text that it
/// returned; what fails is printed at the end, and makes the exit code 1.
pub async fn each<F>(names: &[String], mut action: impl FnMut(String) -> F) -> Outcome
where
    F: Future<Output = Result<Option<String>, proto_api::client::Error>>,
{
    let mut failures = Vec::new();
    for name in names {
        match action(name.clone()).await {
            Ok(Some(text)) => line(text)?,
            Ok(None) => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    end(failures)
}

/// Exit code 0, or 1 with the failures printed.
pub fn end(failures: Vec<String>) -> Outcome {
    match failures.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(failures.join("\n"))),
    }
}

/// JSON with four spaces of indentation, as `inspect` prints it.
pub fn pretty(value: &Value) -> Outcome<String> {
    use serde::Serialize as _;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Asks a question on the terminal; no answer is a no.
pub fn confirm(question: &str) -> Outcome<bool> {
    print(format!("{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}
