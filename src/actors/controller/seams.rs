//! What the controller needs of others: ways to other nodes, and to the groups of this one.

use crate::actors::control::{Answered, Answering, JoinAsked, Joined};
use crate::model::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use std::fmt;

/// Calls to other nodes. Each is bounded in time by who asks.
pub trait PeerCalls: Send + Sync + fmt::Debug {
    /// Hands a command to the node at an address; see [`crate::actors::control::ControlApi::change_here`].
    fn change(
        &self,
        addr: String,
        cluster_id: String,
        from: NodeId,
        command: Bytes,
    ) -> Answering<Answered<Bytes>>;

    /// Asks the node at an address to become a member of its cluster.
    fn join(&self, addr: String, asked: JoinAsked) -> Answering<Answered<Joined>>;
}

/// What can be asked of the groups whose replicas are on this node. Neither waits; what is refused
/// is asked again, or told to whoever asked.
pub trait GroupActs: Send + Sync + fmt::Debug {
    /// The group is to consist of these replicas; the first one leads best.
    ///
    /// # Errors
    /// Why nobody took it.
    fn desire(&self, group: GroupId, replicas: Vec<ReplicaId>) -> Result<(), String>;

    /// Hands leadership over: to this replica, or to any that has everything.
    ///
    /// # Errors
    /// Why nobody took it.
    fn transfer(&self, group: GroupId, to: Option<ReplicaId>) -> Result<(), String>;
}
