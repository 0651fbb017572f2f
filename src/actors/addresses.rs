//! Where the other nodes are: as the catalogue says, or gossip where it has seen them move since.
//!
//! A node that starts has no catalogue, or the beginning of one, until it has heard from a leader; and
//! hears from none unless nodes talk to each other. So whom the catalogue does not know yet is known
//! as this node was told: when it joined, or when it ran the last time. Node numbers are never given
//! out again, so that what was told can be old and still names nobody else.

use super::control::ControlApi;
use super::presence::{PresenceBoard, Seen};
use crate::cluster::{Catalogue, NodeState};
use crate::model::NodeId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Who this node is in its cluster. Never changes while the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// The node's number.
    pub node: NodeId,
    /// The identity of its data directory.
    pub uuid: String,
}

/// Where a node is to be found, and by what it is known for itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Whereabouts {
    /// The identity of its data directory.
    pub uuid: String,
    /// Where it is reached.
    pub rpc_addr: String,
    /// What people call it; empty where nobody has told.
    #[serde(default)]
    pub name: String,
}

impl Whereabouts {
    /// Whether a connection to the one is a connection to the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.uuid, &self.rpc_addr) == (&other.uuid, &other.rpc_addr)
    }
}

/// What is known of a node's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is a member, with this directory.
    Member {
        /// The identity of its data directory.
        uuid: String,
    },
    /// It was one.
    Removed,
    /// Nothing is known of it, or not yet.
    Unknown,
}

/// See the module. Callable from any thread.
pub struct Addresses {
    control: Arc<dyn ControlApi>,
    presence: PresenceBoard,
    /// Of account for nodes that the catalogue does not know.
    told: Mutex<BTreeMap<NodeId, Whereabouts>>,
}

impl Addresses {
    /// What these two know.
    pub fn new(control: Arc<dyn ControlApi>, presence: PresenceBoard) -> Self {
        Self { control, presence, told: Mutex::default() }
    }

    /// Members, as told when this node joined, or as it knew them when it ran the last time. To be
    /// called before replicators are planted.
    pub fn told(&self, members: impl IntoIterator<Item = (NodeId, Whereabouts)>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = members.into_iter().collect();
    }

    /// A member says that this node is none any more.
    pub fn told_of_removal(&self) {
        self.control.told_of_removal();
    }

    /// What is known of a node's membership.
    pub fn standing(&self, node: NodeId) -> Standing {
        match self.control.catalogue().nodes.get(&node) {
            Some(known) if known.state == NodeState::Removed => Standing::Removed,
            Some(known) => Standing::Member { uuid: known.uuid.clone() },
            None => {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                told.get(&node).map_or(Standing::Unknown, |place| Standing::Member {
                    uuid: place.uuid.clone(),
                })
            }
        }
    }

    /// What people call a member; `None` while nothing says so.
    pub fn name_of(&self, node: NodeId) -> Option<String> {
        match self.control.catalogue().nodes.get(&node) {
            Some(known) => Some(known.name.clone()),
            None => {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                told.get(&node).map(|place| place.name.clone()).filter(|name| !name.is_empty())
            }
        }
    }

    /// All members, this node among them, and where they are.
    pub fn members(&self) -> BTreeMap<NodeId, Whereabouts> {
        let mut members = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (node, known) in &self.control.catalogue().nodes {
            if known.state == NodeState::Removed {
                members.remove(node);
            } else {
                let (uuid, rpc_addr) = (known.uuid.clone(), known.rpc_addr.clone());
                members.insert(*node, Whereabouts { uuid, rpc_addr, name: known.name.clone() });
            }
        }
        let presence = self.presence.now();
        for (node, place) in &mut members {
            // Gossip hears of a move before the catalogue does, which needs a leader for it.
            let moved = presence.get(&place.uuid).filter(|seen| {
                seen.node == Some(*node) && seen.seen == Seen::Alive && !seen.rpc_addr.is_empty()
            });
            if let Some(moved) = moved {
                place.rpc_addr.clone_from(&moved.rpc_addr);
            }
        }
        members
    }

    /// Where a member is; `None` while nothing says so.
    pub fn of(&self, node: NodeId) -> Option<Whereabouts> {
        self.members().remove(&node)
    }

    /// The protocol that the members speak among themselves; `None` before the first catalogue.
    pub fn protocol(&self) -> Option<u32> {
        let catalogue = self.control.catalogue();
        (!catalogue.cluster_id.is_empty()).then_some(catalogue.protocol)
    }

    /// What tells that any of this may have changed.
    pub fn changes(&self) -> AddressChanges {
        AddressChanges { catalogue: self.control.watch(), presence: self.presence.watch() }
    }
}

/// See [`Addresses::changes`].
#[derive(Debug)]
pub struct AddressChanges {
    catalogue: tokio::sync::watch::Receiver<Arc<Catalogue>>,
    presence: tokio::sync::watch::Receiver<Arc<super::presence::Presence>>,
}

impl AddressChanges {
    /// Waits for the next change. Never resolves once nobody can tell of one.
    pub async fn next(&mut self) {
        let changed = tokio::select! {
            changed = self.catalogue.changed() => changed,
            changed = self.presence.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Addresses")
    }
}
