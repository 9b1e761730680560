//! A store and what pulls into it tell.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::{Budget, Credentials, Image, Progress, PullError, PullRequest, Store, StoreOptions};

/// Options of a store under a temporary directory.
pub fn options(root: &Path) -> StoreOptions {
    StoreOptions {
        data_root: root.to_owned(),
        unpack_worker: env!("CARGO_BIN_EXE_ctld-unpack").into(),
        registries: BTreeMap::new(),
        parallel_layers: 3,
        keep_blobs: false,
        disk_budget_bytes: None,
        budget: Budget::default(),
    }
}

/// A pull and all that it told.
pub struct Pulled {
    pub result: Result<Arc<Image>, PullError>,
    /// `id: status`, or the status alone.
    pub lines: Vec<String>,
}

impl Pulled {
    /// The image, or a panic with the error.
    pub fn image(self) -> Arc<Image> {
        self.result.expect("the pull works")
    }

    /// The text of the error.
    pub fn error(self) -> String {
        self.result.expect_err("the pull fails").to_string()
    }
}

/// A request without credentials for the machine's platform.
pub fn request(reference: &str) -> PullRequest {
    PullRequest { reference: reference.to_owned(), platform: None, credentials: Credentials::Anonymous }
}

/// Pulls to the end.
pub async fn pull(store: &Store, request: PullRequest) -> Pulled {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    let reader = async {
        let mut lines = Vec::new();
        while let Some(progress) = receiver.recv().await {
            match progress {
                Progress::Status { id: Some(id), status } => lines.push(format!("{id}: {status}")),
                Progress::Status { id: None, status } => lines.push(status),
                Progress::Bytes { .. } => {}
            }
        }
        lines
    };
    let (result, lines) = tokio::join!(store.pull(request, sender), reader);
    Pulled { result, lines }
}

/// Waits until something holds; fails after ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Names in a directory of the data root, sorted.
pub fn names(root: &Path, directory: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root.join(directory))
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
