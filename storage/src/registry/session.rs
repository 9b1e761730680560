//! Requests about one repository at one endpoint (the registry itself or a mirror of it).
//!
//! The protocol's root (`/v2/`) is asked once per host; that settles TLS or not and what authorisation is
//! wanted. A request that is refused with 401 is sent once more with a fresh token. What fails for a
//! moment is tried again with growing pauses, or after what `Retry-After` says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};
use reqwest::{Response, Url};

use super::auth::{Challenge, Token, basic, fetch_token, secret};
use super::document::ACCEPTED;
use super::transport::{Call, Root, Transport, bounded, success};
use super::{RegistryError, Transports};
use crate::{Credentials, Digest, Reference};

/// Attempts of one request.
const ATTEMPTS: u32 = 5;
/// Tags that are asked for at once, and how often.
const TAGS_PAGE: u32 = 1000;
const MOST_PAGES: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longer than this is not waited for; the registry's answer is told instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A manifest or index as it came, its digest compared.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub bytes: Vec<u8>,
    /// Without parameters; empty where the registry did not say.
    pub media_type: String,
    pub digest: Digest,
}

/// One repository at one endpoint.
#[derive(Debug)]
pub(crate) struct Session {
    transport: Arc<Transport>,
    /// Before `/v2/`: empty, or the path of a mirror.
    prefix: String,
    /// Fixed by a mirror's URL.
    scheme: Option<&'static str>,
    repository: String,
    credentials: Credentials,
    tokens: Mutex<HashMap<String, Token>>,
    is_mirror: bool,
}

/// The endpoints of a reference: its mirrors in order, then the registry. Credentials are for the
/// registry alone.
pub(crate) fn endpoints(
    transports: &Transports,
    reference: &Reference,
    credentials: &Credentials,
) -> Result<Vec<Arc<Session>>, RegistryError> {
    let mut sessions = Vec::new();
    for mirror in transports.options(reference.registry()).mirrors {
        sessions.push(Arc::new(Session::mirror(transports, &mirror, reference)?));
    }
    sessions.push(Arc::new(Session::registry(transports, reference, credentials.clone())));
    Ok(sessions)
}

