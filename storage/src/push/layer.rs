//! One layer of a push.

use std::io::{self, Read as _, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc};

use super::{Progressing, PushError, short};
use crate::layer_tar::LayerTar;
use crate::pull::Download;
use crate::registry::session::pause;
use crate::registry::upload::Upload;
use crate::registry::{RegistryError, Session};
use crate::store::LayerSource;
use crate::{Credentials, Digest, Reference, Store};

/// What a layer that is compressed here is called.
const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A piece on its way from the compressor to the connection.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for the connection.
const PIECES: usize = 4;

/// A layer that the target has now.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub digest: Digest,
    pub media_type: String,
    pub size_bytes: u64,
    pub compressed_anew: bool,
}

impl Sent {
    fn as_it_was(source: &LayerSource) -> Self {
        Self {
            digest: source.blob_digest.clone(),
            media_type: source.media_type.clone(),
            size_bytes: source.size_bytes,
            compressed_anew: false,
        }
    }
}

/// What sending one layer needs.
pub(super) struct LayerPush<'a> {
    pub store: &'a Store,
    pub session: &'a Arc<Session>,
    pub registry: &'a str,
    pub report: &'a Progressing,
    pub diff_id: &'a Digest,
    /// The blob that the image's manifest names.
    pub preferred: Option<Digest>,
    pub credentials: &'a Credentials,
    pub slots: Arc<Semaphore>,
}

