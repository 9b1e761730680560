//! `fsck`: compares the database with the disk and reports; changes nothing.

use std::collections::HashSet;
use std::path::Path;

use crate::db::{Database, FILE};
use crate::images::Image;
use crate::paths::{DIRECTORIES, Paths, blocking, entry_names};
use crate::store::parse_snapshot;
use crate::{Digest, Store, StoreError, usage};

/// One finding of [`Store::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What and where, for a person to read.
    pub what: String,
}

impl Finding {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// What the database says.
#[derive(Debug, Default)]
struct Rows {
    /// Diff id, size, durable.
    layers: Vec<(String, i64)>,
    images: Vec<String>,
    /// Image and document digest.
    documents: Vec<(String, String)>,
    /// Container, image, layers.
    snapshots: Vec<(String, String, String)>,
    containers: HashSet<String>,
    parents: Vec<(String, String)>,
    /// Compressed forms of layers, where they are kept.
    kept_blobs: Vec<(String,)>,
}

/// What is in progress and therefore neither orphan nor damage.
#[derive(Debug, Default)]
struct Progress {
    running: bool,
    leased: HashSet<Digest>,
    snapshots: HashSet<String>,
}

impl Store {
    /// Compares database and disk. Opens nothing for writing; may run beside the daemon where
    /// `options` name the same data root (`ctld fsck` uses [`Store::check_offline`]).
    pub async fn check(&self) -> Result<Vec<Finding>, StoreError> {
        let images = self.inner.images.write_lock().await;
        let commits = self.inner.layers.write_lock().await;
        let rows = Rows::read(&self.inner.db).await?;
        let progress = {
            let references = self.inner.layers.references();
            Progress {
                running: true,
                leased: references.leases.values().flatten().cloned().collect(),
                snapshots: references.snapshots.keys().cloned().collect(),
            }
        };
        let paths = self.inner.paths.clone();
        let findings = blocking(move || examine(&paths, &rows, &progress)).await;
        drop((images, commits));
        findings
    }

