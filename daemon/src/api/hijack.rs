//! Connections that become a process' streams.
//!
//! With `Upgrade: tcp` the answer is 101 and the socket itself is relayed. Without it, as old clients
//! do, the answer is that of HTTP/1.0: raw bytes until the connection closes, and the body of the
//! request is the input.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proto_api::framing::{StreamKind, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, SimplexStream, WriteHalf};
use tokio::net::UnixStream;
use tokio_util::io::{ReaderStream, StreamReader};

use super::Api;
use super::request::ApiVersion;
use crate::engine::{Attach, DetachKeys};
use crate::server::Watch;

/// Bytes that are read at once.
const PIECE: usize = 32 << 10;
/// How long a client may take to close its side once the output has ended.
const LINGER: Duration = Duration::from_secs(2);
/// How long output waits for the client to read the answer's head.
const HEAD_PATIENCE: Duration = Duration::from_millis(20);
/// The first API version that tells framed from raw streams by their content type.
const FRAMED_TYPE_SINCE: ApiVersion = ApiVersion(42);

/// What is relayed.
pub enum Source {
    /// A process.
    Process(Attach),
    /// A text on stdout and nothing else: why the process could not be started.
    Failed {
        /// Raw rather than framed.
        tty: bool,
        /// Without a line end.
        message: String,
    },
}

/// `application/vnd.docker.…` for a stream.
pub fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version < FRAMED_TYPE_SINCE {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    }
}

/// Answers a request by taking its connection over.
pub fn respond(api: &Api, mut request: Request<Body>, version: ApiVersion, source: Source) -> Response {
    let tty = match &source {
        Source::Process(attach) => attach.tty,
        Source::Failed { tty, .. } => *tty,
    };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(tty, version)));
    let upgrade = request.headers().get(header::UPGRADE).is_some();
    let shutdown = api.0.shutdown.clone();
    match request.extensions_mut().remove::<OnUpgrade>().filter(|_| upgrade) {
        Some(on_upgrade) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
            api.0.tasks.spawn(async move {
                let relayed = async {
                    let (client, early) = taken_over(on_upgrade).await?;
                    let watch = Watch::new(&client)?;
                    answer_is_read(&client).await;
                    let (read, write) = client.into_split();
                    let read = (&early[..]).chain(read);
                    relay(read, write, source, watch.hung_up()).await
                };
                tokio::select! {
                    result = relayed => if let Err(error) = result {
                        tracing::debug!("a hijacked connection: {error}");
                    },
                    () = shutdown.cancelled() => {}
                }
            });
        }
        None => {
            *response.version_mut() = Version::HTTP_10;
            let input = request.into_body().into_data_stream();
            let input = StreamReader::new(input.map(|piece| piece.map_err(io::Error::other)));
            let (ours, theirs): (ReadHalf<SimplexStream>, WriteHalf<SimplexStream>) =
                tokio::io::simplex(PIECE);
            api.0.tasks.spawn(async move {
                tokio::select! {
                    result = relay(input, theirs, source, std::future::pending()) => {
                        if let Err(error) = result {
                            tracing::debug!("a streamed connection: {error}");
                        }
                    }
                    () = shutdown.cancelled() => {}
                }
            });
            *response.body_mut() = Body::from_stream(ReaderStream::new(ours));
        }
    }
    response
}

/// The client's socket, and what it had sent beyond the request.
async fn taken_over(on_upgrade: OnUpgrade) -> io::Result<(UnixStream, Bytes)> {
    let upgraded = on_upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| io::Error::other("the connection is no Unix socket"))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// Waits, for a moment at most, until the client has read the answer's head. Clients such as
