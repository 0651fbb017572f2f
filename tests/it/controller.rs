//! The controller over a real log: what is asked for is in the catalogue, survives the end of the
//! node, and nodes found and join clusters. Where there are two nodes they read one log, as if it
//! were replicated; calls between them are calls within the process.

use duramen::actors::control::{Answered, Answering, ControlApi, ControlError, JoinAsked, Joined};
use duramen::actors::controller::{
    Control, ControlParts, DutyOptions, Formation, FormationOptions, GroupActs, Home, PeerCalls,
};
use duramen::actors::handle::PartitionHandle;
use duramen::actors::leadership::Leadership;
use duramen::actors::partition::PartitionApi;
use duramen::actors::presence::{Presence, PresenceBoard, Present, Seen};
use duramen::cluster::{
    Catalogue, Command, NodeSelf, NodeState, Outcome, RejectionKind, ReplicaState, TopicSettings,
};
use duramen::model::{GroupId, NodeId, Record, ReplicaId, SystemClock, Term, Timestamp, TopicName};
use duramen::node::controller::controller_below;
use duramen::observe::{Hub, HubLimits};
use duramen::raft::Membership;
use duramen::supervision::{
    Environment, Exhausted, Strategy, Supervisor, SupervisorSpec, TreeHandle,
};
use duramen::testing::TestNode;
use slog::{Logger, o};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// The nodes by address.
#[derive(Debug, Default)]
struct Network(Mutex<BTreeMap<String, Control>>);

impl Network {
    fn at(&self, addr: &str) -> Result<Control, ControlError> {
        let known = self.0.lock().unwrap().get(addr).cloned();
        known.ok_or_else(|| ControlError::Unavailable {
            message: format!("nobody listens at {addr}"),
            retry_after: Duration::from_millis(10),
        })
    }
}

#[derive(Debug)]
struct Calls(Arc<Network>);

impl PeerCalls for Calls {
    fn change(
        &self,
        addr: String,
        _: String,
        _: NodeId,
        command: bytes::Bytes,
    ) -> Answering<Answered<bytes::Bytes>> {
        let there = self.0.at(&addr);
        Box::pin(async move { there?.change_here(command).await })
    }

    fn join(&self, addr: String, asked: JoinAsked) -> Answering<Answered<Joined>> {
        let there = self.0.at(&addr);
        Box::pin(async move { there?.join_here(asked).await })
    }
}

/// What group 0 was told that it is to consist of.
#[derive(Debug, Default)]
struct Acts(Mutex<Vec<ReplicaId>>);

impl GroupActs for Acts {
    fn desire(&self, group: GroupId, replicas: Vec<ReplicaId>) -> Result<(), String> {
        assert_eq!(group, GroupId::CONTROLLER);
        *self.0.lock().unwrap() = replicas;
        Ok(())
    }

    fn transfer(&self, _: GroupId, _: Option<ReplicaId>) -> Result<(), String> {
        Err("nobody asks for it here".into())
    }
}

/// A directory that remembers, and a replica of group 0 that is there already.
#[derive(Debug)]
struct Directory {
    cluster: Mutex<Option<(String, NodeId)>>,
    planted: Mutex<Vec<(ReplicaId, Formation)>>,
    handle: PartitionHandle,
}

impl Home for Directory {
    fn meet(&self, _: &[(NodeId, String, String)]) {}

    fn cluster(&self) -> Option<(String, NodeId)> {
        self.cluster.lock().unwrap().clone()
    }

    fn set_cluster(&self, cluster_id: &str, node: NodeId) -> Result<(), String> {
        *self.cluster.lock().unwrap() = Some((cluster_id.into(), node));
        Ok(())
    }

    fn plant(&self, me: ReplicaId, birth: Formation) -> PartitionHandle {
        self.planted.lock().unwrap().push((me, birth));
        self.handle.clone()
    }
}

struct Member {
    control: Control,
    leadership: Arc<Leadership>,
    presence: PresenceBoard,
    acts: Arc<Acts>,
    home: Arc<Directory>,
    tree: TreeHandle,
}

