//! The controller: follows the records of group 0 into the catalogue, and, where this node leads
//! that group, proposes what is to be done about the cluster.
//!
//! What others hold of it is [`Control`]: it stays valid while the actor behind it is replaced,
//! and answers from the catalogue as it was applied last.

mod change;
mod duties;
mod follow;
mod formation;
mod seams;

pub use change::{Control, ControlParts};
pub use duties::DutyOptions;
pub use formation::{Formation, FormationError, FormationOptions, Home, form};
pub use seams::{GroupActs, PeerCalls};

use crate::supervision::{Backoff, ChildSpec, Restart, Seat};
use actix::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// Restart policy: always. It holds nothing that is not in the log of group 0, from which each life
/// begins anew. A record that cannot be read takes it out of service: the catalogue stays as it is.
pub fn spec() -> ChildSpec {
    ChildSpec {
        restart: Restart::Permanent,
        backoff: Backoff {
            min: Duration::from_millis(20),
            max: Duration::from_secs(2),
            jitter: 0.2,
        },
        ..ChildSpec::new("catalogue")
    }
}

/// The actor.
#[derive(Debug)]
pub struct ControllerActor {
    seat: Seat<Self>,
    control: Control,
    options: DutyOptions,
}

impl ControllerActor {
    /// The factory.
    pub fn new(seat: Seat<Self>, control: Control, options: DutyOptions) -> Self {
        Self { seat, control, options }
    }
}

impl Actor for ControllerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let following = follow::follow(self.control.clone()).into_actor(self);
        context.spawn(following.map(|error, actor, context: &mut Context<Self>| {
            actor.control.halt(error.to_string());
            actor.seat.fail(error.to_string(), error.disposition());
            context.stop();
        }));
        context.spawn(self.control.clone().catch_up().into_actor(self));
        let clock = self.seat.clock().clone();
        let logger = self.seat.logger().clone();
        let duties = duties::carry_out(self.control.clone(), clock, logger, self.options.clone());
        context.spawn(duties.into_actor(self));
    }
}

/// Restart policy of [`FormationActor`]: always; it asks again what it has to know.
pub fn formation_spec() -> ChildSpec {
    ChildSpec { restart: Restart::Permanent, ..ChildSpec::new("formation") }
}

/// Brings the node into its cluster, and keeps its entry there; see [`form`].
#[derive(Debug)]
pub struct FormationActor {
    seat: Seat<Self>,
    control: Control,
    home: Arc<dyn Home>,
    options: FormationOptions,
}

impl FormationActor {
    /// The factory.
    pub fn new(
        seat: Seat<Self>,
        control: Control,
        home: Arc<dyn Home>,
        options: FormationOptions,
    ) -> Self {
        Self { seat, control, home, options }
    }
}

impl Actor for FormationActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let (control, home) = (self.control.clone(), Arc::clone(&self.home));
        let (clock, logger) = (self.seat.clock().clone(), self.seat.logger().clone());
        let forming = form(control, home, self.options.clone(), clock, logger).into_actor(self);
        context.spawn(forming.map(|error, actor, context: &mut Context<Self>| {
            actor.seat.fail(error.to_string(), error.disposition());
            context.stop();
        }));
    }
}
