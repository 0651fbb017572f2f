//! Topics in memory: what is here, what is elsewhere and who leads is as the test says.

use super::memory::MemoryPartition;
use duramen::actors::partition::{LeaderHint, PartitionApi, PartitionStatus};
use duramen::actors::topics::{
    ClusterView, Elsewhere, Found, NodeAt, PartitionView, TopicError, TopicView, TopicsApi,
};
use duramen::model::{NodeId, Term, TopicName};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Place = (String, u32);

#[derive(Default)]
struct State {
    /// Every partition there is; `None` where it has no replica here.
    partitions: BTreeMap<Place, Option<MemoryPartition>>,
    leaders: BTreeMap<Place, LeaderHint>,
    nodes: Vec<NodeAt>,
}

/// The double.
#[derive(Clone, Default)]
pub struct MemoryTopics(Arc<Mutex<State>>);

impl MemoryTopics {
    /// Of one node, number 1, that leads log/0.
    pub fn of_one(partition: &MemoryPartition, name: &str, rpc_addr: &str) -> Self {
        let topics = Self::default();
        topics.node(1, name, rpc_addr);
        topics.put("log", 0, Some(partition));
        topics.led_by("log", 0, 1, rpc_addr);
        topics
    }

    /// There is such a node.
    pub fn node(&self, id: u32, name: &str, rpc_addr: &str) {
        let (id, name, rpc_addr) = (NodeId(id), name.to_owned(), rpc_addr.to_owned());
        self.0.lock().unwrap().nodes.push(NodeAt { id, name, rpc_addr });
    }

    /// There is such a partition, here or not.
    pub fn put(&self, topic: &str, partition: u32, here: Option<&MemoryPartition>) {
        let mut state = self.0.lock().unwrap();
        state.partitions.insert((topic.to_owned(), partition), here.cloned());
    }

    /// A node leads it.
    pub fn led_by(&self, topic: &str, partition: u32, node: u32, rpc_addr: &str) {
        let (node, rpc_addr) = (NodeId(node), rpc_addr.to_owned());
        let hint = LeaderHint { node, rpc_addr, term: Term(4) };
        self.0.lock().unwrap().leaders.insert((topic.to_owned(), partition), hint);
    }

    /// Nobody is known to lead it.
    pub fn led_by_nobody(&self, topic: &str, partition: u32) {
        self.0.lock().unwrap().leaders.remove(&(topic.to_owned(), partition));
    }
}

impl TopicsApi for MemoryTopics {
    type Partition = MemoryPartition;

    fn partition(&self, topic: &str, partition: u32) -> Result<Found<MemoryPartition>, TopicError> {
        let place = (topic.to_owned(), partition);
        let state = self.0.lock().unwrap();
        match state.partitions.get(&place) {
            Some(Some(here)) => Ok(Found::Here(here.clone())),
            Some(None) => Ok(Found::Elsewhere(Elsewhere {
                leader: state.leaders.get(&place).cloned(),
                nodes: state.nodes.iter().filter(|node| node.id.0 != 1).cloned().collect(),
                place,
            })),
            None => {
                TopicName::new(topic)?;
                let names = state.partitions.keys().map(|(name, _)| name.as_str());
                let partitions = names.clone().filter(|name| *name == topic).count() as u32;
                Err(match partitions {
                    0 => TopicError::unknown_topic(topic, names),
                    _ => {
                        TopicError::UnknownPartition { topic: topic.into(), partition, partitions }
                    }
                })
            }
        }
    }

    fn here(&self, topic: &str) -> Result<Vec<(u32, PartitionStatus)>, TopicError> {
        self.partition(topic, 0)?;
        let state = self.0.lock().unwrap();
        let of_it = state.partitions.iter().filter(|((name, _), _)| name == topic);
        let here = of_it.filter_map(|((_, n), here)| Some((*n, here.as_ref()?.describe())));
        Ok(here.collect())
    }

    fn leader(&self, topic: &str, partition: u32) -> Option<LeaderHint> {
        self.0.lock().unwrap().leaders.get(&(topic.to_owned(), partition)).cloned()
    }

    fn address_of(&self, node: NodeId) -> String {
        let state = self.0.lock().unwrap();
        let found = state.nodes.iter().find(|known| known.id == node);
        found.map(|known| known.rpc_addr.clone()).unwrap_or_default()
    }

    fn cluster(&self) -> ClusterView {
        let state = self.0.lock().unwrap();
        let mut topics: Vec<TopicView> = Vec::new();
        for ((name, partition), here) in &state.partitions {
            if topics.last().is_none_or(|last| last.name != *name) {
                let id = topics.len() as u32 + 1;
                topics.push(TopicView { name: name.clone(), id, partitions: Vec::new() });
            }
            let leader = state.leaders.get(&(name.clone(), *partition));
            let others = state.nodes.iter().map(|node| node.id).filter(|id| id.0 != 1);
            let here = here.iter().map(|_| NodeId(1));
            topics.last_mut().unwrap().partitions.push(PartitionView {
                partition: *partition,
                leader: leader.map(|hint| hint.node),
                term: leader.map_or(Term(0), |hint| hint.term),
                replicas: here.chain(others).collect(),
            });
        }
        let (cluster_id, nodes) = ("c1".to_owned(), state.nodes.clone());
        ClusterView { cluster_id, nodes, topics, controller_leader: Some(NodeId(1)) }
    }
}
