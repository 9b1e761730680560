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

pub(crate) use self::download::Download;
use self::inflight::{Inflight, Job};
use self::layer::LayerWork;
use self::local::Local;
use self::partial::Partials;
use self::report::{Report, short};
use self::resolve::{LayerOf, Resolved, resolve};
use crate::policy;
use crate::registry::login::{self, Login, LoginError, SearchResult};
use crate::registry::session::endpoints;
use crate::registry::{RegistryError, Session, Transports};
use crate::{
    Credentials, Image, LookupError, ProgressSink, PullError, PullRequest, Reference, Store, StoreOptions,
};

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

    /// Connections to registries.
    pub fn transports(&self) -> &Transports {
        &self.transports
    }

    /// Pulls all tags of a repository, one after the other.
    pub async fn pull_all(
        &self,
        store: &Store,
        request: &PullRequest,
        progress: ProgressSink,
    ) -> Result<Vec<Arc<Image>>, PullError> {
        let reference = Reference::parse(&request.reference).map_err(PullError::Reference)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(PullError::Reference(LookupError::Invalid(
                "tag can't be used with --all-tags/-a".to_owned(),
            )));
        }
        let of_registry =
            |error: RegistryError| error.into_pull(&reference.familiar_name(), &reference.familiar_name());
        let most = store.options().budget.document_bytes;
        let sessions = endpoints(&self.transports, &reference, &request.credentials).map_err(of_registry)?;
        let mut tags = Err(RegistryError::Corrupt("no endpoint".to_owned()));
        for session in sessions {
            tags = session.tags(most).await;
            if tags.is_ok() {
                break;
            }
        }
        let mut images = Vec::new();
        for tag in tags.map_err(of_registry)? {
            let name = reference.with_tag(&tag).map_err(PullError::Reference)?.to_string();
            let one = PullRequest { reference: name, ..request.clone() };
            images.push(self.pull(store, &one, progress.clone()).await?);
        }
        Ok(images)
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
        let policies = self.transports.options(reference.registry()).policies;
        policy::check_name(&policies, &reference)?;
        let sessions = endpoints(&self.transports, &reference, &request.credentials)
            .map_err(|error| error.into_pull(&reference.familiar_name(), &reference.familiar()))?;
        let mut failed = None;
        for (at, session) in sessions.iter().enumerate() {
            match resolve(local, session, &reference, request.platform.as_deref()).await {
                Ok(resolved) => {
                    // A blob is known by its digest: any later endpoint may give it as well.
                    let sessions = sessions[at..].to_vec();
                    let signed = [&resolved.top, &resolved.manifest_digest];
                    let most = local.options().budget.document_bytes;
                    policy::check_signature(&policies, &reference, &sessions, &signed, most).await?;
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

impl Store {
    /// Pulls every tag of the repository that the request names (without a tag), as `pull -a` does.
    pub async fn pull_all_tags(
        &self,
        request: PullRequest,
        progress: ProgressSink,
    ) -> Result<Vec<Arc<Image>>, PullError> {
        self.inner.puller.pull_all(self, &request, progress).await
    }

    /// Tries credentials at a registry: `host[:port]`, or the URL that older clients send; empty for
    /// Docker Hub.
    pub async fn login_check(&self, registry: &str, credentials: &Credentials) -> Result<Login, LoginError> {
        let transports = self.inner.puller.transports();
        login::login(transports, &login::registry_name(registry), credentials).await
    }

    /// Searches Docker Hub, or the registry that the term begins with, for at most `limit` repositories.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>, LoginError> {
        login::search(self.inner.puller.transports(), term, limit, credentials).await
    }
}
