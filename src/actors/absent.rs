//! Stands where a replica should be that must not start: it takes its place out of service, with the
//! reason, so that the tree, `explain` and the health of the node show it until a person acts.

use crate::model::Disposition;
use crate::supervision::{ChildSpec, Seat};
use actix::prelude::*;
use std::time::Duration;

/// Restart policy: never by itself; a release ends in the same place while the reason lasts.
pub fn spec() -> ChildSpec {
    ChildSpec::new("absent")
}

/// The actor.
#[derive(Debug)]
pub struct AbsentActor {
    seat: Seat<Self>,
    reason: String,
}

impl AbsentActor {
    /// The factory.
    pub fn new(seat: Seat<Self>, reason: String) -> Self {
        Self { seat, reason }
    }
}

impl Actor for AbsentActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Not before it counts as started: whoever starts after it waits for that.
        context.run_later(Duration::ZERO, |actor, context| {
            actor.seat.fail(actor.reason.clone(), Disposition::Quarantine);
            context.stop();
        });
    }
}
