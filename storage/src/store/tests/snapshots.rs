//! Writable layers and containers' rows.

use super::{Place, assert_sound, diff_id, image};
use crate::{ContainerRow, Store};

fn row(id: &str, name: &str) -> ContainerRow {
    ContainerRow { id: id.into(), name: name.into(), config: "{}".into(), state: "\"created\"".into() }
}

#[tokio::test]
async fn the_topmost_layer_comes_first_and_none_twice() {
    let place = Place::new();
    let store = place.open().await;
    let image = image(&store, &["a", "b", "a"], &["app"]).await;
    assert_eq!(image.size_bytes, 2);
    store.insert_container(&row("c1", "one")).await.expect("insert");
    let mount = store.prepare_snapshot("c1", &image.id).await.expect("snapshot");
    let fs = |content: &str| {
        place.root().canonicalize().unwrap().join("layers").join(diff_id(content).hex()).join("fs")
    };
    assert_eq!(mount.lower, [fs("a"), fs("b")]);
    assert!(mount.upper.is_dir() && mount.work.is_dir());
    assert_eq!(store.root_mount("c1", &image.id).expect("again"), mount);
    store.prepare_snapshot("c1", &image.id).await.expect_err("it exists");
    std::fs::write(mount.upper.join("new"), "12345").unwrap();
    assert_eq!(store.snapshot_size_bytes("c1").await.expect("size"), 5);
    assert_sound(store).await;
}

#[tokio::test]
async fn an_id_is_never_a_path() {
    let place = Place::new();
    let store = place.open().await;
    let image = image(&store, &["a"], &["app"]).await;
    for id in ["", "..", "../x", "a/b", "/etc"] {
        store.prepare_snapshot(id, &image.id).await.expect_err(id);
        store.remove_snapshot(id).await.expect_err(id);
    }
}

#[tokio::test]
async fn a_container_outlives_its_image() {
    let place = Place::new();
    let store = place.open().await;
    let image = image(&store, &["a", "b"], &["app"]).await;
    store.insert_container(&row("c1", "one")).await.expect("insert");
    let mount = store.prepare_snapshot("c1", &image.id).await.expect("snapshot");
    store.remove_image("app", true, &[]).await.expect("by force");
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.root_mount("c1", &image.id).expect("the layers are kept"), mount);
    assert!(mount.lower.iter().all(|l| l.is_dir()));
    store.delete_container("c1").await.expect("delete");
    store.remove_snapshot("c1").await.expect("remove");
    store.remove_snapshot("c1").await.expect("gone already");
    store.inner.trash.emptied().await;
    assert!(!mount.lower[0].exists(), "the last container took the layers along");
    assert_sound(store).await;
}

#[tokio::test]
async fn names_of_containers_are_unique() {
    let place = Place::new();
    let store = place.open().await;
    assert!(store.insert_container(&row("c2", "two")).await.unwrap());
    assert!(store.insert_container(&row("c1", "one")).await.unwrap());
    assert!(!store.insert_container(&row("c3", "one")).await.unwrap());
    assert!(!store.update_container("c1", "two", "{}").await.unwrap());
    assert!(store.update_container("c1", "uno", "{\"a\":1}").await.unwrap());
    store.update_container_state("c1", "\"running\"").await.unwrap();
    store.delete_container("c2").await.unwrap();
    store.close().await;
    drop(store);
    let rows = place.open().await.containers().await.unwrap();
    let expected =
        ContainerRow { config: "{\"a\":1}".into(), state: "\"running\"".into(), ..row("c1", "uno") };
    assert_eq!(rows, [expected]);
}

#[tokio::test]
async fn what_belongs_to_no_container_is_swept() {
    let place = Place::new();
    let store = place.open().await;
    let image = image(&store, &["a"], &["app"]).await;
    store.prepare_snapshot("ghost", &image.id).await.expect("snapshot");
    std::fs::create_dir(store.container_dir("ghost")).unwrap();
    std::fs::create_dir(store.inner.paths.snapshot("stray")).unwrap();
    std::fs::create_dir(store.inner.paths.layers().join("0".repeat(64))).unwrap();
    std::fs::create_dir(store.inner.paths.staging().join("half")).unwrap();
    store.close().await;
    drop(store);
    let findings = Store::check_offline(place.root()).await.expect("check");
    let text = findings.iter().map(|f| f.what.as_str()).collect::<Vec<_>>().join("\n");
    for what in ["snapshots/ghost", "containers/ghost", "snapshots/stray", "layers/0000", "staging/half"] {
        assert!(text.contains(what), "{what} in {text}");
    }
    assert_sound(place.open().await).await;
}
