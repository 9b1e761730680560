//! The Docker Engine API over HTTP.
//!
//! ```text
//! connection ─→ Service::handle ─→ version (strip /v1.NN) ─→ Router ─→ handler ─→ engine, store
//! ```
//!
//! [`Service`] runs each handler in a task of its own: a panic becomes a 500 and the daemon lives on.
//! When the client goes away, the tasks of GET requests and all streaming bodies end; the tasks of
//! requests that change something run to their end.

mod archives;
mod containers;
mod create;
mod error;
mod exec;
mod glob;
mod hijack;
mod images;
mod logs;
mod others;
mod pull;
mod registries;
mod reply;
mod request;
mod system;
mod version;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{any, delete, get, post};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use storage::Store;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;

use self::error::Failure;
use crate::config::Config;
use crate::engine::Engine;
use crate::server::{Gone, Handler};

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    engine: Engine,
    store: Store,
    config: Config,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Api {
    /// `shutdown` ends hijacked connections; these run on `tasks`.
    pub fn new(
        engine: Engine,
        store: Store,
        config: Config,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Inner { engine, store, config, shutdown, tasks }))
    }

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn config(&self) -> &Config {
        &self.0.config
    }
}

/// The API as a service of [`crate::server`].
#[derive(Clone)]
pub struct Service {
    router: Router,
}

impl Service {
    /// Over an engine and a store.
    pub fn new(api: Api) -> Self {
        Self { router: router(api) }
    }

    async fn route(self, mut request: Request<Body>) -> Response<Body> {
        if let Err(failure) = version::strip(&mut request) {
            return failure.into_response();
        }
        match self.router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Handler for Service {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let gone = request.extensions().get::<Gone>().map(|gone| gone.0.clone()).unwrap_or_default();
        let reads_only = matches!(*request.method(), Method::GET | Method::HEAD);
        let what = format!("{} {}", request.method(), request.uri().path());
        tracing::debug!("{what}");
        let task = tokio::spawn(self.clone().route(request));
        let outcome = if reads_only {
            let task = AbortOnDropHandle::new(task);
            tokio::select! {
                outcome = task => outcome,
                () = gone.cancelled() => return reply::empty(http::StatusCode::BAD_REQUEST),
            }
        } else {
            task.await
        };
        let response = outcome.unwrap_or_else(|error| {
            tracing::error!("{what}: the handler failed: {error}");
            Failure::internal(format!("internal error in {what}; the daemon's log says more")).into_response()
        });
        let mut response = response.map(|body| UntilGone::wrap(body, gone));
        let headers = response.headers_mut();
        headers.insert("api-version", HeaderValue::from_static(proto_api::API_VERSION));
        headers.insert("docker-experimental", HeaderValue::from_static("false"));
        headers.insert("ostype", HeaderValue::from_static("linux"));
        headers.insert(
            header::SERVER,
            HeaderValue::from_static(concat!("ctl/", env!("CARGO_PKG_VERSION"), " (linux)")),
        );
        response
    }
}

/// A streaming body that breaks off once the client is gone.
struct UntilGone {
    body: Body,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl UntilGone {
    fn wrap(body: Body, gone: CancellationToken) -> Body {
        if body.size_hint().exact().is_some() {
            return body;
        }
        Body::new(Self { body, gone: Box::pin(gone.cancelled_owned()) }.boxed_unsync())
    }
}

impl hyper::body::Body for UntilGone {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other("the client is gone")))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn not_found() -> Failure {
    Failure::not_found("page not found")
}

fn router(api: Api) -> Router {
    let containers = Router::new()
        .route("/containers/create", post(containers::create))
        .route("/containers/json", get(containers::list))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/wait", post(logs::wait))
        .route("/containers/{id}/stats", get(logs::stats))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/attach", post(logs::attach))
        .route("/containers/{id}/attach/ws", get(others::attach_websocket))
        .route("/containers/{id}/changes", get(containers::changes))
        .route("/containers/{id}/export", get(archives::export))
        .route("/containers/{id}/archive", any(others::archive))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/commit", post(archives::commit));
    let images = Router::new()
        .route("/images/json", get(images::list))
        .route("/images/create", post(pull::create))
        .route("/images/prune", post(archives::prune))
        .route("/images/search", get(registries::search))
        .route("/images/get", get(archives::save))
        .route("/images/load", post(archives::load))
        .route("/images/{*rest}", get(images::get).post(images::post).delete(images::delete))
        .route("/distribution/{*rest}", get(others::distribution));
    let system = Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/auth", post(registries::auth))
        .route("/system/df", get(archives::disk_usage));
    Router::new()
        .merge(containers)
        .merge(images)
        .merge(system)
        .merge(others::router())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(api)
}
