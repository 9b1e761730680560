//! Further processes in running containers.

use axum::body::Body;
use axum::extract::{Path, State};
use http::{Request, StatusCode};
use proto_api::models;
use serde_json::{Value, json};

use super::error::{Answer, Failure};
use super::hijack::{self, Source};
use super::request::{ApiVersion, Json, OptionalJson, Params, from_value};
use super::{Api, reply};
use crate::engine::{Error, ExecStartOptions};

/// `POST /containers/{id}/exec`
pub async fn create(State(api): State<Api>, Path(id): Path<String>, Json(mut body): Json) -> Answer {
    if let Some(command) = body.get_mut("Cmd")
        && command.is_string()
    {
        *command = json!([command.take()]);
    }
    let config: models::ExecConfig = from_value(body)?;
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::bad("No exec command specified"));
    }
    let id = api.engine().exec_create(&id, config).await?;
    Ok(reply::json(StatusCode::CREATED, &json!({"Id": id})))
}

/// `POST /exec/{id}/start`
pub async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
    version: ApiVersion,
    request: Request<Body>,
) -> Answer {
    let (mut parts, body) = request.into_parts();
    // The upgrade stays with the request that the connection is taken over from.
    let on_upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let body = OptionalJson::read(Request::from_parts(parts.clone(), body)).await?.0.unwrap_or(Value::Null);
    let flag = |name: &str| body.get(name).and_then(Value::as_bool).unwrap_or(false);
    let (detach, tty) = (flag("Detach"), flag("Tty"));
    let console_size = match body.get("ConsoleSize") {
        None | Some(Value::Null) => None,
        Some(size) => {
            let [rows, columns]: [u16; 2] = from_value(size.clone())?;
            (rows > 0 && columns > 0).then_some((rows, columns))
        }
    };
    let source = match api.engine().exec_start(&id, ExecStartOptions { detach, console_size }).await {
        Ok(Some(attach)) => Source::Process(attach),
        Ok(None) => return Ok(reply::empty(StatusCode::OK)),
        // Docker has taken the connection over by then; clients read the exit code with inspect.
        Err(Error::Launch { message, .. }) if !detach => Source::Failed { tty, message },
        Err(error) => return Err(error.into()),
    };
    let mut request = Request::from_parts(parts, Body::empty());
    if let Some(on_upgrade) = on_upgrade {
        request.extensions_mut().insert(on_upgrade);
    }
    Ok(hijack::respond(&api, request, version, source))
}

/// `GET /exec/{id}/json`
pub async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(reply::ok(&api.engine().exec_inspect(&id).await?))
}

/// `POST /exec/{id}/resize`
pub async fn resize(State(api): State<Api>, Path(id): Path<String>, params: Params) -> Answer {
    let (rows, columns) = params.size()?;
    api.engine().exec_resize(&id, rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}
