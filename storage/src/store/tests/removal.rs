//! `rmi`, in Docker's words.

use super::{Place, assert_sound, child, diff_id, image};
use crate::{ImageUse, Removal, Store};

fn user(running: bool) -> ImageUse {
    ImageUse { container: "c0ffee".repeat(11)[..64].to_owned(), running }
}

async fn refused(store: &Store, name: &str, force: bool, users: &[ImageUse]) -> String {
    store.remove_image(name, force, users).await.expect_err(name).to_string()
}

#[tokio::test]
async fn the_last_name_takes_the_image_and_its_layers() {
    let place = Place::new();
    let store = place.open().await;
    let digest = format!("app@sha256:{}", "1".repeat(64));
    let id = image(&store, &["a", "b"], &["app:1", "app:2", &digest]).await.id.clone();
    image(&store, &["a", "c"], &["other"]).await;
    let untagged = store.remove_image("app:1", false, &[]).await.expect("untag");
    assert_eq!(untagged, [Removal::Untagged("app:1".into())]);
    let removed = store.remove_image("app:2", false, &[]).await.expect("remove");
    let chain = super::super::remove::chain_ids(&[diff_id("a"), diff_id("b")]);
    assert_eq!(
        removed,
        [
            Removal::Untagged("app:2".into()),
            Removal::Untagged(digest),
            Removal::Deleted(id.to_string()),
            Removal::Deleted(chain[1].to_string()),
        ]
    );
    store.inner.trash.emptied().await;
    let left = |content: &str| store.inner.paths.layer(&diff_id(content)).exists();
    assert_eq!([left("a"), left("b"), left("c")], [true, false, true]);
    assert_eq!(refused(&store, "app:2", false, &[]).await, "No such image: app:2");
    assert_sound(store).await;
}

#[tokio::test]
async fn by_id_several_repositories_need_force() {
    let place = Place::new();
    let store = place.open().await;
    let id = image(&store, &["a"], &["one", "two"]).await.id.clone();
    let short = id.short();
    assert_eq!(
        refused(&store, short, false, &[]).await,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    let removed = store.remove_image(short, true, &[]).await.expect("by force");
    assert_eq!(
        removed[..2],
        [Removal::Untagged("one:latest".into()), Removal::Untagged("two:latest".into())]
    );
    assert_eq!(store.images().len(), 0);
    assert_sound(store).await;
}

#[tokio::test]
async fn containers_object() {
    let place = Place::new();
    let store = place.open().await;
    let id = image(&store, &["a"], &["app"]).await.id.clone();
    let short = id.short();
    let container = &user(false).container[..12];
    assert_eq!(
        refused(&store, "app", false, &[user(false)]).await,
        format!(
            "conflict: unable to remove repository reference \"app\" (must force) - container {container} is using \
             its referenced image {short}"
        )
    );
    assert_eq!(
        refused(&store, short, false, &[user(false)]).await,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
        )
    );
    assert_eq!(
        refused(&store, short, true, &[user(true)]).await,
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container \
             {container}"
        )
    );
    store.tag("app", "further").await.expect("tag");
    let untagged = store.remove_image("further", false, &[user(true)]).await.expect("only a name");
    assert_eq!(untagged, [Removal::Untagged("further:latest".into())]);
    store.remove_image("app", true, &[user(false)]).await.expect("stopped ones yield to force");
    assert_sound(store).await;
}

#[tokio::test]
async fn children_object_and_useless_parents_go_along() {
    let place = Place::new();
    let store = place.open().await;
    let base = image(&store, &["a"], &[]).await.id.clone();
    let top = child(&store, &["a", "b"], &["top"], Some(base.clone())).await.id.clone();
    assert_eq!(store.image_children(&base), std::slice::from_ref(&top));
    assert_eq!(
        refused(&store, base.as_str(), true, &[]).await,
        format!(
            "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
            base.short()
        )
    );
    let removed = store.remove_image("top", false, &[]).await.expect("remove");
    let deleted: Vec<_> = removed.iter().filter(|r| matches!(r, Removal::Deleted(_))).collect();
    assert_eq!(deleted.len(), 4, "{removed:?}");
    assert_eq!(store.images().len(), 0);
    assert_sound(store).await;
}
