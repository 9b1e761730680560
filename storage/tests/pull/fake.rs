//! A registry in this process that misbehaves on demand.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::image::digest;

type Body = BoxBody<Bytes, io::Error>;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// With the query.
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

/// What a blob does to those who fetch it.
#[derive(Clone, Default)]
pub struct Fault {
    /// Each GET takes the next one: the connection breaks after so many bytes.
    pub cuts: VecDeque<usize>,
    /// After this many bytes it waits until the gate opens.
    pub stall_after: Option<usize>,
    /// Sent instead of the content.
    pub lie: Option<Bytes>,
}

/// An answer that is given once, before all else.
#[derive(Clone)]
pub struct Scripted {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// Who may do what.
#[derive(Clone, Default)]
pub enum Access {
    #[default]
    Open,
    Basic(String),
    /// Tokens come from this URL.
    Bearer {
        realm: String,
        token: String,
    },
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<(String, String), (String, Bytes)>,
    faults: HashMap<String, Fault>,
    scripts: HashMap<String, VecDeque<Scripted>>,
    access: Access,
    no_ranges: bool,
    redirect_blobs: Option<String>,
    /// Answer of `/token`.
    token: Option<String>,
    seen: Vec<Seen>,
}

/// The registry. It stops with the runtime.
#[derive(Clone)]
pub struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    gate: watch::Sender<bool>,
}

