//! All topics as front ends see them: what is here from the registry, what is elsewhere from the
//! catalogue and the table of leaders.

use super::partitions::{Growth, Local, Registry};
use crate::actors::control::ControlApi;
use crate::actors::handle::PartitionHandle;
use crate::actors::leadership::Leadership;
use crate::actors::partition::{
    LeaderHint, PartitionApi, PartitionState, PartitionStatus, ReplicaRole,
};
use crate::actors::presence::{PresenceBoard, Seen};
use crate::actors::topics::{
    ClusterView, Elsewhere, Found, NodeAt, PartitionView, TopicError, TopicView, TopicsApi,
};
use crate::cluster::{Catalogue, NodeState, Topic};
use crate::model::{Durability, GroupId, NodeId, Offset, Term, TopicName};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct NodeTopics {
    pub partitions: Registry,
    pub control: Arc<dyn ControlApi>,
    pub leadership: Arc<Leadership>,
    pub presence: PresenceBoard,
    /// Set where nobody may append: where to.
    pub read_only: Option<Arc<str>>,
}

impl NodeTopics {
    /// The group of a partition that is in the catalogue, or here and not there any more.
    fn group(&self, topic: &str, partition: u32) -> Option<GroupId> {
        let known = self.control.catalogue().topics.get(topic).map(|topic| topic.id);
        let listed = known.map(|id| GroupId::partition_of(id, partition));
        listed.or_else(|| self.partitions.local(topic, partition).map(|local| local.plan.group))
    }

    fn leader_of(&self, group: GroupId) -> Option<LeaderHint> {
        let (node, term) = self.known_leader(group)?;
        Some(LeaderHint { node, rpc_addr: self.address_of(node), term })
    }

    fn known_leader(&self, group: GroupId) -> Option<(NodeId, Term)> {
        let known = self.leadership.of(group);
        let told = known.and_then(|known| Some((known.leader?.node(), known.term)));
        told.or_else(|| {
            let here = self.partitions.of_group(group)?;
            let published = here.planted()?.handle.published();
            let leads = published.replica().role == ReplicaRole::Leader;
            leads.then(|| (here.plan.me.node(), published.term()))
        })
    }

    fn elsewhere(&self, topic: &str, partition: u32) -> Result<Elsewhere, TopicError> {
        let name = TopicName::new(topic)?;
        let catalogue = self.control.catalogue();
        let Some(known) = catalogue.topics.get(&name) else {
            if !self.control.is_current() {
                return Err(TopicError::NotKnownYet { topic: topic.into() });
            }
            let names = catalogue.topics.keys().map(TopicName::as_str);
            return Err(TopicError::unknown_topic(topic, names));
        };
        let Some(placement) = known.partitions.get(partition as usize) else {
            let partitions = u32::try_from(known.partitions.len()).unwrap_or(u32::MAX);
            return Err(TopicError::UnknownPartition {
                topic: topic.into(),
                partition,
                partitions,
            });
        };
        let me = self.control.node();
        let others = placement.replicas.iter().map(|replica| replica.id.node());
        let nodes = others.filter(|node| Some(*node) != me);
        Ok(Elsewhere {
            place: (topic.to_owned(), partition),
            leader: self.leader_of(GroupId::partition_of(known.id, partition)),
            nodes: nodes.filter_map(|node| self.node_at(&catalogue, node)).collect(),
        })
    }

    fn node_at(&self, catalogue: &Catalogue, id: NodeId) -> Option<NodeAt> {
        let name = catalogue.nodes.get(&id)?.name.clone();
        Some(NodeAt { id, name, rpc_addr: self.address_of(id) })
    }

    fn view_of(&self, name: &TopicName, topic: &Topic) -> TopicView {
        let partitions = (0u32..).zip(&topic.partitions).map(|(partition, placement)| {
            let known = self.known_leader(GroupId::partition_of(topic.id, partition));
            PartitionView {
                partition,
                leader: known.map(|(node, _)| node),
                term: known.map_or(Term(0), |(_, term)| term),
                replicas: placement.replicas.iter().map(|replica| replica.id.node()).collect(),
            }
        });
        TopicView { name: name.to_string(), id: topic.id.0, partitions: partitions.collect() }
    }
}

/// How a replica is that was not started.
pub(super) fn status_of(local: &Local) -> PartitionStatus {
    match &local.growth {
        Growth::Planted(planted) => planted.handle.describe(),
        Growth::Absent(_, reason) => PartitionStatus {
            state: PartitionState::Quarantined,
            reason: reason.clone(),
            start: Offset(0),
            high_watermark: Offset(0),
            size_bytes: 0,
            segments: 0,
            term: Term(0),
            durability: Durability::Fsync,
            flushes: 0,
            refused: 0,
            restarts: 0,
            role: ReplicaRole::Starting,
            leader: None,
            replicas: Vec::new(),
            source_end: None,
        },
    }
}

impl TopicsApi for NodeTopics {
    type Partition = PartitionHandle;

    fn partition(&self, topic: &str, partition: u32) -> Result<Found<PartitionHandle>, TopicError> {
        match self.partitions.get(topic, partition) {
            Some(handle) => Ok(Found::Here(match &self.read_only {
                Some(reason) => handle.read_only(Arc::clone(reason)),
                None => handle,
            })),
            None => self.elsewhere(topic, partition).map(Found::Elsewhere),
        }
    }

    fn here(&self, topic: &str) -> Result<Vec<(u32, PartitionStatus)>, TopicError> {
        let here = self.partitions.of_topic(topic);
        if here.is_empty() {
            self.elsewhere(topic, 0)?;
        }
        Ok(here.iter().map(|(partition, local)| (*partition, status_of(local))).collect())
    }

    fn leader(&self, topic: &str, partition: u32) -> Option<LeaderHint> {
        self.leader_of(self.group(topic, partition)?)
    }

    fn address_of(&self, node: NodeId) -> String {
        // What the node itself says now is newer than what it registered.
        let present = self.presence.of(node).filter(|present| present.seen == Seen::Alive);
        let told = present.map(|present| present.rpc_addr).filter(|addr| !addr.is_empty());
        let listed = || self.control.catalogue().nodes.get(&node).map(|node| node.rpc_addr.clone());
        told.or_else(listed).unwrap_or_default()
    }

    fn cluster(&self) -> ClusterView {
        let catalogue = self.control.catalogue();
        let members = catalogue.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        ClusterView {
            cluster_id: catalogue.cluster_id.clone(),
            nodes: members.filter_map(|(id, _)| self.node_at(&catalogue, *id)).collect(),
            topics: catalogue
                .topics
                .iter()
                .map(|(name, topic)| self.view_of(name, topic))
                .collect(),
            controller_leader: self.control.leader(),
        }
    }
}
