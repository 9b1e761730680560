//! Writing to a repository: blobs by mount, in one piece or as a stream; manifests.
//!
//! An upload is `POST` (or a mount that was not granted), then `PUT` with all bytes where digest and size
//! are known, or `PATCH` with a stream and `PUT` with the digest at its end. The location of an upload is
//! chosen by the registry, so a foreign one gets no credentials.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use reqwest::{Response, Url};

use super::transport::{Call, Root, origin, success};
use super::{RegistryError, Session};
use crate::Digest;

/// Actions that a push asks its token for.
const ACTIONS: &str = "pull,push";

/// Where the bytes of a blob go.
#[derive(Debug)]
pub(crate) struct Upload {
    location: Url,
}

impl Session {
    /// Whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let path = self.path("blobs", digest.as_str());
        match self.request(Method::HEAD, &path, ACTIONS, HeaderMap::new(), None).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND.as_u16()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take a blob from another of its repositories; whether it did. Where it did not
    /// it has begun an upload instead, which it forgets after a while.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={from}", self.repository());
        // A scope is a list: the other repository has to be readable by the same token.
        let actions = format!("{ACTIONS} repository:{from}:pull");
        let response =
            self.request(Method::POST, &path, &actions, HeaderMap::new(), Some(Bytes::new())).await?;
        Ok(response.status() == StatusCode::CREATED)
    }

    /// Begins an upload.
    pub async fn begin_upload(&self) -> Result<Upload, RegistryError> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository());
        let response =
            self.request(Method::POST, &path, ACTIONS, HeaderMap::new(), Some(Bytes::new())).await?;
        upload_of(&response)
    }

    /// Sends a whole blob whose digest and size are known.
    pub async fn upload(
        &self,
        upload: Upload,
        digest: &Digest,
        size: u64,
        body: reqwest::Body,
    ) -> Result<(), RegistryError> {
        let mut headers = octets();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        self.send_upload(Method::PUT, with_digest(&upload, digest), headers, body).await?;
        Ok(())
    }

    /// Sends the bytes of a blob; the upload goes on with [`Session::finish_upload`].
    pub async fn stream_upload(&self, upload: Upload, body: reqwest::Body) -> Result<Upload, RegistryError> {
        let response = self.send_upload(Method::PATCH, upload.location, octets(), body).await?;
        upload_of(&response)
    }

    /// Tells the digest of what was streamed; the registry compares it.
    pub async fn finish_upload(&self, upload: Upload, digest: &Digest) -> Result<(), RegistryError> {
        let mut headers = octets();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0u16));
        let url = with_digest(&upload, digest);
        self.send_upload(Method::PUT, url, headers, reqwest::Body::from(Bytes::new())).await?;
        Ok(())
    }

    /// Puts a manifest under a tag or digest.
    pub async fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(media_type)
            .map_err(|_| RegistryError::Corrupt(format!("{media_type:?} is no media type")))?;
        headers.insert(CONTENT_TYPE, value);
        self.request(Method::PUT, &self.path("manifests", name), ACTIONS, headers, Some(bytes)).await?;
        Ok(())
    }

    async fn send_upload(
        &self,
        method: Method,
        location: Url,
        mut headers: HeaderMap,
        body: reqwest::Body,
    ) -> Result<Response, RegistryError> {
        let root = self.find_root().await?;
        let url = self.place(&root, location)?;
        if origin(&url) == origin(&self.url(&root, "/v2/")?)
            && let Some(header) = self.authorization(&root, &self.scope(ACTIONS)).await?
        {
            headers.insert(AUTHORIZATION, header);
        }
        success(self.transport().send_stream(Call { method, url, headers, body: None }, body).await?).await
    }

    /// A registry behind a proxy often names itself with `http`; TLS is not left for that.
    fn place(&self, root: &Root, mut location: Url) -> Result<Url, RegistryError> {
        let base = self.url(root, "/v2/")?;
        if location.scheme() != base.scheme() && location.host_str() == base.host_str() {
            location.set_scheme(base.scheme()).ok();
            location.set_port(base.port()).ok();
        }
        if base.scheme() == "https" && location.scheme() != "https" {
            return Err(RegistryError::Corrupt(format!(
                "refusing the upload location {} of {}",
                super::transport::bare(&location),
                self.host()
            )));
        }
        Ok(location)
    }
}

fn octets() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}

fn with_digest(upload: &Upload, digest: &Digest) -> Url {
    let mut url = upload.location.clone();
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    url
}

fn upload_of(response: &Response) -> Result<Upload, RegistryError> {
    response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| response.url().join(text).ok())
        .map(|location| Upload { location })
        .ok_or_else(|| RegistryError::Corrupt("the registry began an upload without a location".to_owned()))
}