    /// The same for a data root that no daemon has open.
    pub async fn check_offline(data_root: &Path) -> Result<Vec<Finding>, StoreError> {
        if !data_root.join(FILE).is_file() {
            return Err(StoreError::damaged(format!(
                "{} is not a data root: it has no {FILE}",
                data_root.display()
            )));
        }
        let lock = crate::store::lock(data_root)?;
        let db = Database::open_read_only(data_root).await?;
        let rows = Rows::read(&db).await?;
        db.close().await;
        let paths = Paths::new(data_root.to_owned());
        let findings = blocking(move || examine(&paths, &rows, &Progress::default())).await;
        drop(lock);
        findings
    }
}

impl Rows {
    async fn read(db: &Database) -> Result<Self, StoreError> {
        let pool = db.state();
        let containers: Vec<(String,)> = sqlx::query_as("SELECT id FROM containers").fetch_all(pool).await?;
        let images: Vec<(String,)> = sqlx::query_as("SELECT id FROM images").fetch_all(pool).await?;
        Ok(Self {
            layers: sqlx::query_as("SELECT diff_id, size_bytes FROM layers").fetch_all(pool).await?,
            images: images.into_iter().map(|(id,)| id).collect(),
            documents: sqlx::query_as("SELECT image, digest FROM image_documents").fetch_all(pool).await?,
            snapshots: sqlx::query_as("SELECT container, image, layers FROM snapshots")
                .fetch_all(pool)
                .await?,
            containers: containers.into_iter().map(|(id,)| id).collect(),
            kept_blobs: sqlx::query_as("SELECT DISTINCT blob_digest FROM layer_sources")
                .fetch_all(pool)
                .await?,
            parents: sqlx::query_as("SELECT id, parent FROM images WHERE parent IS NOT NULL")
                .fetch_all(pool)
                .await?,
        })
    }
}

fn examine(paths: &Paths, rows: &Rows, progress: &Progress) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    for directory in DIRECTORIES {
        if !paths.root().join(directory).is_dir() {
            findings.push(Finding::new(format!("directory {directory} is missing")));
        }
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    let layers = examine_layers(paths, rows, progress, &mut findings)?;
    examine_images(paths, rows, progress, &layers, &mut findings)?;
    examine_snapshots(paths, rows, progress, &layers, &mut findings)?;
    if !progress.running {
        for name in entry_names(&paths.staging())? {
            findings
                .push(Finding::new(format!("staging/{name} was left half-made; the next start sweeps it")));
        }
        for name in entry_names(&paths.trash())? {
            findings.push(Finding::new(format!("trash/{name} is not deleted yet; the next start does it")));
        }
        for name in entry_names(&paths.containers())? {
            if !rows.containers.contains(&name) {
                findings.push(Finding::new(format!("containers/{name} belongs to no container")));
            }
        }
    }
    Ok(findings)
}

/// Layers with their rows; answers which are whole.
fn examine_layers(
    paths: &Paths,
    rows: &Rows,
    progress: &Progress,
    findings: &mut Vec<Finding>,
) -> Result<HashSet<Digest>, StoreError> {
    let mut known = HashSet::new();
    let mut whole = HashSet::new();
    for (text, size) in &rows.layers {
        let Some(diff_id) = Digest::parse(text) else {
            findings.push(Finding::new(format!("layer row {text:?} is malformed")));
            continue;
        };
        known.insert(diff_id.hex().to_owned());
        let fs = paths.layer_fs(&diff_id);
        if !fs.is_dir() {
            findings.push(Finding::new(format!("layer {diff_id} has a row and no directory")));
            continue;
        }
        if !paths.layer(&diff_id).join("tar.zst").is_file() {
            findings.push(Finding::new(format!("layer {diff_id} has lost tar.zst")));
        }
        let found = usage::tree(&fs)?.file_bytes;
        if found != size.max(&0).unsigned_abs() {
            findings.push(Finding::new(format!(
                "layer {diff_id} holds {found} bytes of files instead of {size}"
            )));
            continue;
        }
        whole.insert(diff_id);
    }
    for name in entry_names(&paths.layers())? {
        let leased = Digest::from_hex(&name).is_some_and(|d| progress.leased.contains(&d));
        if !known.contains(&name) && !leased {
            findings.push(Finding::new(format!("layers/{name} has no row")));
        }
    }
    Ok(whole)
}

fn examine_images(
    paths: &Paths,
    rows: &Rows,
    progress: &Progress,
    layers: &HashSet<Digest>,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let blobs = crate::blobs::Blobs::new(paths.clone());
    let mut referenced = progress.leased.clone();
    referenced.extend(rows.kept_blobs.iter().filter_map(|(d,)| Digest::parse(d)));
    for id in &rows.images {
        let Some(digest) = Digest::parse(id) else {
            findings.push(Finding::new(format!("image row {id:?} is malformed")));
            continue;
        };
        referenced.insert(digest.clone());
        match blobs.read(&digest).and_then(Image::from_config) {
            Err(error) => findings.push(Finding::new(format!("image {id}: configuration: {error}"))),
            Ok(image) => {
                for missing in image.layers.iter().filter(|d| !layers.contains(d)) {
                    findings.push(Finding::new(format!("image {id}: layer {missing} is missing or damaged")));
                }
            }
        }
    }
    for (image, text) in &rows.documents {
        match Digest::parse(text) {
            None => {
                findings.push(Finding::new(format!("image {image}: document digest {text:?} is malformed")))
            }
            Some(digest) => {
                if let Err(error) = blobs.read(&digest) {
                    findings.push(Finding::new(format!("image {image}: document {digest}: {error}")));
                }
                referenced.insert(digest);
            }
        }
    }
    for (image, parent) in &rows.parents {
        if !rows.images.contains(parent) {
            findings.push(Finding::new(format!("image {image}: parent {parent} is missing")));
        }
    }
    for name in entry_names(&paths.blobs())? {
        if !Digest::from_hex(&name).is_some_and(|d| referenced.contains(&d)) {
            findings.push(Finding::new(format!("blobs/sha256/{name} belongs to no image")));
        }
    }
    Ok(())
}

fn examine_snapshots(
    paths: &Paths,
    rows: &Rows,
    progress: &Progress,
    layers: &HashSet<Digest>,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let mut known = progress.snapshots.clone();
    for (container, image, diff_ids) in &rows.snapshots {
        known.insert(container.clone());
        for part in ["upper", "work"] {
            if !paths.snapshot(container).join(part).is_dir() {
                findings.push(Finding::new(format!("snapshots/{container}/{part} is missing")));
            }
        }
        match parse_snapshot(image, diff_ids) {
            None => {
                findings.push(Finding::new(format!("snapshot row of container {container} is malformed")))
            }
            Some(snapshot) => {
                for missing in snapshot.layers.iter().filter(|d| !layers.contains(d)) {
                    findings.push(Finding::new(format!(
                        "container {container}: layer {missing} is missing or damaged"
                    )));
                }
            }
        }
        // While the engine runs, a container's row comes just after its snapshot and goes just before.
        if !progress.running && !rows.containers.contains(container) {
            findings.push(Finding::new(format!("snapshots/{container} belongs to no container")));
        }
    }
    for name in entry_names(&paths.snapshots())? {
        if !known.contains(&name) {
            findings.push(Finding::new(format!("snapshots/{name} has no row")));
        }
    }
    Ok(())
}
