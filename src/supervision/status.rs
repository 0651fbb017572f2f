//! What the tree tells about itself: its state at a moment, and what happens as it happens.

use super::{ActorPath, ExitReason};
use crate::model::Timestamp;
use std::fmt;
use std::time::Duration;

/// What an actor or a supervisor is or does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not up yet.
    Starting,
    /// In service.
    Running,
    /// On its way out.
    Stopping,
    /// Between two lives.
    Restarting {
        /// When the next life begins at the earliest (monotonic time).
        until: Duration,
    },
    /// Out of service until it is released.
    Quarantined {
        /// Why.
        reason: String,
        /// Since when.
        since: Timestamp,
    },
    /// Ended, and not to come back by itself.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Stopping => f.write_str("stopping"),
            Self::Restarting { .. } => f.write_str("restarting"),
            Self::Quarantined { reason, since } => write!(f, "quarantined since {since}: {reason}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What stands at a place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has children.
    Supervisor,
    /// Does the work.
    Actor,
}

/// One place in the tree and all below it, at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeStatus {
    /// Where.
    pub path: ActorPath,
    /// What stands there.
    pub kind: Kind,
    /// What it is or does.
    pub state: State,
    /// Which life it is in.
    pub generation: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last life ended.
    pub last_exit: Option<ExitReason>,
    /// How long the present life has lasted.
    pub uptime: Option<Duration>,
    /// Admitted requests that are not yet answered.
    pub in_flight: usize,
    /// Messages refused since the beginning.
    pub refused: u64,
    /// The children, in the order of their start.
    pub children: Vec<TreeStatus>,
}

impl TreeStatus {
    /// Finds a place at or below this one.
    pub fn find(&self, path: &ActorPath) -> Option<&Self> {
        if self.path == *path {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(path))
    }

    /// Counts the places at and below this one.
    pub fn len(&self) -> usize {
        1 + self.children.iter().map(Self::len).sum::<usize>()
    }

    /// Never: a status has at least its own place.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A life began: the factory has returned, or all children of a supervisor were started.
    Started,
    /// A life ended.
    Exited {
        /// How.
        reason: ExitReason,
    },
    /// The next life begins at `until` (monotonic time).
    Restarting {
        /// See above.
        until: Duration,
    },
    /// A supervisor gave up and leaves it to its parent.
    Escalated {
        /// The exit that was too much.
        reason: String,
    },
    /// It left service.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// A hung thread was given up, with this actor on it.
    Abandoned,
    /// It was released from quarantine.
    Released,
}

/// Something that happened in the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// To whom.
    pub path: ActorPath,
    /// In which life.
    pub generation: u64,
    /// When (monotonic time).
    pub at: Duration,
    /// What.
    pub kind: EventKind,
}
