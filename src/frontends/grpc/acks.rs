//! Requests of a stream in, acknowledgements out, in order and pipelined.
//!
//! The hottest code of the front end: no task, channel, timer, lock or box per record. It is one
//! stream that reads requests, hands them to the partition, and waits for the oldest answer. Its
//! queue is bounded: when it is full it stops reading, and HTTP/2 windows hold the client back.

use super::refusal::Refusal;
use crate::actors::partition::{Ack, PendingAck};
use crate::frontends::drain::{Drain, DrainPoller};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
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

    /// Hands a request to the partition.
    fn propose(&self, request: Self::Request) -> (Self::Tag, Result<PendingAck, Refusal>);

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

/// The stream of answers to a stream of requests.
pub struct AckStream<D: Dialect> {
    dialect: D,
    requests: Streaming<D::Request>,
    input: Input,
    outstanding: VecDeque<(D::Tag, Waiting)>,
    outstanding_max: usize,
    drain: DrainPoller,
}

impl<D: Dialect> AckStream<D> {
    /// Answers `requests`, with at most `outstanding_max` of them waiting at any time.
    pub fn new(
        dialect: D,
        requests: Streaming<D::Request>,
        outstanding_max: usize,
        drain: Drain,
    ) -> Self {
        Self {
            dialect,
            requests,
            input: Input::Open,
            outstanding: VecDeque::new(),
            outstanding_max: outstanding_max.max(1),
            drain: drain.poller(),
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
                    let (tag, proposed) = self.dialect.propose(request);
                    let waiting = match proposed {
                        Ok(ack) => Waiting::Ack(ack),
                        Err(refusal) => Waiting::Refused(Some(refusal)),
                    };
                    self.outstanding.push_back((tag, waiting));
                }
            }
        }
    }
}

impl<D: Dialect> Stream for AckStream<D> {
    type Item = Result<D::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.read(cx);
        let Some((tag, waiting)) = this.outstanding.front_mut() else {
            return match &mut this.input {
                Input::Open => Poll::Pending,
                Input::Ended(status) => Poll::Ready(status.take().map(Err)),
            };
        };
        let outcome = match waiting {
            Waiting::Ack(ack) => match Pin::new(ack).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => outcome.map_err(Refusal::from),
            },
            Waiting::Refused(refusal) => {
                Err(refusal.take().expect("a refusal is taken once, then leaves the queue"))
            }
        };
        let tag = *tag;
        this.outstanding.pop_front();
        let answer = this.dialect.answer(tag, outcome);
        if answer.is_err() {
            this.input = Input::Ended(None);
            this.outstanding.clear();
        }
        Poll::Ready(Some(answer))
    }
}
