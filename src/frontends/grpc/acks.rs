//! Requests of a stream in, acknowledgements out, in order and pipelined.
//!
//! The hottest code of the front end: no task, channel, timer, lock or box per record. It is one
//! stream that reads requests, hands them to the partition, and waits for the oldest answer. Its
//! queue is bounded: when it is full it stops reading, and HTTP/2 windows hold the client back.

use super::pauses::{Pauses, TooMany};
use super::refusal::Refusal;
use crate::actors::partition::{Ack, PendingAck, ProduceError};
use crate::frontends::calls::{Caller, Calls};
use crate::frontends::drain::{Drain, DrainPoller};
use crate::observe::Begun;
use crate::observe::metrics::{Method, Outcome};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// What differs between the two interfaces' produce streams.
pub trait Dialect: Send + Unpin + 'static {
    /// What the client sends.
    type Request: Send + 'static;
    /// What it gets for each request.
    type Response: Send + 'static;
    /// What must be kept of a request until it is answered.
    type Tag: Copy + Send + Unpin;

    /// What is kept of a request.
    fn tag(&self, request: &Self::Request) -> Self::Tag;

    /// Which requests must not overtake one another: those to the same partition have the same
    /// number. Two partitions may share one; that costs a needless refusal now and then.
    fn lane(&self, request: &Self::Request) -> u64;

    /// Hands a request to where it belongs.
    fn propose(&mut self, request: Self::Request) -> Result<PendingAck, Refusal>;

    /// What is told where an acknowledgement did not come.
    fn refused(&self, error: ProduceError) -> Refusal;

    /// Makes the answer. An error ends the stream.
    fn answer(
        &self,
        tag: Self::Tag,
        outcome: Result<Ack, Refusal>,
    ) -> Result<Self::Response, Status>;
}

enum Waiting {
    Ack(PendingAck),
    Refused(Option<Refusal>),
}

enum Input {
    Open,
    /// Nothing more is read; the stream ends so once the outstanding answers are out.
    Ended(Option<Status>),
}

/// What is noted of each request of a stream.
pub struct Noted {
    pub calls: Arc<Calls>,
    pub method: Method,
    /// What the stream came with.
    pub caller: Caller,
}

/// The stream of answers to a stream of requests.
pub struct AckStream<D: Dialect> {
    dialect: D,
    requests: Streaming<D::Request>,
    input: Input,
    outstanding: VecDeque<(D::Tag, u64, Begun, Waiting)>,
    outstanding_max: usize,
    pauses: Pauses,
    drain: DrainPoller,
    noted: Noted,
}

impl<D: Dialect> AckStream<D> {
    /// Answers `requests`, with at most `outstanding_max` of them waiting at any time.
    pub fn new(
        dialect: D,
        requests: Streaming<D::Request>,
        outstanding_max: usize,
        drain: Drain,
        noted: Noted,
    ) -> Self {
        Self {
            dialect,
            requests,
            input: Input::Open,
            outstanding: VecDeque::new(),
            outstanding_max: outstanding_max.max(1),
            pauses: Pauses::default(),
            drain: drain.poller(),
            noted,
        }
    }

    /// Reads requests until there are none, or enough.
    fn read(&mut self, cx: &mut Context<'_>) {
        while matches!(self.input, Input::Open) && self.outstanding.len() < self.outstanding_max {
            if self.drain.poll_begun(cx) {
                self.input = Input::Ended(Some(Refusal::draining().into()));
                return;
            }
            match Pin::new(&mut self.requests).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.input = Input::Ended(None),
                Poll::Ready(Some(Err(status))) => self.input = Input::Ended(Some(status)),
                Poll::Ready(Some(Ok(request))) => {
                    let (tag, lane) = (self.dialect.tag(&request), self.dialect.lane(&request));
                    let begun = self.noted.calls.begin(self.noted.method, self.noted.caller);
                    let waiting = match self.propose(request, lane, &begun) {
                        Ok(ack) => Waiting::Ack(ack),
                        Err(refusal) => Waiting::Refused(Some(refusal)),
                    };
                    self.outstanding.push_back((tag, lane, begun, waiting));
                }
            }
        }
    }

    /// Proposes a request, unless it would overtake one that was refused for now.
    fn propose(
        &mut self,
        request: D::Request,
        lane: u64,
        begun: &Begun,
    ) -> Result<PendingAck, Refusal> {
        if !self.pauses.is_empty()
            && let Some(refusal) = self.pauses.refusal(lane, Instant::now())
        {
            return Err(refusal);
        }
        let proposed = {
            let _for_it = self.noted.calls.enter(begun.call);
            self.dialect.propose(request)
        };
        if let Err(refusal) = &proposed {
            let paused = self.pauses.begin(lane, refusal, Instant::now());
            self.end_unless(paused);
        }
        proposed
    }

    /// Nothing more is answered.
    fn give_up(&mut self) {
        for (_, _, begun, _) in self.outstanding.drain(..) {
            self.noted.calls.cancel(&begun);
        }
    }

    /// Ends the stream where it cannot be kept in order any more.
    fn end_unless(&mut self, paused: Result<(), TooMany>) {
        if let Err(too_many) = paused {
            self.input = Input::Ended(Some(Refusal::from(too_many).into()));
        }
    }
}

impl<D: Dialect> Drop for AckStream<D> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<D: Dialect> Stream for AckStream<D> {
    type Item = Result<D::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.read(cx);
        let Some((tag, lane, begun, waiting)) = this.outstanding.front_mut() else {
            return match &mut this.input {
                Input::Open => Poll::Pending,
                Input::Ended(status) => Poll::Ready(status.take().map(Err)),
            };
        };
        let outcome = match waiting {
            Waiting::Ack(ack) => match Pin::new(ack).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => outcome.map_err(|error| this.dialect.refused(error)),
            },
            Waiting::Refused(refusal) => {
                Err(refusal.take().expect("a refusal is taken once, then leaves the queue"))
            }
        };
        let (tag, lane, begun) = (*tag, *lane, *begun);
        this.outstanding.pop_front();
        let calls = &this.noted.calls;
        match &outcome {
            Ok(_) => calls.finish(&begun, Outcome::Ok, String::new),
            Err(refusal) => {
                calls.finish(&begun, refusal.outcome(), || refusal.message().to_owned());
                let paused = this.pauses.told(lane, refusal, Instant::now());
                this.end_unless(paused);
            }
        }
        let answer = this.dialect.answer(tag, outcome);
        if answer.is_err() {
            this.input = Input::Ended(None);
            this.give_up();
        }
        Poll::Ready(Some(answer))
    }
}
