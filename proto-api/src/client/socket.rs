//! The stream below HTTP.
//!
//! A daemon may refuse an upload before it has read it, and close the connection. Writing then
//! fails although the reason lies ready to be read. So that the reason is what the user sees, a
//! broken pipe is no error here: what is written after it goes nowhere, and the end of the
//! connection shows when it is read from.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// A Unix socket whose writing half never reports that the peer is gone.
#[derive(Debug)]
pub(super) struct Socket(pub UnixStream);

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.0).poll_write(context, bytes)) {
            Err(error) if is_gone(&error) => Poll::Ready(Ok(bytes.len())),
            other => Poll::Ready(other),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.0).poll_write_vectored(context, pieces)) {
            Err(error) if is_gone(&error) => Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum())),
            other => Poll::Ready(other),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_shutdown(context)) {
            Err(error) if is_gone(&error) => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}
