//! Reads a connection of HTTP/2 no further ahead of its calls than there is room for.

use super::ahead::{Ahead, LITTLE};
use super::frames::Frames;
use crate::frontends::counted::Counted;
use std::future::Future;
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long one whose calls take nothing is left alone …
const PAUSE: Duration = Duration::from_secs(1);
/// … and how often, before it ends: longer than any request may wait for what the node itself does.
const PAUSES_MAX: u32 = 60;

/// A connection's bytes, read as far ahead as there is room for.
#[derive(Debug)]
pub struct Paced {
    stream: Counted,
    ahead: Ahead,
    frames: Frames,
    /// Read since its calls had their turn.
    read: u64,
    /// While it keeps some where much is kept.
    pause: Option<Pin<Box<Sleep>>>,
    /// How many ended, since it was read on because its calls took something.
    pauses: u32,
    /// What they had taken then.
    taken: u64,
}

impl Paced {
    /// Reads of `stream`.
    pub fn new(stream: Counted, ahead: Ahead) -> Self {
        let (frames, read, pause, pauses, taken) = Default::default();
        Self { stream, ahead, frames, read, pause, pauses, taken }
    }

    /// Whether more may be read now, or nothing of it any more.
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        if self.ahead.is_free() {
            (self.pause, self.pauses) = (None, 0);
            return Poll::Ready(Ok(true));
        }
        if self.read >= LITTLE {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let may_read = self.ahead.may_read(cx.waker());
        let taken = self.ahead.taken();
        if may_read && taken != self.taken {
            (self.taken, self.pauses) = (taken, 0);
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
        if pause.as_mut().poll(cx).is_pending() {
            return if may_read { Poll::Ready(Ok(true)) } else { Poll::Pending };
        }
        // To be woken after the next one as well.
        pause.set(tokio::time::sleep(PAUSE));
        cx.waker().wake_by_ref();
        self.pauses += 1;
        if self.pauses > PAUSES_MAX {
            self.ahead.gives_way();
            let why = "its calls did not take what came for them, and others needed the room";
            return Poll::Ready(Err(Error::other(why)));
        }
        Poll::Ready(Ok(!self.stream.poll_has_ended(cx)))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if !ready!(self.poll_may_read(cx))? {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let came = &buffer.filled()[before..];
        let bytes = came.len() as u64;
        self.read = if read.is_ready() { self.read + bytes } else { 0 };
        if bytes > 0 {
            let bodies = self.frames.pass(came);
            self.ahead.read(bytes, bodies);
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
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
