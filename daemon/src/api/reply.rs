//! Making answers.

use std::fmt;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON body of known length.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            response
        }
        Err(error) => {
            tracing::error!("an answer could not be written as JSON: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// 200 with a JSON body.
pub fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A status 200 that is sent at once, and a body that comes as it comes. An error ends the
/// connection, so that the client cannot take the answer for a whole one.
pub fn stream<E>(
    content_type: &'static str,
    body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response
where
    E: fmt::Display + Send + Sync + 'static,
{
    let body = body.map(|piece| {
        piece.map_err(|error| {
            tracing::warn!("a stream broke off: {error}");
            std::io::Error::other(error.to_string())
        })
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A line of a JSON stream.
pub fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!("a line could not be written as JSON: {error}");
        b"{}".to_vec()
    });
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// A JSON object after the other, each on a line.
pub fn lines<T: Serialize + Send + 'static>(items: impl Stream<Item = T> + Send + 'static) -> Response {
    stream("application/json", items.map(|item| Ok::<_, std::convert::Infallible>(line(&item))))
}
