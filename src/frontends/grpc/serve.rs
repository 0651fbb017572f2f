//! Serves the gRPC port on the current thread's runtime, from a bound socket to the last goodbye.

use super::admin::AdminService;
use super::ahead::{Ahead, Pace};
use super::dispatch::{Client, Dispatch, KeptForPeers, MESSAGE_BYTES_MAX, Room};
use super::fetch::FetchLimits;
use super::idle::{Idle, Over};
use super::log::{DuramenLog, Proposer};
use super::log_v1::LogV1;
use super::observe::ObserveService;
use super::paced::Paced;
use super::peer::PeerService;
use super::places::Places;
use super::stalled::{Stalled, Turns};
use crate::actors::observer::ObserveApi;
use crate::actors::readiness::{NodeInfo, Readiness};
use crate::actors::topics::TopicsApi;
use crate::frontends::access::Door;
use crate::frontends::calls::Calls;
use crate::frontends::counted::Counted;
use crate::frontends::drain::Drain;
use crate::frontends::forward::Forwarder;
use crate::frontends::handshake::Secured;
use crate::frontends::intake::{Intake, MessageMax};
use crate::frontends::listener::{Admitted, ConnectionCounters, Listener};
use crate::frontends::route::Route;
use crate::frontends::stream::Stream;
use crate::frontends::unsent::Unsent;
use crate::guards::tls::{ClientTls, ExpectedServer, Tls};
use crate::model::Clock;
use crate::observe::metrics::{Metrics, Protocol};
use crate::observe::{Complaints, Instruments};
use crate::wire::pb;
use crate::wire::peer::FRAME_BYTES_MAX;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use slog::{Logger, debug};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to a client that speaks HTTP/1 to this port.
const WRONG_PORT: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 76\r\nconnection: close\r\n\r\n\
    this port speaks gRPC over HTTP/2; the HTTP port is another, see ports.json\n";

/// How often the health service looks at how the node is.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// The pause between two probes of a silent connection.
const KEEPALIVE_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the calls of a connection may take nothing where others need the room, if no request may wait
/// longer for what the node itself does.
const PATIENCE_MIN: Duration = Duration::from_secs(60);

/// Connections beyond the limit that are kept for other nodes, where there may be any: each has one.
const PEER_CONNECTIONS: usize = 64;

/// Calls of other nodes that are open: each node has some for each of its threads.
const CALLS_OF_NODES_MAX: usize = 1024;

/// What may be sent of one call before it is read, in each turn around the network, and of all calls of a
/// connection, of which 16 that rest leave no room for others (unit: bytes). What is sent and not read is
/// kept, in nobody's books.
const WINDOWS: [u32; 2] = [256 << 10, 4 << 20];
/// The same of whoever has proved to be another node: entries are large, and nodes may be far apart.
const WINDOWS_OF_NODES: [u32; 2] = [4 << 20, 16 << 20];

/// Limits of the gRPC port.
#[derive(Debug, Clone)]
pub struct RpcLimits {
    /// Connections open at once; where more come those give way that are not used, or they are closed.
    pub connections_max: usize,
    /// Calls open at once on one connection.
    pub streams_max: u32,
    /// Calls of clients open at once on all connections.
    pub calls: Places,
    /// Pass on to its leader what another node leads.
    pub forward: bool,
    /// What may be half-way in.
    pub intake: Intake,
    /// The largest message of `duramen.v1` taken from a client.
    pub message_bytes_max: usize,
    /// Requests of one produce stream that may wait for their acknowledgement.
    pub outstanding_batches_max: usize,
    /// The payload of one fetch response where the client does not say.
    pub fetch_bytes_default: usize,
    /// The payload of one fetch response whatever the client says.
    pub fetch_bytes_max: usize,
    /// The longest that one unary call may wait for its answer.
    pub request_deadline: Duration,
    /// How long a new connection may take for its handshake, or to say that it speaks HTTP/2.
    pub handshake_max: Duration,
    /// How long a connection may be without a call.
    pub idle_max: Duration,
    /// How long a connection may stay after the certificates it was made with are replaced.
    pub rotation_grace: Duration,
    /// A silent connection is probed by TCP after this time …
    pub keepalive_idle: Duration,
    /// … and closed when its peer does not acknowledge what was sent in this time.
    pub keepalive_timeout: Duration,
    /// How long open calls may take to finish after the drain began.
    pub grace: Duration,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            streams_max: 128,
            calls: Places::default(),
            forward: true,
            intake: Intake::default(),
            message_bytes_max: 17 << 20,
            outstanding_batches_max: 16,
            fetch_bytes_default: 256 << 10,
            fetch_bytes_max: 2 << 20,
            request_deadline: Duration::from_secs(30),
            handshake_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(5 * 60),
            rotation_grace: Duration::from_secs(30),
            keepalive_idle: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            grace: Duration::from_secs(10),
        }
    }
}

