//! What was read of connections ahead of the calls that it is for. HTTP/2 keeps what has come until its
//! call takes it, and a few bytes of it keep all that was read along with them.
//!
//! While little is kept on the port all is read as it comes. Where much is, a connection that keeps some
//! of it is read on when no more lies there than the least that did since: calls that always have
//! something to take lose nothing by that, and one that takes nothing is no burden to others of its
//! connection. Frames are few in any case, since HTTP/2 keeps the room that was needed for them. A little
//! is read each second all the same, since what the calls wait for may lie behind what one of them does
//! not take. If that does not help for long, the connection ends.

use crate::observe::metrics::Metrics;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What may be kept before connections are read more slowly, in windows of a call.
const WINDOWS_MAX: u64 = 32;
/// What each may keep whatever the others do (unit: bytes).
pub const LITTLE: u64 = 16 << 10;
/// How many frames may lie there of a connection before no more are read. With what may come at once, and
/// the heads of some calls, 256 at most: the list of them doubles, and never shrinks.
const FRAMES_MAX: u64 = 120;
/// Of a window, how exactly it is known what a call may not have taken.
const STEPS: usize = 8;
/// What a frame keeps at most, which may be all that was read with it (unit: bytes) …
const BLOCK_BYTES: u64 = 16 << 10;
/// … and besides, of which HTTP/2 makes a list.
const ENTRY_BYTES: u64 = 256;
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
        let (came, state, reader) = Default::default();
        Ahead(Arc::new(Connection { port, came, state, reader }))
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
    state: Mutex<State>,
    reader: AtomicWaker,
}

/// Frames are those of bodies.
#[derive(Debug, Default)]
struct State {
    calls: Vec<Arc<Call>>,
    /// How many frames came …
    came: u64,
    /// … were looked at by HTTP/2 …
    seen: u64,
    /// … before this turn, so that their calls have begun …
    begun: u64,
    /// … and were taken, or are known to be gone.
    taken: u64,
    /// How many calls took themselves.
    drawn: u64,
    /// How much had been read before this turn (unit: bytes).
    turn: u64,
    /// The fewest frames that lay there since much is kept on the port.
    least: u64,
    /// As the port counts it (unit: bytes).
    kept: u64,
}

impl State {
    /// How much had been read before anything that may not be taken.
    fn since(&self) -> u64 {
        let calls = self.calls.iter().map(|call| call.since.load(Ordering::Relaxed));
        calls.min().unwrap_or(NOTHING)
    }

    /// How many frames may not be taken.
    fn lying(&self) -> u64 {
        self.came - self.taken
    }

    fn take(&mut self, frames: u64) {
        self.taken = self.came.min(self.taken + frames);
    }

    /// Where calls have taken all, the rest was of calls that have ended, or of none.
    fn settle(&mut self) {
        if self.taken < self.begun && self.since() == NOTHING {
            self.taken = self.begun;
        }
    }
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
    /// Something came, or it ended, and all before was taken.
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

/// How a connection is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// All is read as it comes.
    pub is_free: bool,
    /// More may be read now.
    pub may_go_on: bool,
    /// There are so many frames that only a few bytes should be read at a time.
    pub is_crowded: bool,
    /// What is there may turn out to be nobody's, in the next turn.
    pub is_unsettled: bool,
    /// How many frames its calls have taken so far; not what they left when they ended.
    pub drawn: u64,
}

impl Ahead {
    /// HTTP/2 has its turn. Of all that it saw in those before, calls have begun.
    pub fn turn(&self) {
        let mut state = self.0.state();
        state.begun = state.seen;
        state.turn = self.0.came();
    }

    /// So many bytes were read, and with them the ends of so many frames of bodies.
    pub fn read(&self, bytes: u64, frames: u64) {
        self.0.read(bytes, frames);
    }

    /// How it is read, where all that came before was looked at.
    pub fn reading(&self) -> Reading {
        self.0.reading()
    }

    /// `reader` is woken when what [`Self::reading`] says may have changed.
    pub fn wakes(&self, reader: &Waker) {
        self.0.reader.register(reader);
    }

