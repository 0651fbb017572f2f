//! Who is there, as gossip sees it: a hint, never a verdict. The catalogue says who is a member.

use crate::model::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How gossip sees a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// It answers.
    Alive,
    /// It does not answer lately.
    Suspect,
    /// It was given up.
    Dead,
    /// It said that it leaves.
    Left,
}

/// What a node tells of itself, and how it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The identity of its data directory.
    pub uuid: String,
    /// Its number, where it is a member of a cluster.
    pub node: Option<NodeId>,
    /// Its cluster; empty where it is a member of none yet.
    pub cluster_id: String,
    /// What people call it.
    pub name: String,
    /// Where clients and nodes reach it.
    pub rpc_addr: String,
    /// Where it gossips.
    pub gossip_addr: String,
    /// The newest protocol that it speaks.
    pub protocol_max: u32,
    /// How it is seen.
    pub seen: Seen,
    /// Since when, on this node's monotonic clock.
    pub since: Duration,
}

/// All nodes that gossip knows, by uuid; this node among them.
pub type Presence = BTreeMap<String, Present>;

/// Where the presence is told, and read.
#[derive(Debug, Clone)]
pub struct PresenceBoard(Arc<watch::Sender<Arc<Presence>>>);

impl Default for PresenceBoard {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Arc::default()).0))
    }
}

impl PresenceBoard {
    /// Tells what gossip knows now; wakes readers only where it differs.
    pub fn tell(&self, presence: Presence) {
        self.0.send_if_modified(|known| {
            let is_news = **known != presence;
            if is_news {
                *known = Arc::new(presence);
            }
            is_news
        });
    }

    /// What is known now.
    pub fn now(&self) -> Arc<Presence> {
        self.0.borrow().clone()
    }

    /// As it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Presence>> {
        self.0.subscribe()
    }

    /// How a member is seen; `None` where gossip does not know it.
    pub fn of(&self, node: NodeId) -> Option<Present> {
        self.0.borrow().values().find(|present| present.node == Some(node)).cloned()
    }
}
