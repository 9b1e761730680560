//! Endpoints of Docker's that are not there yet, each with an answer that says so, and the few things
//! about networks and volumes that are true without any.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{any, get};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::{Answer, Failure};
use super::request::Params;
use super::{Api, reply};

fn unsupported(what: &str) -> Answer {
    Err(Failure::unsupported(what))
}

/// `GET /containers/{id}/attach/ws`
pub async fn attach_websocket() -> Answer {
    unsupported("attaching over a WebSocket")
}

/// `/containers/{id}/archive`
pub async fn archive() -> Answer {
    unsupported("copying files to and from containers")
}

/// `GET /distribution/{name}/json`
pub async fn distribution() -> Answer {
    unsupported("looking an image up in its registry")
}

/// The rest.
pub fn router() -> Router<Api> {
    let mut router = Router::new()
        .route("/networks", get(networks))
        .route("/networks/{id}", get(network).delete(|| async { unsupported("removing networks") }))
        .route("/volumes", get(volumes))
        .route("/volumes/{name}", get(volume).delete(volume).put(volume));
    for (path, what) in [
        ("/networks/create", "creating networks"),
        ("/networks/prune", "pruning networks"),
        ("/networks/{id}/connect", "connecting networks"),
        ("/networks/{id}/disconnect", "disconnecting networks"),
        ("/volumes/create", "creating volumes"),
        ("/volumes/prune", "pruning volumes"),
        ("/build", "build"),
        ("/build/prune", "pruning the build cache"),
        ("/build/cancel", "build"),
        ("/session", "build"),
        ("/grpc", "build"),
        ("/containers/{id}/checkpoints", "checkpoints"),
        ("/containers/{id}/checkpoints/{checkpoint}", "checkpoints"),
        ("/plugins", "plugins"),
        ("/plugins/{*rest}", "plugins"),
        ("/swarm", "swarm mode"),
        ("/swarm/{*rest}", "swarm mode"),
        ("/nodes", "swarm mode"),
        ("/nodes/{*rest}", "swarm mode"),
        ("/services", "swarm mode"),
        ("/services/{*rest}", "swarm mode"),
        ("/tasks", "swarm mode"),
        ("/tasks/{*rest}", "swarm mode"),
        ("/secrets", "swarm mode"),
        ("/secrets/{*rest}", "swarm mode"),
        ("/configs", "swarm mode"),
        ("/configs/{*rest}", "swarm mode"),
    ] {
        router = router.route(path, any(move || async move { unsupported(what) }));
    }
    router
}

/// The two networks that need no driver.
const NETWORKS: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

fn network_id(name: &str) -> String {
    hex::encode(Sha256::digest(format!("ctl network {name}")))
}

fn network_document(name: &str, driver: &str) -> Value {
    json!({
        "Name": name, "Id": network_id(name), "Created": "0001-01-01T00:00:00Z", "Scope": "local",
        "Driver": driver, "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": null},
        "Internal": false, "Attachable": false, "Ingress": false,
        "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": {}, "Options": {}, "Labels": {}
    })
}

async fn networks(params: Params) -> Answer {
    let filters = params.filters()?.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let found: Vec<Value> = NETWORKS
        .iter()
        .filter(|(name, driver)| {
            filters.any("name", |wanted| name.contains(wanted.as_str()))
                && filters.any("id", |wanted| network_id(name).starts_with(wanted.as_str()))
                && filters.any("driver", |wanted| driver == wanted)
                && filters.any("scope", |wanted| wanted == "local")
                && filters.any("type", |wanted| wanted == "builtin")
                && filters.any("dangling", |wanted| matches!(wanted.as_str(), "0" | "false"))
                && !filters.has("label")
        })
        .map(|(name, driver)| network_document(name, driver))
        .collect();
    Ok(reply::ok(&found))
}

async fn network(Path(wanted): Path<String>) -> Answer {
    let found = NETWORKS
        .iter()
        .find(|(name, _)| *name == wanted || (wanted.len() >= 3 && network_id(name).starts_with(&wanted)));
    match found {
        Some((name, driver)) => Ok(reply::ok(&network_document(name, driver))),
        None => Err(Failure::not_found(format!("network {wanted} not found"))),
    }
}

async fn volumes(params: Params) -> Answer {
    params.filters()?.only(&["dangling", "driver", "label", "name"])?;
    Ok(reply::ok(&json!({"Volumes": [], "Warnings": null})))
}

async fn volume(State(_api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    Err(Failure::not_found(format!("get {name}: no such volume")))
}
