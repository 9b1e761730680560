//! Authorisation: the challenges of registries, the tokens that answer them, and whom credentials may
//! reach.
//!
//! A registry answers 401 with `WWW-Authenticate: Bearer realm="…",service="…",scope="…"` or `Basic`.
//! The realm is chosen by whoever answers, so it is untrusted: credentials go there only where it is on
//! the registry's own host, or on a host of the same domain (`auth.docker.io` for
//! `registry-1.docker.io`), over TLS unless the registry itself may be spoken to without.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::Url;

use super::transport::{Call, Transport, bare, bounded, host_of, success};
use super::{RegistryError, host_without_port, is_loopback};
use crate::Credentials;

const TOKEN_ANSWER_BYTES: u64 = 1 << 20;
/// A token that says nothing about its life lives this long, by the token specification.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
const CLIENT_ID: &str = "ctl";

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        realm: String,
        service: String,
        /// What the refused request would have needed.
        scope: String,
    },
}

impl Challenge {
    /// The best challenge of an answer: a token goes before a password.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let all = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut basic = None;
        for text in all {
            match Self::parse(text) {
                Some(bearer @ Self::Bearer { .. }) => return Some(bearer),
                other => basic = basic.or(other),
            }
        }
        basic
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, parameters) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
        let mut rest = parameters.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted_value(quoted)?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    (after[..end].trim().to_owned(), &after[end..])
                }
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = value,
                "service" => service = value,
                "scope" => scope = value,
                _ => {}
            }
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        (!realm.is_empty()).then_some(Self::Bearer { realm, service, scope })
    }
}

/// What stands before the closing quote, and what behind it.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// A token and its end.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// The header that carries it.
    pub header: HeaderValue,
    /// It is not used after.
    pub until: Instant,
    /// Given to those who logged in with a password and asked for one.
    pub refresh: Option<String>,
}

/// `Basic …` for a user and password.
pub(crate) fn basic(user: &str, password: &str) -> Result<HeaderValue, RegistryError> {
    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// A header's value that logs do not show.
pub(crate) fn secret(text: String) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        RegistryError::Credentials("credentials with characters that no header may have".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks the realm for a token. `offline` asks for a refresh token too, as a login does.
pub(crate) async fn fetch_token(
    transport: &Transport,
    registry: &Url,
    challenge: (&str, &str),
    scope: &str,
    credentials: &Credentials,
    offline: bool,
) -> Result<Token, RegistryError> {
    let (realm, service) = challenge;
    let mut url = Url::parse(realm).map_err(|_| {
        RegistryError::Corrupt(format!("the registry names a token server that is no URL: {realm:?}"))
    })?;
    let anonymous = matches!(credentials, Credentials::Anonymous);
    check_realm(registry, &url, transport.allows_http(), anonymous)?;
    let mut headers = HeaderMap::new();
    let refresh = match credentials {
        Credentials::IdentityToken(token) => Some(token),
        _ => None,
    };
    let call = if let Some(refresh) = refresh {
        let form = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh),
            ("service", service),
            ("scope", scope),
            ("client_id", CLIENT_ID),
        ]);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        Call { method: Method::POST, url: url.clone(), headers, body: Some(Bytes::from(form)) }
    } else {
        {
            let mut query = url.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", service);
            }
            for part in scope.split(' ').filter(|part| !part.is_empty()) {
                query.append_pair("scope", part);
            }
            if let Credentials::Basic(user, _) = credentials {
                query.append_pair("account", user);
            }
            if offline {
                query.append_pair("offline_token", "true").append_pair("client_id", CLIENT_ID);
            }
        }
        if let Credentials::Basic(user, password) = credentials {
            headers.insert(AUTHORIZATION, basic(user, password)?);
        }
        Call { method: Method::GET, url: url.clone(), headers, body: None }
    };
    let answer = success(transport.send(call).await?).await.map_err(|error| token_error(error, &url))?;
    let body = bounded(answer, TOKEN_ANSWER_BYTES).await?;
    parse_token(&body).ok_or_else(|| {
        RegistryError::Corrupt(format!("the token server {} answered without a token", bare(&url)))
    })?
}

/// A form, as browsers encode it.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("form:").expect("a constant URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

