//! Connections to the socket: opening, keeping, using again; and the version that is spoken.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::request::Body;
use super::socket::Socket;
use super::{Error, Request};
use crate::API_VERSION;

/// A connection that can take one request at a time.
pub(super) type Connection = SendRequest<Body>;

/// Idle connections beyond this many are closed.
const MAX_IDLE: usize = 4;

/// A client of one daemon. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    version: String,
    /// Whether the daemon is known to speak `version`.
    settled: bool,
    idle: Vec<Connection>,
}

impl Client {
    /// A client for the daemon at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let state = State { version: API_VERSION.to_owned(), settled: false, idle: Vec::new() };
        Self { shared: Arc::new(Shared { socket: socket.into(), state: Mutex::new(state) }) }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// The version that requests are sent with, as `1.53`.
    pub fn version(&self) -> String {
        self.state().version.clone()
    }

    /// Pins the version; the daemon's maximum is no longer asked for.
    pub fn set_version(&self, version: impl Into<String>) {
        let mut state = self.state();
        state.version = version.into();
        state.settled = true;
    }

    /// Whether `version` or a newer one is spoken, as far as is known.
    pub fn at_least(&self, version: (u32, u32)) -> bool {
        parse_version(&self.state().version).is_none_or(|spoken| spoken >= version)
    }

    /// Starts a GET request of a path such as `/containers/json`.
    pub fn get(&self, path: impl Into<String>) -> Request {
        Request::new(self, Method::GET, path.into())
    }

    /// Starts a POST request.
    pub fn post(&self, path: impl Into<String>) -> Request {
        Request::new(self, Method::POST, path.into())
    }

    /// Starts a PUT request.
    pub fn put(&self, path: impl Into<String>) -> Request {
        Request::new(self, Method::PUT, path.into())
    }

    /// Starts a DELETE request.
    pub fn delete(&self, path: impl Into<String>) -> Request {
        Request::new(self, Method::DELETE, path.into())
    }

    /// Starts a HEAD request.
    pub fn head(&self, path: impl Into<String>) -> Request {
        Request::new(self, Method::HEAD, path.into())
    }

    /// Asks the daemon for its newest version and settles on the lower of the two.
    pub async fn negotiate(&self) -> Result<(), Error> {
        if self.state().settled {
            return Ok(());
        }
        let response = self.head("/_ping").unversioned().send().await?;
        let newest = response.header("api-version").map(str::to_owned);
        let mut state = self.state();
        if let Some(newest) = newest
            && parse_version(&newest) < parse_version(&state.version)
        {
            state.version = newest;
        }
        state.settled = true;
        Ok(())
    }

    /// Takes a refusal apart; `true` where a lower version was agreed and a second try is due.
    pub(super) fn downgrade(&self, message: &str) -> bool {
        let mut state = self.state();
        let Some(newest) = maximum_in(message) else { return false };
        if state.settled || parse_version(newest) >= parse_version(&state.version) {
            return false;
        }
        state.version = newest.to_owned();
        state.settled = true;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> Option<Connection> {
        self.state().idle.pop()
    }

    /// Gives back a connection whose answer was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut state = self.state();
        if !connection.is_closed() && state.idle.len() < MAX_IDLE {
            state.idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let socket = self.socket();
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| Error::Connect { socket: socket.to_owned(), source })?;
        let (sender, connection) = http1::handshake(TokioIo::new(Socket(stream))).await?;
        tokio::spawn(async move {
            // A broken connection shows in the request that used it.
            connection.with_upgrades().await.ok();
        });
        Ok(sender)
    }

    /// Sends one request. A kept connection that the daemon had closed meanwhile costs a second
    /// try, never an error: hyper gives the request back where no byte of it was sent.
    pub(super) async fn dispatch(
        &self,
        mut request: http::Request<Body>,
    ) -> Result<(http::Response<Incoming>, Connection), Error> {
        while let Some(mut connection) = self.idle() {
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await?;
        Ok((response, connection))
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The version in "client version 1.53 is too new. Maximum supported API version is 1.41".
fn maximum_in(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Maximum supported API version is ")?;
    let version = rest.trim_end().trim_end_matches('.');
    parse_version(version).map(|_| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_maximum_is_taken_once() {
        let client = Client::new("/nowhere");
        let refusal = "client version 1.53 is too new. Maximum supported API version is 1.41";
        assert!(!client.downgrade("No such container: 1.41"));
        assert!(client.downgrade(refusal));
        assert_eq!(client.version(), "1.41");
        assert!(!client.at_least((1, 42)) && client.at_least((1, 41)));
        assert!(!client.downgrade(refusal));
    }
}