impl LayerPush<'_> {
    pub async fn run(self) -> Result<Sent, PushError> {
        let slot = self.slots.clone();
        let slot = match slot.try_acquire() {
            Ok(slot) => slot,
            Err(_) => {
                self.report.status(Some(self.id()), "Waiting").await;
                slot.acquire().await.expect("nobody closes it")
            }
        };
        let mut sources = self
            .store
            .layer_sources(self.diff_id)
            .await
            .map_err(|error| PushError::Local(error.to_string()))?;
        sources.sort_by_key(|source| Some(&source.blob_digest) != self.preferred.as_ref());
        let mut attempt = 0;
        let sent = loop {
            match self.send(&sources).await {
                Ok(sent) => break sent,
                Err(Failure::Registry(error)) => {
                    attempt += 1;
                    pause(attempt, error).await?;
                }
                Err(Failure::Local(text)) => return Err(PushError::Local(text)),
            }
        };
        drop(slot);
        let source = LayerSource {
            diff_id: self.diff_id.clone(),
            blob_digest: sent.digest.clone(),
            media_type: sent.media_type.clone(),
            size_bytes: sent.size_bytes,
            repository: format!("{}/{}", self.registry, self.session.repository()),
        };
        if !sources.contains(&source) {
            let remembered = self.store.add_layer_source(&source).await;
            remembered.map_err(|error| PushError::Local(error.to_string()))?;
        }
        Ok(sent)
    }

    fn id(&self) -> &str {
        short(self.diff_id)
    }

    async fn send(&self, sources: &[LayerSource]) -> Result<Sent, Failure> {
        let mut asked: Vec<&Digest> = Vec::new();
        for source in sources {
            if asked.contains(&&source.blob_digest) {
                continue;
            }
            asked.push(&source.blob_digest);
            if self.session.has_blob(&source.blob_digest).await? {
                self.report.status(Some(self.id()), "Layer already exists").await;
                return Ok(Sent::as_it_was(source));
            }
        }
        for source in sources {
            let Some((registry, from)) = source.repository.split_once('/') else { continue };
            if registry != self.registry || from == self.session.repository() {
                continue;
            }
            match self.session.mount(&source.blob_digest, from).await {
                Ok(true) => {
                    self.report.status(Some(self.id()), format!("Mounted from {from}")).await;
                    return Ok(Sent::as_it_was(source));
                }
                Ok(false) => {}
                // Not everyone may read there; the bytes can still be sent.
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => tracing::debug!(%error, from, "a layer was not mounted"),
            }
        }
        for source in sources {
            if let Some(sent) = self.send_kept(source).await? {
                return Ok(sent);
            }
        }
        for source in sources {
            if let Some(sent) = self.send_fetched(source).await? {
                return Ok(sent);
            }
        }
        self.send_compressed().await
    }

    /// From a blob that was kept.
    async fn send_kept(&self, source: &LayerSource) -> Result<Option<Sent>, Failure> {
        let path = self.store.inner.blobs.path(&source.blob_digest);
        let Ok(mut file) = std::fs::File::open(path) else { return Ok(None) };
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        if size != source.size_bytes {
            return Ok(None);
        }
        let (sender, body) = self.body(size);
        let reading = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 || sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..read]))).is_err() {
                    return Ok(());
                }
            }
        });
        let upload = self.session.begin_upload().await?;
        self.session.upload(upload, &source.blob_digest, size, body).await?;
        drop(reading);
        self.report.status(Some(self.id()), "Pushed").await;
        Ok(Some(Sent::as_it_was(source)))
    }

    /// From where it came, without a stop on the disk. The target compares the digest.
    async fn send_fetched(&self, source: &LayerSource) -> Result<Option<Sent>, Failure> {
        let Ok(reference) = Reference::parse(&source.repository) else { return Ok(None) };
        let credentials = if reference.registry() == self.registry {
            self.credentials.clone()
        } else {
            Credentials::Anonymous
        };
        let transports = self.store.inner.puller.transports();
        let origin = Arc::new(Session::registry(transports, &reference, credentials));
        if !matches!(origin.has_blob_to_read(&source.blob_digest).await, Ok(true)) {
            return Ok(None);
        }
        let mut download = Download::new(vec![origin], source.blob_digest.clone(), 0, source.size_bytes);
        let Ok(Some(first)) = download.next().await else { return Ok(None) };
        let (sender, body) = self.body(source.size_bytes);
        let fetching = async move {
            let mut piece = Some(first);
            while let Some(bytes) = piece {
                if sender.send(Ok(bytes)).await.is_err() {
                    return;
                }
                piece = match download.next().await {
                    Ok(piece) => piece,
                    Err(error) => {
                        sender.send(Err(io::Error::other(error))).await.ok();
                        return;
                    }
                };
            }
        };
        let sending = async {
            let upload = self.session.begin_upload().await?;
            self.session.upload(upload, &source.blob_digest, source.size_bytes, body).await
        };
        let ((), sent) = tokio::join!(fetching, sending);
        sent?;
        self.report.status(Some(self.id()), "Pushed").await;
        Ok(Some(Sent::as_it_was(source)))
    }

    /// Compressed anew while it is sent.
    async fn send_compressed(&self) -> Result<Sent, Failure> {
        self.report.status(Some(self.id()), "Compressing anew").await;
        let upload: Upload = self.session.begin_upload().await?;
        let directory = self.store.inner.paths.layer(self.diff_id);
        let (sender, body) = self.body(self.store.layer_size_bytes(self.diff_id).unwrap_or(0));
        let compressing = tokio::task::spawn_blocking(move || compress(&directory, sender));
        let streamed = self.session.stream_upload(upload, body).await;
        let compressed = compressing.await.map_err(|error| Failure::Local(error.to_string()))?;
        let (digest, size_bytes) = match (compressed, streamed) {
            (Ok(compressed), Ok(upload)) => {
                self.session.finish_upload(upload, &compressed.0).await?;
                compressed
            }
            // The compressor stops as well when the connection does; that is not the reason to tell.
            (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failure::Local(error.to_string()));
            }
            (_, Err(error)) => return Err(error.into()),
            (Err(error), Ok(_)) => return Err(Failure::Local(error.to_string())),
        };
        self.report.status(Some(self.id()), "Pushed").await;
        Ok(Sent { digest, media_type: GZIP_LAYER.to_owned(), size_bytes, compressed_anew: true })
    }

    /// A body that is fed by a channel, and tells how far it is.
    fn body(&self, total: u64) -> (mpsc::Sender<io::Result<Bytes>>, reqwest::Body) {
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let start = (receiver, 0, None::<Instant>, self.report.clone(), self.id().to_owned());
        let stream = futures_util::stream::unfold(
            start,
            move |(mut receiver, mut sent, mut told, report, id)| async move {
                let piece = receiver.recv().await?;
                if let Ok(bytes) = &piece {
                    sent += bytes.len() as u64;
                    if told.is_none_or(|at: Instant| at.elapsed() >= Duration::from_millis(100)) {
                        report.bytes(&id, sent, total.max(sent));
                        told = Some(Instant::now());
                    }
                }
                Some((piece, (receiver, sent, told, report, id)))
            },
        );
        (sender, reqwest::Body::wrap_stream(stream))
    }
}

/// Why a layer was not sent.
enum Failure {
    Registry(RegistryError),
    Local(String),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// Writes a layer's exact tar, compressed, into a channel; gives digest and size of what it wrote.
fn compress(
    directory: &std::path::Path,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(Digest, u64)> {
    let failing = sender.clone();
    let run = || -> io::Result<(Digest, u64)> {
        let mut tar = LayerTar::open(directory)?;
        let pieces =
            Pieces { sender, piece: Vec::with_capacity(PIECE_BYTES), hasher: Sha256::new(), size: 0 };
        let mut gzip = GzEncoder::new(pieces, Compression::default());
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let read = tar.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            gzip.write_all(&buffer[..read])?;
        }
        let mut pieces = gzip.finish()?;
        pieces.flush()?;
        let digest = Digest::parse(&format!("sha256:{}", hex::encode(pieces.hasher.finalize())))
            .expect("a digest has the form of one");
        Ok((digest, pieces.size))
    };
    let result = run();
    if let Err(error) = &result {
        // The body must not end as if it were whole.
        failing.blocking_send(Err(io::Error::other(error.to_string()))).ok();
    }
    result
}

/// Hashes what passes, and sends it on in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    hasher: Sha256,
    size: u64,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        if piece.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection is gone");
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }
}
