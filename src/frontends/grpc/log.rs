//! `duramen.v1`: batches, keys, headers, streams with flow control.

use super::acks::{AckStream, Dialect, Noted};
use super::deadline;
use super::dispatch::Client;
use super::fetch::{Fetch, FetchLimits, FetchStream};
use super::refusal::{self, Refusal};
use crate::access::{Action, Denied};
use crate::actors::partition::{Ack, PartitionStatus, PendingAck, ProduceError, ReplicaProgress};
use crate::actors::readiness::NodeInfo;
use crate::actors::topics::{ClusterView, TopicsApi};
use crate::frontends::access::{Asker, StreamPass};
use crate::frontends::calls::Calls;
use crate::frontends::drain::Drain;
use crate::frontends::forward::is_forwarded;
use crate::frontends::route::{Route, ToAppend, catch_up};
use crate::model::Clock;
use crate::observe::metrics::Method;
use crate::wire::convert::record_from_duramen;
use crate::wire::pb::duramen::v1 as pb;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// Serves `duramen.v1.Log`.
pub struct DuramenLog<T> {
    pub proposer: Proposer<T>,
    pub node: Arc<NodeInfo>,
    pub outstanding_max: usize,
    pub fetch_limits: FetchLimits,
    /// The longest that one unary call may wait for its answer.
    pub wait_max: Duration,
    pub drain: Drain,
    pub calls: Arc<Calls>,
}

impl<T: TopicsApi> DuramenLog<T> {
    async fn fetch_from(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Fetch<T::Partition>, Refusal> {
        let client = request.extensions().get::<Client>().cloned();
        let mut pass = Asker::of(request.extensions()).pass(false);
        let request = request.into_inner();
        pass.check(Action::Consume, &request.topic)?;
        let partition = self.proposer.route.readable(&request.topic, request.partition)?;
        match pb::Consistency::try_from(request.consistency) {
            Ok(pb::Consistency::Committed) => {}
            Ok(pb::Consistency::Linearizable) => catch_up(&partition, self.wait_max).await?,
            Err(_) => {
                let message = format!("consistency {} is unknown", request.consistency);
                return Err(Refusal::invalid(message));
            }
        }
        let drain = self.drain.clone();
        Fetch::begin(partition, request, self.fetch_limits.clone(), drain, client.as_ref(), pass)
            .await
    }
}

#[tonic::async_trait]
impl<T: TopicsApi> pb::log_server::Log for DuramenLog<T> {
    type ProduceStream = AckStream<Proposer<T>>;

    async fn produce(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let caller = request.extensions().get().copied().unwrap_or_default();
        let noted = Noted { calls: Arc::clone(&self.calls), method: Method::Produce, caller };
        let is_forwarded = is_forwarded(request.metadata());
        let pass = Some(Asker::of(request.extensions()).pass(is_forwarded));
        let requests = request.into_inner();
        let drain = self.drain.clone();
        let proposer = Proposer { client, is_forwarded, pass, ..self.proposer.clone() };
        let answers = AckStream::new(proposer, requests, self.outstanding_max, drain, noted);
        Ok(Response::new(answers))
    }

    async fn produce_once(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        let time = deadline::at_most(self.wait_max, request.metadata());
        let call = request.extensions().get().copied().unwrap_or_default();
        let is_forwarded = is_forwarded(request.metadata());
        let mut pass = Asker::of(request.extensions()).pass(is_forwarded);
        let request = request.into_inner();
        let correlation_id = request.correlation_id;
        let proposed = {
            let _for_it = self.calls.enter(call);
            self.proposer.try_propose(request, is_forwarded, &mut pass)?
        };
        let ack = deadline::within(time, proposed, || ProduceError::Deadline).await;
        let ack = ack.map_err(|error| Refusal::from(self.proposer.route.with_address(error)))?;
        Ok(Response::new(response(correlation_id, ack)))
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
        let asker = Asker::of(request.extensions());
        let topic = request.into_inner().topic;
        asker.check(Action::Describe, &topic).map_err(Refusal::from)?;
        let topics = &self.proposer.route.topics;
        let here = topics.here(&topic).map_err(Refusal::from)?;
        let partitions = here.into_iter().map(|(id, status)| {
            let leader = topics.leader(&topic, id).map(refusal::to_pb);
            partition(id, status, leader)
        });
        Ok(Response::new(pb::DescribeResponse {
            partitions: partitions.collect(),
            topic,
            node_id: self.node.node_id.clone(),
            version: self.node.version.clone(),
        }))
    }

