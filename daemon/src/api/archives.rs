//! Images as archives, images from containers, and how much disk it all takes.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, State};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use proto_api::models;
use serde_json::{Value, json};
use storage::archive::{ArchiveError, ArchiveStream, ImportOptions, Loaded};
use storage::{PruneScope, Removal};
use tokio::sync::mpsc;

use super::error::{Answer, Failure};
use super::images::{Selection, emit};
use super::pull::Work;
use super::request::{OptionalJson, Params};
use super::{Api, create, reply};
use crate::engine::{CommitOptions, ListOptions};

/// Messages that may wait for the client.
const WAITING: usize = 64;

fn no_platform(params: &Params, what: &str) -> Result<(), Failure> {
    match params.get("platform") {
        None => Ok(()),
        Some(_) => Err(Failure::unsupported(what)),
    }
}

fn tar(mut archive: ArchiveStream) -> axum::response::Response {
    reply::stream("application/x-tar", stream::poll_fn(move |context| archive.poll_recv(context)))
}

/// `GET /containers/{id}/export`
pub async fn export(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(tar(api.engine().export(&id).await?))
}

async fn save_names(api: &Api, names: &[String], params: &Params) -> Answer {
    no_platform(params, "saving one platform of an image")?;
    let archive = api.store().save(names).await?;
    for name in names {
        if let Ok(image) = api.store().image(name) {
            emit(api, "save", image.id.as_str(), name);
        }
    }
    Ok(tar(archive))
}

/// `GET /images/get`
pub async fn save(State(api): State<Api>, params: Params) -> Answer {
    let names: Vec<String> =
        params.values("names").flat_map(|names| names.split(',')).map(str::to_owned).collect();
    if names.iter().all(String::is_empty) {
        return Err(Failure::bad("no image names were given"));
    }
    save_names(&api, &names, &params).await
}

/// `GET /images/{name}/get`
pub async fn save_one(api: &Api, name: &str, params: &Params) -> Answer {
    save_names(api, &[name.to_owned()], params).await
}

fn input(request: Request<Body>) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Unpin {
    request.into_body().into_data_stream().map(|piece| piece.map_err(std::io::Error::other))
}

/// `POST /images/load`
pub async fn load(State(api): State<Api>, params: Params, request: Request<Body>) -> Answer {
    no_platform(&params, "loading one platform of an image")?;
    let quiet = params.flag("quiet");
    let (sink, messages) = mpsc::channel(WAITING);
    let work = async move {
        let sink = if quiet { mpsc::channel(1).0 } else { sink };
        let loaded = api.store().load(input(request), sink).await?;
        let lines = loaded.into_iter().map(|loaded| {
            let (text, name) = match loaded {
                Loaded::Name(name) => (format!("Loaded image: {name}\n"), name),
                Loaded::Id(id) => (format!("Loaded image ID: {id}\n"), id),
            };
            emit(&api, "load", &name, &name);
            json!({"stream": text})
        });
        Ok(lines.collect())
    };
    Work::new(Box::pin(work), messages).answer().await
}

