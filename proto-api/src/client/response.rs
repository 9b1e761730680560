//! An answer whose head has arrived.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{AsHeaderName, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use super::connection::Connection;
use super::socket::Socket;
use super::{Client, Error, Hijacked};

/// An answer that is not an error. Its connection is used again once the body was read to the end.
#[derive(Debug)]
pub struct Response {
    client: Client,
    answer: http::Response<Incoming>,
    connection: Option<Connection>,
}

impl Response {
    pub(super) fn new(client: Client, answer: http::Response<Incoming>, connection: Connection) -> Self {
        Self { client, answer, connection: Some(connection) }
    }

    /// The status, for the endpoints where more than one is a success.
    pub fn status(&self) -> StatusCode {
        self.answer.status()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        self.answer.headers()
    }

    /// A header's value where it is there and is text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body as it came from the wire; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.answer.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        if let Some(connection) = self.connection.take() {
            self.client.keep(connection);
        }
        Ok(None)
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// The body as one JSON object.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        serde_json::from_slice(&self.bytes().await?).map_err(Error::Decode)
    }

    /// The body as a stream of JSON objects, whatever stands between them.
    pub fn objects<T: DeserializeOwned>(self) -> Objects<T> {
        Objects { response: self, buffer: BytesMut::new(), item: PhantomData }
    }

    pub(super) async fn upgrade(self) -> Result<Hijacked, Error> {
        if self.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotUpgraded(self.status().as_u16()));
        }
        let content_type = self.header(CONTENT_TYPE).map(str::to_owned);
        let upgraded = hyper::upgrade::on(self.answer).await?;
        let parts = upgraded
            .downcast::<TokioIo<Socket>>()
            .map_err(|_| std::io::Error::other("the upgraded connection is not a Unix socket"))?;
        Ok(Hijacked::new(parts.io.into_inner().0, parts.read_buf, content_type))
    }
}

/// JSON objects in the order in which they arrive.
#[derive(Debug)]
pub struct Objects<T> {
    response: Response,
    buffer: BytesMut,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Objects<T> {
    /// Waits for the next object; `None` at the end of the answer.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(object) = take_object(&mut self.buffer)? {
                return Ok(Some(object));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => {
                    return Err(
                        std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "unexpected EOF").into()
                    );
                }
            }
        }
    }
}

/// Takes the first whole object off the buffer.
fn take_object<T: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<T>, Error> {
    let mut objects = serde_json::Deserializer::from_slice(buffer).into_iter::<T>();
    match objects.next() {
        None => Ok(None),
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(error)) => Err(Error::Decode(error)),
        Some(Ok(object)) => {
            let taken = objects.byte_offset();
            buffer.advance(taken);
            Ok(Some(object))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_out_whole_however_they_are_cut() {
        let wire = b"{\"a\":1}\r\n{\"a\":2}{\"a\":3}\n";
        for cut in 1..wire.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(object) = take_object::<serde_json::Value>(&mut buffer).unwrap() {
                    got.push(object["a"].as_i64().unwrap());
                }
            }
            assert_eq!(got, [1, 2, 3], "pieces of {cut}");
            assert!(buffer.trim_ascii().is_empty());
        }
    }

    #[test]
    fn junk_between_objects_is_an_error() {
        let mut buffer = BytesMut::from(&b"<html>"[..]);
        assert!(matches!(take_object::<serde_json::Value>(&mut buffer), Err(Error::Decode(_))));
    }
}
