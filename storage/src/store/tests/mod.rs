//! Tests of the store as its users and the crate's own modules see it, on a real database and disk.

mod collection;
mod crash;
mod names;
mod removal;
mod snapshots;

use std::path::Path;
use std::sync::Arc;

use crate::images::{Image, ImageId};
use crate::reference::Reference;
use crate::store::NewImage;
use crate::{Digest, Store, StoreOptions};

/// A store in a directory of its own, which can be opened again.
pub(super) struct Place {
    pub directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub async fn open(&self) -> Store {
        open(self.root()).await
    }
}

pub(super) fn options(root: &Path) -> StoreOptions {
    StoreOptions {
        data_root: root.to_owned(),
        unpack_worker: "/nonexistent".into(),
        registries: Default::default(),
        parallel_layers: 2,
        keep_blobs: false,
        disk_budget_bytes: None,
        budget: Default::default(),
    }
}

pub(super) async fn open(root: &Path) -> Store {
    Store::open(options(root)).await.expect("the store opens")
}

/// The diff id that a layer of this content gets here; nothing looks behind it.
pub(super) fn diff_id(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

pub(super) fn config(layers: &[&str], created: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| diff_id(l).as_str().to_owned()).collect();
    serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": created, "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
    })
    .to_string()
    .into_bytes()
}

/// Commits layers of one file each, as a pull does.
pub(super) async fn commit(store: &Store, layers: &[&str], lease: &crate::layers::Lease) {
    for content in layers {
        let staging = store.inner.layers.staging().expect("staging");
        std::fs::create_dir(staging.path().join("fs")).expect("fs");
        std::fs::write(staging.path().join("fs/file"), content).expect("file");
        std::fs::write(staging.path().join("tar.zst"), "recipe").expect("recipe");
        let layers = &store.inner.layers;
        layers.commit(staging, &diff_id(content), content.len() as u64, lease).await.expect("commit");
    }
}

/// An image of some layers under some names.
pub(super) async fn image(store: &Store, layers: &[&str], names: &[&str]) -> Arc<Image> {
    child(store, layers, names, None).await
}

pub(super) async fn child(
    store: &Store,
    layers: &[&str],
    names: &[&str],
    parent: Option<ImageId>,
) -> Arc<Image> {
    let lease = store.inner.layers.lease();
    commit(store, layers, &lease).await;
    let new = NewImage {
        config_raw: config(layers, "2026-01-01T00:00:00Z"),
        manifest: Some((
            "application/vnd.oci.image.manifest.v1+json".into(),
            format!("{layers:?}").into_bytes(),
        )),
        names: names.iter().map(|n| Reference::parse(n).expect("a name").or_latest()).collect(),
        parent,
        ..NewImage::default()
    };
    store.put_image(new, &lease).await.expect("the image is put")
}

/// Fails where the checker finds anything, with the store closed and its work done.
pub(super) async fn assert_sound(store: Store) {
    let root = store.data_root().to_owned();
    let online = store.check().await.expect("check");
    assert_eq!(online, [], "beside the daemon");
    store.close().await;
    drop(store);
    let offline = Store::check_offline(&root).await.expect("offline check");
    assert_eq!(offline, []);
}
