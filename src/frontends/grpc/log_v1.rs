//! `log.v1`: the interface of the book's final program, for its clients as they are.

use super::acks::{AckStream, Dialect, Noted};
use super::dispatch::Client;
use super::refusal::Refusal;
use super::{deadline, reply};
use crate::access::{Action, Denied};
use crate::actors::partition::{Ack, PartitionApi, PendingAck, ProduceError, ReadError};
use crate::actors::readers::{Reader, ReaderWait};
use crate::actors::topics::TopicsApi;
use crate::frontends::access::{Asker, StreamPass};
use crate::frontends::calls::Calls;
use crate::frontends::drain::Drain;
use crate::frontends::forward::is_forwarded;
use crate::frontends::route::{NotTaken, Route, ToAppend};
use crate::model::{Clock, FIRST_TOPIC, Offset, Record};
use crate::observe::metrics::Method;
use crate::wire::convert::{record_from_book, record_to_book};
use crate::wire::pb::log::v1 as pb;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// A read fetches so many records for a stream's next messages, or so many bytes.
const READ_AHEAD_RECORDS: usize = 1024;
const READ_AHEAD_BYTES: usize = 256 << 10;

/// Serves `log.v1.Log` from the first partition of the first topic.
pub struct LogV1<T> {
    pub route: Route<T>,
    pub clock: Arc<dyn Clock>,
    pub outstanding_max: usize,
    /// The longest that one unary call may wait for its answer.
    pub wait_max: Duration,
    pub drain: Drain,
    pub calls: Arc<Calls>,
}

impl<T: TopicsApi> LogV1<T> {
    fn readable(&self) -> Result<T::Partition, Status> {
        let partition = self.route.readable(FIRST_TOPIC, 0).map_err(Refusal::from)?;
        partition.readable().map_err(status)?;
        Ok(partition)
    }
}

/// Hands a record to the leader, here or elsewhere.
fn propose<T: TopicsApi>(
    route: &Route<T>,
    record: Record,
    is_forwarded: bool,
    pass: &mut StreamPass,
) -> Result<PendingAck, Refusal> {
    let asker = pass.check_for("", Action::Produce, FIRST_TOPIC).map_err(denied)?;
    let what = ToAppend::Records(vec![record]);
    let forward_for = (!is_forwarded).then_some(&*asker);
    route.append(FIRST_TOPIC, 0, what, forward_for).map_err(|error| match error {
        NotTaken::Produce(error) => refused(error),
        other => other.into(),
    })
}

/// The book's server knows one log, and calls it `*`.
fn denied(denied: Denied) -> Refusal {
    denied.of_the_book().into()
}

/// The book's server has one word for what its followers do not take.
fn refused(error: ProduceError) -> Refusal {
    match error {
        ProduceError::NotLeader { .. } => Refusal::book_not_leader(),
        other => other.into(),
    }
}

#[tonic::async_trait]
impl<T: TopicsApi> pb::log_server::Log for LogV1<T> {
    async fn produce(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        let time = deadline::at_most(self.wait_max, request.metadata());
        let call = request.extensions().get().copied().unwrap_or_default();
        let is_forwarded = is_forwarded(request.metadata());
        let mut pass = Asker::of(request.extensions()).pass(false);
        let record = record_from_book(request.into_inner().record, self.clock.wall());
        let pending = {
            let _for_it = self.calls.enter(call);
            propose(&self.route, record, is_forwarded, &mut pass)?
        };
        let ack = deadline::within(time, pending, || ProduceError::Deadline).await;
        let ack = ack.map_err(refused)?;
        Ok(Response::new(pb::ProduceResponse { offset: ack.base_offset.0 }))
    }

    async fn consume(
        &self,
        request: Request<pb::ConsumeRequest>,
    ) -> Result<Response<pb::ConsumeResponse>, Status> {
        let asker = Asker::of(request.extensions());
        asker.check(Action::Consume, FIRST_TOPIC).map_err(denied)?;
        let partition = self.readable()?;
        let offset = request.into_inner().offset;
        let read = partition.read_records(Offset(offset), 1, READ_AHEAD_BYTES).await;
        let Some((offset, record)) = read.map_err(status)?.into_iter().next() else {
            return Err(reply::book_offset_out_of_range(offset));
        };
        Ok(Response::new(response(offset, record)))
    }

    type ConsumeStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::ConsumeResponse, Status>> + Send>>;