/// What the gRPC health service says. Shared with whoever knows how the node is.
#[derive(Debug, Clone, Default)]
pub struct HealthSwitch(HealthReporter);

impl HealthSwitch {
    /// Says that the node and both log services are, or are not, serving.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "log.v1.Log", "duramen.v1.Log"] {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// The gRPC front end of a node.
pub struct GrpcFrontend<T> {
    /// Where records go and come from.
    pub topics: T,
    /// Who this node says it is.
    pub node: Arc<NodeInfo>,
    /// Stamps records that bring no time.
    pub clock: Arc<dyn Clock>,
    /// What clients may ask of it.
    pub limits: RpcLimits,
    /// How the node's parts are.
    pub readiness: Arc<dyn Readiness>,
    /// What the health service says; follows the readiness while this serves.
    pub health: HealthSwitch,
    /// Counts connections.
    pub counters: Arc<ConnectionCounters>,
    /// Where clients' mistakes are noted.
    pub complaints: Arc<Complaints>,
    /// The inside of the node; without it the port shows only records.
    pub observer: Option<Arc<dyn ObserveApi>>,
    /// What other nodes send; without it the node has no peers.
    pub peer: Option<PeerService>,
    /// Looking after the cluster; without it the node belongs to none.
    pub admin: Option<AdminService>,
    /// Lets pass who may.
    pub door: Arc<Door>,
    /// Counts requests and traces them.
    pub instruments: Instruments,
    /// What it shows and trusts; without it nothing is encrypted and nobody is asked who they are.
    pub tls: Option<Arc<Tls>>,
    /// Where it tells what happens.
    pub logger: Logger,
}

impl<T: TopicsApi> GrpcFrontend<T> {
    /// Serves connections until the drain begins; then health says so, clients are told to go
    /// elsewhere, endless streams end, and what is under way may finish within the grace time.
    /// Dropped, it closes everything at once.
    ///
    /// # Errors
    /// When the socket cannot be used with the runtime.
    pub async fn serve(self, socket: std::net::TcpListener, drain: Drain) -> io::Result<()> {
        let dispatch = self.dispatch(&drain);
        let kept = if self.peer.is_some() { PEER_CONNECTIONS } else { 0 };
        let metrics = self.instruments.metrics;
        let stalled = Stalled::new(Arc::clone(&self.clock), Arc::clone(&metrics));
        let listener = Listener {
            socket,
            connections_max: self.limits.connections_max,
            kept,
            grace: self.limits.grace,
            counters: self.counters,
            clock: Arc::clone(&self.clock),
            logger: self.logger.clone(),
            drain: drain.clone(),
            secured: self.tls.map(|tls| {
                Arc::new(Secured {
                    tls,
                    protocol: Protocol::Grpc,
                    handshake_max: self.limits.handshake_max,
                    rotation_grace: self.limits.rotation_grace,
                    clock: self.clock,
                })
            }),
        };
        let (limits, logger, complaints) = (Arc::new(self.limits), self.logger, self.complaints);
        let health = follow_readiness(&self.health, &*self.readiness, drain.clone());
        let accepting = listener.run(|Admitted { stream, peer, caller, drain, seat, is_kept }| {
            let complaints = Arc::clone(&complaints);
            let idle = Idle::new(seat.clone(), limits.idle_max, limits.grace);
            let client = Client { peer, caller, complaints, seat };
            let kept = is_kept.then(KeptForPeers::default);
            let dispatch = dispatch.of(client.clone(), kept.clone());
            let limits = Arc::clone(&limits);
            let logger = logger.clone();
            let turns = stalled.of_connection(client.seat.taker().clone());
            let (metrics, ahead) = (Arc::clone(&metrics), dispatch.ahead());
            let stream = Accepted { stream, metrics, kept, turns, ahead, idle };
            async move {
                if let Err(error) =
                    serve_connection(stream, dispatch, &limits, drain, &client).await
                {
                    debug!(logger, "connection ended"; "peer" => %peer, "error" => %error);
                }
            }
        });
        let ((), served) = tokio::join!(health, accepting);
        served
    }

