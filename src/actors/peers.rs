//! The ways to the other nodes, by node: where a replica's messages to its peers go.

use crate::log::LogView;
use crate::model::{NodeId, PeerMessage};
use std::fmt;
use std::sync::Arc;

/// A message on its way to a peer. Where entries are [`crate::model::PeerPayload::Stored`], whoever
/// carries it reads them from the log: that may wait for the disk, which a replica must not.
#[derive(Debug)]
pub struct Outgoing {
    /// What is said.
    pub message: PeerMessage,
    /// Where stored entries are read.
    pub log: Option<Arc<LogView>>,
}

/// Carries messages to other nodes. Never waits: what cannot be taken is dropped and told of, as a
/// network may do.
pub trait PeerPost: Send + Sync + fmt::Debug {
    /// Takes messages to a node, in order. False: the node is not known or too much is waiting for
    /// it, and nothing was taken.
    fn post(&self, to: NodeId, messages: Vec<Outgoing>) -> bool;

    /// Whether there is a connection to a node now: whoever has none is as good as dead.
    fn reaches(&self, node: NodeId) -> bool;

    /// Whether a way leads to a node, and there is no connection: it has ended, or none can be made.
    fn misses(&self, node: NodeId) -> bool;
}
