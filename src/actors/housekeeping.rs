//! The housekeeping actor: reminds each log, at an interval, of what need not be done at once:
//! retention and checkpoints. (Zeroing ahead needs no reminder: a flush thread does it when idle.)

use super::log::{LogActor, Tend};
use crate::supervision::{ActorRef, ChildSpec, Restart, Seat};
use actix::prelude::*;
use slog::debug;
use std::time::Duration;

/// Restart policy: always; it holds no state.
pub fn spec() -> ChildSpec {
    ChildSpec { restart: Restart::Permanent, ..ChildSpec::new("housekeeping") }
}

/// The actor.
#[derive(Debug)]
pub struct HousekeepingActor {
    seat: Seat<Self>,
    logs: Vec<ActorRef<LogActor>>,
    every: Duration,
}

impl HousekeepingActor {
    /// The factory.
    pub fn new(seat: Seat<Self>, logs: Vec<ActorRef<LogActor>>, every: Duration) -> Self {
        Self { seat, logs, every }
    }
}

impl Actor for HousekeepingActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(self.every, |actor, _| {
            for log in &actor.logs {
                if let Err(refused) = log.tell(Tend) {
                    debug!(actor.seat.logger(), "a log was not tended"; "refused" => %refused);
                }
            }
        });
    }
}
