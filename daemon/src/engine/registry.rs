//! All containers by id and name. Reads are from published snapshots and wait for nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, watch};

use super::Error;
use super::actor::Command;
use super::record::Record;
use super::runtime::Task;
use super::state::State;

/// What is publicly known of a container at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Full id.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// Its configuration.
    pub record: Arc<Record>,
    /// Its state.
    pub state: State,
    /// The connection to its shim, while it runs.
    pub task: Option<Arc<dyn Task>>,
}

/// How to reach a container's actor and its snapshots.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The actor's mailbox.
    pub mailbox: mpsc::Sender<Command>,
    /// The latest snapshot.
    pub view: watch::Receiver<Arc<View>>,
}

impl Handle {
    /// The latest snapshot.
    pub fn now(&self) -> Arc<View> {
        self.view.borrow().clone()
    }
}

/// Containers and names.
#[derive(Debug, Default)]
pub struct Registry {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Handle>,
    /// Names in use, those of containers in the making included.
    names: HashMap<String, String>,
}

impl Registry {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for an id. The error is Docker's text.
    pub fn reserve(&self, name: &str, id: &str) -> Result<(), Error> {
        let mut inner = self.write();
        match inner.names.get(name) {
            Some(owner) => Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                inner.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name free.
    pub fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    /// Makes a container known.
    pub fn insert(&self, id: &str, handle: Handle) {
        self.write().by_id.insert(id.to_owned(), handle);
    }

    /// Forgets a container and its name.
    pub fn remove(&self, id: &str, name: &str) {
        let mut inner = self.write();
        inner.by_id.remove(id);
        inner.names.remove(name);
    }

    /// By full id, name, or unique prefix of an id, in this order.
    pub fn find(&self, name: &str) -> Result<Handle, Error> {
        let missing = || Error::NoSuchContainer(name.to_owned());
        let inner = self.read();
        if let Some(handle) = inner.by_id.get(name) {
            return Ok(handle.clone());
        }
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(id) = inner.names.get(bare) {
            return inner.by_id.get(id).cloned().ok_or_else(missing);
        }
        if name.is_empty() {
            return Err(missing());
        }
        let mut found = inner.by_id.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name));
        match (found.next(), found.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => {
                Err(Error::Invalid(format!("multiple IDs found with provided prefix: {name}")))
            }
            (None, _) => Err(missing()),
        }
    }

    /// Snapshots of all, newest first.
    pub fn views(&self) -> Vec<Arc<View>> {
        let mut views: Vec<_> = self.read().by_id.values().map(Handle::now).collect();
        views.sort_by(|a, b| b.record.created.cmp(&a.record.created).then_with(|| b.id.cmp(&a.id)));
        views
    }
}
