//! The containers' rows. The engine gives them their meaning; here they only survive.

use std::path::PathBuf;

use super::Store;
use crate::StoreError;
use crate::db::is_unique_violation;

/// A container's row: what survives. The engine gives the JSON its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: String,
    /// Without the leading slash; unique.
    pub name: String,
    /// What the user asked for; written once, changed by `update` and `rename`.
    pub config: String,
    /// The last state that was recorded.
    pub state: String,
}

impl Store {
    /// The engine's directory for a container (`containers/<id>`); the engine makes it, 0700.
    pub fn container_dir(&self, container: &str) -> PathBuf {
        self.inner.paths.containers().join(container)
    }

    /// All containers, in the order of their creation.
    pub async fn containers(&self) -> Result<Vec<ContainerRow>, StoreError> {
        let rows: Vec<(String, String, String, String)> =
            sqlx::query_as("SELECT id, name, config, state FROM containers ORDER BY seq")
                .fetch_all(self.inner.db.state())
                .await?;
        Ok(rows
            .into_iter()
            .map(|(id, name, config, state)| ContainerRow { id, name, config, state })
            .collect())
    }

    /// Inserts a container; `Ok(false)` where the name or the id is taken.
    pub async fn insert_container(&self, row: &ContainerRow) -> Result<bool, StoreError> {
        let insert = sqlx::query("INSERT INTO containers (id, name, config, state) VALUES (?, ?, ?, ?)")
            .bind(&row.id)
            .bind(&row.name)
            .bind(&row.config)
            .bind(&row.state)
            .execute(self.inner.db.state())
            .await;
        unless_taken(insert)
    }

    /// Records a container's state (WAL with `synchronous=NORMAL`: ordered, about 0.2 ms). No error
    /// where the container is gone.
    pub async fn update_container_state(&self, id: &str, state: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE containers SET state = ? WHERE id = ?")
            .bind(state)
            .bind(id)
            .execute(self.inner.db.state())
            .await?;
        Ok(())
    }

    /// Changes name and configuration; `Ok(false)` where the name is taken.
    pub async fn update_container(&self, id: &str, name: &str, config: &str) -> Result<bool, StoreError> {
        let update = sqlx::query("UPDATE containers SET name = ?, config = ? WHERE id = ?")
            .bind(name)
            .bind(config)
            .bind(id)
            .execute(self.inner.db.state())
            .await;
        unless_taken(update)
    }

    /// Deletes the row; no error where it is gone.
    pub async fn delete_container(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM containers WHERE id = ?").bind(id).execute(self.inner.db.state()).await?;
        Ok(())
    }
}

fn unless_taken<T>(result: Result<T, sqlx::Error>) -> Result<bool, StoreError> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_unique_violation(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
