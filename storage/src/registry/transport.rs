//! How one host is reached: TLS settings, redirects, time limits, and the words for what goes wrong.
//!
//! Redirects are followed here and not by `reqwest`, so that nothing secret goes along: another host
//! gets neither the `Authorization` header nor the client certificate, and TLS is never left.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method};
use reqwest::{Certificate, Client, Identity, Response, Url};

use super::auth::Challenge;
use super::error::from_answer;
use super::{RegistryError, is_loopback};
use crate::RegistryOptions;

const USER_AGENT: &str = concat!("ctl/", env!("CARGO_PKG_VERSION"));
/// Until a connection stands, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Until the first byte of an answer, and between two pieces of one.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: usize = 10;
/// Of a body that tells about an error.
const ERROR_BODY_BYTES: usize = 64 << 10;

/// Connections to all hosts, kept for the life of the store: a client costs 33 ms to make.
#[derive(Debug)]
pub(crate) struct Transports {
    options: BTreeMap<String, RegistryOptions>,
    by_host: Mutex<BTreeMap<String, Arc<Transport>>>,
}

impl Transports {
    /// `options` by `host[:port]` as references name it.
    pub fn new(options: BTreeMap<String, RegistryOptions>) -> Self {
        Self { options, by_host: Mutex::default() }
    }

    /// Settings of a registry; the defaults where it is not named.
    pub fn options(&self, registry: &str) -> RegistryOptions {
        self.options.get(registry).cloned().unwrap_or_default()
    }

    /// The connections to a host. `registry` is the name that settings are found by.
    pub fn to(&self, registry: &str, host: &str) -> Arc<Transport> {
        let mut by_host = self.by_host.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        by_host
            .entry(host.to_owned())
            .or_insert_with(|| Arc::new(Transport::new(host, self.options(registry))))
            .clone()
    }
}

/// Where the protocol's root was found, and what it asks for.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// `None` where it answers everyone.
    pub challenge: Option<Challenge>,
}

/// The connections to one `host[:port]`.
#[derive(Debug)]
pub(crate) struct Transport {
    host: String,
    pub(super) options: RegistryOptions,
    plain: OnceLock<Client>,
    own: OnceLock<Result<Client, RegistryError>>,
    foreign: OnceLock<Result<Client, RegistryError>>,
    root: Mutex<Option<Root>>,
}

/// One request; sent again as it is on a redirect.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

impl Transport {
    fn new(host: &str, options: RegistryOptions) -> Self {
        Self {
            host: host.to_owned(),
            options,
            plain: OnceLock::new(),
            own: OnceLock::new(),
            foreign: OnceLock::new(),
            root: Mutex::new(None),
        }
    }

    /// `host[:port]`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether plain HTTP may be spoken.
    pub fn allows_http(&self) -> bool {
        self.options.insecure || is_loopback(&self.host)
    }

    /// What the root of the protocol answered when it was last asked.
    pub fn root(&self) -> Option<Root> {
        self.root.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Remembers the root's answer, or forgets it.
    pub fn set_root(&self, root: Option<Root>) {
        *self.root.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = root;
    }

    fn plain(&self) -> &Client {
        self.plain.get_or_init(|| {
            base().tls_certs_only([]).build().expect("a client without TLS settings has nothing to fail on")
        })
    }

    fn client(&self, url: &Url) -> Result<&Client, RegistryError> {
        if url.scheme() == "http" {
            return Ok(self.plain());
        }
        let own = host_of(url) == self.host;
        let cell = if own { &self.own } else { &self.foreign };
        cell.get_or_init(|| self.build(own)).as_ref().map_err(Clone::clone)
    }

    fn build(&self, own: bool) -> Result<Client, RegistryError> {
        let fail = |what: String| RegistryError::Network {
            text: format!("TLS settings of registry {}: {what}", self.host),
            transient: false,
        };
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|error| fail(format!("{}: {error}", path.display())))
        };
        let mut builder = base();
        if let Some(path) = &self.options.ca_file {
            let bundle = Certificate::from_pem_bundle(&read(path)?)
                .map_err(|error| fail(format!("{}: {error}", path.display())))?;
            builder = builder.tls_certs_merge(bundle);
        }
        if let Some((certificate, key)) = self.options.client_cert.as_ref().filter(|_| own) {
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = Identity::from_pem(&pem)
                .map_err(|error| fail(format!("{}: {error}", certificate.display())))?;
            builder = builder.identity(identity);
        }
        if self.options.insecure && own {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if is_loopback(&self.host) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| fail(error.to_string()))
    }

    /// Sends a request and follows redirects. Any answer is a success here but for redirects that
    /// lead astray.
    pub async fn send(&self, mut call: Call) -> Result<Response, RegistryError> {
        let first = call.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self
                .client(&call.url)?
                .request(call.method.clone(), call.url.clone())
                .headers(call.headers.clone());
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|error| network(&call.method, &call.url, &error))?;
            let follow = response.status().is_redirection()
                && matches!(call.method, Method::GET | Method::HEAD)
                && response.headers().contains_key(LOCATION);
            if !follow {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| call.url.join(text).ok())
                .ok_or_else(|| RegistryError::Corrupt(format!("bad redirect from {}", bare(&call.url))))?;
            let kept_safe = match target.scheme() {
                "https" => true,
                "http" => first.scheme() == "http",
                _ => false,
            };
            if !kept_safe {
                return Err(RegistryError::Corrupt(format!(
                    "refusing the redirect of {} to {}",
                    bare(&first),
                    bare(&target)
                )));
            }
            if origin(&target) != origin(&first) {
                call.headers.remove(AUTHORIZATION);
            }
            call.url = target;
        }
        Err(RegistryError::Corrupt(format!("{}: stopped after {MOST_REDIRECTS} redirects", bare(&first))))
    }

    /// Sends a body that can be sent once only; no redirects.
    pub async fn send_stream(&self, call: Call, body: reqwest::Body) -> Result<Response, RegistryError> {
        let request =
            self.client(&call.url)?.request(call.method.clone(), call.url.clone()).headers(call.headers);
        request.body(body).send().await.map_err(|error| network(&call.method, &call.url, &error))
    }
}

