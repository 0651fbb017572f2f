//! What explanations are made of: values, gathered without asking an actor.

use super::super::partition::PartitionStatus;
use super::super::readers::ReaderStatus;
use crate::observe::{Complaint, Reading, Wait};
use crate::supervision::TreeStatus;
use std::time::Duration;

/// All that is known at a moment.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The moment (monotonic time).
    pub now: Duration,
    /// The supervision tree.
    pub tree: TreeStatus,
    /// What each actor and worker does, by path.
    pub readings: Vec<(String, Reading)>,
    /// The partitions.
    pub partitions: Vec<PartitionFacts>,
    /// Clients whose requests made no sense.
    pub complaints: Vec<Complaint>,
    /// After which time without progress an actor is replaced.
    pub hang_after: Duration,
}

/// What is known of one partition.
#[derive(Debug, Clone)]
pub struct PartitionFacts {
    /// The path of its raft actor, `…/partitions/log/0/raft`.
    pub raft: String,
    /// As front ends see it.
    pub status: PartitionStatus,
    /// Whether the disk is full.
    pub is_full: bool,
    /// What its flush thread waits for, and since when.
    pub flush: (Wait, Duration),
    /// What its next entry waits for, and since when.
    pub entry: (Wait, Duration),
    /// Who reads it, those that have waited longest first.
    pub readers: Vec<ReaderStatus>,
    /// Requests under way.
    pub in_flight: usize,
    /// How many there may be.
    pub in_flight_max: usize,
    /// When a request was last refused for load.
    pub overloaded_at: Option<Duration>,
}

impl PartitionFacts {
    /// The path of the partition's supervisor.
    pub fn path(&self) -> &str {
        self.raft.rsplit_once('/').map_or(&*self.raft, |(above, _)| above)
    }

    /// The partition as users name it: `log/0`.
    pub fn name(&self) -> &str {
        self.path().split_once("/partitions/").map_or(self.path(), |(_, name)| name)
    }
}

impl Facts {
    /// What the actor or worker of this path does.
    pub fn reading(&self, path: &str) -> Option<&Reading> {
        self.readings.iter().find(|(known, _)| known == path).map(|(_, reading)| reading)
    }
}
