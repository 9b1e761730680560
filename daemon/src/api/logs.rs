//! Containers: waiting, logs, statistics, attaching. The answer's head is sent at once.

use axum::body::Body;
use axum::extract::{Path, State};
use futures_util::{FutureExt, stream};
use http::Request;
use serde_json::json;

use executor::shims::Streams;

use super::error::{Answer, Failure};
use super::hijack::{self, Source};
use super::request::{ApiVersion, Params};
use super::{Api, reply};
use crate::engine::{AttachOptions, LogOptions, WaitCondition};

/// `POST /containers/{id}/wait`
pub async fn wait(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    let condition = match params.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(Failure::bad(format!("invalid condition: {other:?}"))),
    };
    let waiting = api.engine().wait(&id, condition).await?;
    let answer = waiting.map(|outcome| match outcome.error {
        None => json!({"StatusCode": outcome.status_code}),
        Some(message) => json!({"StatusCode": outcome.status_code, "Error": {"Message": message}}),
    });
    Ok(reply::lines(stream::once(answer)))
}

/// `GET /containers/{id}/logs`
pub async fn logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    version: ApiVersion,
    params: Params,
) -> Answer {
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::bad("Bad parameters: you must choose at least one stream"));
    }
    let logs = api
        .engine()
        .logs(
            &id,
            LogOptions {
                follow: params.flag("follow"),
                stdout,
                stderr,
                since: params.time("since")?,
                until: params.time("until")?,
                timestamps: params.flag("timestamps"),
                details: params.flag("details"),
                // As in Docker, what is no number is all.
                tail: params.get("tail").and_then(|text| text.parse().ok()),
            },
        )
        .await?;
    Ok(reply::stream(hijack::content_type(logs.tty, version), logs.stream))
}

/// `GET /containers/{id}/stats`
pub async fn stats(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    let samples = api.engine().stats(&id, params.flag_or("stream", true), params.flag("one-shot")).await?;
    Ok(reply::lines(samples))
}

/// `POST /containers/{id}/attach`
pub async fn attach(
    State(api): State<Api>,
    Path(id): Path<String>,
    version: ApiVersion,
    params: Params,
    request: Request<Body>,
) -> Answer {
    let attach = api
        .engine()
        .attach(
            &id,
            AttachOptions {
                logs: params.flag("logs"),
                stream: params.flag("stream"),
                streams: Streams {
                    stdin: params.flag("stdin"),
                    stdout: params.flag("stdout"),
                    stderr: params.flag("stderr"),
                },
                detach_keys: params.text("detachKeys"),
            },
        )
        .await?;
    Ok(hijack::respond(&api, request, version, Source::Process(attach)))
}
