//! The threads between stdin and the tar reader, and the chunks that go round between them.
//!
//! Chunks are bounded in number and used again: first touch of memory costs more than hashing it.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

const BLOB_CHUNK: usize = 128 << 10;
const TAR_CHUNK: usize = 256 << 10;
/// Chunks that may wait between two stages.
const QUEUE: usize = 6;
const STACK: usize = 512 << 10;

/// A bound on the memory of a zstd frame: 2^27 bytes, what `zstd` itself accepts by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Buffers to use again.
#[derive(Debug, Default, Clone)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// A piece of the tar, shared by the hash and the reader.
#[derive(Debug)]
struct TarChunk {
    bytes: Arc<Vec<u8>>,
    pool: Pool,
}

impl Drop for TarChunk {
    fn drop(&mut self) {
        if let Some(buffer) = Arc::into_inner(std::mem::take(&mut self.bytes)) {
            self.pool.give(buffer);
        }
    }
}

/// The bytes that arrive at a stage, as a `BufRead`.
#[derive(Debug)]
pub struct Chunks<C> {
    receiver: Receiver<C>,
    current: Option<C>,
    at: usize,
    /// Keeps buffers that were used up, for plain chunks.
    recycle: fn(C, &PoolHandle),
    pool: PoolHandle,
}

/// What [`Chunks`] knows of the pool.
#[derive(Debug, Clone, Default)]
pub struct PoolHandle(Pool);

