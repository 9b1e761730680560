//! What the collector takes, what it leaves, and whether the figures are true.

use super::{Place, assert_sound, commit, diff_id, image};
use crate::Store;

#[tokio::test]
async fn a_lease_protects_and_finished_layers_wait_for_the_next_try() {
    let place = Place::new();
    let store = place.open().await;
    let lease = store.inner.layers.lease();
    commit(&store, &["a"], &lease).await;
    store.inner.layers.references().layers.get_mut(&diff_id("a")).unwrap().kept_until = 0;
    assert_eq!(store.collect_garbage().await.unwrap().layers, []);
    drop(lease);
    let collected = store.collect_garbage().await.unwrap();
    assert_eq!((collected.layers, collected.layer_bytes), (vec![diff_id("a")], 1));
    assert!(!store.inner.layers.has(&diff_id("a")));

    let lease = store.inner.layers.lease();
    commit(&store, &["b"], &lease).await;
    drop((lease, store));
    let store = place.open().await;
    assert!(store.inner.layers.has(&diff_id("b")), "a pull that was killed goes on from here");
    assert_sound(store).await;
}

#[tokio::test]
async fn two_pulls_of_one_layer_leave_one() {
    let place = Place::new();
    let store = place.open().await;
    let (one, two) = (store.inner.layers.lease(), store.inner.layers.lease());
    let layers = ["a"];
    tokio::join!(commit(&store, &layers, &one), commit(&store, &layers, &two));
    assert!(one.hold(&diff_id("a")));
    assert_sound(store).await;
}

#[tokio::test]
async fn damage_is_found_and_a_new_pull_mends_it() {
    let place = Place::new();
    let store = place.open().await;
    let damaged = image(&store, &["a", "b"], &["app"]).await;
    std::fs::remove_dir_all(store.inner.paths.layer(&diff_id("a"))).unwrap();
    std::fs::write(store.inner.paths.layer_fs(&diff_id("b")).join("file"), "much longer").unwrap();
    let findings = store.check().await.unwrap();
    let text: Vec<_> = findings.iter().map(|f| f.what.as_str()).collect();
    let (a, b) = (diff_id("a"), diff_id("b"));
    assert!(text.contains(&format!("layer {a} has a row and no directory").as_str()), "{text:?}");
    assert!(text.contains(&format!("layer {b} holds 11 bytes of files instead of 1").as_str()), "{text:?}");
    store.close().await;
    drop(store);

    let store = place.open().await;
    assert!(!store.inner.layers.has(&a));
    let error = store.prepare_snapshot("c1", &damaged.id).await.expect_err("damaged");
    assert_eq!(
        error.to_string(),
        format!("layer {a} of image {} is damaged; pull the image again", damaged.id)
    );
    image(&store, &["a", "b"], &["app"]).await;
    std::fs::write(store.inner.paths.layer_fs(&b).join("file"), "b").unwrap();
    assert_sound(store).await;
}

#[tokio::test]
async fn usage_is_what_du_says() {
    let place = Place::new();
    let store = place.open().await;
    let large = "x".repeat(300_000);
    let image = image(&store, &[&large, "b"], &["app"]).await;
    super::image(&store, &["b"], &["other"]).await;
    let mount = store.prepare_snapshot("c1", &image.id).await.unwrap();
    std::fs::write(mount.upper.join("file"), "y".repeat(100_000)).unwrap();
    let usage = store.disk_usage().await.unwrap();
    let du = std::process::Command::new("du").args(["-s", "-B1"]).arg(place.root()).output().unwrap();
    let du: u64 = String::from_utf8(du.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(usage.total_bytes.abs_diff(du) * 100 <= du, "{} and {du}", usage.total_bytes);
    let of_app = usage.images.iter().find(|i| i.id == image.id).unwrap();
    assert!(of_app.disk_bytes > 300_000 && of_app.shared_bytes < 50_000 && of_app.shared_bytes > 0);
    assert_eq!(usage.layers_bytes, of_app.disk_bytes);
    assert_eq!(usage.reclaimable_layers_bytes, 0);
    assert!(usage.snapshots[0].1 >= 100_000);
    assert_eq!(store.disk_usage().await.unwrap(), usage, "measured once, the same again");
}

#[tokio::test]
async fn a_thousand_images_are_listed_from_memory() {
    let place = Place::new();
    let store: Store = place.open().await;
    let names: Vec<String> = (0..1000).map(|n| format!("app:{n}")).collect();
    // One image takes a thousand names in one go; the index is what is looked at.
    image(&store, &["a"], &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(store.images()[0].tags.len(), 1000);
    assert_eq!(store.image("app:999").unwrap().id, store.images()[0].id);
    std::fs::remove_file(store.inner.paths.blob(store.images()[0].id.digest())).unwrap();
    assert_eq!(store.images().len(), 1, "no file is read");
}
