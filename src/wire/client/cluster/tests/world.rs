// Scripted nodes: each a thread with a server, so that stopping one breaks its connections.

use super::super::stamp::tests::stamped;
use super::*;
use crate::wire::client::cluster::stamp::sequences;
use bytes::Bytes;
use pb::admin_server::{Admin as AdminService, AdminServer};
use pb::log_server::{Log, LogServer};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What happens at the next append that a leader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Another node leads from now on, this append included.
    Lead(u32),
    /// It is stored, and the stream ends without an answer.
    StoreAndEnd,
    /// It is stored, and no answer ever comes.
    StoreAndHang,
    /// It is refused for now.
    Later,
    /// It is refused for good.
    Invalid,
}

#[derive(Default)]
pub struct State {
    pub leader: u32,
    pub term: u64,
    pub faults: VecDeque<Fault>,
    /// Refusals for want of a leader, until this node is elected.
    pub election: Option<(u32, u32)>,
    /// Body, records, first offset.
    pub stored: Vec<(Bytes, u64)>,
    /// By producer: the number due, and offsets by number.
    producers: BTreeMap<i64, (i32, BTreeMap<i32, u64>)>,
    pub duplicates: u32,
    /// Who took a stream of appends.
    pub asked: Vec<u32>,
    /// Batches that a node gives to a reader before it ends the stream in an error.
    pub cut_reads_after: Option<usize>,
    /// Whom readers asked, and from where on.
    pub reads: Vec<(u32, u64)>,
    /// How many batches behind a follower is.
    pub lag: usize,
    /// How often new topics are described until they are led.
    pub looks_until_led: u32,
    addresses: Vec<String>,
}

/// Ends a node, and the thread that it ends.
type Running = (oneshot::Sender<()>, std::thread::JoinHandle<()>);

#[derive(Clone)]
pub struct World {
    pub state: Arc<Mutex<State>>,
    stops: Arc<Mutex<BTreeMap<u32, Running>>>,
}

impl World {
    pub fn start(nodes: u32) -> Self {
        let world = Self { state: Arc::default(), stops: Arc::default() };
        world.lock().term = 1;
        for node in 1..=nodes {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            world.lock().addresses.push(listener.local_addr().unwrap().to_string());
            world.run(node, listener);
        }
        world
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn lead(&self, node: u32) {
        let mut state = self.lock();
        state.leader = node;
        state.term += 1;
    }

    pub fn faults(&self, faults: &[Fault]) {
        self.lock().faults.extend(faults);
    }

    pub fn address(&self, node: u32) -> String {
        self.lock().addresses[node as usize - 1].clone()
    }

    pub async fn client(&self, seeds: &[u32]) -> ClusterClient {
        let seeds: Vec<String> = seeds.iter().map(|node| self.address(*node)).collect();
        ClusterClient::connect(&seeds, ClusterOptions::default(), None).await.unwrap()
    }

    /// The node is gone, its connections broken.
    pub fn stop(&self, node: u32) {
        let (stop, thread) = self.stops.lock().unwrap().remove(&node).unwrap();
        stop.send(()).unwrap();
        thread.join().unwrap();
    }

    pub fn restart(&self, node: u32) {
        self.run(node, std::net::TcpListener::bind(self.address(node)).unwrap());
    }

    fn run(&self, node: u32, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = Scripted { node, world: self.clone() };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(LogServer::new(served.clone()))
                    .add_service(AdminServer::new(served))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    ended = server => panic!("the server ended: {ended:?}"),
                    _ = stopped => {}
                }
            });
        });
        self.stops.lock().unwrap().insert(node, (stop, thread));
    }
}

impl State {
    fn leader(&self) -> Option<pb::Leader> {
        let rpc_addr = self.addresses.get((self.leader as usize).checked_sub(1)?)?.clone();
        Some(pb::Leader { node: self.leader, rpc_addr, term: self.term })
    }

