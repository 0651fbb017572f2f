//! Against a catalogue in memory, which takes each command at once.

use super::*;
use crate::actors::control::{Answered, Answering, ControlApi, ControlError, JoinAsked, Joined};
use crate::actors::leadership::Leadership;
use crate::actors::peers::{Outgoing, PeerPost};
use crate::actors::presence::{Presence, PresenceBoard, Present, Seen};
use crate::cluster::{NodeSelf, OnBehalf};
use crate::frontends::grpc::dispatch::Client;
use crate::frontends::seats::Seat;
use crate::model::{Caller, ManualClock, Term};
use crate::observe::Complaints;
use crate::wire::pb::duramen::v1::admin_server::Admin;
use bytes::Bytes;
use slog::{Logger, o};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::sync::watch;
use tonic::Code;

#[derive(Debug)]
struct InMemory(watch::Sender<Arc<Catalogue>>);

impl InMemory {
    fn apply(&self, command: &Command) -> Result<Outcome, ControlError> {
        let mut catalogue = Catalogue::clone(&self.0.borrow());
        let outcome = catalogue.apply(command)?;
        self.0.send_replace(Arc::new(catalogue));
        Ok(outcome)
    }
}

impl ControlApi for InMemory {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.0.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.subscribe()
    }

    fn node(&self) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn leader(&self) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn change_for(&self, _: Option<OnBehalf>, command: Command) -> Answering<Outcome> {
        let outcome = self.apply(&command);
        Box::pin(async move { outcome })
    }

    fn change_here(&self, _: Bytes) -> Answering<Answered<Bytes>> {
        unreachable!("for nodes")
    }

    fn join_here(&self, _: JoinAsked) -> Answering<Answered<Joined>> {
        unreachable!("for nodes")
    }
}

#[derive(Debug, Default)]
struct Recorded(Mutex<Vec<(GroupId, Option<ReplicaId>)>>);

impl GroupActs for Recorded {
    fn desire(&self, _: GroupId, _: Vec<ReplicaId>) -> Result<(), String> {
        unreachable!("the controller's own affair")
    }

    fn transfer(&self, group: GroupId, to: Option<ReplicaId>) -> Result<(), String> {
        self.0.lock().unwrap().push((group, to));
        Ok(())
    }
}

/// The nodes that there is no connection to.
#[derive(Debug, Default)]
struct Missed(Mutex<BTreeSet<NodeId>>);

impl PeerPost for Missed {
    fn post(&self, _: NodeId, _: Vec<Outgoing>) -> bool {
        unreachable!("for replicas")
    }

    fn reaches(&self, node: NodeId) -> bool {
        !self.misses(node)
    }

    fn misses(&self, node: NodeId) -> bool {
        self.0.lock().unwrap().contains(&node)
    }
}

fn node_self(number: u32) -> NodeSelf {
    NodeSelf {
        uuid: format!("uuid-{number}"),
        name: format!("name-{number}"),
        rpc_addr: format!("127.0.0.1:{number}"),
        gossip_addr: String::new(),
        version: "1.0.0".into(),
        protocol_min: 1,
        protocol_max: 1,
        labels: BTreeMap::new(),
    }
}

struct Cluster {
    service: AdminService,
    control: Arc<InMemory>,
    acts: Arc<Recorded>,
    missed: Arc<Missed>,
}

impl Cluster {
    /// Three nodes that gossip sees like this, node 1 being asked; each has a replica of `log`.
    fn of(seen: [Seen; 3]) -> Self {
        let control = Arc::new(InMemory(watch::channel(Arc::default()).0));
        let presence = PresenceBoard::default();
        let mut board = Presence::new();
        let found = Command::Found { cluster_id: "c1".into(), node: node_self(1) };
        control.apply(&found).unwrap();
        for (number, seen) in (1..).zip(seen) {
            control.apply(&Command::Register(node_self(number))).unwrap();
            let NodeSelf { uuid, name, rpc_addr, gossip_addr, protocol_max, .. } =
                node_self(number);
            let (node, cluster_id, since) = (Some(NodeId(number)), "c1".into(), Duration::ZERO);
            let present = Present {
                uuid: uuid.clone(),
                node,
                cluster_id,
                name,
                rpc_addr,
                gossip_addr,
                protocol_max,
                labels: Default::default(),
                told: Default::default(),
                seen,
                since,
            };
            board.insert(uuid, present);
        }
        presence.tell(board);
        let group = GroupId::LOG.raw();
        let mut voters = vec![ReplicaId::FIRST];
        for node in [NodeId(2), NodeId(3)] {
            let given = control.apply(&Command::AddReplica { group, node }).unwrap();
            let Outcome::Replica(replica) = given else { panic!("{given:?}") };
            voters.push(replica);
        }
        for (group, voters) in [(group, voters), (0, (1..=3).map(first_of).collect())] {
            let learners = Vec::new();
            control.apply(&Command::GroupIs { group, term: Term(1), voters, learners }).unwrap();
        }
        let leadership = Arc::new(Leadership::default());
        leadership.learn(GroupId::LOG, Term(1), Some(ReplicaId::FIRST));
        leadership.learn(GroupId::CONTROLLER, Term(1), Some(ReplicaId::FIRST));
        let acts = Arc::new(Recorded::default());
        let gate = crate::access::Gate::default();
        let missed = Arc::new(Missed::default());
        let peers = missed.clone() as _;
        let view = ClusterView { control: control.clone() as _, leadership, presence, peers, gate };
        let service = AdminService {
            view,
            acts: acts.clone() as _,
            anyone_may_act: false,
            wait_max: Duration::from_secs(10),
        };
        Self { service, control, acts, missed }
    }

