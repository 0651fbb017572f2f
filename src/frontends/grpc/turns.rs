//! Gives the calls of an HTTP/2 connection their turns on their threads, and sees what they do in them:
//! whether HTTP/2 asked one for its next answer, and whether it took all that had come for it.
//!
//! HTTP/2 asks a call when its client has taken the answer before. So a call *stands* that had its turn,
//! and was not asked until it knew of nothing more to say or to read.

use super::stalled::{Connection, Stalled, Stand, Whose};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Of a call, in its turn.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// It sends one request, or is not answered yet.
    NoStream,
    /// Its client may have no room for answers.
    Not(Whose),
    /// It knew of nothing more.
    ToTheEnd(Whose),
}

/// What a call took in its turn of what came for it.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    bytes: usize,
    is_all: bool,
}

thread_local! {
    /// Of the call whose turn it is.
    static ASKED: Cell<Asked> = const { Cell::new(Asked::NoStream) };
    static TOOK: Cell<Took> = const { Cell::new(Took { bytes: 0, is_all: false }) };
}

/// A call begins to answer a stream of requests.
pub fn begins(whose: Whose) {
    ASKED.set(Asked::Not(whose));
}

/// A stream of requests is asked for its next answer; whether it knew of nothing more.
pub fn asked(whose: Whose, is_all: bool) {
    ASKED.set(if is_all { Asked::ToTheEnd(whose) } else { Asked::Not(whose) });
}

/// A call took so many bytes that had come for it, or all have been taken.
fn took(bytes: Option<usize>) {
    let before = TOOK.get().bytes;
    TOOK.set(Took { bytes: before + bytes.unwrap_or_default(), is_all: bytes.is_none() });
}

/// Requests of a call, as HTTP/2 has them.
#[derive(Debug)]
pub struct Taken<B>(pub B);

impl<B: Body<Data = Bytes> + Unpin> Body for Taken<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        took(match &polled {
            Poll::Ready(Some(Ok(frame))) => Some(frame.data_ref().map_or(0, Bytes::len)),
            _ => None,
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Gives the calls of a connection their turns, as tasks.
#[derive(Debug, Clone)]
pub struct Turns {
    stalled: Stalled,
    connection: Arc<Connection>,
}

impl Turns {
    /// Those of a connection.
    pub fn new(stalled: &Stalled, connection: Connection) -> Self {
        Self { stalled: stalled.clone(), connection: Arc::new(connection) }
    }

    /// After something was read: is there still room for what calls that stand may keep of it?
    pub fn look(&self) {
        self.stalled.look(&self.connection);
    }
}

impl<F> Executor<F> for Turns
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        tokio::spawn(Call::new(call, self.clone()));
    }
}

pin_project! {
    /// A call, with what its last turns showed.
    pub struct Call<F> {
        #[pin]
        call: F,
        asked: Asked,
        spot: Spot,
    }
}

impl<F> Call<F> {
    /// Of a connection.
    pub fn new(call: F, turns: Turns) -> Self {
        Self { call, asked: Asked::NoStream, spot: Spot { turns, stand: None, unread: None } }
    }
}

/// Where a call stands, while it does.
struct Spot {
    turns: Turns,
    stand: Option<Stand>,
    /// While something may have come for it that it has not taken.
    unread: Option<Unread>,
}

/// Since when what a call has not taken may have come, as counted in what its connection read.
struct Unread {
    /// Since then …
    since: u64,
    /// … and since then once a window's worth more is taken, as no more than that can lie there.
    then: u64,
    /// Taken after that (unit: bytes).
    taken: u64,
}

impl<F: Future<Output = ()>> Future for Call<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Something woke it: it stands unless it is asked now, which some versions of hyper do not do
        // before there is room.
        ASKED.set(match *this.asked {
            Asked::ToTheEnd(whose) => Asked::Not(whose),
            other => other,
        });
        TOOK.set(Took::default());
        let polled = this.call.poll(cx);
        *this.asked = ASKED.replace(Asked::NoStream);
        this.spot.took(TOOK.take());
        match *this.asked {
            Asked::Not(whose) if polled.is_pending() => this.spot.stand(whose),
            _ => this.spot.leave(),
        }
        polled
    }
}

impl Spot {
    fn took(&mut self, took: Took) {
        if took.is_all {
            self.unread = None;
            return;
        }
        let connection = &self.turns.connection;
        let came = connection.came();
        let unread = self.unread.get_or_insert(Unread { since: came, then: came, taken: 0 });
        unread.taken += took.bytes as u64;
        if unread.taken >= connection.window {
            *unread = Unread { since: unread.then, then: came, taken: 0 };
        }
    }

    fn stand(&mut self, whose: Whose) {
        let Turns { stalled, connection } = &self.turns;
        if self.stand.is_none() {
            let came = || connection.came();
            let since = self.unread.as_ref().map_or_else(came, |unread| unread.since);
            self.stand = Some(stalled.stands(whose, connection, since));
        }
    }

    fn leave(&mut self) {
        if let Some(stand) = self.stand.take() {
            self.turns.stalled.goes_on(stand);
        }
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.leave();
    }
}