    async fn metadata(
        &self,
        request: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        let asker = Asker::of(request.extensions());
        let asked = request.into_inner().topics;
        let mut view = self.proposer.route.topics.cluster();
        if asker.is_judged() {
            let uses = [Action::Produce, Action::Consume, Action::Describe];
            view.topics.retain(|topic| uses.iter().any(|use_| asker.may(*use_, &topic.name)));
        }
        Ok(Response::new(metadata(view, &asked)))
    }
}

fn partition(id: u32, status: PartitionStatus, leader: Option<pb::Leader>) -> pb::Partition {
    pb::Partition {
        id,
        source_end: status.source_end.map(|end| end.0),
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
        role: status.role.name().into(),
        leader,
        replicas: status.replicas.into_iter().map(progress).collect(),
    }
}

fn progress(of: ReplicaProgress) -> pb::ReplicaProgress {
    pb::ReplicaProgress {
        node: of.replica.node().0,
        incarnation: of.replica.incarnation(),
        role: if of.is_learner { "learner" } else { "voter" }.into(),
        matched: of.matched.0,
        lag: of.lag,
        active: of.is_active,
    }
}

/// All that a client needs to find its way; of the topics those that it asked for, or all.
fn metadata(view: ClusterView, asked: &[String]) -> pb::MetadataResponse {
    let ClusterView { cluster_id, nodes, mut topics, controller_leader } = view;
    topics.retain(|topic| asked.is_empty() || asked.contains(&topic.name));
    let nodes = nodes.into_iter().map(|node| pb::MetadataNode {
        id: node.id.0,
        name: node.name,
        rpc_addr: node.rpc_addr,
    });
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|known| pb::MetadataPartition {
            partition: known.partition,
            leader: known.leader.map_or(0, |node| node.0),
            term: known.term.0,
            replicas: known.replicas.into_iter().map(|node| node.0).collect(),
        });
        pb::MetadataTopic { name: topic.name, id: topic.id, partitions: partitions.collect() }
    });
    pb::MetadataResponse {
        cluster_id,
        nodes: nodes.collect(),
        topics: topics.collect(),
        controller_leader: controller_leader.map_or(0, |node| node.0),
    }
}

/// Turns a produce request into a proposal, and its outcome into a response.
#[derive(Clone)]
pub struct Proposer<T> {
    pub route: Route<T>,
    pub clock: Arc<dyn Clock>,
    /// Whose mistakes are noted: those within a stream do not show in its status.
    pub client: Option<Client>,
    /// Another node passed the stream's requests on.
    pub is_forwarded: bool,
    /// What the stream's caller may do; none outside of a stream.
    pub pass: Option<StreamPass>,
}

impl<T: TopicsApi> Proposer<T> {
    fn try_propose(
        &self,
        request: pb::ProduceRequest,
        is_forwarded: bool,
        pass: &mut StreamPass,
    ) -> Result<PendingAck, Refusal> {
        let asker = pass.check_for(&request.on_behalf_of, Action::Produce, &request.topic)?;
        let (topic, partition) = (request.topic, request.partition);
        let what = match (request.records.is_empty(), request.batch.is_empty()) {
            (false, true) => {
                let arrival = self.clock.wall();
                let records = request.records.into_iter();
                let records = records.map(|record| record_from_duramen(record, arrival)).collect();
                ToAppend::Records(records)
            }
            (true, false) => ToAppend::Batches(request.batch),
            (true, true) => {
                let message = "the request holds no records: fill either records or batch";
                return Err(Refusal::invalid(message));
            }
            (false, false) => {
                let message = "the request fills both records and batch: fill one of them";
                return Err(Refusal::invalid(message));
            }
        };
        let may_forward = !is_forwarded && !request.no_forward;
        let forward_for = may_forward.then_some(&*asker);
        Ok(self.route.append(&topic, partition, what, forward_for)?)
    }
}

impl<T: TopicsApi> Dialect for Proposer<T> {
    type Request = pb::ProduceRequest;
    type Response = pb::ProduceResponse;
    /// The correlation id.
    type Tag = u64;

    fn tag(&self, request: &pb::ProduceRequest) -> u64 {
        request.correlation_id
    }

    fn lane(&self, request: &pb::ProduceRequest) -> u64 {
        // FNV-1a: names are short, and nobody gains by making two of them meet.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = request.topic.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        request.partition.to_be_bytes().into_iter().fold(hash, mix)
    }

    fn propose(&mut self, request: pb::ProduceRequest) -> Result<PendingAck, Refusal> {
        // Streams always have one: without it nothing passes.
        let Some(mut pass) = self.pass.take() else {
            return Err(Denied::nobody().into());
        };
        let proposed = self.try_propose(request, self.is_forwarded, &mut pass);
        self.pass = Some(pass);
        proposed
    }

    fn refused(&self, error: ProduceError) -> Refusal {
        self.route.with_address(error).into()
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
