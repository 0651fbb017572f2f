//! Commands to the catalogue: what is proposed to the controller's group, one per record, as JSON.

use super::access::AccessChange;
use super::catalogue::TopicSettings;
use crate::access::{ANYONE, Action};
use crate::model::{Disposition, GroupId, NodeId, ReplicaId, Term, TopicName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A change of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command: a cluster of one node, number 1, with the topic `log`.
    Found {
        /// The cluster's identity.
        cluster_id: String,
        /// The node that makes it.
        node: NodeSelf,
    },
    /// A node becomes a member, or comes back under another address.
    Register(NodeSelf),
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// How many partitions.
        partitions: u32,
        /// How many replicas of each.
        replication_factor: u32,
        /// What differs from the nodes' settings.
        settings: TopicSettings,
    },
    /// Changes a topic; what is `None` stays.
    AlterTopic {
        /// Its name.
        name: TopicName,
        /// Partitions can only be added.
        partitions: Option<u32>,
        /// How many replicas of each.
        replication_factor: Option<u32>,
        /// Set as given; an empty value removes a key.
        settings: TopicSettings,
    },
    /// Removes a topic with all its records.
    DeleteTopic {
        /// Its name.
        name: TopicName,
    },
    /// A node is to get a replica of a partition.
    AddReplica {
        /// The partition, by [`GroupId::raw`].
        group: u64,
        /// Where.
        node: NodeId,
    },
    /// A replica is to go.
    DropReplica {
        /// The partition, by [`GroupId::raw`].
        group: u64,
        /// Which.
        replica: ReplicaId,
    },
    /// The order in which a partition's replicas are to lead.
    PreferLeader {
        /// The partition, by [`GroupId::raw`].
        group: u64,
        /// Which comes first.
        replica: ReplicaId,
    },
    /// What a group's leader says of its members. Replicas that vote become members, those that
    /// were to go and are gone leave the catalogue.
    GroupIs {
        /// The group, by [`GroupId::raw`].
        group: u64,
        /// The leader's term: older news is ignored.
        term: Term,
        /// Who votes.
        voters: Vec<ReplicaId>,
        /// Who follows without a vote.
        learners: Vec<ReplicaId>,
    },
    /// Several of them at once, for the leaders of one node. What cannot be taken of one group does not
    /// hold the others up.
    GroupsAre {
        /// What is said of each.
        groups: Vec<GroupNews>,
    },
    /// A node hands over what it has, and goes.
    Leave {
        /// Which.
        node: NodeId,
    },
    /// A node is no member any more.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// All members speak a newer protocol: from now on it is used.
    RaiseProtocol {
        /// Which.
        protocol: u32,
    },
    /// Changes who may do what.
    Access(AccessChange),
}

/// What a group's leader says of its members; see [`Command::GroupIs`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the field of the same name of the command")]
pub struct GroupNews {
    pub group: u64,
    pub term: Term,
    pub voters: Vec<ReplicaId>,
    pub learners: Vec<ReplicaId>,
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the field of the same name of the catalogue's Node")]
pub struct NodeSelf {
    pub uuid: String,
    pub name: String,
    pub rpc_addr: String,
    pub gossip_addr: String,
    pub version: String,
    pub protocol_min: u32,
    pub protocol_max: u32,
    pub labels: BTreeMap<String, String>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The node's number.
    Node(NodeId),
    /// The replica that was given out, or that goes.
    Replica(ReplicaId),
}

/// Why the catalogue does not take a command. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What kind of no it is.
    pub kind: RejectionKind,
    /// What is wrong, why, and what to do.
    pub message: String,
}

/// What kind of no a [`Rejection`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectionKind {
    /// There is such a thing already.
    Exists,
    /// There is no such thing.
    NotFound,
    /// A value is not possible.
    Invalid,
    /// The state of the cluster does not allow it.
    NotNow,
    /// It is somebody else's: another cluster, another directory, another protocol.
    Foreign,
    /// Whoever asked may not.
    Denied,
}

impl Rejection {
    /// Who must act: always the caller.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

impl Command {
    /// The right that a client needs to ask for it, and on what; `None`: only nodes do, by themselves.
    pub fn needs(&self) -> Option<(Action, &str)> {
        match self {
            Self::CreateTopic { name, .. } => Some((Action::Create, name.as_str())),
            Self::AlterTopic { name, .. } => Some((Action::Alter, name.as_str())),
            Self::DeleteTopic { name } => Some((Action::Delete, name.as_str())),
            Self::AddReplica { .. }
            | Self::DropReplica { .. }
            | Self::PreferLeader { .. }
            | Self::Leave { .. }
            | Self::Remove { .. }
            | Self::Access(_) => Some((Action::Admin, ANYONE)),
            Self::Found { .. }
            | Self::Register(_)
            | Self::GroupIs { .. }
            | Self::GroupsAre { .. }
            | Self::RaiseProtocol { .. } => None,
        }
    }

    /// The group that a command is about.
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Self::AddReplica { group, .. }
            | Self::DropReplica { group, .. }
            | Self::PreferLeader { group, .. }
            | Self::GroupIs { group, .. } => GroupId::from_raw(*group),
            _ => None,
        }
    }
}
