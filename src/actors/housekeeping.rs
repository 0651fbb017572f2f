//! The housekeeping actor: reminds each log, at an interval, of what need not be done at once
//! (retention and checkpoints), and tells of consumers that hold a stream and do not read.
//! (Zeroing ahead needs no reminder: a flush thread does it when idle.)

use super::explain::CLIENT_STUCK;
use super::handle::PartitionHandle;
use super::log::{LogActor, Tend};
use super::readers::ReaderWait;
use crate::model::Term;
use crate::supervision::{ActorPath, ActorRef, ChildSpec, Restart, Seat};
use actix::prelude::*;
use slog::{debug, warn};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
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
    /// Whether time alone gives it something to do.
    pub has_age_limit: bool,
}

/// Lists the partitions that there are.
pub type ListTended = Arc<dyn Fn() -> Vec<Tended> + Send + Sync>;

/// A partition that nobody writes to is reminded every so many rounds, where age matters to it.
const AGE_ROUNDS: u32 = 12;

/// The actor.
pub struct HousekeepingActor {
    seat: Seat<Self>,
    partitions: ListTended,
    every: Duration,
    round: u32,
    /// What each partition had flushed when it was last reminded: one that has nothing new has
    /// nothing to be done, and a thousand idle ones cost nothing.
    flushed: BTreeMap<ActorPath, (u64, Term)>,
    /// Readers of which the log has been told, by their partition and number.
    told: BTreeSet<(ActorPath, u64)>,
}

impl fmt::Debug for HousekeepingActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HousekeepingActor")
    }
}

impl HousekeepingActor {
    /// The factory.
    pub fn new(seat: Seat<Self>, partitions: ListTended, every: Duration) -> Self {
        let (flushed, told) = (BTreeMap::new(), BTreeSet::new());
        Self { seat, partitions, every, round: 0, flushed, told }
    }

    fn remind(&mut self, partitions: &[Tended]) {
        self.round = self.round.wrapping_add(1);
        let mut flushed = BTreeMap::new();
        for Tended { log, handle, has_age_limit } in partitions {
            let now = (handle.published().flushes(), handle.published().term());
            let is_due = *has_age_limit && self.round.is_multiple_of(AGE_ROUNDS);
            let before = self.flushed.get(log.path());
            let is_new = before != Some(&now);
            if (is_new || is_due)
                && let Err(refused) = log.tell(Tend)
            {
                debug!(self.seat.logger(), "a log was not tended"; "refused" => %refused);
                continue;
            }
            flushed.insert(log.path().clone(), now);
        }
        self.flushed = flushed;
    }

    fn watch_readers(&mut self, partitions: &[Tended]) {
        let now = self.seat.clock().monotonic();
        let mut stuck = BTreeSet::new();
        for Tended { log, handle, .. } in partitions {
            for reader in handle.published().readers().list() {
                let waited = now.saturating_sub(reader.since);
                if reader.wait != ReaderWait::Client || waited < CLIENT_STUCK {
                    continue;
                }
                let key = (log.path().clone(), reader.number);
                if !self.told.contains(&key) {
                    let peer = reader.peer.map_or("in this process".into(), |p| p.to_string());
                    warn!(self.seat.logger(), "a consumer takes nothing"; "peer" => peer,
                        "log" => %log.path(), "next_offset" => reader.next.0,
                        "waited_ms" => waited.as_millis() as u64);
                }
                stuck.insert(key);
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
            let partitions = (actor.partitions)();
            actor.remind(&partitions);
            actor.watch_readers(&partitions);
        });
    }
}
