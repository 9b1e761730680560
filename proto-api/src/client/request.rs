//! A request being put together, and its ways to be sent.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{Client, Error, Hijacked, Response, encode};
use crate::ApiError;

type BodyStream = Pin<Box<dyn Stream<Item = std::io::Result<Frame<Bytes>>> + Send>>;

/// A request's body: bytes at hand, or a stream.
pub(super) type Body = Either<Full<Bytes>, StreamBody<BodyStream>>;

enum Payload {
    Bytes(Bytes),
    Stream(BodyStream),
}

/// How much of a streamed body is read at a time, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// A request that was not sent yet. A mistake in its parts shows when it is sent.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    payload: Result<Payload, Error>,
    versioned: bool,
}

impl Request {
    pub(super) fn new(client: &Client, method: Method, path: String) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("ctl"));
        Self {
            client: client.clone(),
            method,
            path,
            query: String::new(),
            headers,
            payload: Ok(Payload::Bytes(Bytes::new())),
            versioned: true,
        }
    }

    /// Leaves the version out of the path.
    pub(super) fn unversioned(mut self) -> Self {
        self.versioned = false;
        self
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        encode::query(&mut self.query, name, value.as_ref());
        self
    }

    /// Adds a query parameter where there is a value.
    pub fn query_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds `name=1` where `on` holds.
    pub fn flag(self, name: &str, on: bool) -> Self {
        if on { self.query(name, "1") } else { self }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.headers.insert(HeaderName::from_static(name), value);
            }
            Err(error) => self.payload = Err(Error::Request(error.into())),
        }
        self
    }

    /// Sends `body` as JSON.
    pub fn body(mut self, body: &impl Serialize) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.payload =
            serde_json::to_vec(body).map(|json| Payload::Bytes(json.into())).map_err(Error::Encode);
        self
    }

    /// Sends what `reader` yields, as a tar archive.
    pub fn tar(mut self, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        let stream = unfold(Some(reader), async |reader| {
            let mut reader = reader?;
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            match reader.read_buf(&mut chunk).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(Frame::data(chunk.freeze())), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        });
        self.payload = Ok(Payload::Stream(Box::pin(stream)));
        self
    }

    /// Sends the request and returns as soon as the head of the answer is there; the body may take
    /// as long as a container lives. An answer of 400 and above becomes [`Error::Api`].
    pub async fn send(self) -> Result<Response, Error> {
        let Self { client, method, path, query, headers, payload, versioned } = self;
        let (bytes, mut stream) = match payload? {
            Payload::Bytes(bytes) => (bytes, None),
            Payload::Stream(stream) => {
                Box::pin(client.negotiate()).await?;
                (Bytes::new(), Some(stream))
            }
        };
        loop {
            let uri = match versioned {
                true => format!("/v{}{path}{query}", client.version()),
                false => format!("{path}{query}"),
            };
            let body = match stream.take() {
                Some(stream) => Either::Right(StreamBody::new(stream)),
                None => Either::Left(Full::new(bytes.clone())),
            };
            let mut request = http::Request::builder().method(method.clone()).uri(uri).body(body)?;
            *request.headers_mut() = headers.clone();
            let (answer, connection) = client.dispatch(request).await?;
            let status = answer.status();
            let response = Response::new(client.clone(), answer, connection);
            if !(status.is_client_error() || status.is_server_error()) {
                return Ok(response);
            }
            let message = error_message(status, &response.bytes().await?);
            if status != StatusCode::BAD_REQUEST || !client.downgrade(&message) {
                return Err(Error::Api { status: status.as_u16(), message });
            }
        }
    }

    /// Sends the request and reads the one JSON object of the answer.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.send().await?.json().await
    }

    /// Sends the request and waits for the end of the answer, which is not looked at.
    pub async fn done(self) -> Result<(), Error> {
        self.send().await?.bytes().await?;
        Ok(())
    }

    /// Sends the request with `Upgrade: tcp` and takes the connection over once the daemon agrees.
    pub async fn hijack(mut self) -> Result<Hijacked, Error> {
        self.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        self.headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        self.send().await?.upgrade().await
    }
}

/// The message of an error's body: Docker's JSON form, or the text of whoever else answered.
fn error_message(status: StatusCode, body: &[u8]) -> String {
    if let Ok(ApiError { message }) = serde_json::from_slice(body) {
        return message.trim_end().to_owned();
    }
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => format!("request returned {status}"),
        text => text.to_owned(),
    }
}