    fn status(&self) -> pb::ClusterStatus {
        self.service.view.status()
    }
}

fn first_of(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), 1)
}

fn all_alive() -> Cluster {
    Cluster::of([Seen::Alive; 3])
}

fn create(name: &str) -> Request<pb::CreateTopicRequest> {
    Request::new(pb::CreateTopicRequest { name: name.into(), ..Default::default() })
}

#[tokio::test]
async fn a_topic_is_created_described_altered_and_deleted() {
    let cluster = all_alive();
    let made = cluster.service.create_topic(create("orders")).await.unwrap().into_inner();
    assert_eq!((made.partitions.len(), made.replication_factor), (1, 3), "the defaults");
    let alter = pb::AlterTopicRequest {
        name: "orders".into(),
        partitions: 4,
        replication_factor: 0,
        settings: Some(pb::TopicSettings {
            values: [("retention_age".to_owned(), "7d".to_owned())].into(),
        }),
    };
    let altered = cluster.service.alter_topic(Request::new(alter)).await.unwrap().into_inner();
    assert_eq!((altered.partitions.len(), altered.replication_factor), (4, 3));
    assert_eq!(altered.settings.unwrap().values["retention_age"], "7d");
    let list = cluster.service.list_topics(Request::new(pb::ListTopicsRequest {})).await.unwrap();
    let names: Vec<_> = list.into_inner().topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["log", "orders"]);
    let delete = || Request::new(pb::DeleteTopicRequest { name: "orders".into() });
    cluster.service.delete_topic(delete()).await.unwrap();
    let gone = cluster.service.delete_topic(delete()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("duramen topic create orders"), "{}", gone.message());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_do() {
    let cluster = all_alive();
    let twice = cluster.service.create_topic(create("log")).await.unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists);
    let name = cluster.service.create_topic(create("../log")).await.unwrap_err();
    assert_eq!(name.code(), Code::InvalidArgument);
    let asked = pb::DescribeTopicRequest { name: "lag".into() };
    let unknown = cluster.service.describe_topic(Request::new(asked)).await.unwrap_err();
    assert!(unknown.message().contains("there are: log"), "{}", unknown.message());
    let asked = pb::LeaveNodeRequest { node: "n9".into() };
    let unknown = cluster.service.leave_node(Request::new(asked)).await.unwrap_err();
    assert!(unknown.message().contains("n2 (name-2)"), "{}", unknown.message());
}

