//! The replicas of this node, by group: where messages from peers go.

use super::raft::{Carried, Desire, RaftActor};
use crate::model::{GroupId, PeerMessage, ReplicaId};
use crate::supervision::ActorRef;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// See the module. Shared; callable from any thread.
#[derive(Debug, Default)]
pub struct Groups(RwLock<BTreeMap<GroupId, Here>>);

/// A replica of this node.
#[derive(Debug, Clone)]
pub struct Here {
    /// Which.
    pub replica: ReplicaId,
    /// Its actor, over all its lives.
    pub raft: ActorRef<RaftActor>,
    /// Which replicas the group is to consist of, as told last.
    pub wanted: Wanted,
}

/// Which replicas a group is to consist of, in order of preference: kept while the actor that sees
/// to it is replaced.
pub type Wanted = Arc<ArcSwap<Vec<ReplicaId>>>;

impl Here {
    /// Tells which replicas the group is to consist of. An actor that does not listen now finds it
    /// when it starts. What was told before wakes nobody.
    pub fn desire(&self, replicas: Vec<ReplicaId>) {
        if **self.wanted.load() == replicas {
            return;
        }
        self.wanted.store(Arc::new(replicas));
        let _ = self.raft.tell(Desire);
    }
}

/// Why a message of a peer reached nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// There is no replica of the group on this node.
    NoReplica,
    /// There is one, but not the one that is meant.
    OtherReplica(ReplicaId),
    /// It takes none now: it restarts, is out of service, or has too much to do.
    Refused,
}

impl Groups {
    /// A replica is there from now on; replaces one of the same group.
    pub fn add(&self, group: GroupId, here: Here) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(group, here);
    }

    /// A replica is gone.
    pub fn remove(&self, group: GroupId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    /// A group's replica on this node.
    pub fn get(&self, group: GroupId) -> Option<Here> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<(GroupId, Here)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.iter().map(|(group, here)| (*group, here.clone())).collect()
    }

    /// Hands a peer's message to the replica that it is for.
    ///
    /// # Errors
    /// Why nobody got it: it is lost then, as any message may be.
    pub fn deliver(&self, message: PeerMessage) -> Result<(), Undelivered> {
        let here = self.get(message.group).ok_or(Undelivered::NoReplica)?;
        if here.replica != message.to {
            return Err(Undelivered::OtherReplica(here.replica));
        }
        here.raft.tell(Carried(message)).map_err(|_| Undelivered::Refused)
    }
}
