//! Building the tree: supervisors that are told about their children.

use super::{ActorPath, ActorRef, Child, ChildSpec, Place, Seat, SupervisorSpec, TreeHandle};
use crate::model::Clock;
use actix::Context;
use slog::Logger;
use std::sync::Arc;

/// What the tree needs from outside.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Decides on waits and windows.
    pub clock: Arc<dyn Clock>,
    /// Seeds the jitter of backoffs.
    pub seed: u64,
    /// Where exits and what follows are logged, once each.
    pub logger: Logger,
}

/// A supervisor, before and after the tree was started: children can be added at any time.
#[derive(Clone, Debug)]
pub struct Supervisor {
    path: ActorPath,
}

impl Supervisor {
    /// The root of a tree.
    pub fn new(spec: SupervisorSpec, environment: Environment) -> Self {
        let _ = environment;
        Self { path: ActorPath::root(&spec.name) }
    }

    /// Adds a supervisor below this one.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn supervisor(&self, spec: SupervisorSpec) -> Self {
        Self { path: self.path.child(&spec.name) }
    }

    /// Adds an actor. `factory` is called on the thread of `place` at each start; a panic in it
    /// counts as a crash.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn child<A: Child>(
        &self,
        spec: ChildSpec,
        place: Place,
        factory: impl Fn(&mut Context<A>, Seat<A>) -> A + Send + Sync + 'static,
    ) -> ActorRef<A> {
        let _ = (spec, place, factory);
        unreachable!("the tree comes with the next commit")
    }

    /// Its path.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    /// Starts the tree on the current actix system.
    pub fn start(&self) -> TreeHandle {
        unreachable!("the tree comes with the next commit")
    }
}
