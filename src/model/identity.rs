//! Who is who in a cluster: nodes, replicas, topics, Raft groups. Numbers that the cluster gives
//! out once and never again, so that nothing that comes back can be taken for what it was.

use std::fmt;

/// A node, as its cluster counts them: from 1, never given to another one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One replica of a Raft group: the node that holds it, and which of the replicas that this node
/// was ever given. A replica that lost its files comes back under another incarnation: nobody
/// counts on votes and entries that it no longer has. Also its raft id: never 0, which stands for
/// nobody there.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct ReplicaId(u64);

impl TryFrom<u64> for ReplicaId {
    type Error = &'static str;

    fn try_from(raw: u64) -> Result<Self, Self::Error> {
        Self::from_raw(raw).ok_or("no replica has this number")
    }
}

impl From<ReplicaId> for u64 {
    fn from(replica: ReplicaId) -> Self {
        replica.raw()
    }
}

impl ReplicaId {
    /// The first replica of a group that began with one node.
    pub const FIRST: Self = Self::new(NodeId(1), 1);

    /// The replica with this incarnation on this node.
    ///
    /// # Panics
    /// When either is 0: both are counted from 1.
    pub const fn new(node: NodeId, incarnation: u32) -> Self {
        assert!(node.0 > 0 && incarnation > 0, "nodes and incarnations are counted from 1");
        Self((node.0 as u64) << 32 | incarnation as u64)
    }

    /// What [`ReplicaId::raw`] gave; `None` for a number that is no replica's.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        if raw >> 32 == 0 || raw as u32 == 0 { None } else { Some(Self(raw)) }
    }

    /// As one number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Where it is.
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> 32) as u32)
    }

    /// Which of the replicas that its node was ever given.
    pub const fn incarnation(self) -> u32 {
        self.0 as u32
    }
}

/// As in `n2#7`.
impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node(), self.incarnation())
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A topic, as its cluster counts them: from 1; a topic of the same name made later has another.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct TopicId(pub u32);

/// A Raft group: the controller's, or a partition's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u64);

impl GroupId {
    /// The group that keeps the cluster's catalogue.
    pub const CONTROLLER: Self = Self(0);
    /// Partition 0 of the topic that every cluster begins with.
    pub const LOG: Self = Self::partition_of(TopicId(1), 0);

    /// The group of a topic's partition.
    ///
    /// # Panics
    /// When the topic is 0: topics are counted from 1.
    pub const fn partition_of(topic: TopicId, partition: u32) -> Self {
        assert!(topic.0 > 0, "topics are counted from 1");
        Self((topic.0 as u64) << 32 | partition as u64)
    }

    /// What [`GroupId::raw`] gave; `None` for a number that is no group's.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        if raw != 0 && raw >> 32 == 0 { None } else { Some(Self(raw)) }
    }

    /// As one number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Topic and partition; `None` for the controller's group.
    pub const fn partition(self) -> Option<(TopicId, u32)> {
        if self.0 == 0 { None } else { Some((TopicId((self.0 >> 32) as u32), self.0 as u32)) }
    }
}

/// As in `controller`, or `1/0` for partition 0 of topic 1.
impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition() {
            None => f.write_str("controller"),
            Some((topic, partition)) => write!(f, "{}/{partition}", topic.0),
        }
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_read_back_or_refused(raw: u64) {
            if let Some(replica) = ReplicaId::from_raw(raw) {
                prop_assert_eq!(ReplicaId::new(replica.node(), replica.incarnation()).raw(), raw);
            }
            if let Some(group) = GroupId::from_raw(raw) {
                let again = group.partition().map_or(GroupId::CONTROLLER, |(topic, partition)| {
                    GroupId::partition_of(topic, partition)
                });
                prop_assert_eq!(again.raw(), raw);
            }
        }
    }

    #[test]
    fn numbers_of_nobody_are_refused() {
        assert_eq!(ReplicaId::from_raw(0), None);
        assert_eq!(ReplicaId::from_raw(1), None, "the raft id of a lone voter of format 1");
        assert_eq!(ReplicaId::from_raw(7 << 32), None);
        assert!(serde_json::from_str::<ReplicaId>("0").is_err(), "nor in a file");
        let read = serde_json::from_str("8589934599").ok();
        assert_eq!(read, Some(ReplicaId::new(NodeId(2), 7)));
        assert_eq!(GroupId::from_raw(5), None);
        assert_eq!(ReplicaId::new(NodeId(2), 7).to_string(), "n2#7");
        assert_eq!(GroupId::LOG.to_string(), "1/0");
    }
}
