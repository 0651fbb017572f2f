//! The catalogue: the state that the controller's group agrees on. Every node holds it whole.

use super::access::Access;
use crate::model::{GroupId, NodeId, ReplicaId, Term, TopicId, TopicName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a cluster knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalogue {
    /// The cluster's identity, drawn when it was made; empty before.
    pub cluster_id: String,
    /// The protocol that its members speak among themselves.
    pub protocol: u32,
    /// Its nodes, those that were removed included: their numbers are not given out again.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Its topics.
    pub topics: BTreeMap<TopicName, Topic>,
    /// The number of the topic made last.
    pub last_topic: u32,
    /// The incarnation given out last, over all nodes.
    pub last_incarnation: u32,
    /// What the leader of the controller's own group said last of its members.
    #[serde(default)]
    pub controller: GroupMembers,
    /// Who may do what.
    #[serde(default)]
    pub access: Access,
}

/// The members of a group, as its leader told them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupMembers {
    /// The leader's term.
    pub term: Term,
    /// Who votes.
    pub voters: Vec<ReplicaId>,
    /// Who follows without a vote.
    pub learners: Vec<ReplicaId>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The identity of its data directory.
    pub uuid: String,
    /// What people call it.
    pub name: String,
    /// Where clients and other nodes reach it.
    pub rpc_addr: String,
    /// Where it gossips.
    pub gossip_addr: String,
    /// The version of its program.
    pub version: String,
    /// The newest protocol that it speaks.
    pub protocol_max: u32,
    /// Labels, as `rack`.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes replicas.
    pub state: NodeState,
}

/// Whether a node takes replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It does.
    Active,
    /// It hands over what it has, and is removed then.
    Leaving,
    /// It is no member any more.
    Removed,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its number.
    pub id: TopicId,
    /// How many replicas each partition is to have, as far as there are nodes.
    pub replication_factor: u32,
    /// What differs from the nodes' own settings.
    pub settings: TopicSettings,
    /// Its partitions, from 0.
    pub partitions: Vec<Placement>,
}

/// Settings of a topic by key, as in section `log` of a node's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicSettings(pub BTreeMap<String, String>);

/// Where the replicas of a partition are to be. The first one leads, when nothing speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// In order of preference.
    pub replicas: Vec<Replica>,
    /// The voters that the group begins with, all at once: they never change, whatever becomes of
    /// them, as each replica must begin with the same. None where the first replica that was
    /// given out begins alone, as before protocol 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub founders: Vec<ReplicaId>,
    /// The term of the group's leader that told of its members last; older news is ignored.
    #[serde(default)]
    pub term: Term,
}

/// A replica as it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Which.
    pub id: ReplicaId,
    /// How far it is.
    pub state: ReplicaState,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaState {
    /// It is being brought up, and does not vote yet.
    Joining,
    /// It votes.
    Member,
    /// It is to go; it goes from here once its group has let it go.
    Leaving,
}

/// A replica that a node is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosted<'c> {
    /// The topic's name.
    pub topic: &'c TopicName,
    /// The partition's group.
    pub group: GroupId,
    /// The partition's number.
    pub partition: u32,
    /// Which replica.
    pub replica: Replica,
    /// What differs from the node's own settings.
    pub settings: &'c TopicSettings,
}

impl Catalogue {
    /// The replicas that a node is to hold.
    pub fn hosted_by(&self, node: NodeId) -> impl Iterator<Item = Hosted<'_>> {
        self.topics.iter().flat_map(move |(name, topic)| {
            (0u32..).zip(&topic.partitions).flat_map(move |(partition, placement)| {
                let group = GroupId::partition_of(topic.id, partition);
                let here = placement.replicas.iter().filter(move |r| r.id.node() == node);
                here.map(move |replica| Hosted {
                    topic: name,
                    group,
                    partition,
                    replica: *replica,
                    settings: &topic.settings,
                })
            })
        })
    }

    /// Where a group's replicas are to be; `None` for one that is not there (and the controller's).
    pub fn placement(&self, group: GroupId) -> Option<&Placement> {
        let (id, partition) = group.partition()?;
        let topic = self.topics.values().find(|topic| topic.id == id)?;
        topic.partitions.get(partition as usize)
    }

    /// Whether there is a cluster at all: the first command made it.
    pub fn is_founded(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// All partitions with their topics, by group.
    pub fn partitions(&self) -> impl Iterator<Item = (GroupId, &TopicName, &Topic, &Placement)> {
        self.topics.iter().flat_map(|(name, topic)| {
            (0u32..).zip(&topic.partitions).map(move |(number, placement)| {
                (GroupId::partition_of(topic.id, number), name, topic, placement)
            })
        })
    }

    /// How people call a partition: `orders/3`; `controller` for its group.
    pub fn name_of(&self, group: GroupId) -> String {
        let Some((id, partition)) = group.partition() else { return "controller".into() };
        let topic = self.topics.iter().find(|(_, topic)| topic.id == id);
        topic.map_or_else(|| group.to_string(), |(name, _)| format!("{name}/{partition}"))
    }

    /// The node that people mean: by its name, the identity of its directory, or its number (`2`
    /// or `n2`). Nodes that were removed are found by identity and number only.
    pub fn find_node(&self, asked: &str) -> Option<(NodeId, &Node)> {
        let by = |is_it: &dyn Fn(NodeId, &Node) -> bool| {
            self.nodes.iter().find(|(id, node)| is_it(**id, node)).map(|(id, node)| (*id, node))
        };
        let number = asked.strip_prefix('n').unwrap_or(asked).parse().ok().map(NodeId);
        by(&|_, node| node.state != NodeState::Removed && node.name == asked)
            .or_else(|| by(&|_, node| node.uuid == asked))
            .or_else(|| by(&|id, _| Some(id) == number))
    }

    /// A protocol newer than the cluster's that all members speak: an upgrade of them all is over.
    pub fn protocol_to_raise(&self) -> Option<u32> {
        let members = self.nodes.values().filter(|node| node.state != NodeState::Removed);
        let spoken = members.map(|node| node.protocol_max).min()?;
        (spoken > self.protocol).then_some(spoken)
    }

    /// The nodes that take replicas.
    pub fn active_nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let active = self.nodes.iter().filter(|(_, node)| node.state == NodeState::Active);
        active.map(|(id, node)| (*id, node))
    }
}

impl Placement {
    /// The replicas that are to stay, in order of preference.
    pub fn staying(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.state != ReplicaState::Leaving)
    }

    /// The replicas that the group is to consist of: those that are to go are left out.
    pub fn wanted(&self) -> Vec<ReplicaId> {
        self.staying().map(|replica| replica.id).collect()
    }

    /// The replicas of a node.
    pub fn on(&self, node: NodeId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id.node() == node)
    }
}
