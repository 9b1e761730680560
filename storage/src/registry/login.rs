//! Checking credentials, and searching: requests about a registry and not about a repository.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::auth::{Challenge, basic, fetch_token, secret};
use super::session::{Session, host_for};
use super::transport::{Call, bare, bounded, success};
use super::{RegistryError, Transports};
use crate::Credentials;

/// Of a search's answer.
const SEARCH_BYTES: u64 = 4 << 20;
/// Docker Hub answers searches here.
const HUB_SEARCH_HOST: &str = "index.docker.io";

/// Credentials are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `Login Succeeded`.
    pub status: String,
    /// A refresh token to keep instead of the password, where the registry gives one.
    pub identity_token: Option<String>,
}

/// Why a login or a search failed. `Display` is what the client reads.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// 401: the registry does not accept the credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// 400: no such term or registry name.
    #[error("{0}")]
    Invalid(String),
    /// 500: network, TLS, or the registry itself.
    #[error("{0}")]
    Unavailable(String),
}

/// One repository that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// `nginx`, `user/app`.
    #[serde(default)]
    pub name: String,
    /// What its owner says about it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: i64,
    /// Whether it is one of Docker Hub's own.
    #[serde(default)]
    pub is_official: bool,
    /// Whether it is built by Docker Hub.
    #[serde(default)]
    pub is_automated: bool,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

impl From<RegistryError> for LoginError {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Status { status: 401 | 403, .. } | RegistryError::Credentials(_) => {
                Self::Unauthorized(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

/// `host[:port]` from what `docker login` is given: a host, or a URL as older clients send it.
pub(crate) fn registry_name(address: &str) -> String {
    let bare = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Tries credentials at a registry.
pub(crate) async fn login(
    transports: &Transports,
    registry: &str,
    credentials: &Credentials,
) -> Result<Login, LoginError> {
    let session = Session::at(transports, registry, "", credentials.clone());
    let root = session.find_root().await?;
    let url = session.url(&root, "/v2/")?;
    let mut identity_token = None;
    let header = match &root.challenge {
        None => None,
        Some(Challenge::Basic) => match credentials {
            Credentials::Basic(user, password) => Some(basic(user, password)?),
            _ => {
                return Err(LoginError::Unauthorized(format!(
                    "Get \"{}\": no basic auth credentials",
                    bare(&url)
                )));
            }
        },
        Some(Challenge::Bearer { realm, service, .. }) => {
            let header = if let Credentials::RegistryToken(token) = credentials {
                secret(format!("Bearer {token}"))?
            } else {
                let challenge = (realm.as_str(), service.as_str());
                let token = fetch_token(session.transport(), &url, challenge, "", credentials, true).await?;
                identity_token = token.refresh;
                token.header
            };
            Some(header)
        }
    };
    let mut headers = HeaderMap::new();
    if let Some(header) = header {
        headers.insert(AUTHORIZATION, header);
    }
    let call = Call { method: Method::GET, url: url.clone(), headers, body: None };
    let response = session.transport().send(call).await?;
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        return Err(LoginError::Unauthorized(format!(
            "login attempt to {} failed with status: 401 Unauthorized",
            bare(&url)
        )));
    }
    success(response).await?;
    Ok(Login { status: "Login Succeeded".to_owned(), identity_token })
}

/// Docker's v1 search, which is what registries offer. `term` may begin with a registry's name.
pub(crate) async fn search(
    transports: &Transports,
    term: &str,
    limit: u32,
    credentials: &Credentials,
) -> Result<Vec<SearchResult>, LoginError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        results: Vec<SearchResult>,
    }
    if term.is_empty() || term.contains("://") {
        return Err(LoginError::Invalid(format!("invalid repository name ({term})")));
    }
    let (registry, term) = match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (registry_name(host), rest),
        _ => ("docker.io".to_owned(), term),
    };
    let host = if registry == "docker.io" { HUB_SEARCH_HOST } else { host_for(&registry) };
    let transport = transports.to(&registry, host);
    let schemes: &[&str] = if transport.allows_http() { &["https", "http"] } else { &["https"] };
    let mut failed = None;
    for scheme in schemes {
        let mut url = reqwest::Url::parse(&format!("{scheme}://{host}/v1/search"))
            .map_err(|_| LoginError::Invalid(format!("invalid registry name ({host})")))?;
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let mut headers = HeaderMap::new();
        if let Credentials::Basic(user, password) = credentials {
            headers.insert(AUTHORIZATION, basic(user, password)?);
        }
        let call = Call { method: Method::GET, url, headers, body: None::<Bytes> };
        match transport.send(call).await {
            Ok(response) => {
                let body = bounded(success(response).await?, SEARCH_BYTES).await?;
                let answer: Answer = serde_json::from_slice(&body)
                    .map_err(|error| LoginError::Unavailable(format!("search at {host}: {error}")))?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                return Ok(answer.results.into_iter().take(limit).collect());
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("there is at least one scheme").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_by_hosts_and_urls() {
        for (address, name) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://localhost:5000/v2/", "localhost:5000"),
            ("ghcr.io", "ghcr.io"),
        ] {
            assert_eq!(registry_name(address), name);
        }
    }
}
