//! The policy's answers: what is to be done, and how things stand.

use crate::supervision::ExitReason;
use std::time::Duration;

/// Tells the children of a supervisor apart, and orders them: greater means added later.
pub type ChildId = u64;

/// What the tree is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Begin this life of a child.
    Start {
        /// Whose.
        child: ChildId,
        /// Which life.
        generation: u64,
    },
    /// End the present life of a child; [`super::Policy::exited`] is told when it has ended.
    Stop {
        /// Whose.
        child: ChildId,
    },
    /// Call [`super::Policy::wake`] at this time: a crashed child's wait is over then.
    ArmTimer {
        /// Whose wait.
        child: ChildId,
        /// When (monotonic time).
        until: Duration,
    },
    /// A child, or with `None` this whole supervisor, is out of service from now on.
    Quarantine {
        /// Who.
        child: Option<ChildId>,
        /// Why.
        reason: String,
    },
    /// All children were started once.
    Up,
    /// All children have ended, as was asked.
    Done,
    /// All children have ended, as this supervisor gives up.
    Escalate {
        /// Whose exit was too much.
        child: ChildId,
        /// That exit.
        reason: ExitReason,
    },
    /// The child that was to be removed has ended.
    Removed {
        /// Who.
        child: ChildId,
    },
}

/// What a child is or does, as callers should see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// Before its first life.
    Starting,
    /// Alive.
    Running,
    /// Ending for good.
    Stopping,
    /// Between two lives; the next begins at `until` at the earliest.
    Restarting {
        /// Monotonic time.
        until: Duration,
    },
    /// Out of service.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// Ended.
    Stopped,
}
