//! What a registry or the way to it answers when it fails, in the words that Docker uses.

use std::time::Duration;

use crate::PullError;

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RegistryError {
    /// No answer: name look-up, connection, TLS, time limits, a connection that broke.
    #[error("{text}")]
    Network {
        /// `Get "https://host/v2/": dial tcp …`.
        text: String,
        /// Whether trying again soon can help: a refused connection or a bad certificate stays so.
        transient: bool,
    },
    /// An answer that is not a success.
    #[error("{text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The registry's error code (`MANIFEST_UNKNOWN`), or nothing.
        code: String,
        /// `manifest unknown: manifest unknown`.
        text: String,
        /// What the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// Credentials are missing, or may not be sent where the registry asks for them.
    #[error("{0}")]
    Credentials(String),
    /// The answer breaks the protocol, or has the wrong digest.
    #[error("{0}")]
    Corrupt(String),
    /// The answer is longer than a document may be.
    #[error("{0}")]
    TooLarge(String),
}

impl RegistryError {
    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { transient, .. } => *transient,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Credentials(_) | Self::Corrupt(_) | Self::TooLarge(_) => false,
        }
    }

    /// What the registry asks to wait before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// As the failure of a pull of `familiar` (`busybox:latest`) from `name` (`busybox`).
    pub fn into_pull(self, name: &str, familiar: &str) -> PullError {
        let text = self.to_string();
        match self {
            Self::Network { .. } => PullError::Unavailable(text),
            Self::Credentials(_) => PullError::Denied(text),
            Self::Corrupt(_) => PullError::Corrupt(text),
            Self::TooLarge(_) => PullError::OverBudget(text),
            Self::Status { status, code, .. } => match (code.as_str(), status) {
                ("DENIED", _) | ("", 403) => PullError::NotFound(format!(
                    "pull access denied for {name}, repository does not exist or may require 'docker login': {text}"
                )),
                ("MANIFEST_UNKNOWN", _) | ("", 404) => {
                    PullError::NotFound(format!("manifest for {familiar} not found: {text}"))
                }
                ("NAME_UNKNOWN", _) => PullError::NotFound(format!("repository {name} not found: {text}")),
                ("UNAUTHORIZED", _) | ("", 401) => PullError::Denied(text),
                _ => PullError::Unavailable(text),
            },
        }
    }
}

/// Reads `{"errors":[{"code","message"}]}` as Docker words it; other bodies are told by their status.
pub(crate) fn from_answer(status: u16, retry_after: Option<Duration>, body: &[u8]) -> RegistryError {
    #[derive(serde::Deserialize)]
    struct Body {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let item = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
    let (code, text) = match item {
        Some(Item { code, message }) if !code.is_empty() => {
            let words = code.to_lowercase().replace('_', " ");
            let message = if message.is_empty() { words.clone() } else { printable(&message) };
            (code, format!("{words}: {message}"))
        }
        Some(Item { message, .. }) if !message.is_empty() => (String::new(), printable(&message)),
        // What HEAD is answered with.
        None if body.is_empty() && status == 401 => {
            ("UNAUTHORIZED".to_owned(), "unauthorized: authentication required".to_owned())
        }
        None if body.is_empty() && status == 403 => {
            ("DENIED".to_owned(), "denied: requested access to the resource is denied".to_owned())
        }
        _ => {
            let reason =
                http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
            (
                String::new(),
                format!("received unexpected HTTP status: {status} {reason}").trim_end().to_owned(),
            )
        }
    };
    RegistryError::Status { status, code, text, retry_after }
}

/// What a stranger wrote, fit for a terminal and a log: no control characters, not endless.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_dockers_do() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        let error = from_answer(404, None, body).into_pull("busybox", "busybox:nope");
        assert_eq!(
            error.to_string(),
            "manifest for busybox:nope not found: manifest unknown: manifest unknown"
        );
        assert!(matches!(error, PullError::NotFound(_)));
        let body =
            br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
        assert_eq!(
            from_answer(401, None, body).into_pull("x", "x:latest").to_string(),
            "pull access denied for x, repository does not exist or may require 'docker login': \
             denied: requested access to the resource is denied"
        );
        assert_eq!(
            from_answer(502, None, b"<html>").to_string(),
            "received unexpected HTTP status: 502 Bad Gateway"
        );
        assert_eq!(
            from_answer(400, None, b"{\"errors\":[{\"message\":\"a\\u001b[31m\"}]}").to_string(),
            "a[31m"
        );
    }
}
