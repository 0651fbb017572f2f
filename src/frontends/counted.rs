//! A connection whose bytes are counted, both ways, and which reads so much at a time that others have
//! their turn.

use super::stream::Stream;
use crate::observe::metrics::{Metrics, Protocol};
use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Read of one connection before the others, and whoever takes what came, have their turn (unit: bytes).
/// What was read and not taken is in nobody's books, and a window of HTTP/2 is many times as much.
const TURN_BYTES: usize = 128 << 10;

/// See the module.
#[derive(Debug)]
pub struct Counted {
    stream: Stream,
    metrics: Arc<Metrics>,
    protocol: Protocol,
    /// Read in this turn.
    read: usize,
}

impl Counted {
    /// Counts what passes through `stream` from now on.
    pub fn new(stream: Stream, metrics: Arc<Metrics>, protocol: Protocol) -> Self {
        Self { stream, metrics, protocol, read: 0 }
    }

    /// Whether the other end has said its last, which may still lie unread.
    pub fn poll_has_ended(&self, cx: &mut Context<'_>) -> bool {
        let ready = pin!(self.stream.tcp().ready(Interest::READABLE));
        matches!(ready.poll(cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn sent(&self, outcome: Result<usize>) -> Poll<Result<usize>> {
        if let Ok(bytes) = &outcome {
            self.metrics.sent(self.protocol).add(*bytes as u64);
        }
        Poll::Ready(outcome)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.read >= TURN_BYTES {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            self.read = 0;
            return Poll::Pending;
        };
        let bytes = buffer.filled().len() - before;
        self.read += bytes;
        self.metrics.received(self.protocol).add(bytes as u64);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.sent(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        self.sent(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
