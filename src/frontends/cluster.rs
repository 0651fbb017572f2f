//! The cluster in the words of `duramen.v1.Admin`: topics, nodes, and what is not well.

use crate::access::Gate;
use crate::actors::control::ControlApi;
use crate::actors::leadership::Leadership;
use crate::actors::peers::PeerPost;
use crate::actors::presence::{PresenceBoard, Seen};
use crate::cluster::{
    Catalogue, Node, NodeState, Placement, Replica, ReplicaState, Topic, controller_group,
};
use crate::model::{GroupId, NodeId, TopicName};
use crate::wire::pb::duramen::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sentences about what is not well; the rest is counted.
const TROUBLES_MAX: usize = 100;
/// Partitions named in one sentence.
const NAMED_MAX: usize = 5;

/// What is known of the cluster where this is asked.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// The catalogue, and the way to change it.
    pub control: Arc<dyn ControlApi>,
    /// Who leads which group.
    pub leadership: Arc<Leadership>,
    /// Who is there.
    pub presence: PresenceBoard,
    /// The ways to the others: a connection that has ended tells before gossip does.
    pub peers: Arc<dyn PeerPost>,
    /// Whom this node lets pass.
    pub gate: Gate,
}

impl ClusterView {
    /// How gossip sees a member; `None`: not at all. Where it shows no other node, it says nothing.
    fn seen(&self, node: NodeId) -> Option<Seen> {
        if self.control.node() == Some(node) {
            return Some(Seen::Alive);
        }
        self.presence.of(node).map(|present| present.seen)
    }

    fn gossips(&self) -> bool {
        let me = self.control.node();
        self.presence.now().values().any(|present| present.node.is_some() && present.node != me)
    }

    /// The members that are there, as far as can be said.
    pub fn alive(&self, catalogue: &Catalogue) -> BTreeSet<NodeId> {
        let gossips = self.gossips();
        let is_there = |node: &NodeId| {
            let seen = self.seen(*node);
            !gossips || matches!(seen, Some(Seen::Alive | Seen::Suspect))
        };
        let members = catalogue.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        members.map(|(id, _)| *id).filter(is_there).collect()
    }

    /// The node that leads a group, and its term.
    pub fn leader(&self, group: GroupId) -> (Option<NodeId>, u64) {
        let known = self.leadership.of(group);
        known.map_or((None, 0), |known| (known.leader.map(|leader| leader.node()), known.term.0))
    }

    /// A topic.
    pub fn topic(&self, name: &TopicName, topic: &Topic) -> pb::TopicDescription {
        let partitions = (0u32..).zip(&topic.partitions);
        let partitions = partitions.map(|(partition, placement)| {
            let (leader, term) = self.leader(GroupId::partition_of(topic.id, partition));
            pb::PartitionPlacement {
                partition,
                leader: leader.map_or(0, |node| node.0),
                term,
                replicas: placement.replicas.iter().map(replica).collect(),
            }
        });
        pb::TopicDescription {
            name: name.to_string(),
            id: topic.id.0,
            replication_factor: topic.replication_factor,
            settings: Some(pb::TopicSettings {
                values: topic.settings.0.clone().into_iter().collect(),
            }),
            partitions: partitions.collect(),
        }
    }

    /// Everything.
    pub fn status(&self) -> pb::ClusterStatus {
        let catalogue = self.control.catalogue();
        let (controller_leader, controller_term) = self.leader(GroupId::CONTROLLER);
        let mut leaders: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (group, ..) in catalogue.partitions() {
            if let (Some(node), _) = self.leader(group) {
                *leaders.entry(node).or_default() += 1;
            }
        }
        let nodes = catalogue.nodes.iter().map(|(id, node)| {
            let leads = leaders.get(id).copied().unwrap_or_default();
            self.node(&catalogue, *id, node, leads)
        });
        let troubles = self.troubles(&catalogue);
        pb::ClusterStatus {
            cluster_id: catalogue.cluster_id.clone(),
            node: self.control.node().map_or(0, |node| node.0),
            controller_leader: controller_leader.map_or(0, |node| node.0),
            controller_term,
            protocol: catalogue.protocol,
            nodes: nodes.collect(),
            topics: catalogue.topics.iter().map(|(name, topic)| self.topic(name, topic)).collect(),
            healthy: troubles.is_empty(),
            troubles,
        }
    }

    fn node(&self, catalogue: &Catalogue, id: NodeId, node: &Node, leaders: u32) -> pb::NodeStatus {
        let presence = match self.seen(id) {
            _ if node.state == NodeState::Removed => "unknown",
            Some(seen) => seen_name(seen),
            None => "unknown",
        };
        let state = match node.state {
            NodeState::Active => "active",
            NodeState::Leaving => "leaving",
            NodeState::Removed => "removed",
        };
        let is_leaving = node.state == NodeState::Leaving;
        pb::NodeStatus {
            id: id.0,
            uuid: node.uuid.clone(),
            name: node.name.clone(),
            rpc_addr: node.rpc_addr.clone(),
            gossip_addr: node.gossip_addr.clone(),
            version: node.version.clone(),
            labels: node.labels.clone().into_iter().collect(),
            state: state.into(),
            presence: presence.into(),
            controller_voter: votes(catalogue, id),
            replicas: catalogue.hosted_by(id).count() as u32,
            leaders,
            progress: if is_leaving { progress(catalogue, id) } else { String::new() },
        }
    }

