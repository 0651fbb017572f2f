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
    /// How long a pause is.
    rest: Duration,
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
        Self { stream, ahead, frames, read, rest: PAUSE, pause, pauses, taken }
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
        let rest = self.rest;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(rest)));
        if pause.as_mut().poll(cx).is_pending() {
            return if may_read { Poll::Ready(Ok(true)) } else { Poll::Pending };
        }
        // To be woken after the next one as well.
        pause.set(tokio::time::sleep(rest));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontends::grpc::ahead::{Pace, Taken};
    use crate::frontends::grpc::frames::Bodies;
    use crate::frontends::stream::Stream;
    use crate::observe::metrics::{Metrics, Protocol};
    use http_body_util::{BodyExt, Full};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const REST: Duration = Duration::from_millis(10);
    /// What others keep: more than any port may.
    const MUCH: u64 = 1 << 40;

    type Call = Taken<Full<bytes::Bytes>>;

    struct Port {
        metrics: Arc<Metrics>,
        pace: Pace,
    }

    impl Port {
        fn new() -> Self {
            let metrics = Arc::<Metrics>::default();
            Self { pace: Pace::new(1 << 10, Arc::clone(&metrics)), metrics }
        }

        /// A call that takes nothing, for which so much lies there.
        fn keeping(&self, bytes: u64) -> (Ahead, Call) {
            let ahead = self.pace.of_connection();
            let call = ahead.of_call(Full::from("taken"));
            ahead.read(bytes, Bodies { frames: 1, bytes });
            (ahead, call)
        }

        /// What a client sends, and where it is read.
        async fn connected(&self, ahead: &Ahead, rest: Duration) -> (TcpStream, Paced) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let stream = Stream::Plain(listener.accept().await.unwrap().0);
            let stream = Counted::new(stream, Arc::clone(&self.metrics), Protocol::Grpc);
            (client, Paced { rest, ..Paced::new(stream, ahead.clone()) })
        }
    }

    #[tokio::test]
    async fn where_little_is_kept_all_is_read_at_once() {
        let port = Port::new();
        let (ahead, _call) = port.keeping(20 << 10);
        let (mut client, mut paced) = port.connected(&ahead, Duration::MAX).await;
        client.write_all(&[1; 30]).await.unwrap();
        assert_eq!(paced.read(&mut [0; 100]).await.unwrap(), 30);
    }

    #[tokio::test]
    async fn where_much_is_kept_a_connection_is_read_when_its_call_has_taken_all() {
        let port = Port::new();
        let _others = port.keeping(MUCH);
        let (ahead, mut call) = port.keeping(20 << 10);
        let (mut client, mut paced) = port.connected(&ahead, Duration::from_secs(3_600)).await;
        client.write_all(&[1; 30]).await.unwrap();
        let mut bytes = [0; 100];
        let mut reads = std::pin::pin!(paced.read(&mut bytes));
        let early = tokio::time::timeout(10 * REST, reads.as_mut()).await;
        assert!(early.is_err(), "its call has taken nothing: {early:?}");
        while call.frame().await.is_some() {}
        assert_eq!(reads.await.unwrap(), 30);
    }

    #[tokio::test]
    async fn where_nothing_is_taken_a_little_is_read_after_each_pause_until_there_were_too_many() {
        let port = Port::new();
        let _others = port.keeping(MUCH);
        let (ahead, _call) = port.keeping(20 << 10);
        let (mut client, mut paced) = port.connected(&ahead, REST).await;
        client.write_all(&[1; 10 * PAUSES_MAX as usize]).await.unwrap();
        let (mut bytes, mut reads) = ([0; 10], 0);
        let ended = loop {
            match paced.read(&mut bytes).await {
                Ok(read) => assert_eq!(read, 10),
                Err(ended) => break ended,
            }
            reads += 1;
        };
        // The first may have been over before it was known that something came.
        assert!((PAUSES_MAX - 1..=PAUSES_MAX).contains(&reads), "{reads} reads");
        assert!(ended.to_string().contains("did not take what came"), "{ended}");
        assert_eq!(port.metrics.connections_gave_way.get(), 1);
    }

    #[tokio::test]
    async fn who_closes_is_noticed_though_what_he_sent_is_not_read() {
        let port = Port::new();
        let _others = port.keeping(MUCH);
        let (ahead, _call) = port.keeping(20 << 10);
        let (mut client, mut paced) = port.connected(&ahead, REST).await;
        client.write_all(&[1; 30]).await.unwrap();
        drop(client);
        assert_eq!(paced.read(&mut [0; 100]).await.unwrap(), 0, "all there is");
    }
}
