//! What the collector takes, what it leaves, and whether the figures are true.

use super::{Place, assert_sound, commit, diff_id, image};
use crate::{PruneScope, Removal, Store};

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

#[tokio::test]
async fn prune_takes_what_has_no_tag_or_no_container() {
    let place = Place::new();
    let store = place.open().await;
    let digest = format!("app@sha256:{}", "1".repeat(64));
    let dangling = image(&store, &["a"], &[&digest]).await;
    let nameless = image(&store, &["b"], &[]).await;
    let tagged = image(&store, &["ccc"], &["app", "other"]).await;
    let in_use = image(&store, &["d"], &["used"]).await;
    store.prepare_snapshot("c1", &in_use.id).await.unwrap();
    let nobody = |_: &crate::ImageId| vec![];

    let pruned = store.prune_images(PruneScope::Dangling, |i| i.id != nameless.id, nobody).await.unwrap();
    let deleted = Removal::Deleted(dangling.id.to_string());
    assert_eq!(pruned.removals[..2], [Removal::Untagged(digest), deleted]);
    assert_eq!(pruned.reclaimed_bytes, 1);
    let pruned = store.prune_images(PruneScope::Unused, |_| true, nobody).await.unwrap();
    assert_eq!(pruned.reclaimed_bytes, 4);
    assert!(pruned.removals.contains(&Removal::Deleted(tagged.id.to_string())));
    assert_eq!(store.images().iter().map(|i| &i.id).collect::<Vec<_>>(), [&in_use.id]);
}

#[tokio::test]
async fn the_budget_evicts_what_was_used_least_recently() {
    let place = Place::new();
    let mut options = super::options(place.root());
    options.disk_budget_bytes = Some(1_000_000);
    let store = Store::open(options).await.unwrap();
    let large = |c: &str| c.repeat(400_000);
    let first = image(&store, &[&large("a")], &["first"]).await;
    let second = image(&store, &[&large("b")], &["second"]).await;
    store.inner.used.lock().unwrap().extend([(first.id.clone(), 2), (second.id.clone(), 1)]);
    image(&store, &[&large("c")], &["third"]).await;
    let names: Vec<String> = store.images().iter().flat_map(|i| i.tags.clone()).collect();
    assert!(names.contains(&"first:latest".into()) && names.contains(&"third:latest".into()), "{names:?}");
    assert_eq!(names.len(), 2);
    store.prepare_snapshot("c1", &first.id).await.unwrap();
    image(&store, &[&large("d")], &["fourth"]).await;
    let names: Vec<String> = store.images().iter().flat_map(|i| i.tags.clone()).collect();
    assert!(names.contains(&"first:latest".into()) && names.contains(&"fourth:latest".into()), "{names:?}");
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn kept_blobs_live_as_long_as_their_layers() {
    let place = Place::new();
    let store = place.open().await;
    let lease = store.inner.layers.lease();
    commit(&store, &["a"], &lease).await;
    let blob = store.inner.blobs.write(b"compressed").unwrap();
    lease.hold(&blob);
    let source = crate::LayerSource {
        diff_id: diff_id("a"),
        blob_digest: blob.clone(),
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        size_bytes: 10,
        repository: "docker.io/library/app".into(),
    };
    let new = crate::store::NewImage {
        config_raw: super::config(&["a"], "2026-01-01T00:00:00Z"),
        sources: vec![source.clone()],
        ..Default::default()
    };
    let put = store.put_image(new, &lease).await.unwrap();
    drop(lease);
    store.collect_garbage().await.unwrap();
    assert!(store.inner.blobs.has(&blob));
    assert_eq!(store.layer_sources(&diff_id("a")).await.unwrap(), [source]);
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert!(store.inner.blobs.has(&blob), "after a restart as well");
    store.remove_image(put.id.as_str(), false, &[]).await.unwrap();
    assert!(!store.inner.blobs.has(&blob));
    assert_sound(store).await;
}
