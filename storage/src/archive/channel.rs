//! From blocking writers to a stream.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender};

/// Bytes that go out at once.
const CHUNK: usize = 128 << 10;
/// Chunks that may wait.
const QUEUE: usize = 4;

/// The blocking end. A stream that nobody reads any more is a broken pipe.
#[derive(Debug)]
pub(super) struct ChannelWriter {
    sender: Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl ChannelWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Runs `work` on a blocking thread; what it writes comes out of the stream, and its error at the end.
pub(super) fn stream_of(
    work: impl FnOnce(&mut ChannelWriter) -> io::Result<()> + Send + 'static,
) -> Receiver<io::Result<Bytes>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut writer = ChannelWriter { sender, buffer: Vec::with_capacity(CHUNK) };
        let result = work(&mut writer).and_then(|()| writer.flush());
        if let Err(error) = result {
            // Nobody there to hear it: then nobody waits for the archive either.
            writer.sender.blocking_send(Err(error)).ok();
        }
    });
    receiver
}
