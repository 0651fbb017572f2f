//! A cluster of nodes in the process of a test, over real sockets: formed, waited for, cut into
//! parts, crashed and started again.

use super::builder::TestNodeBuilder;
use super::load::{Aim, Load, LoadPlan};
use super::node::TestNode;
use super::stopped::Stopped;
use super::wait::{PATIENCE, block_on, until_or};
use crate::model::{GroupId, NodeId, TopicName};
use crate::ops::settings::{HostPort, Settings};
use crate::wire::client::{Admin, Client, ClientOptions};
use crate::wire::pb::duramen::v1 as pb;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

/// Where each node gossips, on an address of the loopback that is its own.
const GOSSIP_PORT: u16 = 8401;

/// Nodes that form one cluster, numbered from 1 as they joined: node 2 is `n2`, and the cluster
/// knows it under this number. Whoever is stopped can be started again, on other ports. Dropped, they
/// end at once and without further checks.
pub struct Cluster {
    members: Vec<Member>,
    /// What the gossip addresses of this cluster have in common.
    network: [u8; 2],
    aims: Arc<RwLock<Vec<String>>>,
    settings: Box<dyn Fn(&mut Settings)>,
}

enum Member {
    Up(Box<TestNode>),
    Down(Box<Stopped>),
    Gone,
}

impl Cluster {
    /// So many nodes with default settings; returns when all is well with them.
    ///
    /// # Panics
    /// When they do not form a cluster in time.
    pub fn start(nodes: usize) -> Self {
        Self::start_with(nodes, |_| {})
    }

