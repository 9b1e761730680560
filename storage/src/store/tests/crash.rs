//! The process is killed at every step, and the next one finds a sound store.
//!
//! A test starts its own binary again on the test `victim`, which does one thing after another until
//! the failpoint that the environment names aborts it.

use std::path::Path;
use std::process::Command;

use super::{Place, assert_sound, diff_id, image, open};
use crate::ContainerRow;

const ROOT: &str = "CTL_TEST_ROOT";

/// Every failpoint that the victim's life passes.
const FAILPOINTS: [&str; 14] = [
    "layer-renamed",
    "layer-row",
    "image-blobs",
    "image-synced",
    "image-before-commit",
    "image-after-commit",
    "snapshot-made",
    "snapshot-row",
    "snapshot-row-deleted",
    "remove-before-commit",
    "remove-after-commit",
    "gc-marked",
    "gc-rows-deleted",
    "gc-discarded",
];

/// Not a test of its own: without the environment it has nothing to do.
#[tokio::test]
async fn victim() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let store = open(Path::new(&root)).await;
    let app = image(&store, &["base", "app"], &["app"]).await;
    let row = ContainerRow { id: "c1".into(), name: "one".into(), config: "{}".into(), state: "{}".into() };
    store.insert_container(&row).await.expect("insert");
    store.prepare_snapshot("c1", &app.id).await.expect("snapshot");
    store.remove_snapshot("c1").await.expect("remove");
    store.delete_container("c1").await.expect("delete");
    store.remove_image("app", false, &[]).await.expect("rmi");
}

#[tokio::test]
async fn every_step_can_be_the_last() {
    for failpoint in FAILPOINTS {
        let place = Place::new();
        let store = place.open().await;
        image(&store, &["base", "other"], &["other"]).await;
        store.close().await;
        drop(store);

        let output = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "store::tests::crash::victim", "--nocapture"])
            .env(ROOT, place.root())
            .env("CTL_FAILPOINT", failpoint)
            .output()
            .expect("the victim starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{failpoint} was not reached: {text}");
        assert!(!text.contains("panicked"), "{failpoint}: {text}");

        let store = place.open().await;
        let others = store.image("other").expect("what was done before stays");
        assert!(others.layers().iter().all(|d| store.inner.layers.has(d)), "{failpoint}");
        let app = store.image("app").ok();
        if let Some(app) = &app {
            assert!(app.layers().iter().all(|d| store.inner.layers.has(d)), "{failpoint}");
        }
        match failpoint {
            "image-after-commit" | "snapshot-made" | "snapshot-row" | "snapshot-row-deleted" => {
                assert!(app.is_some(), "{failpoint}: what was reported is there");
            }
            "remove-after-commit" | "gc-marked" | "gc-rows-deleted" | "gc-discarded" => {
                assert!(app.is_none(), "{failpoint}: what was removed is gone");
                assert!(!store.inner.layers.has(&diff_id("app")), "{failpoint}");
            }
            _ => {}
        }
        assert_sound(store).await;
    }
}
