//! The seam between front ends and all partitions of a node: which topic and partition a request
//! means, whether this node holds it, and where in the cluster to go if not.

use super::partition::{LeaderHint, PartitionApi, PartitionStatus};
use crate::model::{NodeId, Term};

/// Of a list within a sentence so many are named.
const NAMED_MAX: usize = 5;

/// Everything a front end may ask about topics. Cheap to clone, callable from any thread.
pub trait TopicsApi: Clone + Send + Sync + Unpin + 'static {
    /// What a partition of this node is reached by.
    type Partition: PartitionApi;

    /// Finds a partition. On the way of every request.
    ///
    /// # Errors
    /// A name that can be no topic's, then an unknown topic, then an unknown partition.
    fn partition(&self, topic: &str, partition: u32) -> Result<Found<Self::Partition>, TopicError>;

    /// The partitions of a topic that this node holds, and how each is; those that it was given
    /// and cannot start are among them.
    ///
    /// # Errors
    /// As [`TopicsApi::partition`].
    fn here(&self, topic: &str) -> Result<Vec<(u32, PartitionStatus)>, TopicError>;

    /// Who leads a partition, as far as this node knows.
    fn leader(&self, topic: &str, partition: u32) -> Option<LeaderHint>;

    /// Where a node is reached; empty where that is not known.
    fn address_of(&self, node: NodeId) -> String;

    /// What a client needs to find its way.
    fn cluster(&self) -> ClusterView;
}

/// Where a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<P> {
    /// A replica is here.
    Here(P),
    /// Only other nodes have replicas.
    Elsewhere(Elsewhere),
}

/// Where a partition is that this node has no replica of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The topic and the partition's number.
    pub place: (String, u32),
    /// Who leads, where that is known.
    pub leader: Option<LeaderHint>,
    /// Who has a replica.
    pub nodes: Vec<NodeAt>,
}

impl Elsewhere {
    /// What somebody is told who wanted to read.
    pub fn sentence(&self) -> String {
        let (topic, partition) = &self.place;
        let named = self.nodes.iter().take(NAMED_MAX).map(NodeAt::to_string);
        match named.collect::<Vec<_>>() {
            none if none.is_empty() => {
                format!("this node has no replica of {topic}/{partition}, and knows of none")
            }
            nodes => format!(
                "this node has no replica of {topic}/{partition}: ask {}",
                nodes.join(" or ")
            ),
        }
    }
}

/// A node and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAt {
    /// Its number.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// Where clients reach it; empty where that is not known.
    pub rpc_addr: String,
}

/// As in `n2 (127.0.0.1:8400)`.
impl std::fmt::Display for NodeAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.id, self.rpc_addr)
    }
}

/// All topics and nodes, as this node knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// The cluster's identity; empty before there is one.
    pub cluster_id: String,
    /// Its nodes, in order of their numbers.
    pub nodes: Vec<NodeAt>,
    /// Its topics, in order of their names.
    pub topics: Vec<TopicView>,
    /// The node that leads the controller.
    pub controller_leader: Option<NodeId>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Its partitions, from 0.
    pub partitions: Vec<PartitionView>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number.
    pub partition: u32,
    /// The node that leads it.
    pub leader: Option<NodeId>,
    /// In which term; 0 where nobody is known to.
    pub term: Term,
    /// The nodes that have a replica.
    pub replicas: Vec<NodeId>,
}

impl ClusterView {
    /// The node that leads a partition.
    pub fn leader_of(&self, topic: &str, partition: u32) -> Option<NodeId> {
        let topic = self.topics.iter().find(|known| known.name == topic)?;
        topic.partitions.iter().find(|known| known.partition == partition)?.leader
    }
}

/// When to ask again for a topic that a node does not know yet.
pub const CATALOGUE_RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(100);

/// Why a request's topic or partition is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name can never be a topic's.
    #[error(transparent)]
    Name(#[from] crate::model::TopicNameError),
    /// There is no such topic.
    #[error("there is no topic {topic:?}{}", known_topics(known))]
    UnknownTopic {
        /// The name asked for; it has passed the allow-list.
        topic: String,
        /// A few of those that there are.
        known: Vec<String>,
    },
    /// This node does not know all topics yet.
    #[error(
        "this node does not know a topic {topic:?}, nor yet all topics of its cluster: ask again"
    )]
    NotKnownYet {
        /// The name asked for; it has passed the allow-list.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic:?} has no partition {partition}{}", known_partitions(*partitions))]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many it has, from 0.
        partitions: u32,
    },
}

fn known_topics(known: &[String]) -> String {
    match known {
        [] => "; there is no topic at all yet: `duramen topic create` makes one".into(),
        known => {
            let named = known.iter().take(NAMED_MAX).map(|name| format!("{name:?}"));
            let more = if known.len() > NAMED_MAX { ", …" } else { "" };
            format!("; there are {}{more}", named.collect::<Vec<_>>().join(", "))
        }
    }
}

fn known_partitions(partitions: u32) -> String {
    match partitions {
        0 => String::new(),
        1 => "; its one partition is 0".into(),
        many => format!("; its partitions are 0 to {}", many - 1),
    }
}

impl TopicError {
    /// Who must act: always the caller.
    pub fn disposition(&self) -> crate::model::Disposition {
        crate::model::Disposition::TellCaller
    }

    /// No such topic; `known` are all that there are.
    pub fn unknown_topic<'n>(topic: &str, known: impl Iterator<Item = &'n str>) -> Self {
        let known = known.take(NAMED_MAX + 1).map(str::to_owned).collect();
        Self::UnknownTopic { topic: topic.to_owned(), known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_what_is_not_there_is_told_what_is() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let error = TopicError::unknown_topic("orders", names.into_iter());
        let told = r#"there is no topic "orders"; there are "a", "b", "c", "d", "e", …"#;
        assert_eq!(error.to_string(), told);
        let error =
            TopicError::UnknownPartition { topic: "log".into(), partition: 7, partitions: 3 };
        let told = r#"topic "log" has no partition 7; its partitions are 0 to 2"#;
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn a_reader_at_the_wrong_node_is_told_the_right_ones() {
        let node = |id| NodeAt { id: NodeId(id), name: "x".into(), rpc_addr: format!("h:{id}") };
        let place = ("orders".to_owned(), 4);
        let there = Elsewhere { place, leader: None, nodes: vec![node(2), node(3)] };
        let told = "this node has no replica of orders/4: ask n2 (h:2) or n3 (h:3)";
        assert_eq!(there.sentence(), told);
        let nowhere = Elsewhere { nodes: Vec::new(), ..there };
        assert!(nowhere.sentence().ends_with("knows of none"));
    }
}