/// A chunk's bytes.
pub trait Bytes {
    /// All of them.
    fn bytes(&self) -> &[u8];
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Bytes for TarChunkHandle {
    fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// A piece of the tar, opaque outside of here.
#[derive(Debug)]
pub struct TarChunkHandle(TarChunk);

impl<C: Bytes> BufRead for Chunks<C> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.as_ref().is_none_or(|chunk| self.at >= chunk.bytes().len()) {
            if let Some(used) = self.current.take() {
                (self.recycle)(used, &self.pool);
            }
            match self.receiver.recv() {
                Ok(chunk) => {
                    self.current = Some(chunk);
                    self.at = 0;
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.at..]))
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl<C: Bytes> Read for Chunks<C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Digest and length of a stream.
#[derive(Debug)]
pub struct Summed {
    pub sha256: [u8; 32],
    pub bytes: u64,
}

/// The running threads.
#[derive(Debug)]
pub struct Pipeline {
    blob: JoinHandle<Summed>,
    inflate: JoinHandle<()>,
    diff: JoinHandle<Summed>,
    failure: FirstFailure,
}

/// What went wrong first. It is set before the stream ends, so that a stage behind that meets the end
/// finds the cause here.
#[derive(Debug, Clone, Default)]
pub struct FirstFailure(Arc<Mutex<Option<Failure>>>);

impl FirstFailure {
    fn set(&self, failure: Failure) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The stream of the tar.
pub type TarStream = Chunks<TarChunkHandle>;

impl Pipeline {
    /// Starts to read stdin. The tar has at most `tar_bytes`.
    pub fn start(tar_bytes: u64) -> Result<(Self, TarStream), Failure> {
        let (blob_sender, blob_receiver) = sync_channel(QUEUE);
        let (diff_sender, diff_receiver) = sync_channel(QUEUE);
        let (tar_sender, tar_receiver) = sync_channel(QUEUE);
        let pool = Pool::default();
        let (reader_pool, tar_pool) = (pool.clone(), Pool::default());
        let failure = FirstFailure::default();
        let reader_failure = failure.clone();
        let blob = spawn(move || read_blob(&blob_sender, &reader_pool, &reader_failure))?;
        let chunks = Chunks {
            receiver: blob_receiver,
            current: None,
            at: 0,
            recycle: |used, pool| pool.0.give(used),
            pool: PoolHandle(pool),
        };
        let inflate_failure = failure.clone();
        let inflate = spawn(move || {
            if let Err(failure) = inflate(chunks, &diff_sender, &tar_sender, &tar_pool, tar_bytes) {
                inflate_failure.set(failure);
            }
        })?;
        let diff = spawn(move || hash_tar(&diff_receiver))?;
        let stream = Chunks {
            receiver: tar_receiver,
            current: None,
            at: 0,
            recycle: |used, _| drop(used),
            pool: PoolHandle::default(),
        };
        Ok((Self { blob, inflate, diff, failure }, stream))
    }

    /// Waits for the threads: digests of the blob and of the tar. The tar stream was dropped or read
    /// to its end before.
    pub fn finish(self) -> Result<(Summed, Summed), Failure> {
        let broken = |_| Failure::local("a thread of the worker panicked");
        self.inflate.join().map_err(broken)?;
        let diff = self.diff.join().map_err(broken)?;
        let blob = self.blob.join().map_err(broken)?;
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok((blob, diff)),
        }
    }

    /// After a failure at the end of the pipeline: its cause. Waits for nothing; the threads end with
    /// the process.
    pub fn cause(&self, seen: Failure) -> Failure {
        self.failure.take().unwrap_or(seen)
    }
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| Failure::local(format!("starting a thread: {error}")))
}

/// Fills `buffer` up to `size` bytes; less only at the end.
fn fill(input: &mut impl Read, buffer: &mut Vec<u8>, size: usize) -> io::Result<usize> {
    buffer.resize(size, 0);
    let mut filled = 0;
    while filled < size {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(filled)
}

fn read_blob(next: &SyncSender<Vec<u8>>, pool: &Pool, failure: &FirstFailure) -> Summed {
    let mut stdin = std::io::stdin().lock();
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    loop {
        let mut chunk = pool.take();
        let count = match fill(&mut stdin, &mut chunk, BLOB_CHUNK) {
            Ok(count) => count,
            Err(error) => {
                failure.set(Failure::local(format!("reading the blob: {error}")));
                break;
            }
        };
        hasher.update(&chunk);
        bytes += count as u64;
        if count > 0 && next.send(chunk).is_err() {
            // The stage behind has failed and knows why.
            break;
        }
        if count < BLOB_CHUNK {
            break;
        }
    }
    Summed { sha256: hasher.finalize().into(), bytes }
}

fn inflate(
    mut blob: Chunks<Vec<u8>>,
    diff: &SyncSender<TarChunkHandle>,
    tar: &SyncSender<TarChunkHandle>,
    pool: &Pool,
    most: u64,
) -> Result<(), Failure> {
    let corrupt = |error: io::Error| Failure::corrupt(format!("decompressing the layer: {error}"));
    let magic = blob.fill_buf().map_err(corrupt)?;
    let mut decoder: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(blob))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (magic.len() > 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18])
    {
        let mut zstd = zstd::stream::read::Decoder::with_buffer(blob).map_err(corrupt)?;
        zstd.window_log_max(ZSTD_WINDOW_LOG).map_err(corrupt)?;
        Box::new(zstd)
    } else if magic.starts_with(b"BZh") || magic.starts_with(&[0xfd, b'7', b'z', b'X', b'Z']) {
        return Err(Failure::corrupt("unsupported compression: only gzip, zstd and none are known"));
    } else {
        Box::new(blob)
    };
    let mut sum = 0_u64;
    loop {
        let mut buffer = pool.take();
        let count = fill(&mut decoder, &mut buffer, TAR_CHUNK).map_err(corrupt)?;
        sum += count as u64;
        if sum > most {
            return Err(over_bytes(most));
        }
        if count == 0 {
            return Ok(());
        }
        let bytes = Arc::new(buffer);
        let share = || TarChunkHandle(TarChunk { bytes: Arc::clone(&bytes), pool: pool.clone() });
        let (one, other) = (share(), share());
        drop(bytes);
        if diff.send(one).is_err() || tar.send(other).is_err() {
            return Ok(());
        }
    }
}

fn hash_tar(chunks: &Receiver<TarChunkHandle>) -> Summed {
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    for chunk in chunks {
        hasher.update(chunk.bytes());
        bytes += chunk.bytes().len() as u64;
    }
    Summed { sha256: hasher.finalize().into(), bytes }
}

/// The layer is larger than it may be.
pub fn over_bytes(most: u64) -> Failure {
    Failure::budget(format!("over budget: the layer has more than {most} bytes (layer_bytes)"))
}
