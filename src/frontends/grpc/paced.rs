//! Reads a connection of HTTP/2 no further ahead of its calls than there is room for.

use super::ahead::{Ahead, LITTLE, Reading};
use super::frames::Frames;
use crate::frontends::counted::Counted;
use std::future::Future;
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long one whose calls take nothing is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// Read at a time beyond the end of a frame (unit: bytes). As many frames as are in so much, 128, may come
/// before it is known that there are too many. A request of a record of 1 KiB comes at once.
const READ_BYTES: usize = 1280;
/// The same where there are: as much as says that somebody has room again, or is gone.
const READ_BYTES_CROWDED: usize = 128;

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
    /// How many ended, since it was read on because its calls took something …
    pauses: u32,
    /// … and how many may, before it ends.
    pauses_max: u32,
    /// What they had taken then.
    drawn: u64,
}

impl Paced {
    /// Reads of `stream`, for so long without its calls taking anything.
    pub fn new(stream: Counted, ahead: Ahead, patience: Duration) -> Self {
        let (frames, read, pause, pauses, drawn) = Default::default();
        let pauses_max = patience.as_secs().try_into().unwrap_or(u32::MAX);
        Self { stream, ahead, frames, read, rest: PAUSE, pause, pauses, pauses_max, drawn }
    }

    /// Its calls may have taken something since.
    fn note(&mut self, reading: Reading) {
        if reading.drawn != self.drawn {
            (self.drawn, self.pauses) = (reading.drawn, 0);
        }
    }

    /// How much may be read now beyond the end of a frame; nothing once it is over.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        let reading = self.ahead.reading();
        if reading.is_free {
            self.pause = None;
            // What ended calls have left is nobody's progress.
            self.note(reading);
            return Poll::Ready(Ok(READ_BYTES));
        }
        if self.read >= LITTLE {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ahead.wakes(cx.waker());
        let reading = self.ahead.reading();
        if reading.may_go_on {
            self.note(reading);
        }
        let rest = self.rest;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(rest)));
        if pause.as_mut().poll(cx).is_pending() {
            if reading.may_go_on {
                return Poll::Ready(Ok(READ_BYTES));
            }
            if reading.is_unsettled {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        // To be woken after the next one as well.
        pause.set(tokio::time::sleep(rest));
        cx.waker().wake_by_ref();
        self.pauses += 1;
        if self.pauses > self.pauses_max {
            self.ahead.count_end();
            let why = "its calls did not take what came for them, and others needed the room";
            return Poll::Ready(Err(Error::other(why)));
        }
        if !reading.may_go_on && self.stream.poll_has_ended(cx) {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(Ok(if reading.is_crowded { READ_BYTES_CROWDED } else { READ_BYTES }))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        let room = ready!(this.poll_room(cx))?;
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let room = buffer.remaining().min(this.frames.rest() + room);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut part);
        let came = part.filled();
        let bytes = came.len();
        this.read = if read.is_ready() { this.read + bytes as u64 } else { 0 };
        if bytes > 0 {
            this.ahead.read(bytes as u64, this.frames.pass(came));
            buffer.advance(bytes);
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
    use crate::frontends::stream::Stream;
    use crate::observe::metrics::{Metrics, Protocol};
    use http_body_util::{BodyExt, Full};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const REST: Duration = Duration::from_millis(10);
    const PAUSES_MAX: u32 = 60;

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

        /// A call that takes nothing, for which so many frames lie there.
        fn keeping(&self, frames: u64) -> (Ahead, Call) {
            let ahead = self.pace.of_connection();
            let call = ahead.of_call(Full::from("taken"));
            ahead.read(frames * 20_000, frames);
            (ahead, call)
        }

        /// What a client sends, and where it is read.
        async fn connected(&self, ahead: &Ahead, rest: Duration) -> (TcpStream, Paced) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let stream = Stream::Plain(listener.accept().await.unwrap().0);
            let stream = Counted::new(stream, Arc::clone(&self.metrics), Protocol::Grpc);
            let patience = PAUSES_MAX * PAUSE;
            (client, Paced { rest, ..Paced::new(stream, ahead.clone(), patience) })
        }
    }

    #[tokio::test]
    async fn where_little_is_kept_all_is_read_at_once() {
        let port = Port::new();
        let _others = port.keeping(10);
        let (ahead, _call) = port.keeping(1);
        let (mut client, mut paced) = port.connected(&ahead, Duration::MAX).await;
        client.write_all(&[1; 30]).await.unwrap();
        assert_eq!(paced.read(&mut [0; 100]).await.unwrap(), 30);
    }

    #[tokio::test]
    async fn where_much_is_kept_a_connection_is_read_when_its_call_has_taken_all() {
        let port = Port::new();
        let _others = port.keeping(10);
        let (ahead, mut call) = port.keeping(2);
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
        let _others = port.keeping(10);
        let (ahead, _call) = port.keeping(2);
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
        let _others = port.keeping(10);
        let (ahead, _call) = port.keeping(2);
        let (mut client, mut paced) = port.connected(&ahead, REST).await;
        client.write_all(&[1; 30]).await.unwrap();
        drop(client);
        assert_eq!(paced.read(&mut [0; 100]).await.unwrap(), 0, "all there is");
    }
}