/// docker-py read the head through a buffer and the stream past it: output that comes in one piece with
/// the head would be lost to them.
async fn answer_is_read(client: &UnixStream) {
    // Mostly it is read at once.
    tokio::task::yield_now().await;
    let deadline = tokio::time::Instant::now() + HEAD_PATIENCE;
    while executor::sys::process::unread_by_peer(client).is_ok_and(|bytes| bytes > 0)
        && tokio::time::Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Copies in both directions until the output ends, the detach keys are typed, or the client is gone
/// and all its input is delivered.
async fn relay(
    client_read: impl AsyncRead,
    mut client_write: impl AsyncWrite + Unpin,
    source: Source,
    hung_up: impl Future<Output = ()>,
) -> io::Result<()> {
    let attach = match source {
        Source::Process(attach) => attach,
        Source::Failed { tty, message } => {
            let text = format!("{message}\r\n").into_bytes();
            let text = if tty { text.into() } else { frame(StreamKind::Stdout, &text) };
            client_write.write_all(&text).await?;
            return client_write.shutdown().await;
        }
    };
    if let Some(mut replay) = attach.replay {
        while let Some(piece) = replay.next().await {
            client_write.write_all(&piece.map_err(io::Error::other)?).await?;
        }
        client_write.flush().await?;
    }
    let Some(process) = attach.stream else { return client_write.shutdown().await };
    let (mut process_read, process_write) = process.into_split();
    let output = async {
        copy(&mut process_read, &mut client_write).await?;
        client_write.shutdown().await
    };
    let input = feed(client_read, process_write, attach.detach);
    tokio::pin!(output, input, hung_up);
    let (mut input_open, mut client_there) = (true, true);
    while input_open || client_there {
        tokio::select! {
            result = &mut output => {
                result?;
                // A socket that is closed with input unread gives its peer a reset, which would hide
                // that the output is whole; so wait for the client to close first.
                if input_open {
                    drop(tokio::time::timeout(LINGER, &mut input).await);
                }
                return Ok(());
            }
            end = &mut input, if input_open => {
                input_open = false;
                if end? == InputEnd::Detached {
                    return Ok(());
                }
            }
            () = &mut hung_up, if client_there => client_there = false,
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum InputEnd {
    Closed,
    Detached,
}

/// Copies input; its end closes the writing half.
async fn feed(
    client: impl AsyncRead,
    mut process: impl AsyncWrite + Unpin,
    mut detach: Option<DetachKeys>,
) -> io::Result<InputEnd> {
    tokio::pin!(client);
    let mut buffer = Vec::with_capacity(PIECE);
    let mut listening = true;
    loop {
        buffer.clear();
        // A connection that is reset has no more input; what the process says is still wanted.
        let count = client.read_buf(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            process.shutdown().await.ok();
            return Ok(InputEnd::Closed);
        }
        let detached = match &mut detach {
            Some(keys) => {
                let (forward, detached) = keys.feed(&buffer);
                buffer = forward;
                detached
            }
            None => false,
        };
        // A process that has closed its input, or ended, does not read: the rest is dropped.
        listening = listening && process.write_all(&buffer).await.is_ok();
        if detached {
            return Ok(InputEnd::Detached);
        }
    }
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        buffer.clear();
        match from.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            // All output has been read; the process ended with input unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            outcome => outcome?,
        };
        to.write_all(&buffer).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tty: bool, detach: Option<DetachKeys>) -> (Source, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Source::Process(Attach { tty, replay: None, stream: Some(ours), detach }), theirs)
    }

    #[tokio::test]
    async fn input_may_end_before_output() {
        let (source, mut process) = process(false, None);
        let (client, mut theirs) = UnixStream::pair().unwrap();
        let (read, write) = client.into_split();
        let relaying = tokio::spawn(relay(read, write, source, std::future::pending()));
        theirs.write_all(b"question").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut asked = Vec::new();
        process.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        process.write_all(b"answer").await.unwrap();
        drop(process);
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        relaying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn detach_keys_end_the_relay_and_are_not_forwarded() {
        let (source, mut process) = process(true, Some(DetachKeys::parse(None).unwrap()));
        let (client, mut theirs) = UnixStream::pair().unwrap();
        let (read, write) = client.into_split();
        let relaying = tokio::spawn(relay(read, write, source, std::future::pending()));
        theirs.write_all(b"ab\x10\x11cd").await.unwrap();
        relaying.await.unwrap().unwrap();
        let mut got = Vec::new();
        process.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"ab");
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_the_relay_of_a_silent_process() {
        let (source, mut process) = process(false, None);
        let (client, mut theirs) = UnixStream::pair().unwrap();
        let watch = Watch::new(&client).unwrap();
        let (read, write) = client.into_split();
        let relaying = tokio::spawn(async move { relay(read, write, source, watch.hung_up()).await });
        theirs.write_all(b"last words").await.unwrap();
        drop(theirs);
        relaying.await.unwrap().unwrap();
        let mut got = Vec::new();
        process.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last words");
    }

    #[tokio::test]
    async fn a_process_that_does_not_read_can_still_speak() {
        let (source, process) = process(false, None);
        let (client, mut theirs) = UnixStream::pair().unwrap();
        let (read, write) = client.into_split();
        let relaying = tokio::spawn(relay(read, write, source, std::future::pending()));
        let process = process.into_std().unwrap();
        process.shutdown(std::net::Shutdown::Read).unwrap();
        theirs.write_all(b"into the void").await.unwrap();
        process.set_nonblocking(false).unwrap();
        io::Write::write_all(&mut &process, b"hello").unwrap();
        drop(process);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
        drop(relaying.await.unwrap());
    }
}
