//! Requests on their way in: what has come of those that are not whole yet is held in memory, so there
//! is a bound for all of them together, and a time for each.
//!
//! Where there would be more, the request gives way that has been unfinished for longest: whoever is
//! there finishes in milliseconds, and is served however many others only hold memory. What is whole is
//! its handler's, who admits or refuses it. Streams of requests may rest between two of them for ever;
//! within one they may not.
//!
//! A message of gRPC is passed on when it is whole: its decoder would take as much memory as the message
//! says that it has, when five bytes of it have come.

mod message;

use crate::observe::metrics::catalogue as of;
use crate::observe::metrics::{Counter, Protocol, Snapshot};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use message::{Framing, Part};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Sleep;

/// What the bound is unless told otherwise (unit: bytes).
const BYTES_MAX: usize = 18 << 20;
/// When to come again after it was reached.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request is not read on.
#[derive(Debug, thiserror::Error)]
pub enum NotTakenIn {
    /// Too much is half-way in, and this was begun first.
    #[error(
        "requests that are not whole hold {bytes_max} bytes, as many as may \
         (admission.incoming_bytes_max), and this one was begun first: send it again, faster, or in \
         smaller parts"
    )]
    GaveWay {
        /// The bound.
        bytes_max: usize,
    },
    /// A message says that it is longer than this method takes.
    #[error(
        "the message has {bytes} bytes, over the limit of {bytes_max}{}; send less at once",
        if *is_setting { " (rpc.message_bytes_max)" } else { " of this method" }
    )]
    TooLarge {
        /// What it says.
        bytes: usize,
        /// The limit …
        bytes_max: usize,
        /// … and whether it is a setting.
        is_setting: bool,
    },
    /// It takes its sender too long.
    #[error("the request did not come in within {0:?}; nothing was changed")]
    Late(Duration),
    /// It ended within a message.
    #[error("the call ended {missing} bytes before its message did; nothing of that was done")]
    CutOff {
        /// How many bytes never came; of the prefix, where not all of that did.
        missing: usize,
    },
    /// The connection or the stream broke.
    #[error(transparent)]
    Broken(Box<dyn Error + Send + Sync>),
}

/// What all requests that are not whole take together. Clones share it.
#[derive(Debug, Clone)]
pub struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    held: Mutex<Held>,
    full: [Counter; Protocol::ALL.len()],
    late: [Counter; Protocol::ALL.len()],
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// Numbers are given once, so that the oldest is the first.
    next: u64,
    by_age: BTreeMap<u64, Share>,
}