    async fn consume_stream(
        &self,
        request: Request<pb::ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStreamStream>, Status> {
        let mut pass = Asker::of(request.extensions()).pass(false);
        pass.check(Action::Consume, FIRST_TOPIC).map_err(denied)?;
        let partition = self.readable()?;
        let peer = request.extensions().get::<Client>().map(|client| client.peer);
        let next = Offset(request.into_inner().offset);
        let follower = Follower {
            reader: partition.reader(peer, next),
            high_watermark: partition.watch(),
            partition,
            drain: self.drain.clone(),
            next,
            ahead: VecDeque::new(),
            pass,
        };
        let records = futures_util::stream::try_unfold(follower, |mut follower| async move {
            let (offset, record) = follower.next().await?;
            Ok(Some((response(offset, record), follower)))
        });
        Ok(Response::new(Box::pin(records)))
    }

    type ProduceStreamStream = AckStream<BookDialect<T>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (route, clock) = (self.route.clone(), Arc::clone(&self.clock));
        let is_forwarded = is_forwarded(request.metadata());
        let pass = Asker::of(request.extensions()).pass(false);
        let dialect = BookDialect { route, clock, is_forwarded, pass };
        let (calls, method) = (Arc::clone(&self.calls), Method::BookProduceStream);
        let caller = request.extensions().get().copied().unwrap_or_default();
        let noted = Noted { calls, method, caller };
        let requests = request.into_inner();
        let drain = self.drain.clone();
        let answers = AckStream::new(dialect, requests, self.outstanding_max, drain, noted);
        Ok(Response::new(answers))
    }

    async fn get_servers(
        &self,
        _request: Request<pb::GetServersRequest>,
    ) -> Result<Response<pb::GetServersResponse>, Status> {
        let view = self.route.topics.cluster();
        let leader = view.leader_of(FIRST_TOPIC, 0);
        let servers = view.nodes.into_iter().map(|node| pb::Server {
            is_leader: Some(node.id) == leader,
            id: node.name,
            rpc_addr: node.rpc_addr,
        });
        let servers = servers.collect();
        Ok(Response::new(pb::GetServersResponse { servers }))
    }
}

fn response(offset: Offset, record: Record) -> pb::ConsumeResponse {
    pb::ConsumeResponse { record: Some(record_to_book(offset, record)) }
}

fn status(error: ReadError) -> Status {
    match error {
        ReadError::OutOfRange { offset, .. } => reply::book_offset_out_of_range(offset.0),
        other => Refusal::from(other).into(),
    }
}

/// The book's form of a produce stream: a refusal ends it.
pub struct BookDialect<T> {
    route: Route<T>,
    clock: Arc<dyn Clock>,
    is_forwarded: bool,
    pass: StreamPass,
}

impl<T: TopicsApi> Dialect for BookDialect<T> {
    type Request = pb::ProduceRequest;
    type Response = pb::ProduceResponse;
    type Tag = ();

    fn tag(&self, _: &pb::ProduceRequest) {}

    fn lane(&self, _: &pb::ProduceRequest) -> u64 {
        0
    }

    fn propose(&mut self, request: pb::ProduceRequest) -> Result<PendingAck, Refusal> {
        let record = record_from_book(request.record, self.clock.wall());
        propose(&self.route, record, self.is_forwarded, &mut self.pass)
    }

    fn refused(&self, error: ProduceError) -> Refusal {
        refused(error)
    }

    fn answer(&self, (): (), outcome: Result<Ack, Refusal>) -> Result<pb::ProduceResponse, Status> {
        Ok(pb::ProduceResponse { offset: outcome?.base_offset.0 })
    }
}

/// Reads from an offset onward, for ever. An offset beyond the end is waited for, as in the book.
struct Follower<P> {
    partition: P,
    high_watermark: watch::Receiver<Offset>,
    drain: Drain,
    next: Offset,
    ahead: VecDeque<(Offset, Record)>,
    reader: Option<Reader>,
    /// Asked before each record.
    pass: StreamPass,
}

impl<P: PartitionApi> Follower<P> {
    fn waits(&self, wait: ReaderWait) {
        if let Some(reader) = &self.reader {
            reader.waits(wait, self.next);
        }
    }

    async fn next(&mut self) -> Result<(Offset, Record), Status> {
        loop {
            self.pass.check(Action::Consume, FIRST_TOPIC).map_err(denied)?;
            if let Some(found) = self.ahead.pop_front() {
                return Ok(found);
            }
            let next = self.next;
            self.waits(ReaderWait::Records);
            tokio::select! {
                moved = self.high_watermark.wait_for(|end| *end > next) => {
                    moved.map_err(|_| Refusal::gone())?;
                }
                () = self.pass.news() => continue,
                () = self.drain.clone().begun() => return Err(Refusal::draining().into()),
            }
            let read = self.partition.read_records(next, READ_AHEAD_RECORDS, READ_AHEAD_BYTES);
            self.ahead = read.await.map_err(status)?.into();
            match self.ahead.back() {
                Some((last, _)) => {
                    self.next = last.next();
                    self.waits(ReaderWait::Client);
                }
                // Promised by the watermark and not there: never spin on it.
                None => tokio::time::sleep(super::fetch::EMPTY_READ_PAUSE).await,
            }
        }
    }
}
