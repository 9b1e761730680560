//! The store as a read-only OCI registry on a TCP address, for other machines to pull from. Off by default.
//!
//! Plain HTTP and no authentication: whoever reaches the address can read every tagged image. The answers
//! are the store's own ([`Store::serve`]); here they only get onto the wire.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use futures_util::stream;
use http::{Request, Response, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use storage::{ServedBody, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds the address; `serve` takes the listener.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `shutdown`; connections are of `tasks`.
pub async fn serve(listener: TcpListener, store: Store, shutdown: CancellationToken, tasks: TaskTracker) {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the registry cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (store, shutdown) = (store.clone(), shutdown.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let store = store.clone();
                async move { Ok::<_, Infallible>(answer(&store, &request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to the registry ended");
                    }
                }
            }
        });
    }
}

async fn answer<B>(store: &Store, request: &Request<B>) -> Response<Body> {
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let served = store.serve(request.method().as_str(), request.uri().path(), range).await;
    let mut response = Response::builder().status(served.status);
    for (name, value) in served.headers {
        response = response.header(name, value);
    }
    let body = match served.body {
        ServedBody::Bytes(bytes) => Body::from(bytes),
        ServedBody::Stream(mut pieces) => {
            Body::from_stream(stream::poll_fn(move |context| pieces.poll_recv(context)))
        }
    };
    response.body(body).expect("the store gives headers that are well-formed")
}