#[derive(Debug)]
struct Share {
    bytes: usize,
    /// Who waits for more of it.
    reader: Waker,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Intake {
    /// With this bound, which must be room for the largest request. Of two of that size that come
    /// together the one begun first may have to come again.
    pub fn new(bytes_max: usize) -> Self {
        let (full, late) = (Default::default(), Default::default());
        Self(Arc::new(Shared { bytes_max, held: Mutex::default(), full, late }))
    }

    /// Adds what is counted here to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot) {
        let held = self.held().bytes;
        snapshot.number(&of::INCOMING_BYTES, &[], held as f64);
        for protocol in Protocol::ALL {
            let (name, at) = (protocol.name(), protocol as usize);
            snapshot.counter(&of::INCOMING_REFUSED, &[name, "bytes"], &self.0.full[at]);
            snapshot.counter(&of::INCOMING_REFUSED, &[name, "time"], &self.0.late[at]);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request holds so much now; 0: it is whole. `number`: under which it is known. False: it gave
    /// way, or does so now.
    fn hold(&self, number: &mut Option<u64>, bytes: usize, reader: &Waker) -> bool {
        if number.is_none() && bytes == 0 {
            return true;
        }
        let mut held = self.held();
        let own = match *number {
            Some(own) => own,
            None => {
                let own = held.next;
                held.next += 1;
                held.by_age.insert(own, Share { bytes: 0, reader: reader.clone() });
                *number.insert(own)
            }
        };
        let Some(share) = held.by_age.get_mut(&own) else { return false };
        let before = std::mem::replace(&mut share.bytes, bytes);
        held.bytes = held.bytes - before + bytes;
        if bytes == 0 {
            held.by_age.remove(&own);
            *number = None;
            return true;
        }
        while held.bytes > self.0.bytes_max
            && let Some((_, oldest)) = held.by_age.pop_first()
        {
            held.bytes -= oldest.bytes;
            oldest.reader.wake();
        }
        held.by_age.contains_key(&own)
    }

    /// A request waits for more of itself. False: it gave way.
    fn wait(&self, number: u64, reader: &Waker) -> bool {
        let mut held = self.held();
        let share = held.by_age.get_mut(&number);
        share.map(|share| share.reader.clone_from(reader)).is_some()
    }

    fn let_go(&self, number: u64) {
        let mut held = self.held();
        if let Some(share) = held.by_age.remove(&number) {
            held.bytes -= share.bytes;
        }
    }

    /// The body of a call; `is_stream`: of many messages, each of so many bytes at most.
    pub fn of_call<B>(
        &self,
        body: B,
        time: Duration,
        bytes_max: MessageMax,
        is_stream: bool,
    ) -> Incoming<B> {
        let shape = if is_stream { Shape::Messages } else { Shape::Message };
        let mut incoming = Incoming::new(self, Protocol::Grpc, body, time, shape);
        incoming.bytes_max = bytes_max;
        incoming
    }

    /// The body of a request of HTTP/1.
    pub fn of_request<B>(&self, body: B, time: Duration) -> Incoming<B> {
        Incoming::new(self, Protocol::Http, body, time, Shape::Whole)
    }
}

/// How long a message may be (unit: bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageMax {
    /// As the settings say.
    Set(usize),
    /// As the method is made.
    Fixed(usize),
    /// As its own decoder says.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Held until whoever reads it has done with it.
    Whole,
    /// One message, then the end.
    Message,
    /// Any number of messages.
    Messages,
}

/// A request's body. See the module.
#[derive(Debug)]
pub struct Incoming<B> {
    intake: Intake,
    protocol: Protocol,
    body: B,
    time: Duration,
    /// Until when what has begun must be whole; only once something was waited for.
    until: Option<Pin<Box<Sleep>>>,
    shape: Shape,
    bytes_max: MessageMax,
    framing: Framing,
    part: Part,
    /// Of what is whole, what is not passed on yet.
    whole: VecDeque<Bytes>,
    /// While something is held.
    number: Option<u64>,
}

impl<B> Incoming<B> {
    fn new(intake: &Intake, protocol: Protocol, body: B, time: Duration, shape: Shape) -> Self {
        let (intake, framing) = (intake.clone(), Framing::default());
        let (until, number, bytes_max) = (None, None, MessageMax::Other);
        let (part, whole) = (Part::default(), VecDeque::new());
        Self { intake, protocol, body, time, until, shape, bytes_max, framing, part, whole, number }
    }

    /// Takes what has come; what can be passed on of it.
    fn took(&mut self, mut come: Bytes, reader: &Waker) -> Result<Option<Bytes>, NotTakenIn> {
        if self.shape == Shape::Whole {
            self.framing.come += come.len();
            self.counted(reader)?;
            return Ok(Some(come));
        }
        let whole = self.framing.pass(&come);
        self.counted(reader)?;
        let Some(end) = whole else {
            self.part.push(&come);
            return Ok(None);
        };
        self.until = None;
        let rest = come.split_off(end);
        self.whole.extend(self.part.take());
        self.part.push(&rest);
        if self.whole.is_empty() {
            return Ok(Some(come));
        }
        self.whole.push_back(come);
        Ok(self.whole.pop_front())
    }

    /// Counts what is held, and refuses what is too much of it.
    fn counted(&mut self, reader: &Waker) -> Result<(), NotTakenIn> {
        let bytes = self.framing.longest;
        match self.bytes_max {
            MessageMax::Set(bytes_max) | MessageMax::Fixed(bytes_max) if bytes > bytes_max => {
                let is_setting = self.bytes_max == MessageMax::Set(bytes_max);
                return Err(NotTakenIn::TooLarge { bytes, bytes_max, is_setting });
            }
            _ => {}
        }
        if self.intake.hold(&mut self.number, self.framing.come, reader) {
            return Ok(());
        }
        Err(self.gave_way())
    }

