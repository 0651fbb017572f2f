//! What was read of connections ahead of the calls that it is for. HTTP/2 keeps what has come until its
//! call takes it, and a few bytes of it keep all that was read along with them.
//!
//! While little is kept on the port all is read as it comes. Where much is, a connection that keeps some
//! of it is read no faster than its calls take what has come: they always have something to take, so this
//! costs them nothing. A little is read each second all the same, since what they wait for may lie behind
//! what one of them does not take. If none takes anything for long, the connection ends.

use crate::frontends::counted::Counted;
use crate::observe::metrics::Metrics;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What may be kept before connections are read more slowly, in windows of a call.
const WINDOWS_MAX: u64 = 32;
/// What each may keep whatever the others do (unit: bytes).
const LITTLE: u64 = 16 << 10;
/// How long one whose calls take nothing is left alone …
const PAUSE: Duration = Duration::from_secs(1);
/// … and how often, before it ends: longer than any request may wait for what the node itself does.
const PAUSES_MAX: u32 = 60;
/// Of a window, how exactly it is known what a call may not have taken.
const STEPS: usize = 8;
/// What is made good for by a call that begins, for its head (unit: bytes).
const HEAD_BYTES: u64 = 512;
/// Of a call that has taken all.
const NOTHING: u64 = u64::MAX;

/// How fast the connections of a port are read. Clones share it.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Port>);

#[derive(Debug)]
struct Port {
    /// What may be sent of one call before it is taken (unit: bytes).
    window: u64,
    /// What is kept, of all connections (unit: bytes).
    kept: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Pace {
    /// Of connections whose calls have a window of so many bytes. Counts those that end.
    pub fn new(window: u32, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Port { window: window.into(), kept: AtomicU64::new(0), metrics }))
    }

    /// A new connection.
    pub fn of_connection(&self) -> Ahead {
        let port = Arc::clone(&self.0);
        let (came, kept, state, reader) = Default::default();
        Ahead(Arc::new(Connection { port, came, kept, state, reader }))
    }
}

impl Port {
    fn is_much(&self) -> bool {
        self.kept.load(Ordering::Relaxed) > WINDOWS_MAX * self.window
    }
}

/// Of a connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Ahead(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    port: Arc<Port>,
    /// What was read of it, frames and all (unit: bytes).
    came: AtomicU64,
    /// What is kept, as the port counts it. Changes while the state is locked.
    kept: AtomicU64,
    state: Mutex<State>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Arc<Call>>,
    /// Read while much was kept on the port, and not made good for by what calls took.
    owed: u64,
}

/// What of a call may not be taken.
#[derive(Debug)]
struct Call {
    connection: Arc<Connection>,
    /// How much had been read of the connection before it, or `NOTHING`.
    since: AtomicU64,
    task: AtomicWaker,
}

impl Wake for Call {
    /// Something came, and all before it was taken.
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let came = self.connection.came();
        let (set, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.since.compare_exchange(NOTHING, came, set, failed);
        self.task.wake();
    }
}

impl Ahead {
    /// The requests of a call, as HTTP/2 has them.
    pub fn of_call<B>(&self, body: B) -> Taken<B> {
        let connection = Arc::clone(&self.0);
        let since = AtomicU64::new(connection.came());
        let call = Arc::new(Call { connection, since, task: AtomicWaker::new() });
        let mut state = self.0.state();
        state.calls.push(Arc::clone(&call));
        state.owed = state.owed.saturating_sub(HEAD_BYTES);
        drop(state);
        Taken { body, waker: Arc::clone(&call).into(), call, marks: None }
    }
}

impl Connection {
    fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    fn read(&self, bytes: u64) {
        self.came.fetch_add(bytes, Ordering::Relaxed);
        let mut state = self.state();
        self.count(&state);
        let is_owed = self.kept() > 0 && self.port.is_much();
        state.owed = if is_owed { state.owed + bytes } else { 0 };
    }

    /// One of its calls took so many bytes, or ended.
    fn took(&self, bytes: u64) {
        if self.kept() == 0 {
            return;
        }
        let was_much = self.port.is_much();
        let mut state = self.state();
        self.count(&state);
        // Frames have heads, and small ones are mostly that.
        state.owed = state.owed.saturating_sub(bytes + bytes / 4);
        drop(state);
        if was_much {
            self.reader.wake();
        }
    }

    fn may_read(&self) -> bool {
        if !self.port.is_much() {
            return true;
        }
        self.kept() <= LITTLE || self.state().owed < LITTLE
    }

    fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    fn count(&self, state: &State) {
        let first = state.calls.iter().map(|call| call.since.load(Ordering::Relaxed)).min();
        let kept = self.came().saturating_sub(first.unwrap_or(NOTHING));
        let before = self.kept();
        // All connections share it, and most keep nothing all the time.
        if kept != before {
            self.kept.store(kept, Ordering::Relaxed);
            // Wraps where it became less.
            self.port.kept.fetch_add(kept.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests of a call. See the module.
#[derive(Debug)]
pub struct Taken<B> {
    body: B,
    call: Arc<Call>,
    waker: Waker,
    /// While it may not have taken all.
    marks: Option<Marks>,
}

/// How much had been read of its connection when a call had taken so much.
#[derive(Debug)]
struct Marks {
    /// An eighth of a window was taken between each two of them. Before the last no more than a window
    /// lay there, and as much has been taken since the first.
    came: [u64; STEPS + 1],
    /// Taken after the last of them (unit: bytes).
    taken: u64,
}

impl Marks {
    fn at(came: u64) -> Self {
        Self { came: [came; STEPS + 1], taken: 0 }
    }

    fn take(&mut self, bytes: u64, window: u64, came: u64) {
        let step = (window / STEPS as u64).max(1);
        self.taken += bytes;
        while self.taken >= step {
            self.taken -= step;
            self.came.rotate_left(1);
            self.came[STEPS] = came;
        }
    }
}

impl<B> Taken<B> {
    fn took(&mut self, bytes: u64, since: u64) {
        let connection = &self.call.connection;
        let came = connection.came();
        let marks = self.marks.get_or_insert_with(|| Marks::at(since.min(came)));
        marks.take(bytes, connection.port.window, came);
        self.call.since.store(marks.came[0], Ordering::Relaxed);
        connection.took(bytes);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Taken<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.call.task.register(cx.waker());
        // Before it is looked: what comes from here on wakes.
        let since = this.call.since.swap(NOTHING, Ordering::Relaxed);
        let polled = Pin::new(&mut this.body).poll_frame(&mut Context::from_waker(&this.waker));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.took(bytes as u64, since);
            }
            _ => {
                this.marks = None;
                this.call.connection.took(0);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Taken<B> {
    fn drop(&mut self) {
        let connection = &self.call.connection;
        connection.state().calls.retain(|call| !Arc::ptr_eq(call, &self.call));
        connection.took(0);
    }
}

/// A connection's bytes, read as far ahead as there is room for.
#[derive(Debug)]
pub struct Paced {
    stream: Counted,
    connection: Arc<Connection>,
    /// Read since its calls had their turn.
    read: u64,
    pause: Option<Pin<Box<Sleep>>>,
    /// One after the other.
    pauses: u32,
}

impl Paced {
    /// Reads of `stream`.
    pub fn new(stream: Counted, Ahead(connection): Ahead) -> Self {
        Self { stream, connection, read: 0, pause: None, pauses: 0 }
    }

    /// Whether more may be read now, or nothing of it any more.
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        let connection = &self.connection;
        if self.read >= LITTLE && connection.port.is_much() {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Looked at again once it is known whom to wake.
        let may_read = connection.may_read() || {
            connection.reader.register(cx.waker());
            connection.may_read()
        };
        if may_read {
            (self.pause, self.pauses) = (None, 0);
        } else {
            let pause = || Box::pin(tokio::time::sleep(PAUSE));
            ready!(self.pause.get_or_insert_with(pause).as_mut().poll(cx));
            self.pause = None;
            self.pauses += 1;
            if self.stream.poll_has_ended(cx) {
                return Poll::Ready(Ok(false));
            }
        }
        if self.pauses > PAUSES_MAX {
            connection.port.metrics.connections_gave_way.one();
            let why = "its calls took nothing of what came for them, and others needed the room";
            return Poll::Ready(Err(Error::other(why)));
        }
        Poll::Ready(Ok(true))
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
        let bytes = (buffer.filled().len() - before) as u64;
        self.read = if read.is_ready() { self.read + bytes } else { 0 };
        if bytes > 0 {
            self.connection.read(bytes);
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
    use futures_util::task::noop_waker_ref;
    use std::collections::VecDeque;
    use std::convert::Infallible;

    const WINDOW: u32 = 64 << 10;
    const MUCH: u64 = WINDOWS_MAX * WINDOW as u64;

    /// What comes for a call. Wakes whoever waits for it.
    #[derive(Clone, Default)]
    struct Coming(Arc<Mutex<(VecDeque<usize>, Option<Waker>)>>);

    impl Coming {
        fn comes(&self, bytes: usize) {
            let mut coming = self.0.lock().unwrap();
            coming.0.push_back(bytes);
            if let Some(waker) = coming.1.take() {
                waker.wake();
            }
        }
    }

    impl Body for Coming {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
            let mut coming = self.0.lock().unwrap();
            let Some(bytes) = coming.0.pop_front() else {
                coming.1 = Some(cx.waker().clone());
                return Poll::Pending;
            };
            Poll::Ready(Some(Ok(Frame::data(vec![0; bytes].into()))))
        }
    }

    struct One {
        coming: Coming,
        taken: Taken<Coming>,
    }

    impl One {
        fn new(of: &Ahead) -> Self {
            let coming = Coming::default();
            Self { taken: of.of_call(coming.clone()), coming }
        }

        /// So much is read of the connection, and among it so much comes for the call.
        fn comes(&self, read: u64, bytes: usize) {
            self.taken.call.connection.read(read);
            self.coming.comes(bytes);
        }

        /// Takes what one frame has brought, if there is one.
        fn takes(&mut self) -> bool {
            let mut cx = Context::from_waker(noop_waker_ref());
            Pin::new(&mut self.taken).poll_frame(&mut cx).is_ready()
        }
    }

    fn port() -> Pace {
        Pace::new(WINDOW, Arc::default())
    }

    fn kept(port: &Pace) -> u64 {
        port.0.kept.load(Ordering::Relaxed)
    }

    #[test]
    fn what_was_read_since_something_came_is_kept_until_all_of_that_is_taken() {
        let port = port();
        let connection = port.of_connection();
        let mut call = One::new(&connection);
        assert!(!call.takes());
        connection.0.read(MUCH);
        assert_eq!(kept(&port), 0, "nothing of it was for the call");
        call.comes(1_000, 1);
        call.comes(10_000, 1);
        connection.0.read(100_000);
        assert_eq!(kept(&port), 110_000);
        assert!(call.takes());
        assert_eq!(kept(&port), 110_000, "nobody knows which part came when");
        assert!(call.takes() && !call.takes());
        assert_eq!(kept(&port), 0);
        call.comes(0, 1);
        connection.0.read(5);
        assert_eq!(kept(&port), 5);
        drop(call);
        assert_eq!(kept(&port), 0);
        connection.0.read(5);
        assert_eq!(kept(&port), 0);
    }

    #[test]
    fn a_call_that_never_takes_all_keeps_little_more_than_a_window_of_what_only_it_sends() {
        let port = port();
        let connection = port.of_connection();
        let mut call = One::new(&connection);
        let frame = WINDOW / STEPS as u32;
        for _ in 0..STEPS {
            call.comes(frame.into(), frame as usize);
        }
        for _ in 0..100 {
            call.comes(frame.into(), frame as usize);
            assert!(call.takes());
            assert!(kept(&port) <= u64::from(2 * WINDOW + frame), "{}", kept(&port));
        }
        assert!(kept(&port) >= u64::from(WINDOW), "{}", kept(&port));
    }

    #[test]
    fn where_much_is_kept_a_connection_is_read_as_fast_as_its_calls_take() {
        let port = port();
        let [hoards, other, idle] = [(); 3].map(|()| port.of_connection());
        let mut hoarding = One::new(&hoards);
        let mut taking = One::new(&other);
        let mut resting = One::new(&idle);
        for call in [&mut hoarding, &mut taking, &mut resting] {
            assert!(!call.takes());
        }
        hoarding.comes(0, 1);
        hoards.0.read(MUCH);
        assert!(hoards.0.may_read(), "it is as much as may be");
        hoards.0.read(LITTLE);
        let may_read = |of: &Ahead| of.0.may_read();
        assert!(!may_read(&hoards) && may_read(&other) && may_read(&idle));
        // One whose calls have something to take is read on when they take it.
        for _ in 0..2 {
            taking.comes(LITTLE, LITTLE as usize);
            other.0.read(1);
        }
        assert!(!may_read(&other));
        assert!(taking.takes() && may_read(&other));
        // Who has taken all is read, whatever others do not take.
        resting.comes(10 * LITTLE, LITTLE as usize);
        assert!(resting.takes() && !resting.takes() && may_read(&idle));
        assert!(!may_read(&hoards));
        // There is room: all are read as it comes.
        assert!(hoarding.takes() && !hoarding.takes() && may_read(&hoards));
        assert!(kept(&port) <= 4 * LITTLE);
    }

    #[test]
    fn a_call_that_ends_makes_room() {
        let port = port();
        let connection = port.of_connection();
        let calls = [(); 3].map(|()| One::new(&connection));
        // None was asked for anything: something may have come since each began.
        connection.0.read(2 * MUCH);
        assert!(!connection.0.may_read());
        drop(calls);
        assert!(connection.0.may_read() && kept(&port) == 0);
    }
}
