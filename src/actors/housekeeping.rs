//! The housekeeping actor: reminds each log, at an interval, of what need not be done at once
//! (retention and checkpoints), and tells of consumers that hold a stream and do not read.
//! (Zeroing ahead needs no reminder: a flush thread does it when idle.)

use super::explain::CLIENT_STUCK;
use super::handle::PartitionHandle;
use super::log::{LogActor, Tend};
use super::readers::ReaderWait;
use crate::supervision::{ActorRef, ChildSpec, Restart, Seat};
use actix::prelude::*;
use slog::{debug, warn};
use std::collections::BTreeSet;
use std::time::Duration;

/// Restart policy: always; it holds no state that matters.
pub fn spec() -> ChildSpec {
    ChildSpec { restart: Restart::Permanent, ..ChildSpec::new("housekeeping") }
}

/// A partition as it is looked after.
#[derive(Debug, Clone)]
pub struct Tended {
    /// Who is reminded.
    pub log: ActorRef<LogActor>,
    /// Whose readers are watched.
    pub handle: PartitionHandle,
}

/// The actor.
#[derive(Debug)]
pub struct HousekeepingActor {
    seat: Seat<Self>,
    partitions: Vec<Tended>,
    every: Duration,
    /// Readers of which the log has been told, by place of their partition and number.
    told: BTreeSet<(usize, u64)>,
}

impl HousekeepingActor {
    /// The factory.
    pub fn new(seat: Seat<Self>, partitions: Vec<Tended>, every: Duration) -> Self {
        Self { seat, partitions, every, told: BTreeSet::new() }
    }

    fn remind(&self) {
        for Tended { log, .. } in &self.partitions {
            if let Err(refused) = log.tell(Tend) {
                debug!(self.seat.logger(), "a log was not tended"; "refused" => %refused);
            }
        }
    }

    fn watch_readers(&mut self) {
        let now = self.seat.clock().monotonic();
        let mut stuck = BTreeSet::new();
        for (place, Tended { log, handle }) in self.partitions.iter().enumerate() {
            for reader in handle.published().readers().list() {
                let waited = now.saturating_sub(reader.since);
                if reader.wait != ReaderWait::Client || waited < CLIENT_STUCK {
                    continue;
                }
                stuck.insert((place, reader.number));
                if !self.told.contains(&(place, reader.number)) {
                    let peer = reader.peer.map_or("in this process".into(), |p| p.to_string());
                    warn!(self.seat.logger(), "a consumer takes nothing"; "peer" => peer,
                        "log" => %log.path(), "next_offset" => reader.next.0,
                        "waited_ms" => waited.as_millis() as u64);
                }
            }
        }
        // One that has read since is told of again when it stops again.
        self.told = stuck;
    }
}

impl Actor for HousekeepingActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(self.every, |actor, _| {
            actor.remind();
            actor.watch_readers();
        });
    }
}
