//! Containers: everything that is answered with one JSON document or none.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use proto_api::models;
use serde_json::{Value, json};

use super::error::{Answer, Failure};
use super::request::{Json, Params, from_value};
use super::{Api, create as create_body, reply};
use crate::engine::ListOptions;

fn no_content() -> Response {
    reply::empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/create`
pub async fn create(State(api): State<Api>, params: Params, Json(body): Json) -> Answer {
    let body = create_body::body(body)?;
    let name = params.get("name").map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    let created = api.engine().create(name, body, params.text("platform")).await?;
    Ok(reply::json(StatusCode::CREATED, &json!({"Id": created.id, "Warnings": created.warnings})))
}

/// `GET /containers/json`
pub async fn list(State(api): State<Api>, params: Params) -> Answer {
    let limit = params.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let options = ListOptions {
        all: params.flag("all"),
        limit: limit.filter(|&limit| limit > 0),
        size: params.flag("size"),
        filters: params.filters()?,
    };
    Ok(reply::ok(&api.engine().list(options).await?))
}

/// `GET /containers/{id}/json`
pub async fn inspect(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    Ok(reply::ok(&api.engine().inspect(&id, params.flag("size")).await?))
}

/// `POST /containers/{id}/start`
pub async fn start(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    if params.get("checkpoint").is_some() {
        return Err(Failure::unsupported("starting from a checkpoint"));
    }
    api.engine().start(&id, params.text("detachKeys")).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/stop`
pub async fn stop(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    api.engine().stop(&id, params.number("t")?, params.text("signal")).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/restart`
pub async fn restart(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    api.engine().restart(&id, params.number("t")?, params.text("signal")).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/kill`
pub async fn kill(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    api.engine().kill(&id, params.text("signal")).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/pause`
pub async fn pause(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    api.engine().pause(&id).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/unpause`
pub async fn unpause(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    api.engine().unpause(&id).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/rename`
pub async fn rename(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    let Some(name) = params.get("name") else {
        return Err(Failure::bad("Neither old nor new names may be empty"));
    };
    api.engine().rename(&id, name.strip_prefix('/').unwrap_or(name)).await?;
    Ok(no_content())
}

/// `POST /containers/{id}/update`
pub async fn update(State(api): State<Api>, Path(id): Path<String>, Json(body): Json) -> Answer {
    let body: models::ContainerUpdateBody = from_value(body)?;
    let warnings = api.engine().update(&id, body).await?;
    Ok(reply::ok(&json!({"Warnings": warnings})))
}

/// `POST /containers/{id}/resize`
pub async fn resize(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    let (rows, columns) = params.size()?;
    api.engine().resize(&id, rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `GET /containers/{id}/top`
pub async fn top(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    Ok(reply::ok(&api.engine().top(&id, params.get("ps_args")).await?))
}

/// `GET /containers/{id}/changes`
pub async fn changes(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let changes = api.engine().changes(&id).await?;
    Ok(reply::ok(&if changes.is_empty() { Value::Null } else { json!(changes) }))
}

/// `DELETE /containers/{id}`
pub async fn remove(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    if params.flag("link") {
        return Err(Failure::unsupported("removing links"));
    }
    api.engine().remove(&id, params.flag("force"), params.flag("v")).await?;
    Ok(no_content())
}

/// `POST /containers/prune`
pub async fn prune(State(api): State<Api>, params: Params) -> Answer {
    Ok(reply::ok(&api.engine().prune(params.filters()?).await?))
}