/// Host that serves a registry's name.
pub(crate) fn host_for(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

impl Session {
    /// The registry of a reference.
    pub fn registry(transports: &Transports, reference: &Reference, credentials: Credentials) -> Self {
        Self::at(transports, reference.registry(), reference.repository(), credentials)
    }

    /// A repository by name; an empty one serves for requests about the registry itself.
    pub fn at(transports: &Transports, registry: &str, repository: &str, credentials: Credentials) -> Self {
        Self {
            transport: transports.to(registry, host_for(registry)),
            prefix: String::new(),
            scheme: None,
            repository: repository.to_owned(),
            credentials,
            tokens: Mutex::default(),
            is_mirror: false,
        }
    }

    fn mirror(transports: &Transports, base: &str, reference: &Reference) -> Result<Self, RegistryError> {
        let bad = |why: &str| RegistryError::Network {
            text: format!("mirror {base:?} of {}: {why}", reference.registry()),
            transient: false,
        };
        let url = Url::parse(base).map_err(|error| bad(&error.to_string()))?;
        let host = super::transport::host_of(&url);
        let transport = transports.to(&host, &host);
        let scheme = match url.scheme() {
            "https" => "https",
            "http" if transport.allows_http() => "http",
            "http" => return Err(bad("HTTP needs a loopback address or a registry named insecure")),
            _ => return Err(bad("it is neither https nor http")),
        };
        Ok(Self {
            transport,
            prefix: url.path().trim_end_matches('/').to_owned(),
            scheme: Some(scheme),
            repository: reference.repository().to_owned(),
            credentials: Credentials::Anonymous,
            tokens: Mutex::default(),
            is_mirror: true,
        })
    }

    /// `host[:port]`.
    pub fn host(&self) -> &str {
        self.transport.host()
    }

    /// Whether this is a mirror and not the registry itself.
    pub fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Digest, media type and size of a manifest, without its content. `None` where the registry does
    /// not tell the digest.
    pub async fn head_manifest(&self, name: &str) -> Result<Option<Digest>, RegistryError> {
        let path = self.path("manifests", name);
        let response = self.request(Method::HEAD, &path, "pull", accept(), None).await?;
        let header = response.headers().get("docker-content-digest");
        Ok(header.and_then(|value| value.to_str().ok()).and_then(Digest::parse))
    }

    /// A manifest or index by tag or digest, of at most `most` bytes.
    pub async fn manifest(&self, name: &str, most: u64) -> Result<Fetched, RegistryError> {
        let path = self.path("manifests", name);
        let (response, bytes) = self.whole(&path, accept(), most).await?;
        let media_type = response
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|text| text.split(';').next().unwrap_or_default().trim().to_owned())
            .unwrap_or_default();
        let digest = Digest::of(&bytes);
        let told = response.get("docker-content-digest").and_then(|v| v.to_str().ok());
        let wanted = if name.contains(':') { Some(name) } else { told };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != digest.as_str()) {
            return Err(RegistryError::Corrupt(format!("manifest verification failed for digest {wanted}")));
        }
        Ok(Fetched { bytes, media_type, digest })
    }

    /// A small blob (an image's configuration) of at most `most` bytes, its digest compared.
    pub async fn document(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, RegistryError> {
        let path = self.path("blobs", digest.as_str());
        let (_, bytes) = self.whole(&path, HeaderMap::new(), most).await?;
        if Digest::of(&bytes) != *digest {
            return Err(RegistryError::Corrupt(format!(
                "image config verification failed for digest {digest}"
            )));
        }
        Ok(bytes)
    }

    /// Whether a blob can be read here.
    pub async fn has_blob_to_read(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let path = self.path("blobs", digest.as_str());
        Ok(self.once(Method::HEAD, &path, "pull", HeaderMap::new(), None).await?.status().is_success())
    }

    /// All tags of the repository, as the registry orders them.
    pub async fn tags(&self, most: u64) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut path = format!("/v2/{}/tags/list?n={TAGS_PAGE}", self.repository);
        for _ in 0..MOST_PAGES {
            let (headers, bytes) = self.whole(&path, HeaderMap::new(), most).await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| RegistryError::Corrupt(format!("tags of {}: {error}", self.repository)))?;
            tags.extend(page.tags.unwrap_or_default());
            let next = headers
                .get(http::header::LINK)
                .and_then(|value| value.to_str().ok())
                .filter(|text| text.contains("rel=\"next\""))
                .and_then(|text| text.split_once('<')?.1.split_once('>'))
                .map(|(target, _)| target.to_owned());
            let Some(next) = next else { return Ok(tags) };
            // Only the query is taken: the page is asked from this repository, whatever the link says.
            let query = next.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
            path = format!("/v2/{}/tags/list?{query}", self.repository);
        }
        Err(RegistryError::TooLarge(format!("{} has more than {} tags", self.repository, tags.len())))
    }

    /// A blob's bytes from `offset` on. Where the registry does not do ranges the answer starts at 0
    /// and has the status 200.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<Response, RegistryError> {
        let mut headers = HeaderMap::new();
        // Compression on top would make the bytes others than those that the digest is of.
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            let value = HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are a header");
            headers.insert(RANGE, value);
        }
        self.once(Method::GET, &self.path("blobs", digest.as_str()), "pull", headers, None).await
    }

    /// `/v2/<repository>/<kind>/<name>`.
    pub fn path(&self, kind: &str, name: &str) -> String {
        format!("/v2/{}/{kind}/{name}", self.repository)
    }

    /// Sends a request; again with pauses where it fails for a moment.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        actions: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 0;
        loop {
            let sent = self.once(method.clone(), path, actions, headers.clone(), body.clone()).await;
            let Err(error) = sent else { return sent };
            attempt += 1;
            pause(attempt, error).await?;
        }
    }

    /// A whole bounded body, the reading of it tried again as well.
    async fn whole(
        &self,
        path: &str,
        headers: HeaderMap,
        most: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let mut attempt = 0;
        loop {
            let read = async {
                let response = self.once(Method::GET, path, "pull", headers.clone(), None).await?;
                let answered = response.headers().clone();
                Ok((answered, bounded(response, most).await?))
            };
            match read.await {
                Ok(read) => return Ok(read),
                Err(error) => {
                    attempt += 1;
                    pause(attempt, error).await?;
                }
            }
        }
    }

    /// Sends a request once, with authorisation; answers that are no success are errors.
    pub async fn once(
        &self,
        method: Method,
        path: &str,
        actions: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, RegistryError> {
        let root = self.find_root().await?;
        let url = self.url(&root, path)?;
        let scope = self.scope(actions);
        let mut call = Call { method, url, headers, body };
        if let Some(header) = self.authorization(&root, &scope).await? {
            call.headers.insert(AUTHORIZATION, header);
        }
        let response = match self.transport.send(call.clone()).await {
            Err(error @ RegistryError::Network { .. }) => {
                // Perhaps another kind of server answers there by now.
                self.transport.set_root(None);
                return Err(error);
            }
            other => other?,
        };
        if response.status() != StatusCode::UNAUTHORIZED {
            return success(response).await;
        }
        let Some(challenge) = Challenge::of(response.headers()) else { return success(response).await };
        let refused_basic = challenge == Challenge::Basic && call.headers.contains_key(AUTHORIZATION);
        if refused_basic {
            return success(response).await;
        }
        let wider = match &challenge {
            Challenge::Bearer { scope, .. } if !scope.is_empty() => scope.clone(),
            _ => scope.clone(),
        };
        let root = Root { scheme: root.scheme, challenge: Some(challenge) };
        self.transport.set_root(Some(root.clone()));
        self.lock_tokens().remove(&scope);
        let Some(header) = self.authorization_for(&root, &scope, &wider).await? else {
            return Err(self.no_credentials(&call));
        };
        call.headers.insert(AUTHORIZATION, header);
        success(self.transport.send(call).await?).await
    }

    /// The header that answers the registry's challenge; `None` where it asks for nothing.
    pub async fn authorization(
        &self,
        root: &Root,
        scope: &str,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        self.authorization_for(root, scope, scope).await
    }

    async fn authorization_for(
        &self,
        root: &Root,
        key: &str,
        scope: &str,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let Some(challenge) = &root.challenge else { return Ok(None) };
        if let Credentials::RegistryToken(token) = &self.credentials {
            return secret(format!("Bearer {token}")).map(Some);
        }
        match challenge {
            Challenge::Basic => match &self.credentials {
                Credentials::Basic(user, password) => basic(user, password).map(Some),
                _ => Ok(None),
            },
            Challenge::Bearer { realm, service, .. } => {
                let known = self.lock_tokens().get(key).filter(|token| token.until > Instant::now()).cloned();
                if let Some(token) = known {
                    return Ok(Some(token.header));
                }
                let url = self.url(root, "/v2/")?;
                let challenge = (realm.as_str(), service.as_str());
                let token =
                    fetch_token(&self.transport, &url, challenge, scope, &self.credentials, false).await?;
                self.lock_tokens().insert(key.to_owned(), token.clone());
                Ok(Some(token.header))
            }
        }
    }

    fn lock_tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, Token>> {
        self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn no_credentials(&self, call: &Call) -> RegistryError {
        let verb = if call.method == Method::HEAD { "Head" } else { "Get" };
        RegistryError::Credentials(format!(
            "{verb} \"{}\": no basic auth credentials",
            super::transport::bare(&call.url)
        ))
    }

    /// What a token for these actions has to cover; more scopes may follow after a space.
    pub fn scope(&self, actions: &str) -> String {
        if self.repository.is_empty() {
            String::new()
        } else {
            format!("repository:{}:{actions}", self.repository)
        }
    }

    /// The connections, for uploads that stream.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// A URL below the endpoint.
    pub fn url(&self, root: &Root, path: &str) -> Result<Url, RegistryError> {
        let text = format!("{}://{}{}{path}", root.scheme, self.transport.host(), self.prefix);
        Url::parse(&text).map_err(|error| RegistryError::Corrupt(format!("{text}: {error}")))
    }

    /// Asks the protocol's root once per host: over TLS first, and over HTTP where that is allowed and TLS
    /// did not come about.
    pub async fn find_root(&self) -> Result<Root, RegistryError> {
        if let Some(root) = self.transport.root().filter(|root| self.scheme.is_none_or(|s| s == root.scheme))
        {
            return Ok(root);
        }
        let schemes: &[&'static str] = match self.scheme {
            Some("http") => &["http"],
            Some(_) => &["https"],
            None if self.transport.allows_http() => &["https", "http"],
            None => &["https"],
        };
        let mut attempt = 0;
        loop {
            let mut failed = None;
            for scheme in schemes {
                match self.ask_root(scheme).await {
                    Ok(root) => {
                        self.transport.set_root(Some(root.clone()));
                        return Ok(root);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            attempt += 1;
            pause(attempt, failed.expect("there is at least one scheme")).await?;
        }
    }

    async fn ask_root(&self, scheme: &'static str) -> Result<Root, RegistryError> {
        let url = self.url(&Root { scheme, challenge: None }, "/v2/")?;
        let call = Call { method: Method::GET, url, headers: HeaderMap::new(), body: None };
        let response = self.transport.send(call).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = Challenge::of(response.headers());
            drop(bounded(response, 64 << 10).await);
            return Ok(Root { scheme, challenge });
        }
        // A registry that has no root page may still serve the rest, as plain file servers do.
        if response.status() != StatusCode::NOT_FOUND {
            let response = success(response).await?;
            drop(bounded(response, 64 << 10).await);
        }
        Ok(Root { scheme, challenge: None })
    }
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for media_type in ACCEPTED {
        headers.append(ACCEPT, HeaderValue::from_static(media_type));
    }
    headers
}

/// Waits before the next attempt, or gives the error back where there is none to be made.
pub(crate) async fn pause(attempt: u32, error: RegistryError) -> Result<(), RegistryError> {
    if attempt >= ATTEMPTS || !error.is_transient() {
        return Err(error);
    }
    let jitter = 0.75 + 0.5 * rand::random::<f64>();
    let grown = FIRST_PAUSE.mul_f64(f64::from(1u32 << (attempt - 1)) * jitter);
    let wait = error.retry_after().unwrap_or(grown);
    if wait > LONGEST_PAUSE {
        return Err(error);
    }
    tracing::debug!(%error, ?wait, attempt, "a request to a registry is tried again");
    tokio::time::sleep(wait).await;
    Ok(())
}
