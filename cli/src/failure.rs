//! Why a command failed: what is printed, and the exit code.

use std::fmt::Display;

use proto_api::client;

/// What a command ends with: an exit code, or a failure to be printed.
pub type Outcome<T = i32> = Result<T, Failure>;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// The text for standard error; none where it was said already.
    pub message: Option<String>,
    /// The exit code.
    pub code: i32,
    /// What is printed around it.
    pub style: Style,
}

/// What is printed around a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Nothing.
    Plain,
    /// "ctl: " before it, and the way to the command's help.
    Hint,
    /// The command's usage, as for any mistake in an option.
    Usage,
}

impl Failure {
    /// A failure with the usual exit code 1.
    pub fn new(message: impl Display) -> Self {
        Self { message: Some(message.to_string()), code: 1, style: Style::Plain }
    }

    /// Only an exit code.
    pub fn silent(code: i32) -> Self {
        Self { message: None, code, style: Style::Plain }
    }

    /// The same failure with another exit code.
    pub fn with_code(self, code: i32) -> Self {
        Self { code, ..self }
    }

    /// A mistake in an option's value, which clap could not see.
    pub fn option(message: impl Display) -> Self {
        Self { message: Some(message.to_string()), code: 125, style: Style::Usage }
    }

    /// The same failure with the hint at the command's help.
    pub fn with_hint(self) -> Self {
        Self { style: Style::Hint, ..self }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::new(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // Whoever read our output went away; a process that dies of SIGPIPE reads as 141.
            std::io::ErrorKind::BrokenPipe => Self::silent(141),
            _ => Self::new(reason(&error)),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error)
    }
}

/// What the operating system said, in the words that Docker's users know: "no such file or directory".
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// `message` as a failure, for `ok_or_else` and `Err(fail(…))?`.
pub fn fail(message: impl Display) -> Failure {
    Failure::new(message)
}