    fn dispatch(&self, drain: &Drain) -> Dispatch<LogV1<T>, DuramenLog<T>> {
        let limits = &self.limits;
        let calls = Arc::new(Calls::new(self.instruments.clone(), "node/frontends/grpc"));
        let tls = self.tls.as_deref().map(Tls::client);
        let tls = tls.map(|tls: ClientTls| tls.expecting(ExpectedServer::Node));
        let metrics = &self.instruments.metrics;
        let bytes_max = limits.message_bytes_max;
        let proof = self.door.proof().clone();
        let forwarder = limits.forward.then(|| Forwarder::new(bytes_max, tls, proof));
        let route = Route { topics: self.topics.clone(), forwarder };
        let book = LogV1 {
            route: route.clone(),
            clock: Arc::clone(&self.clock),
            outstanding_max: limits.outstanding_batches_max,
            wait_max: limits.request_deadline,
            drain: drain.clone(),
            calls: Arc::clone(&calls),
        };
        let clock = Arc::clone(&self.clock);
        let unsent = Unsent::default();
        let duramen = DuramenLog {
            proposer: Proposer { route, clock, client: None, is_forwarded: false, pass: None },
            node: Arc::clone(&self.node),
            outstanding_max: limits.outstanding_batches_max,
            fetch_limits: FetchLimits {
                bytes_default: limits.fetch_bytes_default,
                bytes_max: limits.fetch_bytes_max,
                unsent: unsent.clone(),
            },
            wait_max: limits.request_deadline,
            drain: drain.clone(),
            calls: Arc::clone(&calls),
        };
        let book = pb::log::v1::log_server::LogServer::new(book)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let duramen = pb::duramen::v1::log_server::LogServer::new(duramen)
            .max_decoding_message_size(limits.message_bytes_max);
        let health = HealthService::from_health_reporter(self.health.0.clone());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let proven = "the descriptors are built into the program, and a test decodes them";
        let room = Room {
            of_clients: limits.intake.clone(),
            of_nodes: Intake::new(2 * FRAME_BYTES_MAX),
            time: limits.request_deadline,
            bytes_max: MessageMax::Set(limits.message_bytes_max),
            unsent,
            pace: Pace::new(WINDOWS[0], Arc::clone(metrics)),
            pace_of_nodes: Pace::new(WINDOWS_OF_NODES[0], Arc::clone(metrics)),
            calls: limits.calls.clone(),
            calls_of_nodes: Places::new(CALLS_OF_NODES_MAX),
        };
        let dispatch = Dispatch::new(book, duramen, calls, Arc::clone(&self.door), room)
            .with(HealthServer::new(health))
            .with(reflection().build_v1().expect(proven))
            .with(reflection().build_v1alpha().expect(proven));
        let dispatch = match &self.peer {
            Some(peer) => dispatch.with(peer.clone().serve(drain.clone())),
            None => dispatch,
        };
        let dispatch = match &self.admin {
            Some(admin) => {
                dispatch.with(pb::duramen::v1::admin_server::AdminServer::new(admin.clone()))
            }
            None => dispatch,
        };
        let Some(observer) = &self.observer else { return dispatch };
        dispatch.with(pb::duramen::v1::observe_server::ObserveServer::new(ObserveService {
            observer: Arc::clone(observer),
            node: Arc::clone(&self.node),
            clock: Arc::clone(&self.clock),
            wait_max: limits.request_deadline,
            drain: drain.clone(),
        }))
    }
}

/// Says what readiness says (a degraded node serves), until the drain begins: then it does not.
async fn follow_readiness(health: &HealthSwitch, readiness: &dyn Readiness, drain: Drain) {
    let mut drained = pin!(drain.begun());
    let mut told = None;
    loop {
        let serving = readiness.is_ready();
        // Only changes: whoever watches is told of each.
        if told != Some(serving) {
            health.set(serving).await;
            told = Some(serving);
        }
        tokio::select! {
            () = &mut drained => return health.set(false).await,
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
}

/// A connection, and where its bytes are counted.
struct Accepted {
    stream: Stream,
    metrics: Arc<Metrics>,
    kept: Option<KeptForPeers>,
    turns: Turns,
    ahead: Ahead,
    idle: Idle,
}

async fn serve_connection<S>(
    Accepted { mut stream, metrics, kept, turns, ahead, mut idle }: Accepted,
    service: S,
    limits: &RpcLimits,
    drain: Drain,
    client: &Client,
) -> io::Result<()>
where
    S: hyper::service::HttpService<hyper::body::Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    S::ResBody: Send + 'static,
    <S::ResBody as http_body::Body>::Data: Send,
    <S::ResBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // By TCP and not by HTTP/2 pings: those cost a timer and a clock reading for each frame.
    let tcp = stream.tcp();
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, limits.keepalive_idle)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_PROBE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(tcp, limits.keepalive_timeout.as_millis() as u32)?;
    // Within TLS both ends have agreed on HTTP/2 already.
    if let Stream::Plain(tcp) = &mut stream {
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(limits.handshake_max, speaks_http2(tcp)) => greeted,
            // It has asked for nothing yet: there is nothing to wait for.
            () = drain.clone().begun() => return Ok(()),
        };
        match greeted {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                client.complaints.note(client.peer, "it does not speak HTTP/2 on the gRPC port");
                return turn_away(tcp).await;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    // Frames are of 16 KiB, as HTTP/2 has it unless told otherwise: one that is not whole yet is kept
    // beside all that is counted. Larger ones cost no less.
    let [of_stream, of_connection] = if client.is_node() { WINDOWS_OF_NODES } else { WINDOWS };
    let mut builder = http2::Builder::new(turns);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(of_stream)
        .initial_connection_window_size(of_connection)
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(16 << 10)
        .auto_date_header(false);
    let stream = Counted::new(stream, metrics, Protocol::Grpc);
    let stream = Paced::new(stream, ahead.clone(), limits.request_deadline.max(PATIENCE_MIN));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut drain = drain.poller();
    let mut told = false;
    poll_fn(|cx| {
        ahead.turn();
        if !told && drain.poll_begun(cx) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        while let Poll::Ready(over) = idle.poll_over(cx) {
            if over == Over::Close {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        if client.seat.taker().poll_gave_way(cx).is_ready() {
            let why = "it did not read what it asked for, and others needed the room";
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let mut polled = connection.as_mut().poll(cx);
        if !told && kept.as_ref().is_some_and(|kept| kept.load(Ordering::Acquire)) {
            // Its answer goes out, and its place is another node's again.
            told = true;
            connection.as_mut().graceful_shutdown();
            if polled.is_pending() {
                polled = connection.as_mut().poll(cx);
            }
        }
        polled.map(|ended| ended.map_err(io::Error::other))
    })
    .await
}

/// Tells a client that speaks something else where it is.
async fn turn_away(stream: &mut TcpStream) -> io::Result<()> {
    // Closing with unread bytes would reset the connection, and the answer with it.
    let _ = stream.try_read(&mut [0; 16 << 10])?;
    stream.write_all(WRONG_PORT).await?;
    stream.shutdown().await
}

/// Looks at a connection's first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 || first[..seen] != PREFACE[..seen] {
            return if seen == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(false) };
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        // A part of it came: the socket stays readable, so readiness would not tell of the rest.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