    /// Stores a batch once; its offset.
    fn store(&mut self, batch: Bytes) -> Result<u64, &'static str> {
        let records = sequences(&batch).unwrap();
        let end = self.end();
        let (producer, sequence) = stamped(&batch);
        if producer >= 0 {
            if sequence != 0 && !self.producers.contains_key(&producer) {
                return Err("unknown producer");
            }
            let (due, offsets) = self.producers.entry(producer).or_default();
            if let Some(offset) = offsets.get(&sequence) {
                self.duplicates += 1;
                return Ok(*offset);
            }
            if sequence != *due {
                return Err("out of order");
            }
            *due += records as i32;
            offsets.insert(sequence, end);
        }
        self.stored.push((batch, end));
        Ok(end)
    }

    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }

    pub fn end(&self) -> u64 {
        self.stored.last().map_or(0, |(batch, base)| base + u64::from(sequences(batch).unwrap()))
    }

    /// What is stored, by what stands behind the header.
    pub fn bodies(&self) -> Vec<String> {
        let body = |batch: &Bytes| String::from_utf8(batch[61..].to_vec()).unwrap();
        self.stored.iter().map(|(batch, _)| body(batch)).collect()
    }
}

#[derive(Clone)]
struct Scripted {
    node: u32,
    world: World,
}

enum Reaction {
    Answer(pb::ProduceResponse),
    End,
    Hang,
}

impl Scripted {
    fn append(&self, request: &pb::ProduceRequest) -> Reaction {
        let mut state = self.world.lock();
        let refused = |code: Code, message: &str, retry_after_ms, leader| {
            let (message, definite) = (message.to_owned(), true);
            let code = code.into();
            let error = Some(pb::Error { code, message, retry_after_ms, definite, leader });
            let correlation_id = request.correlation_id;
            Reaction::Answer(pb::ProduceResponse { correlation_id, error, ..Default::default() })
        };
        if let Some((left, elected)) = state.election {
            if left > 0 {
                state.election = Some((left - 1, elected));
                return refused(Code::Unavailable, "nobody leads", 5, None);
            }
            (state.election, state.leader) = (None, elected);
            state.term += 1;
        }
        let leads = state.leader == self.node;
        let fault = if leads { state.faults.pop_front() } else { None };
        if let Some(Fault::Lead(node)) = fault {
            state.leader = node;
            state.term += 1;
        }
        if state.leader == 0 {
            return refused(Code::Unavailable, "nobody leads", 5, None);
        }
        if state.leader != self.node && request.no_forward {
            return refused(Code::FailedPrecondition, "not the leader", 0, state.leader());
        }
        match fault {
            Some(Fault::Later) => return refused(Code::ResourceExhausted, "full", 5, None),
            Some(Fault::Invalid) => return refused(Code::InvalidArgument, "bad", 0, None),
            _ => {}
        }
        let base_offset = match state.store(request.batch.clone()) {
            Ok(offset) => offset,
            Err(why) => return refused(Code::FailedPrecondition, why, 0, None),
        };
        match fault {
            Some(Fault::StoreAndEnd) => Reaction::End,
            Some(Fault::StoreAndHang) => Reaction::Hang,
            _ => Reaction::Answer(pb::ProduceResponse {
                correlation_id: request.correlation_id,
                base_offset,
                record_count: sequences(&request.batch).unwrap(),
                durability: pb::Durability::Fsync.into(),
                ..Default::default()
            }),
        }
    }
}

