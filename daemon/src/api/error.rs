//! The one place where a failure becomes a status and `{"message": …}`.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use proto_api::ApiError;
use proto_api::filters::FilterError;
use storage::{LookupError, PullError, RemoveError, StoreError};

use super::reply;
use crate::engine::{Error, ErrorKind};

/// What a handler answers instead of success.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: StatusCode,
    /// What the client reads.
    pub message: String,
}

/// What handlers give.
pub type Answer = Result<Response, Failure>;

impl Failure {
    /// With a status and a text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 501: Docker has it and we do not yet.
    pub fn unsupported(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported yet"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!("{}", self.message);
        }
        reply::json(self.status, &ApiError { message: self.message })
    }
}

/// The message with its causes, for failures of the engine itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let message =
            if status == StatusCode::INTERNAL_SERVER_ERROR { chain(&error) } else { error.to_string() };
        Self { status, message }
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        Error::from(error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<RemoveError> for Failure {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Lookup(error) => error.into(),
            RemoveError::Conflict(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            RemoveError::Store(error) => error.into(),
        }
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Reference(error) => error.into(),
            PullError::NotFound(message) => Self::not_found(message),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<FilterError> for Failure {
    fn from(error: FilterError) -> Self {
        Self::bad(chain(&error))
    }
}
