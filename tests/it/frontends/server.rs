//! A gRPC front end over the partition in memory, on a socket of its own.

use super::http_server::ReportedReadiness;
use super::memory::MemoryPartition;
use super::topics::MemoryTopics;
use duramen::actors::readiness::{NodeInfo, Readiness};
use duramen::frontends::access::Door;
use duramen::frontends::drain::{Drain, DrainSwitch};
use duramen::frontends::grpc::{GrpcFrontend, HealthSwitch, PeerService, RpcLimits};
use duramen::frontends::listener::ConnectionCounters;
use duramen::model::{ManualClock, Timestamp};
use duramen::observe::metrics::Metrics;
use duramen::observe::{Complaints, Instruments};
use duramen::wire::pb::duramen::v1::log_client::LogClient as DuramenClient;
use duramen::wire::pb::log::v1::log_client::LogClient as BookClient;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// The wall clock of the server under test.
pub const NOW_MS: i64 = 1_700_000_000_000;

pub struct Server {
    pub partition: MemoryPartition,
    pub topics: MemoryTopics,
    pub address: SocketAddr,
    pub readiness: Arc<ReportedReadiness>,
    pub counters: Arc<ConnectionCounters>,
    pub metrics: Arc<Metrics>,
    pub drain: DrainSwitch,
    pub serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(RpcLimits::default()).await
    }

    pub async fn start_with(limits: RpcLimits) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), limits, None)
    }

    /// On this socket, with this service for other nodes.
    pub fn start_on(socket: TcpListener, limits: RpcLimits, peer: Option<PeerService>) -> Self {
        let partition = MemoryPartition::new();
        let address = socket.local_addr().unwrap();
        let counters = Arc::<ConnectionCounters>::default();
        let readiness = Arc::<ReportedReadiness>::default();
        let (drain_switch, drain) = Drain::channel();
        let instruments = Instruments::default();
        let metrics = Arc::clone(&instruments.metrics);
        let node_id = "node-under-test".to_owned();
        let topics = MemoryTopics::of_one(&partition, &node_id, &address.to_string());
        let node = NodeInfo { node_id, rpc_addr: address.to_string(), version: "1.2.3".into() };
        let frontend = GrpcFrontend {
            topics: topics.clone(),
            node: Arc::new(node),
            clock: Arc::new(ManualClock::at(Timestamp(NOW_MS))),
            limits,
            readiness: Arc::clone(&readiness) as Arc<dyn Readiness>,
            health: HealthSwitch::default(),
            counters: Arc::clone(&counters),
            complaints: Complaints::new(
                Arc::new(ManualClock::at(Timestamp(NOW_MS))),
                slog::Logger::root(slog::Discard, slog::o!()),
            ),
            observer: None,
            peer,
            admin: None,
            door: Door::open(Arc::new(ManualClock::at(Timestamp(NOW_MS)))),
            instruments,
            tls: None,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
        };
        let serving = tokio::spawn(frontend.serve(socket, drain));
        let drain = drain_switch;
        Self { partition, topics, address, readiness, counters, metrics, drain, serving }
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn book(&self) -> BookClient<Channel> {
        BookClient::new(self.channel().await)
    }

    pub async fn duramen(&self) -> DuramenClient<Channel> {
        DuramenClient::new(self.channel().await)
    }
}

/// Waits until a condition holds; fails when it does not within a generous time.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let polling = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), polling).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}
