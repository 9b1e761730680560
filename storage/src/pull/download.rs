//! The bytes of one blob, whatever happens on the way: a connection that breaks is taken up again where
//! it stopped, with pauses, and another endpoint is asked where one gives up.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{Method, StatusCode};
use reqwest::Response;

use crate::Digest;
use crate::registry::session::pause;
use crate::registry::transport::network;
use crate::registry::{RegistryError, Session};

/// A download in order of bytes.
pub(crate) struct Download {
    sessions: Vec<Arc<Session>>,
    at: usize,
    digest: Digest,
    offset: u64,
    size: u64,
    response: Option<Response>,
    /// Bytes at the start of the answer that are here already.
    skip: u64,
    failures: u32,
    received: bool,
}

impl Download {
    /// Bytes from `offset` on of a blob of `size` bytes. `sessions` are asked in their order.
    pub fn new(sessions: Vec<Arc<Session>>, digest: Digest, offset: u64, size: u64) -> Self {
        Self { sessions, at: 0, digest, offset, size, response: None, skip: 0, failures: 0, received: false }
    }

    /// The next bytes; `None` once all are here. Cancelling loses at most what was not returned yet.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.offset < self.size {
            match self.step().await {
                Ok(Some(bytes)) => {
                    self.failures = 0;
                    self.received = true;
                    return Ok(Some(bytes));
                }
                Ok(None) => {}
                Err(error) => self.recover(error).await?,
            }
        }
        Ok(None)
    }

    /// One piece of the answer; `None` where it lay before the offset.
    async fn step(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.response.is_none() {
            self.connect().await?;
        }
        let response = self.response.as_mut().expect("it was just made");
        let url = response.url().clone();
        let chunk = response.chunk().await.map_err(|error| network(&Method::GET, &url, &error))?;
        let Some(mut chunk) = chunk else {
            return Err(RegistryError::Network {
                text: format!("{}: unexpected EOF after {} of {} bytes", self.digest, self.offset, self.size),
                transient: true,
            });
        };
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let chunk = chunk.split_off(usize::try_from(skipped).expect("not more than the chunk's length"));
        if chunk.is_empty() {
            return Ok(None);
        }
        self.offset += chunk.len() as u64;
        if self.offset > self.size {
            return Err(RegistryError::Corrupt(format!(
                "layer {} is longer than the {} bytes that the manifest says",
                self.digest, self.size
            )));
        }
        Ok(Some(chunk))
    }

    async fn connect(&mut self) -> Result<(), RegistryError> {
        let response = self.sessions[self.at].blob(&self.digest, self.offset).await.map_err(|error| {
            if error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE.as_u16()) {
                RegistryError::Corrupt(format!(
                    "layer {} is shorter than the {} bytes that the manifest says",
                    self.digest, self.size
                ))
            } else {
                error
            }
        })?;
        self.skip = self.offset;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let start = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok())
                .filter(|start| *start <= self.offset);
            let Some(start) = start else {
                return Err(RegistryError::Corrupt(format!(
                    "{}: the registry answered with another range than was asked for",
                    self.digest
                )));
            };
            self.skip = self.offset - start;
        }
        self.response = Some(response);
        Ok(())
    }

    /// Waits and tries again, or goes to the next endpoint, or gives up.
    async fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.response = None;
        self.failures += 1;
        tracing::debug!(digest = %self.digest, offset = self.offset, %error, "a download was interrupted");
        // A registry that served this blob a moment ago and refuses connections now is restarting.
        let error = match error {
            RegistryError::Network { text, .. } if self.received => {
                RegistryError::Network { text, transient: true }
            }
            other => other,
        };
        match pause(self.failures, error).await {
            Ok(()) => Ok(()),
            Err(_) if self.at + 1 < self.sessions.len() => {
                self.at += 1;
                self.failures = 0;
                self.received = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