    /// What is not well, one sentence each.
    fn troubles(&self, catalogue: &Catalogue) -> Vec<String> {
        if !catalogue.is_founded() {
            return vec![
                "this node is not a member of a cluster yet: `duramen explain node` or its log \
                 tells what it waits for"
                    .into(),
            ];
        }
        let me = self.control.node().and_then(|me| catalogue.nodes.get(&me));
        if me.is_some_and(|me| me.state == NodeState::Removed) {
            return vec![
                "this node was removed from its cluster, and what it shows is old: ask another \
                 one; stop this one, or start it with an empty --data-dir to join as a new one"
                    .into(),
            ];
        }
        let mut troubles = Vec::new();
        if let Some(reason) = self.gate.waits_for() {
            troubles.push(format!("this node cannot tell yet who may do what: {reason}"));
        }
        let gossips = self.gossips();
        let members: Vec<_> =
            catalogue.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed).collect();
        for (id, node) in &members {
            let seen = match self.seen(**id) {
                Some(Seen::Alive) => None,
                Some(seen) => Some(seen_name(seen)),
                None => gossips.then_some("unknown"),
            };
            let sign = match seen {
                Some(seen) => format!("gossip sees it as {seen}"),
                None if self.peers.misses(**id) => "there is no connection to it".into(),
                None => continue,
            };
            let Node { name, rpc_addr, .. } = node;
            troubles.push(format!("node {id} ({name}, {rpc_addr}) is not there: {sign}"));
        }
        let versions: BTreeSet<_> = members.iter().map(|(_, node)| node.version.as_str()).collect();
        if versions.len() > 1 {
            let mix: Vec<_> = versions.into_iter().take(NAMED_MAX).collect();
            troubles.push(format!("the nodes run different versions: {}", mix.join(", ")));
        }
        if self.leader(GroupId::CONTROLLER).0.is_none() {
            troubles.push("nobody is known to lead the controller".into());
        }
        let active = catalogue.active_nodes().count();
        for (group, name, topic, placement) in catalogue.partitions() {
            let number = group.partition().map_or(0, |(_, number)| number);
            if self.leader(group).0.is_none() {
                troubles
                    .push(format!("partition {name}/{number} has no leader that is known here"));
            }
            let goal = (topic.replication_factor as usize).min(active);
            let has = members_there(catalogue, placement);
            if has < goal {
                troubles.push(format!("partition {name}/{number} has {has} of {goal} replicas"));
            }
        }
        if troubles.len() > TROUBLES_MAX {
            let more = troubles.len() - TROUBLES_MAX;
            troubles.truncate(TROUBLES_MAX);
            troubles.push(format!("and {more} more like these"));
        }
        troubles
    }
}

/// Replicas that count: members on nodes that stay.
fn members_there(catalogue: &Catalogue, placement: &Placement) -> usize {
    let counts = |replica: &&Replica| {
        let node = catalogue.nodes.get(&replica.id.node());
        replica.state == ReplicaState::Member
            && node.is_some_and(|node| node.state == NodeState::Active)
    };
    placement.replicas.iter().filter(counts).count()
}

fn votes(catalogue: &Catalogue, node: NodeId) -> bool {
    catalogue.controller.voters.iter().any(|voter| voter.node() == node)
}

/// What still holds up a leave.
fn progress(catalogue: &Catalogue, node: NodeId) -> String {
    let left: Vec<_> = catalogue
        .hosted_by(node)
        .map(|here| format!("{}/{}", here.topic, here.partition))
        .collect();
    if !left.is_empty() {
        return format!("{} replicas to hand over: {}", left.len(), named(&left));
    }
    if votes(catalogue, node) {
        let others = controller_group(catalogue).len();
        return format!("it still votes in the controller's group, which goes on with {others}");
    }
    "everything is handed over: it is being taken out".into()
}

/// The first few of many names.
pub fn named(names: &[String]) -> String {
    let shown = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn replica(replica: &Replica) -> pb::ReplicaPlacement {
    let state = match replica.state {
        ReplicaState::Joining => "joining",
        ReplicaState::Member => "member",
        ReplicaState::Leaving => "leaving",
    };
    pb::ReplicaPlacement {
        node: replica.id.node().0,
        incarnation: replica.id.incarnation(),
        state: state.into(),
    }
}

const fn seen_name(seen: Seen) -> &'static str {
    match seen {
        Seen::Alive => "alive",
        Seen::Suspect => "suspect",
        Seen::Dead => "dead",
        Seen::Left => "left",
    }
}
