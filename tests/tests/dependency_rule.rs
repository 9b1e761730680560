//! The dependency rule of ARCHITECTURE.md, held over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

#[test]
fn the_crates_depend_on_each_other_in_one_direction_only() {
    let metadata = MetadataCommand::new()
        .manifest_path(tests::workspace().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata works");
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        edges.insert(package.name.as_str(), normal.map(|d| d.name.as_str()).collect());
    }
    let ours: BTreeSet<&str> = edges.keys().copied().collect();
    let inner = |name: &str| edges[name].intersection(&ours).copied().collect::<BTreeSet<_>>();
    assert_eq!(inner("cli"), BTreeSet::from(["proto-api"]));
    assert_eq!(inner("daemon"), BTreeSet::from(["executor", "proto-api", "storage"]));
    for leaf in ["proto-api", "storage", "executor"] {
        assert_eq!(inner(leaf), BTreeSet::new(), "{leaf} depends on no other crate of the workspace");
    }
    let users = |dependency: &str| {
        edges.iter().filter(|(_, all)| all.contains(dependency)).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(users("sqlx"), ["storage"], "only storage sees the database");
    assert_eq!(users("axum"), ["daemon"], "only the daemon serves HTTP");
    assert_eq!(users("oci-client").iter().filter(|&&name| name != "storage").count(), 0);
}
