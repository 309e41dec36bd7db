//! A stream whose first bytes must come in time. Afterwards the HTTP layer's own limits hold.
//!
//! Telling HTTP/1.1 from HTTP/2 reads up to a preface's length, and nothing else bounds the time of that: without
//! this, a client that sends nothing would keep its place among the connections for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The length of HTTP/2's preface: what is needed to tell.
const FIRST_BYTES: usize = 24;

/// See the module.
pub(crate) struct Prompt<S> {
    stream: S,
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Prompt<S> {
    /// The first bytes of `stream` must be there within `limit`, from now.
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, missing: FIRST_BYTES, deadline: Box::pin(tokio::time::sleep(limit)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.missing == 0 {
            return polled;
        }
        if polled.is_pending() {
            return self.deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        self.missing = self.missing.saturating_sub(buf.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn silence_ends_and_a_few_bytes_do_not_help() {
        for sent in ["", "PRI * HTTP"] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            let ended = Prompt::new(server, Duration::from_millis(1)).read_to_end(&mut bytes).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(bytes, sent.as_bytes());
        }
    }

    #[tokio::test]
    async fn who_spoke_in_time_is_left_alone() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Prompt::new(server, Duration::ZERO);
        client.write_all(&[b'x'; FIRST_BYTES]).await.unwrap();
        server.read_exact(&mut [0; FIRST_BYTES]).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(5), server.read_u8()).await;
        assert!(waiting.is_err(), "still open");
    }
}
