//! What explanations are made of: values, gathered without asking an actor.

use super::super::control::Joining;
use super::super::partition::PartitionStatus;
use super::super::readers::ReaderStatus;
use crate::model::Timestamp;
use crate::observe::{Complaint, Reading, Wait};
use crate::supervision::{Load, TreeStatus};
use std::time::Duration;

/// All that is known at a moment.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The moment (monotonic time).
    pub now: Duration,
    /// The same moment by the wall clock.
    pub wall: Timestamp,
    /// The supervision tree.
    pub tree: TreeStatus,
    /// What each actor and worker does, by path.
    pub readings: Vec<(String, Reading)>,
    /// The partitions.
    pub partitions: Vec<PartitionFacts>,
    /// How it waits to be let into a cluster, where it does.
    pub joining: Option<Joining>,
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
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// How many bytes there may be.
    pub in_flight_bytes_max: usize,
    /// The last row of refusals for load.
    pub overload: Option<OverloadFacts>,
}

/// Requests refused for load, one soon after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverloadFacts {
    /// The bound that the last of them met.
    pub what: Load,
    /// When the first was (monotonic time).
    pub since: Duration,
    /// When the last was (monotonic time).
    pub last: Duration,
}

impl OverloadFacts {
    /// A refusal counts for so long.
    const RECENT: Duration = Duration::from_secs(5);

    /// Whether the row goes on: a further refusal now would be one of it.
    pub fn is_recent(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) < Self::RECENT
    }
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