    /// The same with other settings, for each of them.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn start_with(nodes: usize, settings: impl Fn(&mut Settings) + 'static) -> Self {
        let chance = RandomState::new().hash_one(std::process::id()).to_le_bytes();
        let mut cluster = Self {
            members: Vec::new(),
            network: [chance[0], chance[1]],
            aims: Arc::default(),
            settings: Box::new(settings),
        };
        for _ in 0..nodes {
            cluster.add();
        }
        cluster.until_healthy();
        cluster
    }

    /// What a further node would be like: it knows one address of the first.
    pub fn builder(&self) -> TestNodeBuilder {
        let number = self.members.len() + 1;
        let (own, first) = (self.gossip_addr(number), self.gossip_addr(1));
        TestNode::builder().settings(|settings| {
            settings.gossip.addr = own;
            settings.node.name = Some(format!("n{number}"));
            if number > 1 {
                settings.gossip.join = vec![first.into()];
            }
            (self.settings)(settings);
        })
    }

    /// Starts a further node and waits until it is a member. Returns its number.
    ///
    /// # Panics
    /// When it does not become one in time.
    pub fn add(&mut self) -> usize {
        let node = self.builder().start();
        self.admit(node)
    }

    /// Takes in a node that was started otherwise, once it is a member.
    ///
    /// # Panics
    /// As [`Cluster::add`].
    pub fn admit(&mut self, node: TestNode) -> usize {
        node.until("it is a member of the cluster", |node| node.cluster().control.node().is_some());
        self.members.push(Member::Up(Box::new(node)));
        self.aim();
        self.members.len()
    }

    fn gossip_addr(&self, number: usize) -> SocketAddr {
        let [a, b] = self.network;
        // 127.0 is what everybody else uses.
        let last = u8::try_from(number).expect("a cluster in a test has few nodes");
        (Ipv4Addr::new(127, a | 1, b, last), GOSSIP_PORT).into()
    }

    /// Where a node gossips; whoever has it may join.
    pub fn join_addr(&self, number: usize) -> HostPort {
        self.gossip_addr(number).into()
    }

    /// A running node, by its number from 1.
    ///
    /// # Panics
    /// When it does not run.
    pub fn node(&self, number: usize) -> &TestNode {
        match &self.members[number - 1] {
            Member::Up(node) => node,
            Member::Down(_) | Member::Gone => panic!("node {number} does not run"),
        }
    }

    /// The nodes that run, with their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &TestNode)> {
        (1..).zip(&self.members).filter_map(|(number, member)| match member {
            Member::Up(node) => Some((number, &**node)),
            Member::Down(_) | Member::Gone => None,
        })
    }

    // -- waiting

    /// Waits until a condition holds. Blocks.
    ///
    /// # Panics
    /// When it does not in time; the text tells how each node is.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        self.until_some(what, |cluster| holds(cluster).then_some(()));
    }

    /// As [`Cluster::until`], for a value.
    ///
    /// # Panics
    /// As there.
    pub fn until_some<T>(&self, what: &str, mut find: impl FnMut(&Self) -> Option<T>) -> T {
        until_or(PATIENCE, || find(self), || format!("{what}\n{}", self.sight()))
    }

    /// Waits until every node that runs sees all members, votes in the controller where there is
    /// room, and each partition has its replicas and one leader.
    ///
    /// # Panics
    /// When that is not so in time.
    pub fn until_healthy(&self) {
        self.until("every node sees a cluster that is well", |cluster| {
            cluster.nodes().all(|(_, node)| {
                let catalogue = node.cluster().control.catalogue();
                let goal = crate::cluster::controller_group(&catalogue).len();
                let count = cluster.nodes().count();
                node.cluster().status().healthy
                    && catalogue.controller.voters.len() == goal
                    && catalogue.active_nodes().count() == count
            })
        });
    }

    /// The group of a partition, once some node knows it.
    ///
    /// # Panics
    /// When none does in time.
    pub fn group(&self, topic: &str, partition: u32) -> GroupId {
        let name = TopicName::new(topic).expect("a valid name");
        self.until_some(&format!("topic {topic} is known"), |cluster| {
            cluster.nodes().find_map(|(_, node)| {
                let catalogue = node.cluster().control.catalogue();
                let topic = catalogue.topics.get(&name)?;
                Some(GroupId::partition_of(topic.id, partition))
            })
        })
    }

    /// Waits until somebody leads a partition, and says who.
    ///
    /// # Panics
    /// When nobody does in time.
    pub fn leader_of(&self, topic: &str, partition: u32) -> usize {
        let group = self.group(topic, partition);
        self.until_some(&format!("{topic}/{partition} has a leader"), |cluster| {
            cluster.leader_now(group)
        })
    }

    /// The node that leads a group in the highest term.
    pub fn leader_now(&self, group: GroupId) -> Option<usize> {
        let led = self.nodes().filter_map(|(number, node)| {
            let known = node.cluster().leadership.of(group)?;
            known.led_here.map(|_| (known.term, number))
        });
        led.max().map(|(_, number)| number)
    }

    /// How each node that runs is, for people.
    pub fn sight(&self) -> String {
        self.nodes().map(|(number, node)| format!("n{number}: {}\n", node.sight())).collect()
    }

    // -- using

    /// A connection to a node, for looking after the cluster.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn admin(&self, number: usize) -> Admin {
        self.client(number).admin()
    }

    /// A connection to a node.
    ///
    /// # Panics
    /// As [`Cluster::admin`].
    pub fn client(&self, number: usize) -> Client {
        let address = self.node(number).rpc_addr().to_string();
        block_on(Client::connect(&address, ClientOptions::default())).expect("the node answers")
    }

    /// Makes a topic and waits until each of its partitions has what it is to have.
    ///
    /// # Panics
    /// When it is refused, or not done in time.
    pub fn create_topic(&self, name: &str, partitions: u32, replication_factor: u32) {
        let (number, _) = self.nodes().next().expect("a node runs");
        let asked = pb::CreateTopicRequest {
            name: name.into(),
            partitions,
            replication_factor,
            settings: None,
        };
        block_on(self.admin(number).create_topic(asked)).expect("the topic is made");
        let name = TopicName::new(name).expect("it was made");
        self.until("the topic is known everywhere", |cluster| {
            let mut nodes = cluster.nodes();
            nodes.all(|(_, node)| node.cluster().control.catalogue().topics.contains_key(&name))
        });
        self.until_healthy();
    }

    /// Begins to produce to and consume from partition 0 of a topic, through the nodes in turn.
    pub fn load(&self, topic: &str, plan: LoadPlan) -> Load {
        let aim = Aim { addresses: Arc::clone(&self.aims), topic: topic.into() };
        Load::start(aim, plan, PATIENCE)
    }

    /// The addresses of those that run, for the clients of loads.
    fn aim(&self) {
        let all = self.nodes().map(|(_, node)| node.rpc_addr().to_string()).collect();
        *self.aims.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    // -- hurting

    /// Ends a node as if its process were killed.
    ///
    /// # Panics
    /// As [`TestNode::crash`].
    pub fn crash(&mut self, number: usize) {
        let stopped = self.take(number).crash();
        self.members[number - 1] = Member::Down(Box::new(stopped));
    }

    /// Stops a node in order.
    ///
    /// # Panics
    /// As [`TestNode::stop`].
    pub fn stop_node(&mut self, number: usize) {
        let stopped = self.take(number).stop();
        self.members[number - 1] = Member::Down(Box::new(stopped));
    }

    /// Starts a node again that was crashed or stopped, on other ports, from what is stored.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn restart(&mut self, number: usize) {
        let node = self.stopped(number).start();
        self.members[number - 1] = Member::Up(Box::new(node));
        self.aim();
    }

    /// What is left of a node that was crashed or stopped: to look at, or to be started by hand.
    ///
    /// # Panics
    /// When it runs.
    pub fn stopped(&mut self, number: usize) -> Stopped {
        match std::mem::replace(&mut self.members[number - 1], Member::Gone) {
            Member::Down(stopped) => *stopped,
            Member::Up(_) | Member::Gone => panic!("node {number} was not stopped"),
        }
    }

    /// A node that is no longer one of this cluster's.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take(&mut self, number: usize) -> TestNode {
        let Member::Up(node) = std::mem::replace(&mut self.members[number - 1], Member::Gone)
        else {
            panic!("node {number} does not run");
        };
        self.aim();
        *node
    }

    /// From now on replicas on these two nodes do not hear each other; gossip and calls go on.
    pub fn cut(&self, one: usize, other: usize) {
        self.link(one, other, true);
    }

    /// They hear each other again.
    pub fn mend(&self, one: usize, other: usize) {
        self.link(one, other, false);
    }

    /// Cuts a node off from all others that run.
    pub fn isolate(&self, number: usize) {
        let others = self.nodes().filter(|(other, _)| *other != number);
        others.for_each(|(other, _)| self.cut(number, other));
    }

    /// Mends what was cut among those that run.
    pub fn heal(&self) {
        for (one, _) in self.nodes() {
            for (other, _) in self.nodes().filter(|(other, _)| *other > one) {
                self.mend(one, other);
            }
        }
    }

    fn link(&self, one: usize, other: usize, is_cut: bool) {
        self.node(one).peers().cut(id(self.node(other)), is_cut);
        self.node(other).peers().cut(id(self.node(one)), is_cut);
    }
}

fn id(node: &TestNode) -> NodeId {
    node.cluster().control.node().expect("a member")
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes()).finish()
    }
}
