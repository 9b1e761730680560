//! Opening a data root: one daemon at a time, the schema, and the sweep of what was left half-made.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Inner, Store};
use crate::blobs::Blobs;
use crate::db::Database;
use crate::images::{ImageId, Images};
use crate::layers::{Layers, Snapshot};
use crate::paths::{DIRECTORIES, Paths, blocking, boot_id, entry_names};
use crate::trash::Trash;
use crate::{Digest, StoreError, StoreOptions};

impl Store {
    /// Opens or makes a data root, takes its lock, migrates the database and sweeps what an earlier
    /// process left half-made.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let root = options.data_root.clone();
        let lock = blocking(move || prepare_root(&root)).await?;
        // Paths are handed out as absolute ones.
        let root = std::fs::canonicalize(&options.data_root).map_err(StoreError::io(&options.data_root))?;
        let paths = Paths::new(root);
        let trash = Trash::new(&paths);
        trash.sweep()?;
        let db = Database::open(paths.root()).await?;
        let blobs = Blobs::new(paths.clone());
        let layers = Layers::load(paths.clone(), db.clone(), trash.clone(), boot_id()?).await?;
        load_snapshots(&db, &layers).await?;
        let used = load_used(&db).await?;
        let images = Images::load(&db, &blobs, &layers).await?;
        let puller = crate::pull::Puller::new(&options, paths.partial());
        let inner = Inner {
            options,
            paths,
            db,
            blobs,
            layers,
            images,
            trash,
            puller,
            used: Mutex::new(used),
            tar_sizes: Mutex::new(HashMap::new()),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        store.sweep().await?;
        store.collect_garbage().await?;
        Ok(store)
    }

    /// Discards what no row speaks of. Nothing else runs yet.
    async fn sweep(&self) -> Result<(), StoreError> {
        let Inner { db, paths, trash, layers, .. } = &*self.inner;
        for name in entry_names(&paths.staging())? {
            trash.discard(&paths.staging().join(name))?;
        }
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT diff_id, durable FROM layers").fetch_all(db.state()).await?;
        if rows.iter().any(|(_, durable)| *durable == 0) {
            // Committed by a process that was killed, within this boot: the page cache still has them.
            layers.sync().await?;
            sqlx::query("UPDATE layers SET durable = 1 WHERE durable = 0").execute(db.durable()).await?;
        }
        let known: HashSet<String> =
            rows.iter().filter_map(|(d, _)| Some(Digest::parse(d)?.hex().into())).collect();
        self.discard_unknown(&paths.layers(), &known)?;

        let containers: Vec<(String,)> =
            sqlx::query_as("SELECT id FROM containers").fetch_all(db.state()).await?;
        let containers: HashSet<String> = containers.into_iter().map(|(id,)| id).collect();
        let orphans: Vec<String> =
            layers.references().snapshots.keys().filter(|id| !containers.contains(*id)).cloned().collect();
        for orphan in orphans {
            self.remove_snapshot(&orphan).await?;
        }
        let snapshots: HashSet<String> = layers.references().snapshots.keys().cloned().collect();
        self.discard_unknown(&paths.snapshots(), &snapshots)?;
        self.discard_unknown(&paths.containers(), &containers)
    }

    fn discard_unknown(&self, directory: &Path, known: &HashSet<String>) -> Result<(), StoreError> {
        for name in entry_names(directory)? {
            if !known.contains(&name) {
                let path = directory.join(name);
                tracing::info!(path = %path.display(), "discarding what was left half-made");
                self.inner.trash.discard(&path)?;
            }
        }
        Ok(())
    }
}

/// Makes the directories and takes the lock.
fn prepare_root(root: &Path) -> Result<File, StoreError> {
    std::fs::create_dir_all(root).map_err(StoreError::io(root))?;
    let set_mode = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(StoreError::io(path))
    };
    set_mode(root)?;
    let lock = lock(root)?;
    for directory in DIRECTORIES {
        let path = root.join(directory);
        match std::fs::create_dir(&path) {
            Ok(()) => set_mode(&path)?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StoreError::io(&path)(e)),
        }
    }
    Ok(lock)
}

/// Takes the data root's lock, which goes away with the process or the file.
pub(crate) fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(root.to_owned())),
        Err(e) => Err(StoreError::io(&path)(e)),
    }
}

async fn load_used(db: &Database) -> Result<HashMap<ImageId, i64>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT id, used_at FROM images").fetch_all(db.state()).await?;
    Ok(rows.into_iter().filter_map(|(id, at)| Some((ImageId::parse(&id)?, at))).collect())
}

async fn load_snapshots(db: &Database, layers: &Layers) -> Result<(), StoreError> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT container, image, layers FROM snapshots").fetch_all(db.state()).await?;
    for (container, image, diff_ids) in rows {
        let snapshot = parse_snapshot(&image, &diff_ids).ok_or_else(|| {
            StoreError::damaged(format!("snapshot row of container {container} is malformed"))
        })?;
        layers.references().snapshots.insert(container, snapshot);
    }
    Ok(())
}

/// A snapshot from its row.
pub(crate) fn parse_snapshot(image: &str, diff_ids: &str) -> Option<Snapshot> {
    let diff_ids: Vec<String> = serde_json::from_str(diff_ids).ok()?;
    let layers: Option<Arc<[Digest]>> = diff_ids.iter().map(|d| Digest::parse(d)).collect();
    Some(Snapshot { image: ImageId::parse(image)?, layers: layers? })
}
