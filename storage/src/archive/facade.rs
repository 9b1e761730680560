//! The store's side of archives.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use futures_util::Stream;

use super::{ArchiveError, ArchiveStream, CommitRequest, ImportOptions, Loaded};
use crate::{ImageId, ProgressSink, Store};

fn not_yet<T>(what: &str) -> Result<T, ArchiveError> {
    Err(ArchiveError::Local(format!("{what} is not supported yet")))
}

#[expect(unused_variables, clippy::unused_async, reason = "bodies are still to come")]
impl Store {
    /// Docker's `save`: all images that the names mean, layers once, in one tar. Fails at once where a
    /// name is not known.
    pub async fn save(&self, names: &[String]) -> Result<ArchiveStream, ArchiveError> {
        not_yet("save")
    }

    /// Docker's `load`: a docker archive or an OCI layout, plain or compressed with gzip or zstd.
    /// `progress` gets `Loading layer` with bytes per layer. Dropping the future stops it; images that
    /// were complete by then stay.
    pub async fn load<S>(&self, body: S, progress: ProgressSink) -> Result<Vec<Loaded>, ArchiveError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        not_yet("load")
    }

    /// Docker's `import`: a tree as tar, plain or compressed, becomes an image of one layer.
    pub async fn import<S>(&self, body: S, options: ImportOptions) -> Result<ImageId, ArchiveError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        not_yet("import")
    }

    /// Docker's `commit`: the container's writable layer becomes a layer on top of its image. The caller
    /// pauses the container where that is wanted.
    pub async fn commit(&self, request: CommitRequest) -> Result<ImageId, ArchiveError> {
        not_yet("commit")
    }
}

/// The tree below a directory as tar: `export` of a mounted root, or `cp` out of one. Names are relative
/// to the directory, with `prefix` before them. No path leaves the directory: everything is read over
/// descriptors, without following links. Sockets are left out.
pub fn tree_tar(directory: OwnedFd, prefix: &str) -> ArchiveStream {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    drop((directory, prefix));
    let failed = io::Error::other("export is not supported yet");
    sender.try_send(Err(failed)).ok();
    receiver
}