fn told(number: u32) -> NodeSelf {
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

fn asked(node: NodeSelf) -> JoinAsked {
    JoinAsked { node, cluster_id: String::new() }
}

impl Member {
    fn start(
        node: &TestNode,
        network: &Arc<Network>,
        me: NodeSelf,
        joins: bool,
        cluster: Option<(String, NodeId)>,
    ) -> Self {
        let logger = Logger::root(slog::Discard, o!());
        let (leadership, presence) = (Arc::new(Leadership::default()), PresenceBoard::default());
        let (acts, clock) = (Arc::new(Acts::default()), Arc::new(SystemClock::new()));
        let control = Control::new(ControlParts {
            leadership: Arc::clone(&leadership),
            presence: presence.clone(),
            calls: Arc::new(Calls(Arc::clone(network))),
            acts: Arc::clone(&acts) as _,
            clock: clock.clone(),
            logger: logger.clone(),
        });
        network.0.lock().unwrap().insert(me.rpc_addr.clone(), control.clone());
        let home = Arc::new(Directory {
            cluster: Mutex::new(cluster),
            planted: Mutex::default(),
            handle: node.log().clone(),
        });
        let limits = HubLimits { entries_max: 16, lines_per_second_max: 0 };
        let root = Supervisor::new(
            SupervisorSpec::new("controller", Strategy::OneForOne, Exhausted::Quarantine),
            Environment {
                clock,
                seed: 1,
                logger: logger.clone(),
                hub: Hub::new(logger, None, limits),
                crashes: None,
            },
        );
        let addrs = if joins { vec!["127.0.0.1:1".into()] } else { Vec::new() };
        let formation = FormationOptions::new(me, joins, addrs, "cluster-1".into());
        let dir = Arc::clone(&home) as Arc<dyn Home>;
        controller_below(&root, &control, dir, formation, DutyOptions::default());
        Self { control, leadership, presence, acts, home, tree: root.start() }
    }

    /// The first node of a cluster, leading its controller.
    fn founder(node: &TestNode, network: &Arc<Network>) -> Self {
        let member = Self::start(node, network, told(1), false, None);
        let members = Arc::new(Membership::lone(ReplicaId::FIRST));
        member.leadership.leads_here(GroupId::CONTROLLER, Term(1), ReplicaId::FIRST, members);
        member
    }

    fn joiner(node: &TestNode, network: &Arc<Network>, me: NodeSelf) -> Self {
        let member = Self::start(node, network, me, true, None);
        member.leadership.learn(GroupId::CONTROLLER, Term(1), Some(ReplicaId::FIRST));
        member
    }

    async fn until(&self, what: &str, holds: impl Fn(&Catalogue) -> bool) -> Arc<Catalogue> {
        let mut catalogue = self.control.watch();
        let found = tokio::time::timeout(PATIENCE, catalogue.wait_for(|c| holds(c.as_ref()))).await;
        match found {
            Ok(found) => Arc::clone(&found.unwrap()),
            Err(_) => panic!("not within {PATIENCE:?}: {what}: {:?}", self.control.catalogue()),
        }
    }

    async fn change(&self, command: Command) -> Result<Outcome, ControlError> {
        tokio::time::timeout(PATIENCE, self.control.change(command)).await.unwrap()
    }

    async fn end(self) {
        let ended = tokio::time::timeout(PATIENCE, self.tree.shutdown()).await;
        ended.expect("it ends in time").expect("nothing escalates");
    }
}

/// Until something holds that is nobody's event.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    assert!(found.is_ok(), "not within {PATIENCE:?}: {what}");
}

fn create(name: &str, partitions: u32) -> Command {
    Command::CreateTopic {
        name: TopicName::new(name).unwrap(),
        partitions,
        replication_factor: 3,
        settings: TopicSettings::default(),
    }
}

fn on_control_thread(work: impl Future<Output = ()> + 'static) {
    actix_rt::System::new().block_on(work);
}

