//! Pulling: reference -> endpoint -> manifest -> configuration -> layers side by side -> image.
//!
//! ```text
//! resolve   reference, platform -> documents, each verified (registry, or a mirror of it)
//! inflight  one job per layer, shared by all pulls that want it
//!   layer     download + partial record -> unpack worker -> verify -> commit
//! local     the image becomes visible once all of its layers are durable
//! ```
//!
//! Invariants: nothing is parsed before its digest was compared; a layer that fails leaves nothing but,
//! where its bytes may still be good, its record in `partial/`; a pull that is dropped stops its own work
//! and nobody else's.

mod download;
mod inflight;
mod layer;
mod local;
mod partial;
mod report;
mod resolve;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use self::inflight::{Inflight, Job};
use self::layer::LayerWork;
use self::local::Local;
use self::partial::Partials;
use self::report::{Report, short};
use self::resolve::{LayerOf, Resolved, resolve};
use crate::registry::session::endpoints;
use crate::registry::{Session, Transports};
use crate::{Image, ProgressSink, PullError, PullRequest, Reference, Store, StoreOptions};

/// Pulls images into one store.
#[derive(Debug)]
pub(crate) struct Puller {
    transports: Arc<Transports>,
    inflight: Inflight,
    partials: Partials,
}

impl Puller {
    /// For a store's settings of registries, and its directory `partial`. Blocks on the file system for
    /// a moment.
    pub fn new(options: &StoreOptions, partial_directory: PathBuf) -> Self {
        let transports = Arc::new(Transports::new(options.registries.clone()));
        let partials = Partials::new(partial_directory);
        partials.sweep();
        Self { transports, inflight: Inflight::default(), partials }
    }

    /// The bytes of interrupted downloads.
    pub fn partials(&self) -> &Partials {
        &self.partials
    }

    /// See [`Store::pull`](crate::Store::pull).
    pub async fn pull(
        &self,
        store: &Store,
        request: &PullRequest,
        progress: ProgressSink,
    ) -> Result<Arc<Image>, PullError> {
        let (report, local) = (Report::new(progress), &Local::new(store));
        let reference = Reference::parse(&request.reference).map_err(PullError::Reference)?.or_latest();
        let sessions = endpoints(&self.transports, &reference, &request.credentials)
            .map_err(|error| error.into_pull(&reference.familiar_name(), &reference.familiar()))?;
        let mut failed = None;
        for (at, session) in sessions.iter().enumerate() {
            match resolve(local, session, &reference, request.platform.as_deref()).await {
                Ok(resolved) => {
                    // A blob is known by its digest: any later endpoint may give it as well.
                    let sessions = sessions[at..].to_vec();
                    return self.complete(local, &reference, resolved, sessions, &report).await;
                }
                Err(error) => {
                    if session.is_mirror() {
                        tracing::info!(mirror = session.host(), %error, "a mirror was of no use");
                    }
                    failed = Some(error);
                }
            }
        }
        Err(failed.expect("the registry itself is always among the endpoints"))
    }

    async fn complete(
        &self,
        local: &Local,
        reference: &Reference,
        resolved: Resolved,
        sessions: Vec<Arc<Session>>,
        report: &Report,
    ) -> Result<Arc<Image>, PullError> {
        let heading = reference.digest().or(reference.tag()).unwrap_or("latest");
        report.status(Some(heading), format!("Pulling from {}", reference.repository())).await;
        let digest = format!("Digest: {}", resolved.top);
        let (image, outcome) = match local.has_image(reference, &resolved) {
            Some(image) => (image, "Image is up to date for"),
            None => {
                self.layers(local, reference, &resolved.layers, sessions, report).await?;
                (local.put_image(reference, resolved).await?, "Downloaded newer image for")
            }
        };
        report.status(None, digest).await;
        report.status(None, format!("Status: {outcome} {}", reference.familiar())).await;
        Ok(image)
    }

    async fn layers(
        &self,
        local: &Local,
        reference: &Reference,
        layers: &[LayerOf],
        sessions: Vec<Arc<Session>>,
        report: &Report,
    ) -> Result<(), PullError> {
        let mut missing = Vec::new();
        for layer in layers {
            let id = short(&layer.blob.digest);
            if local.has_layer(&layer.diff_id) {
                report.status(Some(id), "Already exists").await;
            } else {
                report.status(Some(id), "Pulling fs layer").await;
                missing.push(layer);
            }
        }
        // The longest first: a long one that starts last is waited for alone.
        let mut by_size = missing.clone();
        by_size.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
        let slots = Arc::new(Semaphore::new(local.options().parallel_layers.max(1)));
        let jobs: Vec<(&str, Arc<Job>)> = by_size
            .into_iter()
            .map(|layer| {
                let key = (layer.diff_id.clone(), layer.blob.digest.clone());
                let work = LayerWork {
                    local: Local::new(local.store()),
                    sessions: sessions.clone(),
                    diff_id: layer.diff_id.clone(),
                    blob: layer.blob.digest.clone(),
                    size: layer.blob.size,
                    slots: slots.clone(),
                    names: (reference.familiar_name(), reference.familiar()),
                };
                let job = self.inflight.join(key, layer.blob.size, move |states| work.run(states));
                (short(&layer.blob.digest), job)
            })
            .collect();
        try_join_all(jobs.iter().map(|(id, job)| report.follow(id, job))).await?;
        Ok(())
    }
}
