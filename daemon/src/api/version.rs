//! The version in a path: `/v1.43/containers/json` is `/containers/json` for a client of API 1.43.

use axum::body::Body;
use http::Request;
use http::uri::{PathAndQuery, Uri};

use super::error::Failure;
use super::request::ApiVersion;

/// Splits `major.minor`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn supported(text: &str) -> (u32, u32) {
    numbers(text).expect("our own versions have this form")
}

/// Takes the version off a path; `None` where it has none. The messages are Docker's.
fn split(path: &str) -> Result<Option<(ApiVersion, &str)>, Failure> {
    let Some(rest) = path.strip_prefix("/v") else { return Ok(None) };
    let end = rest.find('/').unwrap_or(rest.len());
    let (version, path) = rest.split_at(end);
    if version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ok(None);
    }
    let Some(asked) = numbers(version) else { return Ok(None) };
    if asked < supported(proto_api::MIN_API_VERSION) {
        return Err(Failure::bad(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            proto_api::MIN_API_VERSION
        )));
    }
    if asked > supported(proto_api::API_VERSION) {
        return Err(Failure::bad(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            proto_api::API_VERSION
        )));
    }
    let minor = u16::try_from(asked.1).map_err(|_| Failure::not_found("page not found"))?;
    Ok(Some((ApiVersion(minor), if path.is_empty() { "/" } else { path })))
}

/// Rewrites the request's path and records the version.
pub fn strip(request: &mut Request<Body>) -> Result<(), Failure> {
    let newest = ApiVersion(u16::try_from(supported(proto_api::API_VERSION).1).unwrap_or(u16::MAX));
    let version = match split(request.uri().path())? {
        None => newest,
        Some((version, path)) => {
            let path_and_query = match request.uri().query() {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            };
            let path_and_query: PathAndQuery =
                path_and_query.parse().map_err(|_| Failure::not_found("page not found"))?;
            *request.uri_mut() = Uri::from(path_and_query);
            version
        }
    };
    request.extensions_mut().insert(version);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_off_and_checked() {
        assert_eq!(split("/v1.43/info").unwrap(), Some((ApiVersion(43), "/info")));
        assert_eq!(split("/v1.53").unwrap(), Some((ApiVersion(53), "/")));
        for path in ["/version", "/volumes", "/vx/info", "/v1.4.3/info", "/info", "/v/info"] {
            assert_eq!(split(path).unwrap(), None, "{path}");
        }
        let message = |path| split(path).unwrap_err().message;
        assert_eq!(
            message("/v1.30/info"),
            "client version 1.30 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version"
        );
        assert_eq!(
            message("/v1.99/info"),
            "client version 1.99 is too new. Maximum supported API version is 1.53"
        );
        assert!(message("/v2/info").contains("too new"));
    }

    #[test]
    fn the_query_stays() {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/v1.40/containers/json?all=1&x=%2F".parse().unwrap();
        strip(&mut request).unwrap();
        assert_eq!(request.uri(), "/containers/json?all=1&x=%2F");
        assert_eq!(request.extensions().get(), Some(&ApiVersion(40)));
    }
}
