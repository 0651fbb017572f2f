//! Several nodes on this one machine, as real processes that share its disk: the same rows go to
//! them and to a node alone, in one run.

use super::BenchError;
use super::process::{Gossip, READY_MAX, Target};
use crate::model::{Clock, SystemClock};
use crate::wire::pb::duramen::v1 as pb;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// A cluster under load. Its processes die with this value.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Target>,
}

impl Cluster {
    /// So many nodes on empty directories below `parent`, once each holds a replica of the topic.
    pub async fn start(parent: &Path, count: u32, durability: &str) -> Result<Self, BenchError> {
        let seed = free_addr()?;
        let mut nodes = Vec::new();
        for number in 0..count {
            let name = format!("n{}", number + 1);
            let gossip = match number {
                0 => Gossip { name, addr: seed.clone(), join: None },
                _ => Gossip { name, addr: "127.0.0.1:0".into(), join: Some(seed.clone()) },
            };
            nodes.push(Target::start_member(parent, durability, &gossip).await?);
        }
        let cluster = Self { nodes };
        let clock = SystemClock::new();
        while !cluster.is_formed().await {
            if clock.monotonic() > READY_MAX {
                let why = format!("the topic has no {count} replicas after {READY_MAX:?}");
                return Err(BenchError::NotReady { what: "cluster", why });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(cluster)
    }

    async fn is_formed(&self) -> bool {
        for node in &self.nodes {
            // A node that has just joined does not know the topic yet, and says so.
            let seen = node.describe().await;
            if seen.is_ok_and(|seen| is_complete(&seen, self.nodes.len())) {
                return true;
            }
        }
        false
    }

    /// The nodes, the one that leads first: producers find their way to it before they send.
    pub async fn leader_first(&self) -> Result<Vec<&Target>, BenchError> {
        let clock = SystemClock::new();
        loop {
            for (place, node) in self.nodes.iter().enumerate() {
                if node.describe().await.is_ok_and(|seen| seen.role == "leader") {
                    let mut nodes: Vec<&Target> = self.nodes.iter().collect();
                    nodes.swap(0, place);
                    return Ok(nodes);
                }
            }
            if clock.monotonic() > READY_MAX {
                let why = "nobody leads the topic".into();
                return Err(BenchError::NotReady { what: "cluster", why });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether it is the leader who says this, and all are there and have everything.
fn is_complete(seen: &pb::Partition, count: usize) -> bool {
    let has_all = |replica: &pb::ReplicaProgress| {
        replica.role == "voter" && replica.active && replica.lag == 0
    };
    seen.role == "leader" && seen.replicas.len() == count && seen.replicas.iter().all(has_all)
}

/// Where the first node gossips: the others must know it before it listens.
fn free_addr() -> Result<String, BenchError> {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(found.map_err(BenchError::io("no port is free"))?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_complete_when_its_leader_sees_every_voter_with_all_entries() {
        let voter = |lag| pb::ReplicaProgress {
            role: "voter".into(),
            active: true,
            lag,
            ..Default::default()
        };
        let seen = |role: &str, replicas| pb::Partition {
            role: role.into(),
            replicas,
            ..Default::default()
        };
        assert!(is_complete(&seen("leader", vec![voter(0); 3]), 3));
        assert!(!is_complete(&seen("leader", vec![voter(0); 2]), 3), "one is missing");
        assert!(!is_complete(&seen("leader", vec![voter(0), voter(0), voter(7)]), 3), "one lags");
        assert!(!is_complete(&seen("follower", vec![voter(0); 3]), 3), "only a leader knows");
        let learner = pb::ReplicaProgress { role: "learner".into(), ..voter(0) };
        assert!(!is_complete(&seen("leader", vec![voter(0), voter(0), learner]), 3));
    }
}