    fn gave_way(&self) -> NotTakenIn {
        let shared = &self.intake.0;
        shared.full[self.protocol as usize].one();
        NotTakenIn::GaveWay { bytes_max: shared.bytes_max }
    }

    /// Nothing has come: how long has it been so?
    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<NotTakenIn> {
        if self.number.is_some_and(|number| !self.intake.wait(number, cx.waker())) {
            return Poll::Ready(self.gave_way());
        }
        if self.shape == Shape::Messages && self.framing.come == 0 {
            return Poll::Pending;
        }
        let time = self.time;
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        std::task::ready!(until.as_mut().poll(cx));
        self.intake.0.late[self.protocol as usize].one();
        Poll::Ready(NotTakenIn::Late(time))
    }
}

impl<B> Drop for Incoming<B> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.intake.let_go(number);
        }
    }
}

impl<B> Body for Incoming<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = NotTakenIn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NotTakenIn>>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(NotTakenIn::Broken(error.into()))));
                }
                Poll::Ready(None) if this.part.bytes > 0 => {
                    this.part = Part::default();
                    let missing = this.framing.missing();
                    return Poll::Ready(Some(Err(NotTakenIn::CutOff { missing })));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return this.waits(cx).map(|late| Some(Err(late))),
            };
            // Calls have no trailers that mean anything.
            let Ok(come) = frame.into_data() else { continue };
            let taken = this.took(come, cx.waker());
            if let Some(bytes) = taken.transpose() {
                return Poll::Ready(Some(bytes.map(Frame::data)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_empty() && self.part.bytes == 0 && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.part.bytes + self.whole.iter().map(Bytes::len).sum::<usize>();
        let mut hint = SizeHint::new();
        hint.set_lower(self.body.size_hint().lower() + held as u64);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::message::PREFIX_BYTES;
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc::{Sender, channel};
    use tokio_stream::wrappers::ReceiverStream;

    const LONG: Duration = Duration::from_secs(600);

    fn message(bytes: usize) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend((bytes as u32).to_be_bytes());
        framed.resize(PREFIX_BYTES + bytes, 7);
        framed
    }

    type Sent = Result<Frame<Bytes>, std::io::Error>;

    fn pipe() -> (Sender<Sent>, StreamBody<ReceiverStream<Sent>>) {
        let (sender, receiver) = channel(8);
        (sender, StreamBody::new(ReceiverStream::new(receiver)))
    }

    async fn send(sender: &Sender<Sent>, bytes: &[u8]) {
        sender.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.unwrap();
    }

    fn held(intake: &Intake) -> usize {
        intake.held().bytes
    }

    /// Takes what has come of a message that is not whole.
    async fn not_whole<B>(call: &mut Incoming<B>)
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *call).poll_frame(cx)));
        assert!(polled.await.is_pending());
    }

    async fn bytes_of<B>(call: &mut Incoming<B>) -> usize
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        call.frame().await.unwrap().unwrap().into_data().unwrap().len()
    }

    #[tokio::test]
    async fn the_oldest_of_what_is_half_way_in_gives_way_and_what_is_whole_holds_nothing() {
        let intake = Intake::new(100);
        let (one, first) = pipe();
        let (other, second) = pipe();
        let mut first = intake.of_call(first, LONG, MessageMax::Other, true);
        let mut second = intake.of_call(second, LONG, MessageMax::Other, true);
        send(&one, &message(500)).await;
        send(&one, &message(80)[..60]).await;
        assert_eq!(bytes_of(&mut first).await, PREFIX_BYTES + 500);
        assert_eq!(held(&intake), 0, "a message that is whole");
        not_whole(&mut first).await;
        assert_eq!(held(&intake), 60);
        send(&other, &message(80)[..50]).await;
        not_whole(&mut second).await;
        assert_eq!(held(&intake), 50, "the older one holds nothing any more");
        let refused = first.frame().await.unwrap().unwrap_err();
        assert!(matches!(refused, NotTakenIn::GaveWay { bytes_max: 100 }), "{refused}");
        assert_eq!(intake.0.full[0].get(), 1);
        send(&other, &message(80)[50..]).await;
        let whole = bytes_of(&mut second).await + bytes_of(&mut second).await;
        assert_eq!((whole, held(&intake)), (PREFIX_BYTES + 80, 0));
        send(&other, &message(300)[..101]).await;
        assert!(
            second.frame().await.unwrap().is_err(),
            "too much by itself: it gives way to nobody"
        );
        send(&one, &message(80)[..60]).await;
        drop((first, second));
        assert_eq!(held(&intake), 0, "what is gone holds nothing");
    }

    #[tokio::test]
    async fn whole_messages_are_passed_on_as_they_came_and_one_that_is_cut_off_is_told_of() {
        let all = [message(3), message(0), message(5_000), message(90), message(700)].concat();
        let cut_off = all.len() - 1;
        for piece in [1, 2, 7, 100, 4_999, 10_000] {
            let (sender, body) = pipe();
            let mut call = Intake::default().of_call(body, LONG, MessageMax::Other, true);
            let sent = all[..cut_off].to_vec();
            tokio::spawn(async move {
                for part in sent.chunks(piece) {
                    send(&sender, part).await;
                }
            });
            let mut come = Vec::new();
            let broken = loop {
                match call.frame().await.unwrap() {
                    Ok(frame) => come.extend(frame.into_data().unwrap()),
                    Err(broken) => break broken,
                }
            };
            assert!(come == all[..all.len() - PREFIX_BYTES - 700], "in pieces of {piece}");
            assert!(matches!(broken, NotTakenIn::CutOff { missing: 1 }), "{broken}");
            assert!(call.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_more_hears_that_it_gave_way() {
        let intake = Intake::new(100);
        let ((old, first), (young, second)) = (pipe(), pipe());
        let mut first = intake.of_request(first, LONG);
        send(&old, &[0; 90]).await;
        first.frame().await.unwrap().unwrap();
        let waiting = tokio::spawn(async move { first.frame().await });
        tokio::task::yield_now().await;
        let mut second = intake.of_request(second, LONG);
        send(&young, &[0; 50]).await;
        second.frame().await.unwrap().unwrap();
        let told = waiting.await.unwrap().unwrap();
        assert!(matches!(told, Err(NotTakenIn::GaveWay { .. })));
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_is_given_up_and_a_stream_may_rest_between_two() {
        let intake = Intake::default();
        let soon = Duration::from_millis(1);
        let silent = |is_stream| {
            let (sender, body) = pipe();
            (sender, intake.of_call(body, soon, MessageMax::Other, is_stream))
        };
        let (_open, mut call) = silent(false);
        assert!(matches!(call.frame().await, Some(Err(NotTakenIn::Late(_)))));
        let (open, mut call) = silent(true);
        send(&open, b"\0").await;
        assert!(matches!(call.frame().await, Some(Err(NotTakenIn::Late(_)))));
        assert_eq!(intake.0.late[0].get(), 2);
        drop(call);
        assert_eq!(held(&intake), 0);
        let (open, mut call) = silent(true);
        send(&open, &message(3)).await;
        call.frame().await.unwrap().unwrap();
        let rests = std::future::poll_fn(|cx| {
            Poll::Ready(Pin::new(&mut call).poll_frame(cx).is_pending() && call.until.is_none())
        });
        assert!(rests.await, "it waits without a time");
    }

    #[tokio::test]
    async fn a_message_is_refused_by_what_it_says_of_its_length() {
        for (bytes_max, word) in
            [(MessageMax::Set(9), "rpc.message_bytes_max"), (MessageMax::Fixed(9), "this method")]
        {
            let (sender, body) = pipe();
            let mut call = Intake::default().of_call(body, LONG, bytes_max, true);
            send(&sender, &message(9)).await;
            call.frame().await.unwrap().unwrap();
            send(&sender, &message(10)[..PREFIX_BYTES]).await;
            let refused = call.frame().await.unwrap().unwrap_err();
            assert!(matches!(refused, NotTakenIn::TooLarge { bytes: 10, .. }), "{refused}");
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }
}
