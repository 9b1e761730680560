//! A store that serves, and one that pulls from it.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use storage::{ServedBody, Store};

use crate::bench::{names, options, pull, request};
use crate::fake::Fake;
use crate::image::{Packing, build, digest, layer, noise};

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(store: &Store, request: Request<Incoming>) -> Response<Body> {
    let range = request.headers().get("range").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let served = store.serve(request.method().as_str(), request.uri().path(), range.as_deref()).await;
    let mut response = Response::builder().status(served.status);
    for (name, value) in served.headers {
        response = response.header(name, value);
    }
    let body = match served.body {
        ServedBody::Bytes(bytes) => {
            let body = http_body_util::BodyExt::map_err(Full::new(bytes), |never| match never {});
            http_body_util::BodyExt::boxed_unsync(body)
        }
        ServedBody::Stream(mut stream) => {
            let stream = futures_util::stream::poll_fn(move |context| stream.poll_recv(context));
            http_body_util::BodyExt::boxed_unsync(StreamBody::new(stream.map(|piece| piece.map(Frame::data))))
        }
    };
    response.body(body).expect("a response")
}

/// Serves a store; gives `127.0.0.1:port`.
async fn start(store: Store) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let host = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let store = store.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let store = store.clone();
                    async move { Ok::<_, io::Error>(answer(&store, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connection.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    host
}

/// Digest of the manifest that the second store got.
async fn round_trip(keep_blobs: bool) -> String {
    let fake = Fake::start().await;
    let built =
        build(vec![noise(40, 500 << 10), layer(&[("etc/motd", b"hello"), ("b", b"c")], Packing::Zstd)]);
    built.put(&fake, "app", "1");
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut settings = options(root.path());
    settings.keep_blobs = keep_blobs;
    let store = Store::open(settings).await.expect("a new store");
    pull(&store, request(&fake.reference("app:1"))).await.image();
    let host = start(store).await;

    let second_root = tempfile::tempdir().expect("a temporary directory");
    let second = Store::open(options(second_root.path())).await.expect("a new store");
    let image = pull(&second, request(&format!("{host}/app:1"))).await.image();
    assert_eq!(image.id.as_str(), built.id());
    assert_eq!(names(second_root.path(), "layers").len(), 2);
    let missing = pull(&second, request(&format!("{host}/none"))).await.error();
    assert!(missing.contains("manifest unknown"), "{missing}");
    let images =
        second.pull_all_tags(request(&format!("{host}/app")), tokio::sync::mpsc::channel(64).0).await;
    assert_eq!(images.expect("all tags come").len(), 1);
    image.manifest_digest.clone().expect("it was pulled")
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_without_blobs_are_served_under_their_diff_ids() {
    let served = round_trip(false).await;
    assert_eq!(served, round_trip(false).await, "the manifest depends on the image alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_blobs_are_served_as_they_came() {
    let built =
        build(vec![noise(40, 500 << 10), layer(&[("etc/motd", b"hello"), ("b", b"c")], Packing::Zstd)]);
    assert_eq!(round_trip(true).await, built.manifest_digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reading_and_only_of_the_repository() {
    let fake = Fake::start().await;
    let one = build(vec![layer(&[("a", b"1")], Packing::Gzip)]);
    let two = build(vec![layer(&[("b", b"2")], Packing::Gzip)]);
    one.put(&fake, "one", "1");
    two.put(&fake, "two", "1");
    let root = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(options(root.path())).await.expect("a new store");
    for name in ["one:1", "two:1"] {
        pull(&store, request(&fake.reference(name))).await.image();
    }
    let config = |name: &str, id: &str| format!("/v2/{name}/blobs/{id}");
    assert_eq!(store.serve("GET", &config("one", &one.id()), None).await.status, 200);
    assert_eq!(store.serve("GET", &config("one", &two.id()), None).await.status, 404);
    assert_eq!(store.serve("GET", &config("one", "sha256:../../ctl.db"), None).await.status, 404);
    assert_eq!(store.serve("PUT", &config("one", &one.id()), None).await.status, 405);
    let tar = digest(&one.layers[0].tar);
    let size = one.layers[0].tar.len();
    let part = store.serve("GET", &config("one", &tar), Some("bytes=512-")).await;
    assert_eq!(part.status, 206);
    let ServedBody::Stream(mut stream) = part.body else { panic!("a layer is a stream") };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.recv().await {
        bytes.extend(piece.expect("it is whole"));
    }
    assert_eq!(bytes, one.layers[0].tar[512..]);
    assert_eq!(store.serve("GET", &config("one", &tar), Some(&format!("bytes={size}-"))).await.status, 416);
}
