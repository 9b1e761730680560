//! Importing a tree as an image of one layer.

use std::io;

use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use futures_util::Stream;
use serde_json::{Map, Value, json};

use super::load::unpack_stream;
use super::{ArchiveError, ImportOptions, changes};
use crate::layers::Lease;
use crate::registry::platform::Platform;
use crate::store::NewImage;
use crate::{Digest, ImageId, Reference, Store};

/// Now, as configurations write it.
pub(super) fn now_text() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// The name to give; a digest is none.
pub(super) fn new_name(text: Option<&str>) -> Result<Vec<Reference>, ArchiveError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(vec![]) };
    let reference = Reference::parse(text)?;
    if reference.digest().is_some() {
        return Err(ArchiveError::Invalid("cannot import digest reference".to_owned()));
    }
    Ok(vec![reference.or_latest()])
}

impl Store {
    /// Docker's `import`: a tree as tar, plain or compressed, becomes an image of one layer.
    pub async fn import<S>(&self, body: S, options: ImportOptions) -> Result<ImageId, ArchiveError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let names = new_name(options.reference.as_deref())?;
        let platform = match options.platform.as_deref().filter(|text| !text.is_empty()) {
            None => Platform::host(),
            Some(text) => Platform::parse(text)
                .ok_or_else(|| ArchiveError::Invalid(format!("invalid platform {text:?}")))?,
        };
        let mut config = Map::new();
        changes::apply(&mut config, &options.changes)?;
        let lease = self.inner.layers.lease();
        let diff_id = self.new_layer(body, &lease).await?;
        let created = now_text();
        let comment = options.message.filter(|text| !text.is_empty()).unwrap_or("Imported from -".to_owned());
        let mut document = json!({
            "architecture": platform.architecture,
            "comment": comment,
            "config": config,
            "created": created,
            "history": [{"created": created, "comment": comment}],
            "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str()]},
        });
        if !platform.variant.is_empty() {
            document["variant"] = platform.variant.into();
        }
        self.put_made(&document, names, None, &lease).await
    }

    /// A layer from a tar; belongs to the lease.
    pub(super) async fn new_layer<S>(&self, body: S, lease: &Lease) -> Result<Digest, ArchiveError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        let staging = self.inner.layers.staging()?;
        let unpacked = unpack_stream(self, &staging, body).await?;
        let diff_id = Digest::parse(&unpacked.diff_id).ok_or_else(|| {
            ArchiveError::Local(format!("the worker's diff id {} is none", unpacked.diff_id))
        })?;
        self.inner.layers.commit(staging, &diff_id, unpacked.size_bytes, lease).await?;
        Ok(diff_id)
    }

    /// An image from a configuration that was made here.
    pub(super) async fn put_made(
        &self,
        config: &Value,
        names: Vec<Reference>,
        parent: Option<ImageId>,
        lease: &Lease,
    ) -> Result<ImageId, ArchiveError> {
        let config_raw =
            serde_json::to_vec(config).map_err(|error| ArchiveError::Invalid(error.to_string()))?;
        crate::Image::from_config(config_raw.clone())
            .map_err(|error| ArchiveError::Invalid(error.to_string()))?;
        let new = NewImage { config_raw, names, parent, ..NewImage::default() };
        Ok(self.put_image(new, lease).await?.id.clone())
    }
}
