//! The one SQLite database: connections, schema, and how durable a write is.
//!
//! Two connections write the same WAL. The state of containers changes often and is reconciled with
//! the kernel after a crash, so its commits are ordered but not synced. What was reported as done for
//! good, a pulled image above all, is committed on the other one, which syncs the WAL and with it
//! everything that came before.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::StoreError;

/// The database's file in the data root.
pub(crate) const FILE: &str = "ctl.db";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    state: SqlitePool,
    durable: SqlitePool,
}

impl Database {
    /// Opens or makes the database and brings its schema up to date.
    pub async fn open(data_root: &Path) -> Result<Self, StoreError> {
        let options = connect_options(data_root).create_if_missing(true);
        let durable = connect(options.clone().synchronous(SqliteSynchronous::Full)).await?;
        MIGRATIONS.run(&durable).await?;
        let state = connect(options.synchronous(SqliteSynchronous::Normal)).await?;
        Ok(Self { state, durable })
    }

    /// Opens an existing database for reading only.
    pub async fn open_read_only(data_root: &Path) -> Result<Self, StoreError> {
        let pool = connect(connect_options(data_root).read_only(true)).await?;
        Ok(Self { state: pool.clone(), durable: pool })
    }

    /// For what a crash may take back by some milliseconds.
    pub fn state(&self) -> &SqlitePool {
        &self.state
    }

    /// For what is reported as done.
    pub fn durable(&self) -> &SqlitePool {
        &self.durable
    }

    /// Closes the connections and writes the WAL back.
    pub async fn close(&self) {
        self.state.close().await;
        self.durable.close().await;
    }
}

fn connect_options(data_root: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(data_root.join(FILE))
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(30))
        .foreign_keys(true)
        .statement_cache_capacity(64)
        .pragma("cache_size", "-1024")
}

async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
}

/// Whether an insert failed for a value that is there already.
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.is_unique_violation())
}

/// Unix seconds now.
pub(crate) fn now() -> i64 {
    to_unix(SystemTime::now())
}

/// Unix milliseconds now.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Unix seconds of a time; times before 1970 are 0.
pub(crate) fn to_unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// The time of Unix seconds.
pub(crate) fn from_unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}
