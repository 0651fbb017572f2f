//! Nodes that talk to each other: the real replicators and the real gRPC front end, a scripted
//! controller, and replicas that only note what they get.

use super::server::{Server, until};
use bytes::Bytes;
use duramen::actors::addresses::{Addresses, LocalIdentity};
use duramen::actors::control::{Answered, Answering, ControlApi, ControlError, JoinAsked, Joined};
use duramen::actors::groups::Undelivered;
use duramen::actors::leadership::Leadership;
use duramen::actors::peers::{Outgoing, PeerPost};
use duramen::actors::presence::PresenceBoard;
use duramen::actors::replicator::{Inbox, PeerEvents, Peers, PeersParts, ReplicatorOptions};
use duramen::cluster::{
    Catalogue, Command, Node, NodeState, OnBehalf, Outcome, Rejection, RejectionKind,
};
use duramen::frontends::grpc::{PeerParts, PeerService, RpcLimits};
use duramen::model::{
    GroupId, NodeId, PeerEntry, PeerKind, PeerMessage, PeerPayload, RaftIndex, ReplicaId,
    SystemClock, Term, TopicId,
};
use duramen::node::peers::replicators_below;
use duramen::observe::metrics::Snapshot;
use duramen::observe::{Hub, HubLimits};
use duramen::supervision::{
    Environment, Exhausted, Place, Strategy, Supervisor, SupervisorSpec, TreeHandle,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

pub const LONG: Duration = Duration::from_secs(20);
pub const N1: NodeId = NodeId(1);
pub const N2: NodeId = NodeId(2);
pub const N3: NodeId = NodeId(3);

pub fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// The catalogue as all nodes of a test have it.
#[derive(Debug, Clone)]
pub struct Controller(pub Arc<watch::Sender<Arc<Catalogue>>>);

impl Controller {
    pub fn of_nodes(nodes: &[NodeId]) -> Self {
        let node = |id: &NodeId| Node {
            uuid: uuid(*id),
            name: id.to_string(),
            rpc_addr: String::new(),
            gossip_addr: String::new(),
            version: String::new(),
            protocol_max: 1,
            labels: BTreeMap::new(),
            state: NodeState::Active,
        };
        let catalogue = Catalogue {
            cluster_id: "birch".into(),
            protocol: 1,
            nodes: nodes.iter().map(|id| (*id, node(id))).collect(),
            ..Catalogue::default()
        };
        Self(Arc::new(watch::Sender::new(Arc::new(catalogue))))
    }

    pub fn alter(&self, alter: impl FnOnce(&mut Catalogue)) {
        self.0.send_modify(|catalogue| alter(Arc::make_mut(catalogue)));
    }

    pub fn moved(&self, node: NodeId, address: SocketAddr) {
        self.alter(|c| c.nodes.get_mut(&node).unwrap().rpc_addr = address.to_string());
    }
}

impl ControlApi for Controller {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.0.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.subscribe()
    }

    fn node(&self) -> Option<NodeId> {
        Some(N1)
    }

    fn leader(&self) -> Option<NodeId> {
        Some(N1)
    }

    fn change_for(&self, _: Option<OnBehalf>, _: Command) -> Answering<Outcome> {
        unreachable!("nobody here changes the catalogue by itself")
    }

    /// Echoes, refuses what begins with `no`, does not know what begins with `?`.
    fn change_here(&self, command: Bytes) -> Answering<Answered<Bytes>> {
        let message = "because".to_owned();
        let answer = match command.first() {
            Some(b'n') => {
                Err(Rejection { kind: RejectionKind::NotNow, message: message.clone() }.into())
            }
            Some(b'?') => Err(ControlError::Unknown { message }),
            Some(b'>') => Ok(Answered::AskAt("there:1".into())),
            _ => Ok(Answered::Here(command)),
        };
        Box::pin(async { answer })
    }

    fn join_here(&self, asked: JoinAsked) -> Answering<Answered<Joined>> {
        let members =
            vec![(N1, uuid(N1), format!("{} of {}", asked.node.name, asked.node.labels["rack"]))];
        let joined = Joined { cluster_id: "birch".into(), node: N3, members };
        Box::pin(async { Ok(Answered::Here(joined)) })
    }
}

pub fn uuid(node: NodeId) -> String {
    format!("uuid-of-{node}")
}

pub fn identity(node: NodeId) -> LocalIdentity {
    LocalIdentity { cluster_id: "birch".into(), node, uuid: uuid(node) }
}

/// What arrived, for replicas of any group.
#[derive(Debug, Default)]
pub struct Arrived(pub Mutex<Vec<PeerMessage>>);

impl Inbox for Arrived {
    fn deliver(&self, message: PeerMessage) -> Result<(), Undelivered> {
        self.0.lock().unwrap().push(message);
        Ok(())
    }
}

impl Arrived {
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Index and group of each.
    pub fn all(&self) -> Vec<PeerMessage> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Default)]
pub struct Unreachable(pub Mutex<Vec<NodeId>>);

impl PeerEvents for Unreachable {
    fn unreachable(&self, node: NodeId) {
        self.0.lock().unwrap().push(node);
    }

    fn reachable(&self, _: NodeId) {}
}