#[tonic::async_trait]
impl Log for Scripted {
    type ProduceStream = Answers<pb::ProduceResponse>;
    type FetchStream = Answers<pb::FetchResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        self.world.lock().asked.push(self.node);
        let node = self.clone();
        let (answers, answered) = tokio::sync::mpsc::channel(100);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                match node.append(&request) {
                    Reaction::Answer(answer) => answers.send(Ok(answer)).await.unwrap_or(()),
                    Reaction::End => return,
                    Reaction::Hang => std::future::pending().await,
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(answered))))
    }

    async fn produce_once(
        &self,
        _: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn fetch(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let mut state = self.world.lock();
        let from = match request.into_inner().position {
            Some(pb::fetch_request::Position::Offset(offset)) => offset,
            _ => 0,
        };
        state.reads.push((self.node, from));
        let lag = if state.leader == self.node { 0 } else { state.lag };
        let visible = &state.stored[..state.stored.len() - lag];
        let end = state.stored.get(visible.len()).map_or(state.end(), |(_, base)| *base);
        if from > end {
            return Err(Status::out_of_range("beyond the end"));
        }
        let mut chunks: Vec<Result<pb::FetchResponse, Status>> = Vec::new();
        for (batch, base) in visible {
            let next = base + u64::from(sequences(batch).unwrap());
            if next > from {
                chunks.push(Ok(pb::FetchResponse {
                    base_offset: *base,
                    next_offset: next,
                    high_watermark: end,
                    batches: batch.clone(),
                    ..Default::default()
                }));
            }
        }
        if let Some(count) = state.cut_reads_after.take() {
            chunks.truncate(count);
            chunks.push(Err(Status::unavailable("stopping")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn fetch_once(
        &self,
        _: Request<pb::FetchRequest>,
    ) -> Result<Response<pb::FetchResponse>, Status> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn describe(
        &self,
        request: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        let role = if self.world.lock().leader == self.node { "leader" } else { "follower" };
        let partition = pb::Partition { role: role.into(), ..Default::default() };
        Ok(Response::new(pb::DescribeResponse {
            topic: request.into_inner().topic,
            partitions: vec![partition],
            node_id: self.node.to_string(),
            ..Default::default()
        }))
    }

    async fn metadata(
        &self,
        _: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        let state = self.world.lock();
        let nodes = state.addresses.iter().zip(1..).map(|(address, id)| pb::MetadataNode {
            id,
            rpc_addr: address.clone(),
            ..Default::default()
        });
        let nodes: Vec<_> = nodes.collect();
        let replicas = nodes.iter().map(|node| node.id).collect();
        let (leader, term) = (state.leader, state.term);
        let partitions = vec![pb::MetadataPartition { partition: 0, leader, term, replicas }];
        let topics = vec![pb::MetadataTopic { name: "log".into(), id: 1, partitions }];
        Ok(Response::new(pb::MetadataResponse { nodes, topics, ..Default::default() }))
    }
}

/// A topic of one partition.
fn described(name: String, leader: u32) -> pb::TopicDescription {
    let partitions = vec![pb::PartitionPlacement { leader, ..Default::default() }];
    pb::TopicDescription { name, partitions, ..Default::default() }
}

macro_rules! unscripted {
    ($($name:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl AdminService for Scripted {
            async fn create_topic(
                &self,
                request: Request<pb::CreateTopicRequest>,
            ) -> Result<Response<pb::TopicDescription>, Status> {
                Ok(Response::new(described(request.into_inner().name, 0)))
            }

            async fn describe_topic(
                &self,
                request: Request<pb::DescribeTopicRequest>,
            ) -> Result<Response<pb::TopicDescription>, Status> {
                let mut state = self.world.lock();
                let left = state.looks_until_led.checked_sub(1);
                state.looks_until_led = left.unwrap_or_default();
                let leader = if left.is_none() { state.leader } else { 0 };
                Ok(Response::new(described(request.into_inner().name, leader)))
            }

            async fn delete_topic(
                &self,
                request: Request<pb::DeleteTopicRequest>,
            ) -> Result<Response<pb::DeleteTopicResponse>, Status> {
                Err(Status::not_found(request.into_inner().name))
            }

            $(async fn $name(
                &self,
                _: Request<pb::$request>,
            ) -> Result<Response<pb::$response>, Status> {
                Err(Status::unimplemented("not part of the script"))
            })*
        }
    };
}

unscripted! {
    alter_topic: AlterTopicRequest -> TopicDescription;
    list_topics: ListTopicsRequest -> ListTopicsResponse;
    cluster_status: ClusterStatusRequest -> ClusterStatus;
    leave_node: LeaveNodeRequest -> NodeActionResponse;
    replace_node: ReplaceNodeRequest -> NodeActionResponse;
    remove_node: RemoveNodeRequest -> NodeActionResponse;
    transfer_leader: TransferLeaderRequest -> TransferLeaderResponse;
    get_access: GetAccessRequest -> AccessState;
    change_access: ChangeAccessRequest -> AccessState;
    test_access: TestAccessRequest -> TestAccessResponse;
}
