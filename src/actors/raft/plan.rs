//! What a replica is built from, again and again.

use crate::actors::gather::GatherOptions;
use crate::actors::groups::Wanted;
use crate::actors::leadership::Leadership;
use crate::actors::peers::PeerPost;
use crate::actors::published::Published;
use crate::log::batch::BatchLimits;
use crate::model::{Durability, GroupId, ReplicaId};
use crate::observe::Instruments;
use crate::observe::metrics::LogMetrics;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the actor.
#[derive(Debug, Clone, Copy)]
pub struct RaftOptions {
    /// When to start a flush.
    pub gather: GatherOptions,
    /// An entry takes no further proposal beyond this many bytes.
    pub entry_bytes_max: usize,
    /// What proposals were checked against.
    pub limits: BatchLimits,
    /// How safe a record is that is committed.
    pub durability: Durability,
    /// The unit of the two below.
    pub tick: Duration,
    /// A follower that hears nothing for so long, and up to twice that, stands for election.
    pub election_ticks: usize,
    /// How often a leader tells that it is there.
    pub heartbeat_ticks: usize,
    /// About how much a message to a peer may hold (unit: bytes of entries).
    pub message_bytes_max: u64,
    /// Messages with entries on their way to one peer.
    pub inflight_max: usize,
    /// Entries kept in memory for peers, beyond those that are not in the log yet (unit: bytes).
    pub tail_bytes_max: u64,
    /// Decides on what is left to chance.
    pub seed: u64,
}

/// What a replica needs to be built again and again: the same for every generation.
#[derive(Debug)]
pub struct RaftPlan {
    /// Its group.
    pub group: GroupId,
    /// Which replica it is.
    pub me: ReplicaId,
    /// What it is when its directory is new.
    pub founders: Vec<ReplicaId>,
    /// What its node sees of it.
    pub published: Arc<Published>,
    /// Where it tells, and learns, who leads.
    pub leadership: Arc<Leadership>,
    /// Which replicas the group is to consist of.
    pub wanted: Wanted,
    /// The way to its peers.
    pub post: Arc<dyn PeerPost>,
    /// Settings.
    pub options: RaftOptions,
    /// What is measured.
    pub instruments: Instruments,
    /// What is counted of its log.
    pub metrics: Arc<LogMetrics>,
}
