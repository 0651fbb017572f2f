//! The catalogue: the state that the controller's group agrees on. Every node holds it whole.

use crate::model::{GroupId, NodeId, ReplicaId, TopicId, TopicName};
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
}

impl Placement {
    /// The replicas that the group is to consist of: those that are to go are left out.
    pub fn wanted(&self) -> Vec<ReplicaId> {
        let staying = self.replicas.iter().filter(|r| r.state != ReplicaState::Leaving);
        staying.map(|replica| replica.id).collect()
    }
}