#[test]
fn a_lone_node_founds_a_cluster_and_finds_it_again_after_a_restart() {
    let node = TestNode::start();
    on_control_thread(async move {
        let network = Arc::new(Network::default());
        let member = Member::founder(&node, &network);
        member.until("founded", Catalogue::is_founded).await;
        assert_eq!(member.change(create("orders", 3)).await, Ok(Outcome::Done));
        let twice = member.change(create("orders", 3)).await.unwrap_err();
        assert!(matches!(&twice, ControlError::Rejected(no) if no.kind == RejectionKind::Exists));
        let before = member
            .until("its members are reported", |c| c.controller.voters == [ReplicaId::FIRST])
            .await;
        eventually("group 0 is told whom it consists of", || {
            *member.acts.0.lock().unwrap() == [ReplicaId::FIRST]
        })
        .await;
        eventually("it is written down", || member.home.cluster().is_some()).await;
        assert_eq!(member.home.cluster(), Some(("cluster-1".into(), NodeId(1))));
        member.end().await;

        let node = node.stop().start();
        let known = Some(("cluster-1".into(), NodeId(1)));
        let moved = NodeSelf { rpc_addr: "127.0.0.1:77".into(), ..told(1) };
        let member = Member::start(&node, &network, moved, false, known);
        let after = member.until("read again", |c| c.topics.len() == 2).await;
        assert_eq!(after.topics, before.topics);
        assert_eq!(*member.home.planted.lock().unwrap(), [(ReplicaId::FIRST, Formation::Known)]);
        let members = Arc::new(Membership::lone(ReplicaId::FIRST));
        member.leadership.leads_here(GroupId::CONTROLLER, Term(2), ReplicaId::FIRST, members);
        let moved = |c: &Catalogue| c.nodes[&NodeId(1)].rpc_addr == "127.0.0.1:77";
        member.until("the new address is known", moved).await;
        member.end().await;
    });
}

#[test]
fn whoever_asks_before_the_cluster_is_founded_is_answered_when_it_is() {
    let node = TestNode::start();
    on_control_thread(async move {
        let member = Member::founder(&node, &Arc::new(Network::default()));
        // As if formation had come just so far: there is a log to write to, and nothing in it.
        member.control.open(NodeId(1), node.log().clone());
        assert_eq!(member.change(create("early", 1)).await, Ok(Outcome::Done));
        assert!(member.control.catalogue().topics.contains_key("early"));
        member.end().await;
    });
}

#[test]
fn a_node_joins_gets_replicas_and_changes_the_catalogue_through_the_leader() {
    let node = TestNode::start();
    on_control_thread(async move {
        let network = Arc::new(Network::default());
        let second = Member::joiner(&node, &network, told(2));
        let first = Member::founder(&node, &network);
        second.until("it knows the catalogue", |c| c.nodes.contains_key(&NodeId(2))).await;
        eventually("it is written down", || second.home.cluster().is_some()).await;
        assert_eq!(second.home.cluster(), Some(("cluster-1".into(), NodeId(2))));
        let me = ReplicaId::new(NodeId(2), 1);
        assert_eq!(*second.home.planted.lock().unwrap(), [(me, Formation::Join)]);
        let wanted = [ReplicaId::FIRST, me];
        eventually("group 0 is told of it", || *first.acts.0.lock().unwrap() == wanted).await;

        let spread = first
            .until("the first topic is spread", |c| {
                c.placement(GroupId::LOG).is_some_and(|p| p.replicas.len() == 2)
            })
            .await;
        let replica = spread.placement(GroupId::LOG).unwrap().replicas[1];
        assert_eq!(replica.state, ReplicaState::Joining);
        let voters = BTreeSet::from([ReplicaId::FIRST, replica.id]);
        let members = Arc::new(Membership { voters, ..Membership::default() });
        first.leadership.leads_here(GroupId::LOG, Term(1), ReplicaId::FIRST, members);
        second
            .until("what the group's leader tells is known everywhere", |c| {
                let replicas = &c.placement(GroupId::LOG).unwrap().replicas;
                replicas.get(1).is_some_and(|replica| replica.state == ReplicaState::Member)
            })
            .await;

        assert_eq!(second.change(create("orders", 2)).await, Ok(Outcome::Done));
        let here = second.control.catalogue();
        assert!(here.topics.contains_key(&TopicName::new("orders").unwrap()), "applied here too");
        let twice = second.change(create("orders", 2)).await.unwrap_err();
        assert!(matches!(&twice, ControlError::Rejected(no) if no.kind == RejectionKind::Exists));
        first.end().await;
        second.end().await;
    });
}

