//! What a client knows of where things are. Pure: answers and hints in, addresses out.

use crate::wire::client::{LeaderHint, Target};
use crate::wire::pb::duramen::v1 as pb;
use std::collections::{BTreeMap, HashMap};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    nodes: BTreeMap<u32, String>,
    topics: HashMap<String, BTreeMap<u32, Route>>,
}

#[derive(Debug, Clone, Default)]
struct Route {
    /// The leader's node; 0: nobody known.
    leader: u32,
    term: u64,
    replicas: Vec<u32>,
}

impl Routes {
    /// Takes over what a node told of all topics, but for leaders of an older term than is known.
    pub fn learn(&mut self, told: pb::MetadataResponse) {
        let nodes = told.nodes.into_iter().filter(|node| !node.rpc_addr.is_empty());
        self.nodes = nodes.map(|node| (node.id, node.rpc_addr)).collect();
        let mut before = std::mem::take(&mut self.topics);
        for topic in told.topics {
            let mut known = before.remove(&topic.name).unwrap_or_default();
            let partitions = topic.partitions.into_iter().map(|told| {
                let known = known.remove(&told.partition).unwrap_or_default();
                let is_older = told.term < known.term;
                let (leader, term) =
                    if is_older { (known.leader, known.term) } else { (told.leader, told.term) };
                (told.partition, Route { leader, term, replicas: told.replicas })
            });
            self.topics.insert(topic.name, partitions.collect());
        }
    }

    /// Takes over who leads, as a node that does not told it; whether that is news.
    pub fn follow(&mut self, target: &Target, leader: &LeaderHint) -> bool {
        let node = self.nodes.entry(leader.node).or_default();
        let moved = *node != leader.address;
        node.clone_from(&leader.address);
        let topic = self.topics.entry(target.topic.clone()).or_default();
        let route = topic.entry(target.partition).or_default();
        // A term of 0 is of a node that knows none.
        if leader.term != 0 && leader.term < route.term {
            return false;
        }
        let is_news = moved || route.leader != leader.node || route.term != leader.term;
        (route.leader, route.term) = (leader.node, leader.term.max(route.term));
        is_news
    }

    /// Nobody is known to lead any more.
    pub fn leaderless(&mut self, target: &Target) {
        let route = self.topics.get_mut(&target.topic).and_then(|t| t.get_mut(&target.partition));
        if let Some(route) = route {
            route.leader = 0;
        }
    }

    /// Where the leader is.
    pub fn leader(&self, target: &Target) -> Option<String> {
        self.address(self.route(target)?.leader).cloned()
    }

    /// Where the leader of each partition is, by its number; empty where nobody is known.
    pub fn leaders(&self, topic: &str) -> Vec<String> {
        let leader = |route: &Route| self.address(route.leader).cloned().unwrap_or_default();
        self.topics.get(topic).map(|t| t.values().map(leader).collect()).unwrap_or_default()
    }

    /// Where replicas are: followers, then the leader.
    pub fn replicas(&self, target: &Target) -> Vec<String> {
        let Some(route) = self.route(target) else { return Vec::new() };
        let leader = [route.leader];
        let followers = route.replicas.iter().filter(|node| **node != route.leader);
        followers.chain(&leader).filter_map(|node| self.address(*node).cloned()).collect()
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> Option<u32> {
        let last = self.topics.get(topic)?.keys().next_back()?;
        Some(last + 1)
    }

    /// Where all nodes are.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.values().cloned().collect()
    }

    fn route(&self, target: &Target) -> Option<&Route> {
        self.topics.get(&target.topic)?.get(&target.partition)
    }

    fn address(&self, node: u32) -> Option<&String> {
        self.nodes.get(&node).filter(|_| node != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leader: u32, term: u64) -> pb::MetadataResponse {
        let node = |id| pb::MetadataNode { id, rpc_addr: format!("h:{id}"), ..Default::default() };
        let replicas = vec![1, 2, 3];
        let partitions = vec![pb::MetadataPartition { partition: 0, leader, term, replicas }];
        pb::MetadataResponse {
            nodes: (1..=3).map(node).collect(),
            topics: vec![pb::MetadataTopic { name: "log".into(), id: 1, partitions }],
            ..Default::default()
        }
    }

    #[test]
    fn a_hint_is_believed_unless_it_is_older_than_what_is_known() {
        let target = Target::topic("log");
        let hint = |node, term| LeaderHint { node, address: format!("h:{node}"), term };
        let mut routes = Routes::default();
        assert_eq!((routes.leader(&target), routes.partitions("log")), (None, None));
        routes.learn(told(1, 5));
        assert_eq!(routes.leader(&target).as_deref(), Some("h:1"));
        assert_eq!(routes.replicas(&target), ["h:2", "h:3", "h:1"]);
        assert!(routes.follow(&target, &hint(2, 6)));
        assert!(!routes.follow(&target, &hint(2, 6)), "that is known");
        assert!(!routes.follow(&target, &hint(3, 4)));
        routes.learn(told(1, 5));
        assert_eq!(routes.leader(&target).as_deref(), Some("h:2"), "a node that lags told it");
        routes.leaderless(&target);
        assert_eq!(routes.leader(&target), None);
        routes.learn(told(3, 7));
        assert_eq!(routes.leader(&target).as_deref(), Some("h:3"));
        assert_eq!(routes.partitions("log"), Some(1));
    }
}