/// `POST /images/create?fromSrc=`
pub async fn import(api: Api, params: Params, source: String, request: Request<Body>) -> Answer {
    if source != "-" {
        return Err(Failure::unsupported("importing from a URL"));
    }
    let reference = params.get("repo").map(|repository| match params.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    let options = ImportOptions {
        reference,
        message: params.text("message"),
        platform: params.text("platform"),
        changes: params.values("changes").map(str::to_owned).collect(),
    };
    let (sink, messages) = mpsc::channel(1);
    let work = async move {
        let id = api.store().import(input(request), options).await?;
        drop(sink);
        emit(&api, "import", id.as_str(), id.as_str());
        Ok(vec![json!({"status": id.as_str()})])
    };
    Work::new(Box::pin(work), messages).answer().await
}

/// `POST /commit`
pub async fn commit(State(api): State<Api>, params: Params, request: Request<Body>) -> Answer {
    let Some(container) = params.text("container") else {
        return Err(Failure::bad("no container was given"));
    };
    let body = OptionalJson::read(request).await?.0;
    if body.as_ref().and_then(Value::as_object).is_some_and(|body| !body.is_empty()) {
        let given = create::body(body.unwrap_or_default())?;
        if given != models::ContainerCreateBody::default() {
            return Err(Failure::unsupported("commit with a configuration in the body; use changes"));
        }
    }
    let reference = params.get("repo").map(|repository| match params.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    let options = CommitOptions {
        reference,
        comment: params.text("comment").unwrap_or_default(),
        author: params.text("author").unwrap_or_default(),
        pause: params.flag_or("pause", true),
        changes: params.values("changes").flat_map(str::lines).map(str::to_owned).collect(),
    };
    let id = api.engine().commit(&container, options).await?;
    Ok(reply::json(StatusCode::CREATED, &json!({"Id": id.as_str()})))
}

/// `POST /images/prune`: images without a tag, or with `dangling=false` all that no container uses.
pub async fn prune(State(api): State<Api>, params: Params) -> Answer {
    let filters = params.filters()?.only(&["dangling", "label", "label!", "until"])?;
    let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
    let mut kept = proto_api::filters::Filters::default();
    for name in ["label", "label!", "until"] {
        filters.get(name).iter().for_each(|value| kept.add(name, value));
    }
    let selection = Selection::new(&api, &kept)?;
    let scope = if only_dangling { PruneScope::Dangling } else { PruneScope::Unused };
    let pruned = api
        .store()
        .prune_images(scope, |image| selection.admits(image), |image| api.engine().image_users(image))
        .await?;
    let deleted: Vec<Value> = pruned
        .removals
        .iter()
        .map(|removal| match removal {
            Removal::Untagged(name) => json!({"Untagged": name}),
            Removal::Deleted(id) => {
                emit(&api, "delete", id, id);
                json!({"Deleted": id})
            }
        })
        .collect();
    Ok(reply::ok(&json!({
        "ImagesDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) },
        "SpaceReclaimed": pruned.reclaimed_bytes,
    })))
}

/// `GET /system/df`
pub async fn disk_usage(State(api): State<Api>, params: Params) -> Answer {
    let wanted: Vec<&str> = params.values("type").collect();
    for kind in &wanted {
        if !matches!(*kind, "container" | "image" | "volume" | "build-cache") {
            return Err(Failure::bad(format!("unknown object type: {kind}")));
        }
    }
    let wants = |kind: &str| wanted.is_empty() || wanted.contains(&kind);
    let usage = api.store().disk_usage().await?;
    let mut answer = json!({"BuilderSize": 0});
    if wants("image") {
        let by_id: HashMap<_, _> = usage.images.iter().map(|image| (&image.id, image)).collect();
        let images = api.store().images();
        let summaries: Vec<Value> = images
            .iter()
            .map(|image| {
                let used = by_id.get(&image.id);
                let users = api.engine().image_users(&image.id).len();
                let mut summary = super::images::summary(image);
                summary["Size"] = json!(used.map_or(image.size_bytes, |used| used.disk_bytes));
                summary["SharedSize"] = json!(used.map_or(0, |used| used.shared_bytes));
                summary["Containers"] = json!(users);
                summary
            })
            .collect();
        answer["LayersSize"] = json!(usage.layers_bytes + usage.blobs_bytes);
        answer["Images"] = json!(summaries);
    }
    if wants("container") {
        let sizes: HashMap<&str, u64> =
            usage.snapshots.iter().map(|(id, bytes)| (id.as_str(), *bytes)).collect();
        let mut containers = api.engine().list(ListOptions { all: true, ..ListOptions::default() }).await?;
        for container in &mut containers {
            let bytes = container.id.as_deref().and_then(|id| sizes.get(id)).copied().unwrap_or(0);
            container.size_rw = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        answer["Containers"] = json!(containers);
    }
    if wants("volume") {
        answer["Volumes"] = json!([]);
    }
    if wants("build-cache") {
        answer["BuildCache"] = json!([]);
    }
    Ok(reply::ok(&answer))
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Lookup(error) => error.into(),
            ArchiveError::Invalid(_) | ArchiveError::OverBudget(_) => Self::bad(error.to_string()),
            ArchiveError::Local(message) => Self::internal(message),
            ArchiveError::Store(error) => error.into(),
        }
    }
}
