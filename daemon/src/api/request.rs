//! What handlers read: query parameters in Go's manner, JSON bodies, the API version, credentials.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query};
use base64::Engine as _;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, header};
use proto_api::filters::Filters;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use storage::Credentials;

use super::error::Failure;

/// The largest JSON body in bytes.
const BODY_LIMIT: usize = 4 << 20;

/// Minor version of the API (1.x) that the client asked for. An extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u16);

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().copied().ok_or_else(|| Failure::internal("a request without an API version"))
    }
}

/// The query parameters.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|error| Failure::bad(format!("invalid query: {error}")))
    }
}

impl Params {
    /// The first value of a parameter, where it is given and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values(name).next().filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The same, owned.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A boolean: everything but nothing, `0`, `no`, `false` and `none` is true, as in Docker.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A boolean with a default for where it is not given.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.values(name).next() {
            None => default,
            Some(value) => {
                !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
            }
        }
    }

    /// A number; 400 where it is none.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Failure::bad(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
            })
            .transpose()
    }

    /// The parameter `filters`.
    pub fn filters(&self) -> Result<Filters, Failure> {
        Ok(Filters::parse(self.get("filters").unwrap_or_default())?)
    }

    /// A time as seconds since 1970, with an optional fraction; 0 is "not given" as in Docker.
    pub fn time(&self, name: &str) -> Result<Option<SystemTime>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_time(text).ok_or_else(|| {
            Failure::bad(format!("invalid value for {name:?}: {text:?} is not a Unix timestamp"))
        })
    }

    /// Rows (`h`) and columns (`w`).
    pub fn size(&self) -> Result<(u16, u16), Failure> {
        let get = |name| -> Result<u16, Failure> {
            self.number(name)?
                .ok_or_else(|| Failure::bad(format!("invalid resize {name}: value is required")))
        };
        Ok((get("h")?, get("w")?))
    }
}

/// `Some(None)` is a zero.
fn parse_time(text: &str) -> Option<Option<SystemTime>> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if seconds == 0 && nanos == 0 {
        return Some(None);
    }
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)?
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)?
    };
    Some(base.checked_add(Duration::from_nanos(nanos.into())))
}

/// Reads a body up to the limit.
pub async fn body_bytes(body: Body) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        if cause.to_string().contains("length limit") {
            Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("request body is larger than {BODY_LIMIT} bytes"),
            )
        } else {
            Failure::bad(format!("reading the request body: {cause}"))
        }
    })
}

/// A JSON body that must be there.
#[derive(Debug)]
pub struct Json(pub Value);

impl<S: Sync> FromRequest<S> for Json {
    type Rejection = Failure;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Failure> {
        match OptionalJson::read(request).await?.0 {
            Some(value) => Ok(Self(value)),
            None => Err(Failure::bad("invalid JSON: got EOF while reading request body")),
        }
    }
}

/// As a model; 400 where it has another form.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| Failure::bad(format!("invalid JSON: {error}")))
}

/// A JSON body that may be missing.
#[derive(Debug)]
pub struct OptionalJson(pub Option<Value>);

impl OptionalJson {
    /// Reads the body of a request.
    pub async fn read(request: Request<Body>) -> Result<Self, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = body_bytes(request.into_body()).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        let kind = content_type.as_ref().map_or("", |value| value.to_str().unwrap_or("?"));
        let bare = kind.split(';').next().unwrap_or_default().trim();
        if !bare.eq_ignore_ascii_case("application/json") {
            return Err(Failure::bad(format!(
                "unsupported Content-Type header ({kind}): must be 'application/json'"
            )));
        }
        serde_json::from_slice(&bytes)
            .map(|value| Self(Some(value)))
            .map_err(|error| Failure::bad(format!("invalid JSON: {error}")))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    #[serde(alias = "Username")]
    username: String,
    #[serde(alias = "Password")]
    password: String,
    #[serde(alias = "IdentityToken")]
    identitytoken: String,
    #[serde(alias = "RegistryToken")]
    registrytoken: String,
    auth: String,
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let bare = text.trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(bare).or_else(|_| STANDARD_NO_PAD.decode(bare)).ok()
}

/// Credentials in an `AuthConfig` of Docker's, as JSON.
pub fn credentials_from_json(json: &[u8]) -> Option<Credentials> {
    let mut auth: AuthConfig = serde_json::from_slice(json).ok()?;
    if auth.username.is_empty()
        && let Some(pair) = decode(&auth.auth).and_then(|pair| String::from_utf8(pair).ok())
        && let Some((user, password)) = pair.split_once(':')
    {
        (auth.username, auth.password) = (user.to_owned(), password.to_owned());
    }
    Some(if !auth.registrytoken.is_empty() {
        Credentials::RegistryToken(auth.registrytoken)
    } else if !auth.identitytoken.is_empty() {
        Credentials::IdentityToken(auth.identitytoken)
    } else if !auth.username.is_empty() {
        Credentials::Basic(auth.username, auth.password)
    } else {
        Credentials::Anonymous
    })
}

/// The header `X-Registry-Auth`. What cannot be read is no credentials, as in Docker; it is logged.
pub fn credentials(headers: &HeaderMap) -> Credentials {
    let Some(value) = headers.get("x-registry-auth").filter(|value| !value.is_empty()) else {
        return Credentials::Anonymous;
    };
    let read = value.to_str().ok().and_then(decode).and_then(|json| credentials_from_json(&json));
    read.unwrap_or_else(|| {
        tracing::warn!("an X-Registry-Auth header that cannot be read is ignored");
        Credentials::Anonymous
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let uri = format!("http://x/y?{query}").parse().unwrap();
        Params(Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn booleans_are_read_as_docker_reads_them() {
        let params = params("a=1&b=false&c=&d=yes&e=None&f");
        assert!(params.flag("a") && params.flag("d"));
        assert!(!params.flag("b") && !params.flag("c") && !params.flag("e") && !params.flag("f"));
        assert!(params.flag_or("missing", true) && !params.flag_or("b", true));
    }

    #[test]
    fn times_have_fractions() {
        let params = params("a=1.5&b=0&c=x&d=1700000000.000000001&e=-1");
        let at = |name| params.time(name).unwrap();
        assert_eq!(at("a"), Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!(at("b"), None);
        assert_eq!(at("d"), Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 1)));
        assert_eq!(at("e"), Some(SystemTime::UNIX_EPOCH - Duration::from_secs(1)));
        assert!(params.time("c").is_err());
    }

    #[test]
    fn credentials_come_in_several_forms() {
        let header = |json: &str| {
            let mut headers = HeaderMap::new();
            let text = base64::engine::general_purpose::URL_SAFE.encode(json);
            headers.insert("x-registry-auth", text.parse().unwrap());
            credentials(&headers)
        };
        assert!(matches!(header(r#"{"username":"u","password":"p?>"}"#),
            Credentials::Basic(u, p) if u == "u" && p == "p?>"));
        assert!(matches!(header(r#"{"auth":"dTpw"}"#), Credentials::Basic(u, p) if u == "u" && p == "p"));
        assert!(matches!(header(r#"{"identitytoken":"t"}"#), Credentials::IdentityToken(t) if t == "t"));
        assert!(matches!(header("{}"), Credentials::Anonymous));
        assert!(matches!(header("[]x"), Credentials::Anonymous));
    }
}