fn base() -> reqwest::ClientBuilder {
    // Without a default provider rustls does not know which of several to take. A second call, which
    // loses, is no harm.
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // One connection per layer: streams of one HTTP/2 connection share its window.
        .http1_only()
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(IDLE_LIMIT)
        .pool_idle_timeout(Duration::from_secs(30))
}

/// Scheme, host and port.
pub(crate) fn origin(url: &Url) -> (String, String, Option<u16>) {
    let host = url.host_str().unwrap_or_default().to_owned();
    (url.scheme().to_owned(), host, url.port_or_known_default())
}

/// `host[:port]` as it is written in a URL.
pub(crate) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// A URL without user, query and fragment, which may hold secrets.
pub(crate) fn bare(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_of(url), url.path())
}

/// `Ok` for a success; otherwise the registry's error, read from a bounded body.
pub(crate) async fn success(response: Response) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| parse_retry_after(text, chrono::Utc::now()));
    let body = bounded(response, ERROR_BODY_BYTES as u64).await.unwrap_or_default();
    Err(from_answer(status.as_u16(), retry_after, &body))
}

/// `Retry-After` in seconds or as a date.
fn parse_retry_after(text: &str, now: chrono::DateTime<chrono::Utc>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    Some((at.with_timezone(&chrono::Utc) - now).to_std().unwrap_or_default())
}

/// Reads a body of at most `most` bytes.
pub(crate) async fn bounded(mut response: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
    let url = response.url().clone();
    let too_large =
        || RegistryError::TooLarge(format!("{}: the document is larger than {most} bytes", bare(&url)));
    if response.content_length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > most => return Err(too_large()),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(network(&Method::GET, &url, &error)),
        }
    }
}

/// Docker's words for a request that got no answer: `Get "https://host/v2/": dial tcp …`.
pub(crate) fn network(method: &Method, url: &Url, error: &reqwest::Error) -> RegistryError {
    let verb = match *method {
        Method::GET => "Get",
        Method::HEAD => "Head",
        Method::POST => "Post",
        Method::PUT => "Put",
        Method::PATCH => "Patch",
        _ => "Send",
    };
    let (why, transient) = reason(url, error);
    RegistryError::Network { text: format!("{verb} \"{}\": {why}", bare(url)), transient }
}

fn reason(url: &Url, error: &reqwest::Error) -> (String, bool) {
    let host = url.host_str().unwrap_or_default();
    let address = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
    let mut deepest = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        deepest = cause.to_string();
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return (tls_reason(tls), false);
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return (tls_reason(tls), false);
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused => {
                    return (format!("dial tcp {address}: connect: connection refused"), false);
                }
                io::ErrorKind::HostUnreachable => {
                    return (format!("dial tcp {address}: connect: no route to host"), true);
                }
                io::ErrorKind::NetworkUnreachable => {
                    return (format!("dial tcp {address}: connect: network is unreachable"), true);
                }
                _ => {}
            }
        }
        source = cause.source();
    }
    if deepest.contains("failed to lookup address") || deepest.contains("dns error") {
        return (format!("dial tcp: lookup {host}: no such host"), false);
    }
    if error.is_timeout() && error.is_connect() {
        return (format!("dial tcp {address}: i/o timeout"), true);
    }
    if error.is_timeout() {
        return (
            "net/http: request canceled (Client.Timeout exceeded while awaiting headers)".to_owned(),
            true,
        );
    }
    (deepest, true)
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid".to_owned()
        }
        Error::InvalidCertificate(reason) => format!("tls: failed to verify certificate: x509: {reason}"),
        other => format!("remote error: tls: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = chrono::DateTime::parse_from_rfc2822("Wed, 21 Oct 2015 07:28:00 +0000")
            .expect("a date")
            .with_timezone(&chrono::Utc);
        assert_eq!(parse_retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:09 GMT", now), Some(Duration::from_secs(9)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:27:09 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
    }
}
