//! Looking images up and giving them names.

use super::{Place, assert_sound, config, image};
use crate::{ImageId, LookupError, Store, StoreError};

#[tokio::test]
async fn a_second_daemon_is_told_so() {
    let place = Place::new();
    let store = place.open().await;
    let error = Store::open(super::options(place.root())).await.expect_err("locked");
    assert!(matches!(error, StoreError::Locked(_)));
    assert_eq!(error.to_string(), format!("data root {} is in use by another ctld", place.root().display()));
    drop(store);
    place.open().await;
}

#[tokio::test]
async fn nobody_else_reads_the_data_root() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.open().await;
    let mode = |p: &str| std::fs::metadata(place.root().join(p)).unwrap().permissions().mode() & 0o777;
    for path in ["", "layers", "blobs/sha256", "snapshots", "containers", "staging", "trash"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
}

#[tokio::test]
async fn lookup_follows_docker() {
    let place = Place::new();
    let store = place.open().await;
    let image = image(&store, &["a"], &["busybox", "localhost:5000/a/b:1"]).await;
    let id = image.id.clone();
    let found = |name: &str| store.image(name).map(|i| i.id.clone());
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "docker.io/busybox:latest",
        "localhost:5000/a/b:1",
        id.as_str(),
        id.hex(),
        id.short(),
        &id.as_str()[..12],
    ] {
        assert_eq!(found(name), Ok(id.clone()), "{name}");
    }
    let missing = |name: &str| store.image(name).expect_err(name).to_string();
    assert_eq!(missing("busybox:1"), "No such image: busybox:1");
    assert_eq!(missing("nothing"), "No such image: nothing:latest");
    assert_eq!(missing("localhost:5000/a/b"), "No such image: localhost:5000/a/b:latest");
    assert_eq!(
        missing("Busybox"),
        "invalid reference format: repository name (library/Busybox) must be lowercase"
    );
    let unknown = "f".repeat(64);
    assert_eq!(missing(&unknown), format!("No such image: {unknown}"));
}

#[tokio::test]
async fn a_name_goes_before_an_id_prefix_and_prefixes_must_be_unique() {
    let place = Place::new();
    let store = place.open().await;
    let contents: Vec<String> = (0..17).map(|n| n.to_string()).collect();
    let mut ids = vec![];
    for content in &contents {
        ids.push(image(&store, &[content], &[]).await.id.clone());
    }
    // Of seventeen ids two begin with the same digit.
    let digit = |id: &ImageId| id.hex()[..1].to_owned();
    let twice =
        ids.iter().find(|id| ids.iter().filter(|o| digit(o) == digit(id)).count() > 1).expect("pigeonhole");
    assert!(matches!(store.image(&digit(twice)), Err(LookupError::Ambiguous(_))));
    let prefix = ids[1].hex()[..8].to_owned();
    store.tag(ids[0].as_str(), &prefix).await.expect("tag");
    assert_eq!(store.image(&prefix).expect("by name").id, ids[0]);
}

#[tokio::test]
async fn a_tag_moves_and_survives_a_restart() {
    let place = Place::new();
    let store = place.open().await;
    let digest = format!("app@sha256:{}", "1".repeat(64));
    let old = image(&store, &["a"], &["app:1", &digest]).await.id.clone();
    let new = image(&store, &["a", "b"], &["app:2"]).await.id.clone();
    store.tag("app:2", "app:1").await.expect("tag");
    store.tag(new.short(), "user/other").await.expect("tag by id");
    let look = |store: &Store| {
        let old = store.image(old.as_str()).expect("old");
        let new = store.image("app:1").expect("new");
        (
            old.tags.clone(),
            old.repo_digests.clone(),
            new.tags.clone(),
            new.last_tagged.is_some(),
            new.size_bytes,
        )
    };
    let expected = (
        vec![],
        vec![digest.clone()],
        vec!["app:1".into(), "app:2".into(), "user/other:latest".into()],
        true,
        2,
    );
    assert_eq!(look(&store), expected);
    assert_eq!(store.image(&digest).expect("by digest").id, old);
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(look(&store), expected);
    let refused = store.tag("app:1", &digest).await.expect_err("a digest is no tag");
    assert_eq!(refused.to_string(), "refusing to create a tag with a digest reference");
    assert_sound(store).await;
}

#[tokio::test]
async fn images_come_newest_first_and_raw() {
    let place = Place::new();
    let store = place.open().await;
    for (content, year) in [("a", 2020), ("b", 2024), ("c", 2022)] {
        let lease = store.inner.layers.lease();
        super::commit(&store, &[content], &lease).await;
        let config_raw = config(&[content], &format!("{year}-01-01T00:00:00Z"));
        let new = crate::store::NewImage { config_raw, ..Default::default() };
        store.put_image(new, &lease).await.expect("put");
    }
    let sizes: Vec<_> =
        store.images().iter().map(|i| i.config.created().clone().unwrap()[..4].to_owned()).collect();
    assert_eq!(sizes, ["2024", "2022", "2020"]);
    let newest = &store.images()[0];
    assert_eq!(&*newest.raw_config, config(&["b"], "2024-01-01T00:00:00Z"));
    assert_eq!(store.blob(newest.id.digest()).await.expect("config"), &*newest.raw_config);
}
