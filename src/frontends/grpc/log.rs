//! `duramen.v1`: batches, keys, headers, streams with flow control.

use super::acks::{AckStream, Dialect, Noted};
use super::deadline;
use super::dispatch::Client;
use super::fetch::{Fetch, FetchLimits, FetchStream};
use super::refusal::Refusal;
use crate::actors::partition::{Ack, PartitionApi, PendingAck, ProduceError};
use crate::actors::readiness::NodeInfo;
use crate::frontends::calls::Calls;
use crate::frontends::drain::Drain;
use crate::frontends::topic;
use crate::model::Clock;
use crate::observe::metrics::Method;
use crate::wire::convert::record_from_duramen;
use crate::wire::pb::duramen::v1 as pb;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// Serves `duramen.v1.Log` from one partition.
pub struct DuramenLog<P> {
    pub proposer: Proposer<P>,
    pub node: Arc<NodeInfo>,
    pub outstanding_max: usize,
    pub fetch_limits: FetchLimits,
    /// The longest that one unary call may wait for its answer.
    pub wait_max: Duration,
    pub drain: Drain,
    pub calls: Arc<Calls>,
}

impl<P: PartitionApi> DuramenLog<P> {
    async fn fetch_from(&self, request: Request<pb::FetchRequest>) -> Result<Fetch<P>, Refusal> {
        let peer = request.extensions().get::<Client>().map(|client| client.peer);
        let request = request.into_inner();
        topic::check(&request.topic, request.partition)?;
        let partition = self.proposer.partition.clone();
        Fetch::begin(partition, request, self.fetch_limits, self.drain.clone(), peer).await
    }
}

#[tonic::async_trait]
impl<P: PartitionApi> pb::log_server::Log for DuramenLog<P> {
    type ProduceStream = AckStream<Proposer<P>>;

    async fn produce(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let caller = request.extensions().get().copied().unwrap_or_default();
        let noted = Noted { calls: Arc::clone(&self.calls), method: Method::Produce, caller };
        let requests = request.into_inner();
        let drain = self.drain.clone();
        let proposer = Proposer { client, ..self.proposer.clone() };
        let answers = AckStream::new(proposer, requests, self.outstanding_max, drain, noted);
        Ok(Response::new(answers))
    }

    async fn produce_once(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        let time = deadline::at_most(self.wait_max, request.metadata());
        let call = request.extensions().get().copied().unwrap_or_default();
        let request = request.into_inner();
        let correlation_id = request.correlation_id;
        let proposed = {
            let _for_it = self.calls.enter(call);
            self.proposer.try_propose(request)?
        };
        let ack = deadline::within(time, proposed, || ProduceError::Deadline).await;
        Ok(Response::new(response(correlation_id, ack.map_err(Refusal::from)?)))
    }

    type FetchStream = FetchStream;

    async fn fetch(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        Ok(Response::new(self.fetch_from(request).await?.into_stream()))
    }

    async fn fetch_once(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<pb::FetchResponse>, Status> {
        let time = deadline::at_most(self.wait_max, request.metadata());
        let mut fetch = self.fetch_from(request).await?;
        let found = deadline::within(time, fetch.next(), Refusal::read_deadline).await?;
        Ok(Response::new(found.unwrap_or_else(|| fetch.nothing())))
    }

    async fn describe(
        &self,
        request: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        let topic = request.into_inner().topic;
        topic::check(&topic, 0).map_err(Refusal::from)?;
        let status = self.proposer.partition.describe();
        let partition = pb::Partition {
            id: 0,
            state: status.state.name().into(),
            reason: status.reason,
            start_offset: status.start.0,
            high_watermark: status.high_watermark.0,
            size_bytes: status.size_bytes,
            segments: status.segments,
            term: status.term.0,
            durability: pb::Durability::from(status.durability) as i32,
            flushes: status.flushes,
            refused: status.refused,
            restarts: status.restarts,
            role: "leader".into(),
            leader: None,
            replicas: Vec::new(),
        };
        Ok(Response::new(pb::DescribeResponse {
            topic,
            partitions: vec![partition],
            node_id: self.node.node_id.clone(),
            version: self.node.version.clone(),
        }))
    }

    async fn metadata(
        &self,
        _: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        Err(Status::unavailable("this node tells nothing of its cluster yet"))
    }
}

/// Turns a produce request into a proposal, and its outcome into a response.
pub struct Proposer<P> {
    pub partition: P,
    pub clock: Arc<dyn Clock>,
    /// Whose mistakes are noted: those within a stream do not show in its status.
    pub client: Option<Client>,
}

impl<P: Clone> Clone for Proposer<P> {
    fn clone(&self) -> Self {
        let (partition, clock) = (self.partition.clone(), Arc::clone(&self.clock));
        Self { partition, clock, client: self.client.clone() }
    }
}

impl<P: PartitionApi> Proposer<P> {
    fn try_propose(&self, request: pb::ProduceRequest) -> Result<PendingAck, Refusal> {
        topic::check(&request.topic, request.partition)?;
        let pending = match (request.records.is_empty(), request.batch.is_empty()) {
            (false, true) => {
                let arrival = self.clock.wall();
                let records = request.records.into_iter();
                let records = records.map(|record| record_from_duramen(record, arrival)).collect();
                self.partition.propose_records(records)
            }
            (true, false) => self.partition.propose_batches(request.batch),
            (true, true) => {
                let message = "the request holds no records: fill either records or batch";
                return Err(Refusal::invalid(message));
            }
            (false, false) => {
                let message = "the request fills both records and batch: fill one of them";
                return Err(Refusal::invalid(message));
            }
        };
        pending.map_err(Refusal::from)
    }
}

impl<P: PartitionApi> Dialect for Proposer<P> {
    type Request = pb::ProduceRequest;
    type Response = pb::ProduceResponse;
    /// The correlation id.
    type Tag = u64;

    fn tag(&self, request: &pb::ProduceRequest) -> u64 {
        request.correlation_id
    }

    fn propose(&self, request: pb::ProduceRequest) -> Result<PendingAck, Refusal> {
        self.try_propose(request)
    }

    /// A refusal is an answer like any other: the stream goes on.
    fn answer(
        &self,
        correlation_id: u64,
        outcome: Result<Ack, Refusal>,
    ) -> Result<pb::ProduceResponse, Status> {
        Ok(match outcome {
            Ok(ack) => response(correlation_id, ack),
            Err(refusal) => {
                if let (Some(client), Some(mistake)) = (&self.client, refusal.mistake()) {
                    client.complaints.note(client.peer, mistake);
                }
                let error = Some(refusal.into_pb());
                pb::ProduceResponse { correlation_id, error, ..Default::default() }
            }
        })
    }
}

fn response(correlation_id: u64, ack: Ack) -> pb::ProduceResponse {
    pb::ProduceResponse {
        correlation_id,
        base_offset: ack.base_offset.0,
        record_count: ack.records,
        timestamp_ms: ack.timestamp.0,
        durability: pb::Durability::from(ack.durability) as i32,
        error: None,
    }
}