fn parse_token(body: &[u8]) -> Option<Result<Token, RegistryError>> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
        refresh_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
    let life = answer.expires_in.map_or(TOKEN_LIFE, |s| Duration::from_secs(s.min(24 * 3600)));
    Some(secret(format!("Bearer {token}")).map(|header| Token {
        header,
        // A little early, so that it does not end on its way.
        until: Instant::now() + life.mul_f32(0.9),
        refresh: answer.refresh_token,
    }))
}

/// Docker tells of a refused login as of the registry's own refusal.
fn token_error(error: RegistryError, url: &Url) -> RegistryError {
    match error {
        RegistryError::Status { status: 401 | 403, code, text, .. } if code.is_empty() => {
            let said_nothing = text.starts_with("received unexpected");
            let text = if said_nothing { "incorrect username or password".to_owned() } else { text };
            RegistryError::Status {
                status: 401,
                code: "UNAUTHORIZED".to_owned(),
                text: format!("Get \"{}\": unauthorized: {text}", bare(url)),
                retry_after: None,
            }
        }
        other => other,
    }
}

/// Whether a token may be asked for at a realm.
fn check_realm(registry: &Url, realm: &Url, allows_http: bool, anonymous: bool) -> Result<(), RegistryError> {
    let safe_scheme = match realm.scheme() {
        "https" => true,
        "http" => registry.scheme() == "http" && (allows_http || is_loopback(&host_of(realm))),
        _ => false,
    };
    let (at, to) = (host_of(registry), host_of(realm));
    let related = same_site(host_without_port(&at), host_without_port(&to));
    if safe_scheme && (related || anonymous) {
        return Ok(());
    }
    Err(RegistryError::Credentials(format!(
        "refusing the token server {} that registry {at} names: {}",
        bare(realm),
        if safe_scheme { "credentials are not sent to another domain" } else { "it is not reached over TLS" }
    )))
}

/// The same host, or hosts below one domain that is not a public suffix. Without the list of those
/// suffixes: at least two labels, and not a short second label below a country (`co.uk`).
fn same_site(registry: &str, realm: &str) -> bool {
    if registry.eq_ignore_ascii_case(realm) {
        return true;
    }
    let is_address = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
    if is_address(registry) || is_address(realm) {
        return false;
    }
    let (registry, realm) = (registry.to_ascii_lowercase(), realm.to_ascii_lowercase());
    let Some((_, domain)) = registry.split_once('.') else { return false };
    let labels: Vec<&str> = domain.split('.').collect();
    let is_site = match labels[..] {
        [] | [_] => false,
        [second, country] => country.len() > 2 || second.len() > 3,
        _ => true,
    };
    is_site && (realm == domain || realm.ends_with(&format!(".{domain}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(text),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: "registry.docker.io".into(),
                scope: "repository:a/b:pull,push".into(),
            })
        );
        assert_eq!(Challenge::parse("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Digest x=y"), None);
        assert_eq!(Challenge::parse("Bearer realm=\"open"), None);
        assert!(matches!(
            Challenge::parse(r#"Bearer service=a , realm="q\"t""#),
            Some(Challenge::Bearer { realm, .. }) if realm == "q\"t"
        ));
    }

    #[test]
    fn credentials_stay_within_the_domain() {
        for (registry, realm, fine) in [
            ("https://registry-1.docker.io/", "https://auth.docker.io/token", true),
            ("https://registry.gitlab.com/", "https://gitlab.com/jwt/auth", true),
            ("https://ghcr.io/", "https://ghcr.io/token", true),
            ("https://r.example.org/", "https://example.org.evil.net/token", false),
            ("https://r.example.org/", "https://evil.net/token", false),
            ("https://r.example.org/", "http://r.example.org/token", false),
            ("https://r.example.org/", "file:///etc/passwd", false),
            ("https://shop.co.uk/", "https://evil.co.uk/token", false),
            ("https://a.io/", "https://evil.io/token", false),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token", true),
            ("http://127.0.0.1:5000/", "http://127.0.0.2:5001/token", false),
            ("http://localhost:5000/", "http://evil.net/token", false),
        ] {
            let parse = |text| Url::parse(text).unwrap();
            let answer = check_realm(&parse(registry), &parse(realm), false, false);
            assert_eq!(answer.is_ok(), fine, "{registry} {realm}");
        }
    }
}
