//! A container's writable layer becomes a layer of a new image.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value, json};

use super::channel::stream_of;
use super::import::{new_name, now_text};
use super::tree::{Form, write_tree};
use super::{ArchiveError, CommitRequest, changes};
use crate::{ImageId, Store, StoreError};

/// The tar of a tree without entries: no layer is made of it.
const EMPTY_DIFF_ID: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What an image keeps of a container's configuration; the rest is about the container.
const IMAGE_KEYS: [&str; 14] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Healthcheck",
    "OnBuild",
    "Shell",
    "ArgsEscaped",
];

impl Store {
    /// Docker's `commit`: the container's writable layer becomes a layer on top of its image; none is
    /// added where nothing was changed. The caller pauses the container where that is wanted.
    pub async fn commit(&self, request: CommitRequest) -> Result<ImageId, ArchiveError> {
        let names = new_name(request.reference.as_deref())?;
        let parent = self.image(request.parent.as_str())?;
        let mut config = image_config(&request.config);
        changes::apply(&mut config, &request.changes)?;
        let lease = self.inner.layers.lease();
        for diff_id in parent.layers() {
            lease.hold(diff_id);
        }
        let upper = self.root_mount(&request.container, &parent.id)?.upper;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory: OwnedFd =
            rustix::fs::open(&upper, flags, Mode::empty()).map_err(StoreError::io(&upper))?;
        let mut tar = stream_of(move |out| write_tree(&directory, vec![], Form::Layer, out));
        let body = futures_util::stream::poll_fn(move |context| tar.poll_recv(context));
        let diff_id = self.new_layer(body, &lease).await?;

        let created = now_text();
        let empty = diff_id.as_str() == EMPTY_DIFF_ID;
        let mut document: Map<String, Value> = serde_json::from_slice(&parent.raw_config)
            .map_err(|error| StoreError::damaged(format!("image configuration {}: {error}", parent.id)))?;
        // About the parent's own making.
        for key in ["container", "container_config", "comment", "id", "parent"] {
            document.remove(key);
        }
        let mut entry = json!({"created": created});
        for (key, value) in
            [("author", &request.author), ("created_by", &request.created_by), ("comment", &request.comment)]
        {
            if !value.is_empty() {
                entry[key] = value.as_str().into();
            }
        }
        if empty {
            entry["empty_layer"] = true.into();
        } else {
            let diff_ids = document.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
            if let Some(list) = diff_ids.and_then(Value::as_array_mut) {
                list.push(diff_id.as_str().into());
            }
        }
        match document.get_mut("history").and_then(Value::as_array_mut) {
            Some(history) => history.push(entry),
            None => drop(document.insert("history".to_owned(), json!([entry]))),
        }
        document.insert("config".to_owned(), config.into());
        document.insert("created".to_owned(), created.into());
        if !request.author.is_empty() {
            document.insert("author".to_owned(), request.author.into());
        }
        if !request.comment.is_empty() {
            document.insert("comment".to_owned(), request.comment.into());
        }
        self.put_made(&document.into(), names, Some(parent.id.clone()), &lease).await
    }
}

fn image_config(config: &Value) -> Map<String, Value> {
    let keep = |key: &str| config.get(key).filter(|value| !value.is_null());
    IMAGE_KEYS.iter().filter_map(|key| Some(((*key).to_owned(), keep(key)?.clone()))).collect()
}