#[test]
fn a_leaving_node_hands_over_and_is_taken_out() {
    let node = TestNode::start();
    on_control_thread(async move {
        let network = Arc::new(Network::default());
        let first = Member::founder(&node, &network);
        first.until("founded", Catalogue::is_founded).await;
        let second = Member::joiner(&node, &network, told(2));
        first.until("it has a replica", |c| c.hosted_by(NodeId(2)).next().is_some()).await;
        first.change(Command::Leave { node: NodeId(2) }).await.unwrap();
        // The group's leader goes on telling of itself alone: the other one never came to vote.
        let members = Arc::new(Membership::lone(ReplicaId::FIRST));
        first.leadership.leads_here(GroupId::LOG, Term(1), ReplicaId::FIRST, members);
        first.until("it is out", |c| c.nodes[&NodeId(2)].state == NodeState::Removed).await;
        let back = second.change(Command::Leave { node: NodeId(9) }).await.unwrap_err();
        assert!(matches!(back, ControlError::Rejected(_)), "{back:?}");
        first.end().await;
        second.end().await;
    });
}

#[test]
fn who_is_not_of_this_cluster_does_not_join() {
    let node = TestNode::start();
    on_control_thread(async move {
        let network = Arc::new(Network::default());
        let first = Member::founder(&node, &network);
        first.until("founded", Catalogue::is_founded).await;
        let refused = async |asked: JoinAsked| {
            let refused = first.control.join_here(asked).await.unwrap_err();
            let ControlError::Rejected(no) = refused else { panic!("{refused:?}") };
            assert_eq!(no.kind, RejectionKind::Foreign);
            no.message
        };
        let other = refused(JoinAsked { cluster_id: "other".into(), ..asked(told(2)) }).await;
        assert!(other.contains("of another cluster (other)"), "{other}");
        let wiped = refused(asked(NodeSelf { uuid: "fresh".into(), ..told(1) })).await;
        assert!(wiped.contains("duramen node replace name-1"), "{wiped}");
        let newer = refused(asked(NodeSelf { protocol_min: 2, protocol_max: 2, ..told(2) })).await;
        assert!(newer.contains("speaks protocols 2 to 2, the cluster 1"), "{newer}");
        assert_eq!(first.control.catalogue().nodes.len(), 1);
        first.end().await;
    });
}

#[test]
fn a_member_that_is_silent_gets_nothing_new() {
    let node = TestNode::start();
    on_control_thread(async move {
        let network = Arc::new(Network::default());
        let first = Member::founder(&node, &network);
        first.until("founded", Catalogue::is_founded).await;
        let present = |number: u32, seen| Present {
            uuid: format!("uuid-{number}"),
            node: Some(NodeId(number)),
            cluster_id: "cluster-1".into(),
            name: format!("name-{number}"),
            rpc_addr: format!("127.0.0.1:{number}"),
            gossip_addr: String::new(),
            protocol_max: 1,
            labels: Default::default(),
            told: Default::default(),
            seen,
            since: Duration::ZERO,
        };
        let all = [present(1, Seen::Alive), present(2, Seen::Dead), present(3, Seen::Alive)];
        let all: Presence = all.into_iter().map(|one| (one.uuid.clone(), one)).collect();
        first.presence.tell(all);
        for number in [2, 3] {
            first.control.join_here(asked(told(number))).await.unwrap();
        }
        first.change(create("orders", 6)).await.unwrap();
        let catalogue = first.control.catalogue();
        let orders = &catalogue.topics[&TopicName::new("orders").unwrap()];
        for placement in &orders.partitions {
            assert!(placement.on(NodeId(2)).is_none(), "{placement:?}");
            assert_eq!(placement.replicas.len(), 2, "{placement:?}");
        }
        first.end().await;
    });
}

#[test]
fn a_record_of_a_newer_program_stops_the_catalogue_and_says_so() {
    let node = TestNode::start();
    on_control_thread(async move {
        let network = Arc::new(Network::default());
        let member = Member::founder(&node, &network);
        member.until("founded", Catalogue::is_founded).await;
        let newer = Record::of_value(br#"{"v":9,"command":{}}"#.to_vec(), Timestamp(1));
        node.log().propose_records(vec![newer]).unwrap().await.unwrap();
        let refused = member.change(create("orders", 1)).await.unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("reads form 1 of the catalogue, the cluster writes 9: upgrade"),
            "{text}"
        );
        assert!(member.control.catalogue().is_founded(), "what was known stays known");
        member.end().await;
    });
}
