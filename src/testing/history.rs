//! What happened in a node's supervision tree, from its start on, in order.

use crate::supervision::{ActorPath, Event, EventKind};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Events that are kept; further ones are counted.
const EVENTS_MAX: usize = 200_000;

/// What kind of event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A life began.
    Started,
    /// A life ended.
    Exited,
    /// A wait before the next life began.
    Restarting,
    /// A supervisor gave up.
    Escalated,
    /// It left service.
    Quarantined,
    /// Its hung thread was given up.
    Abandoned,
    /// It was released from quarantine.
    Released,
}

impl What {
    /// The kind of an event.
    pub fn of(kind: &EventKind) -> Self {
        match kind {
            EventKind::Started => Self::Started,
            EventKind::Exited { .. } => Self::Exited,
            EventKind::Restarting { .. } => Self::Restarting,
            EventKind::Escalated { .. } => Self::Escalated,
            EventKind::Quarantined { .. } => Self::Quarantined,
            EventKind::Abandoned => Self::Abandoned,
            EventKind::Released => Self::Released,
        }
    }
}

/// A moment in a node's history: between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark(usize);

impl Mark {
    /// Before the first event.
    pub const START: Self = Self(0);
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Event>,
    missed: u64,
}

impl History {
    /// Writes down what comes until the tree is gone.
    pub(super) async fn follow(&self, mut events: broadcast::Receiver<Event>) {
        loop {
            match events.recv().await {
                Ok(event) => {
                    let mut kept = self.kept();
                    if kept.events.len() < EVENTS_MAX {
                        kept.events.push(event);
                    } else {
                        kept.missed += 1;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => self.kept().missed += missed,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.kept().events.len())
    }

    pub(super) fn since(&self, mark: Mark) -> Vec<Event> {
        self.kept().events.get(mark.0..).unwrap_or_default().to_vec()
    }

    pub(super) fn find(&self, mark: Mark, path: &ActorPath, what: What) -> Option<Event> {
        let kept = self.kept();
        let since = kept.events.get(mark.0..).unwrap_or_default();
        since.iter().find(|event| event.path == *path && What::of(&event.kind) == what).cloned()
    }

    /// Events that did not fit.
    pub(super) fn missed(&self) -> u64 {
        self.kept().missed
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event as a failure shows it.
pub(super) struct Line<'a>(pub(super) &'a Event);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { path, generation, at, kind } = self.0;
        write!(f, "{:>10.3} ms  {path} (life {generation}) ", at.as_secs_f64() * 1e3)?;
        match kind {
            EventKind::Exited { reason } => write!(f, "exited: {reason}"),
            EventKind::Escalated { reason } => write!(f, "escalated: {reason}"),
            EventKind::Quarantined { reason } => write!(f, "quarantined: {reason}"),
            other => write!(f, "{}", format!("{:?}", What::of(other)).to_lowercase()),
        }
    }
}