#[tokio::test]
async fn only_callers_on_the_nodes_machine_change_the_cluster_unless_told_otherwise() {
    let mut cluster = all_alive();
    let stranger = || {
        let clock = Arc::new(ManualClock::default());
        let complaints = Complaints::new(clock, Logger::root(slog::Discard, o!()));
        let mut request = create("orders");
        let peer = "192.0.2.1:9".parse().unwrap();
        request.extensions_mut().insert(Client {
            peer,
            caller: Caller::nobody(),
            complaints,
            seat: Seat::default(),
        });
        request
    };
    let refused = cluster.service.create_topic(stranger()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(cluster.control.catalogue().topics.len(), 1);
    cluster.service.anyone_may_act = true;
    cluster.service.create_topic(stranger()).await.unwrap();
}

#[tokio::test]
async fn a_node_is_not_removed_where_a_group_needs_it_unless_forced() {
    let cluster = Cluster::of([Seen::Alive, Seen::Alive, Seen::Dead]);
    let remove =
        |node: &str, force| Request::new(pb::RemoveNodeRequest { node: node.into(), force });
    let refused = cluster.service.remove_node(remove("name-2", false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for part in ["controller, log/0", "duramen node leave name-2", "--force"] {
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    let dead = cluster.service.remove_node(remove("name-3", false)).await.unwrap().into_inner();
    assert!(dead.warnings.is_empty(), "{:?}", dead.warnings);
    let forced = cluster.service.remove_node(remove("name-2", true)).await.unwrap().into_inner();
    assert_eq!(forced.warnings.len(), 2, "no majority, and it is there: {:?}", forced.warnings);
    assert_eq!(cluster.control.catalogue().nodes[&NodeId(2)].state, NodeState::Removed);
}

#[tokio::test]
async fn only_a_dead_node_is_replaced_and_its_replicas_go_where_told() {
    let cluster = Cluster::of([Seen::Alive, Seen::Alive, Seen::Dead]);
    cluster.control.apply(&Command::Register(node_self(4))).unwrap();
    let replace = |dead: &str, replacement: &str| {
        let (dead, replacement) = (dead.into(), replacement.into());
        Request::new(pb::ReplaceNodeRequest { dead, replacement })
    };
    let living = cluster.service.replace_node(replace("2", "4")).await.unwrap_err();
    assert_eq!(living.code(), Code::FailedPrecondition);
    let done = cluster.service.replace_node(replace("3", "name-4")).await.unwrap().into_inner();
    assert!(done.message.contains("1 of its replicas go to node n4"), "{}", done.message);
    let catalogue = cluster.control.catalogue();
    assert_eq!(catalogue.nodes[&NodeId(3)].state, NodeState::Leaving);
    assert!(catalogue.placement(GroupId::LOG).unwrap().on(NodeId(4)).is_some());
}

#[tokio::test]
async fn leadership_is_handed_to_a_member_and_nobody_else() {
    let cluster = all_alive();
    cluster.control.apply(&Command::Register(node_self(4))).unwrap();
    let transfer = |to: &str| {
        let (topic, to) = ("log".into(), to.into());
        Request::new(pb::TransferLeaderRequest { topic, partition: 0, to })
    };
    let refused = cluster.service.transfer_leader(transfer("4")).await.unwrap_err();
    assert!(refused.message().contains("its members are n1, n2, n3"), "{}", refused.message());
    let moved = cluster.service.transfer_leader(transfer("name-3")).await.unwrap().into_inner();
    assert_eq!(moved.leader, 3);
    let asked = cluster.acts.0.lock().unwrap().clone();
    let preferred = cluster.control.catalogue().placement(GroupId::LOG).unwrap().replicas[0].id;
    assert_eq!(preferred.node(), NodeId(3));
    assert_eq!(asked, [(GroupId::LOG, Some(preferred))]);
}

#[test]
fn a_status_says_what_is_not_well() {
    let well = all_alive().status();
    assert!(well.healthy, "{:?}", well.troubles);
    assert_eq!((well.controller_leader, well.nodes[2].replicas, well.nodes[0].leaders), (1, 1, 1));
    assert!(well.nodes.iter().all(|node| node.controller_voter));

    let cluster = Cluster::of([Seen::Alive, Seen::Suspect, Seen::Dead]);
    let newer = NodeSelf { version: "2.0.0".into(), ..node_self(2) };
    cluster.control.apply(&Command::Register(newer)).unwrap();
    cluster.control.apply(&Command::Leave { node: NodeId(3) }).unwrap();
    cluster.service.view.leadership.learn(GroupId::LOG, Term(9), None);
    cluster.control.apply(&Command::Register(node_self(4))).unwrap();
    let status = cluster.status();
    assert!(!status.healthy);
    let troubles = status.troubles.join("\n");
    for part in [
        "node n2 (name-2, 127.0.0.1:2) is not there: gossip sees it as suspect",
        "node n3 (name-3, 127.0.0.1:3) is not there: gossip sees it as dead",
        "node n4 (name-4, 127.0.0.1:4) is not there: gossip sees it as unknown",
        "different versions: 1.0.0, 2.0.0",
        "partition log/0 has no leader",
        "partition log/0 has 2 of 3 replicas",
    ] {
        assert!(troubles.contains(part), "{part}\nis not in\n{troubles}");
    }
    assert_eq!(status.nodes[2].state, "leaving");
    assert_eq!(status.nodes[2].progress, "1 replicas to hand over: log/0");
}

#[test]
fn a_connection_that_has_ended_is_told_before_gossip_notices() {
    let cluster = all_alive();
    assert!(cluster.status().healthy);
    cluster.missed.0.lock().unwrap().insert(NodeId(2));
    let status = cluster.status();
    assert!(!status.healthy);
    let told = ["node n2 (name-2, 127.0.0.1:2) is not there: there is no connection to it"];
    assert_eq!(status.troubles, told);
    assert_eq!(status.nodes[1].presence, "alive", "as gossip still sees it");
    cluster.missed.0.lock().unwrap().clear();
    assert!(cluster.status().healthy);
}