    /// It ends, since its calls take nothing.
    pub fn count_end(&self) {
        self.0.port.metrics.connections_gave_way.one();
    }

    /// The requests of a call, as HTTP/2 has them.
    pub fn of_call<B: Body<Data = Bytes> + Unpin>(&self, body: B) -> Taken<B> {
        let connection = Arc::clone(&self.0);
        let mut state = self.0.state();
        let since = AtomicU64::new(state.turn);
        let call = Arc::new(Call { connection, since, task: AtomicWaker::new() });
        state.calls.push(Arc::clone(&call));
        drop(state);
        Taken { body, waker: Arc::clone(&call).into(), call, marks: None }
    }
}

impl Connection {
    fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    fn read(&self, bytes: u64, frames: u64) {
        let mut state = self.state();
        state.came += frames;
        self.came.fetch_add(bytes, Ordering::Relaxed);
        self.count(&mut state);
    }

    /// One of its calls took so many frames, or all.
    fn took(&self, frames: u64) {
        let mut state = self.state();
        state.drawn += frames;
        self.gone(state, frames);
    }

    /// One of its calls ended, and left so many.
    fn left(&self, call: &Arc<Call>, frames: u64) {
        let mut state = self.state();
        state.calls.retain(|one| !Arc::ptr_eq(one, call));
        self.gone(state, frames);
    }

    fn gone(&self, mut state: MutexGuard<'_, State>, frames: u64) {
        state.take(frames);
        self.count(&mut state);
        drop(state);
        self.reader.wake();
    }

    fn reading(&self) -> Reading {
        let mut state = self.state();
        state.seen = state.came;
        state.settle();
        let lying = state.lying();
        let is_crowded = lying > FRAMES_MAX;
        let is_free = !is_crowded && (!self.port.is_much() || state.kept <= LITTLE);
        Reading {
            is_free,
            may_go_on: is_free || !is_crowded && lying <= state.least,
            is_crowded,
            is_unsettled: state.begun < state.seen,
            drawn: state.drawn,
        }
    }

    fn count(&self, state: &mut State) {
        let lying = state.lying();
        let kept = match state.since() {
            NOTHING => 0,
            since => (self.came() - since + lying * ENTRY_BYTES).min(lying * BLOCK_BYTES),
        };
        state.least = if self.port.is_much() { state.least.min(lying) } else { lying };
        // All connections share it, and most keep nothing all the time.
        if kept != state.kept {
            // Wraps where it became less.
            self.port.kept.fetch_add(kept.wrapping_sub(state.kept), Ordering::Relaxed);
            state.kept = kept;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests of a call. See the module.
#[derive(Debug)]
pub struct Taken<B: Body<Data = Bytes> + Unpin> {
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

impl<B: Body<Data = Bytes> + Unpin> Taken<B> {
    fn took(&mut self, bytes: u64, since: u64) {
        let connection = &self.call.connection;
        let came = connection.came();
        let marks = self.marks.get_or_insert_with(|| Marks::at(since.min(came)));
        marks.take(bytes, connection.port.window, came);
        self.call.since.store(marks.came[0], Ordering::Relaxed);
        connection.took(u64::from(bytes > 0));
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Taken<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.call.task.register(cx.waker());
        // Before it is looked: what comes from here on wakes.
        let since = this.call.since.swap(NOTHING, Ordering::Relaxed);
        let polled = Pin::new(&mut this.body).poll_frame(&mut Context::from_waker(&this.waker));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.took(data_bytes(frame), since);
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

impl<B: Body<Data = Bytes> + Unpin> Drop for Taken<B> {
    fn drop(&mut self) {
        let (mut frames, mut cx) = (0, Context::from_waker(Waker::noop()));
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(&mut cx) {
            frames += u64::from(data_bytes(&frame) > 0);
        }
        self.call.connection.left(&self.call, frames);
    }
}

fn data_bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, Bytes::len) as u64
}

#[cfg(test)]
mod tests;