impl Unreachable {
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A node that takes messages.
pub struct Receiver {
    pub server: Server,
    pub arrived: Arc<Arrived>,
    pub leadership: Arc<Leadership>,
}

impl Receiver {
    pub fn start(me: LocalIdentity, controller: &Controller) -> Self {
        Self::start_with(me, controller, RpcLimits::default())
    }

    pub fn start_with(me: LocalIdentity, controller: &Controller, limits: RpcLimits) -> Self {
        let arrived = Arc::<Arrived>::default();
        let leadership = Arc::<Leadership>::default();
        let control: Arc<dyn ControlApi> = Arc::new(controller.clone());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = me.node;
        let peer = PeerService::new(PeerParts {
            me: Arc::new(OnceLock::from(me)),
            inbox: Arc::clone(&arrived) as Arc<dyn Inbox>,
            leadership: Arc::clone(&leadership),
            addresses: Arc::new(Addresses::new(Arc::clone(&control), PresenceBoard::default())),
            control,
            clock: Arc::new(SystemClock::new()),
            logger: logger(),
        });
        let server = Server::start_on(socket, limits, Some(peer));
        controller.moved(node, server.address);
        Self { server, arrived, leadership }
    }

    /// Ends at once, with all its connections.
    pub fn die(self) -> Arc<Arrived> {
        self.server.serving.abort();
        self.arrived
    }
}

/// A node that sends them.
pub struct Sender {
    pub peers: Arc<Peers>,
    pub lost: Arc<Unreachable>,
    pub leadership: Arc<Leadership>,
    pub presence: PresenceBoard,
    pub tree: TreeHandle,
}

impl Sender {
    pub async fn start(controller: &Controller, options: ReplicatorOptions, to: NodeId) -> Self {
        let hub = Hub::new(logger(), None, HubLimits::default());
        let clock = Arc::new(SystemClock::new());
        let root = Supervisor::new(
            SupervisorSpec::new("node", Strategy::OneForOne, Exhausted::Escalate),
            Environment { clock, seed: 7, logger: logger(), hub, crashes: None },
        );
        let above = replicators_below(&root);
        let tree = root.start();
        let (lost, leadership) = (Arc::<Unreachable>::default(), Arc::<Leadership>::default());
        let presence = PresenceBoard::default();
        let control = Arc::new(controller.clone());
        let parts = PeersParts {
            me: identity(N1),
            addresses: Arc::new(Addresses::new(control, presence.clone())),
            leadership: Arc::clone(&leadership),
            events: Arc::clone(&lost) as Arc<dyn PeerEvents>,
            options,
            tls: None,
            seed: 1,
        };
        let peers = Arc::<Peers>::default();
        peers.set(&BTreeSet::from([to]), &above, &Place::Control, &parts).await.unwrap();
        Self { peers, lost, leadership, presence, tree }
    }

    /// Posts until it is taken: a way that is being made takes nothing at first.
    pub async fn post(&self, to: NodeId, message: &PeerMessage) {
        let taken = || {
            let messages = vec![Outgoing { message: message.clone(), log: None }];
            self.peers.post(to, messages)
        };
        until("the message is taken", taken).await;
    }

    /// Posts again and again until the message arrives: what is posted while a way is being lost
    /// may be lost with it.
    pub async fn bring(&self, to: NodeId, message: &PeerMessage, arrived: &Arrived) {
        let is_there = || {
            self.peers.post(to, vec![Outgoing { message: message.clone(), log: None }]);
            arrived.all().contains(message)
        };
        until("the message arrived", is_there).await;
    }

    /// A counter or gauge of the way to a node.
    pub fn reading(&self, name: &str, node: NodeId) -> u64 {
        let mut snapshot = Snapshot::default();
        self.peers.read(&mut snapshot);
        let (text, start) = (snapshot.text(), format!("{name}{{node=\"{node}\"}} "));
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start} in {text}")).parse::<f64>().unwrap() as u64
    }
}

pub fn quick() -> ReplicatorOptions {
    let mut options = ReplicatorOptions { connect_timeout: LONG, ..ReplicatorOptions::default() };
    options.silence_max = LONG;
    options.backoff.min = Duration::from_millis(1);
    options.backoff.max = Duration::from_millis(20);
    options
}

pub fn message(group: GroupId, kind: PeerKind, index: u64) -> PeerMessage {
    let (from, to) = (ReplicaId::new(N1, 1), ReplicaId::new(N2, 2));
    let mut message = PeerMessage::new(group, kind, from, to, Term(3));
    message.index = RaftIndex(index);
    message
}

pub fn beat(partition: u32) -> PeerMessage {
    message(GroupId::partition_of(TopicId(1), partition), PeerKind::Heartbeat, 0)
}

pub fn append(index: u64) -> PeerMessage {
    let mut message = message(GroupId::LOG, PeerKind::Append, index);
    let payload = PeerPayload::Data(vec![Bytes::from(vec![index as u8; 1000])]);
    message.entries = vec![PeerEntry { term: Term(3), index: RaftIndex(index + 1), payload }];
    message
}

pub fn on_system(test: impl Future<Output = ()> + 'static) {
    actix_rt::System::new().block_on(async {
        tokio::time::timeout(4 * LONG, test).await.expect("the test ends");
    });
}
