//! What an actor starts in tasks of their own, which report back to it.

use std::sync::Arc;
use std::time::Duration;

use executor::shims::ShimError;

use super::{Actor, Reply, Report, answer};
use crate::engine::Error;
use crate::engine::runtime::{Sighting, Task};

impl Actor {
    pub(super) fn forget(&mut self) {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        let cgroup = engine.cgroup_path(&id);
        self.forgetting = Some(tokio::spawn(async move {
            if let Err(error) = engine.runtime.forget(&id, &cgroup).await {
                tracing::warn!(container = id, %error, "what the shim left could not be cleared away");
            }
        }));
    }

    pub(super) fn launch(&mut self) {
        let (engine, id, record) = (self.engine.clone(), self.id.clone(), self.record.clone());
        let (reporter, attach) = (self.reporter.clone(), std::mem::take(&mut self.pending));
        let forgetting = self.forgetting.take();
        tokio::spawn(async move {
            if let Some(forgetting) = forgetting {
                forgetting.await.ok();
            }
            let result = engine.launch(&id, record, attach).await;
            reporter.send(Report::Started(result)).ok();
        });
    }

    /// Follows a run to its end.
    pub(super) fn watch(&self, task: Option<Arc<dyn Task>>) {
        let (engine, id, reporter) = (self.engine.clone(), self.id.clone(), self.reporter.clone());
        tokio::spawn(async move {
            let mut task = task;
            loop {
                let error = match &task {
                    Some(task) => match task.wait().await {
                        Ok(record) => return drop(reporter.send(Report::Ended(record))),
                        Err(error) => error.to_string(),
                    },
                    None => "it did not answer".to_owned(),
                };
                match engine.runtime.find(&id, engine.patience).await {
                    Sighting::Dead { exit: Some(record) } => {
                        return drop(reporter.send(Report::Ended(record)));
                    }
                    Sighting::Dead { exit: None } | Sighting::Never => {
                        let why = format!("the container's shim is gone and left no exit code ({error})");
                        return drop(reporter.send(Report::Lost(why)));
                    }
                    Sighting::Alive { task: again, .. } => {
                        task = Some(again.clone());
                        reporter.send(Report::Found(again)).ok();
                    }
                    Sighting::Unknown(why) => {
                        tracing::warn!(container = id, why, "state unknown, asking again")
                    }
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    pub(super) fn signal(&self, signal: i32, reply: Option<Reply>) {
        let Some(task) = self.task.clone() else {
            return reply.into_iter().for_each(|reply| answer(reply, Ok(())));
        };
        let id = self.id.clone();
        tokio::spawn(async move {
            let result = match task.signal(signal).await {
                // It ended by itself in the meantime, which the watcher reports.
                Ok(()) | Err(ShimError::Gone) => Ok(()),
                Err(error) => {
                    tracing::warn!(container = id, signal, %error, "signal not sent");
                    Err(Error::Shim(error))
                }
            };
            reply.into_iter().for_each(|reply| {
                answer(
                    reply,
                    result.as_ref().map_or_else(|error| Err(Error::Internal(error.to_string())), |()| Ok(())),
                )
            });
        });
    }

    pub(super) fn freezer(&self, freeze: bool) {
        let (engine, reporter) = (self.engine.clone(), self.reporter.clone());
        let path = engine.cgroup_path(&self.id);
        tokio::spawn(async move {
            let report = match freeze {
                true => Report::Frozen(engine.runtime.freeze(&path).await),
                false => Report::Thawed(engine.runtime.thaw(&path).await),
            };
            reporter.send(report).ok();
        });
    }

    pub(super) fn spawn_removal(&mut self) {
        let (engine, id, reporter) = (self.engine.clone(), self.id.clone(), self.reporter.clone());
        let forgetting = self.forgetting.take();
        self.pending.clear();
        tokio::spawn(async move {
            if let Some(forgetting) = forgetting {
                forgetting.await.ok();
            }
            reporter.send(Report::Removed(engine.remove_everything(&id).await)).ok();
        });
    }
}