impl Fake {
    /// Starts one on a loopback address of its own.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    /// Starts one on an address.
    pub async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a loopback port");
        let fake = Self {
            address: listener.local_addr().expect("it is bound"),
            state: Arc::default(),
            gate: watch::channel(false).0,
        };
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, io::Error>(server.answer(request)) }
                    });
                    // Broken connections are what this server is for.
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        fake
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panicked with it")
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:port/name`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub fn put_blob(&self, bytes: &Bytes) {
        self.lock().blobs.insert(digest(bytes), bytes.clone());
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &Bytes) {
        let mut state = self.lock();
        for name in [tag.to_owned(), digest(bytes)] {
            state.manifests.insert((repository.to_owned(), name), (media_type.to_owned(), bytes.clone()));
        }
    }

    /// Answers 404 for all blobs from now on.
    pub fn forget_blobs(&self) {
        self.lock().blobs.clear();
    }

    pub fn fault(&self, blob: &Bytes, fault: Fault) {
        self.lock().faults.insert(digest(blob), fault);
    }

    pub fn script(&self, path: &str, answer: Scripted) {
        self.lock().scripts.entry(path.to_owned()).or_default().push_back(answer);
    }

    pub fn access(&self, access: Access) {
        self.lock().access = access;
    }

    pub fn no_ranges(&self) {
        self.lock().no_ranges = true;
    }

    pub fn redirect_blobs(&self, base: &str) {
        self.lock().redirect_blobs = Some(base.to_owned());
    }

    pub fn serve_token(&self, token: &str) {
        self.lock().token = Some(token.to_owned());
    }

    /// Lets all go on that wait at [`Fault::stall_after`].
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    pub fn forget_seen(&self) {
        self.lock().seen.clear();
    }

    /// GETs of a blob so far.
    pub fn gets(&self, blob: &Bytes) -> Vec<Seen> {
        let end = format!("/blobs/{}", digest(blob));
        self.seen().into_iter().filter(|seen| seen.method == "GET" && seen.path.ends_with(&end)).collect()
    }

    fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let header =
            |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let path = request.uri().path().to_owned();
        let seen = Seen {
            method: request.method().to_string(),
            path: request.uri().to_string(),
            authorization: header("authorization"),
            range: header("range"),
        };
        let mut state = self.lock();
        state.seen.push(seen.clone());
        if let Some(answer) = state.scripts.get_mut(&path).and_then(VecDeque::pop_front) {
            let mut response = Response::builder().status(answer.status);
            for (name, value) in answer.headers {
                response = response.header(name, value);
            }
            return response.body(full(answer.body)).expect("a response");
        }
        if path == "/token" {
            return match &state.token {
                Some(token) => json(200, serde_json::json!({"token": token}).to_string()),
                None => error(401, "UNAUTHORIZED", "incorrect username or password"),
            };
        }
        if let Some(refusal) = refusal(&state.access, seen.authorization.as_deref()) {
            return refusal;
        }
        if path == "/v2/" {
            return json(200, "{}");
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return error(404, "NAME_UNKNOWN", "no such page") };
        if let Some((repository, name)) = rest.split_once("/manifests/") {
            return match state.manifests.get(&(repository.to_owned(), name.to_owned())) {
                Some((media_type, bytes)) => Response::builder()
                    .header("content-type", media_type)
                    .header("content-length", bytes.len())
                    .header("docker-content-digest", digest(bytes))
                    .body(if seen.method == "HEAD" { full("") } else { full(bytes.clone()) })
                    .expect("a response"),
                None => error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            };
        }
        let Some((_, name)) = rest.split_once("/blobs/") else {
            return error(404, "NAME_UNKNOWN", "no such page");
        };
        if let Some(base) = &state.redirect_blobs {
            return Response::builder()
                .status(307)
                .header("location", format!("{base}{path}"))
                .body(full(""))
                .expect("a response");
        }
        let Some(content) = state.blobs.get(name).cloned() else {
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let ranges = !state.no_ranges;
        let mut fault = state.faults.get(name).cloned().unwrap_or_default();
        if let Some(stored) = state.faults.get_mut(name) {
            stored.cuts.pop_front();
        }
        let content = fault.lie.take().unwrap_or(content);
        self.blob(&content, if ranges { seen.range.as_deref() } else { None }, &fault)
    }

    fn blob(&self, content: &Bytes, range: Option<&str>, fault: &Fault) -> Response<Body> {
        let start =
            range.and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let mut response = Response::builder();
        let content = match start {
            Some(start) if start >= content.len() => {
                return error(416, "RANGE_INVALID", "invalid content range");
            }
            Some(start) => {
                let end = content.len() - 1;
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header("content-range", format!("bytes {start}-{end}/{}", content.len()));
                content.slice(start..)
            }
            None => content.clone(),
        };
        let cut = fault.cuts.front().copied();
        let stall = fault.stall_after;
        let gate = self.gate.subscribe();
        let pieces: Vec<(usize, Bytes)> = (0..content.len())
            .step_by(16 << 10)
            .map(|at| (at, content.slice(at..content.len().min(at + (16 << 10)))))
            .collect();
        let stream = futures_util::stream::iter(pieces).then(move |(at, piece)| {
            let mut gate = gate.clone();
            async move {
                if cut.is_some_and(|cut| at >= cut) {
                    return Err(io::Error::other("cut"));
                }
                if stall.is_some_and(|stall| at >= stall) {
                    gate.wait_for(|open| *open).await.ok();
                }
                // hyper sends what it has when the stream pauses.
                tokio::task::yield_now().await;
                Ok(Frame::data(piece))
            }
        });
        response
            .header("content-length", content.len())
            .body(http_body_util::BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(stream))))))
            .expect("a response")
    }
}

/// A stream behind a lock, since boxed bodies have to be `Sync`.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().expect("polled by one at a time").as_mut().poll_next(context)
    }
}

fn refusal(access: &Access, authorization: Option<&str>) -> Option<Response<Body>> {
    let (wanted, challenge) = match access {
        Access::Open => return None,
        Access::Basic(wanted) => (wanted.clone(), "Basic realm=\"fake\"".to_owned()),
        Access::Bearer { realm, token } => {
            (format!("Bearer {token}"), format!("Bearer realm=\"{realm}\",service=\"fake\""))
        }
    };
    if authorization == Some(wanted.as_str()) {
        return None;
    }
    let mut response = error(401, "UNAUTHORIZED", "authentication required");
    response.headers_mut().insert("www-authenticate", challenge.parse().expect("a header"));
    Some(response)
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn json(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(full(body))
        .expect("a response")
}

fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    json(status, serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string())
}
