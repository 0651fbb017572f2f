//! What happened in a node's supervision tree, from its start on, in order.

use crate::supervision::{ActorPath, Event, EventKind};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

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
#[derive(Debug)]
pub(super) struct History {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Read at every look: what was emitted before it is seen by it.
    news: broadcast::Receiver<Event>,
    events: Vec<Event>,
    missed: u64,
}

impl Kept {
    fn catch_up(&mut self) {
        loop {
            match self.news.try_recv() {
                Ok(event) if self.events.len() < EVENTS_MAX => self.events.push(event),
                Ok(_) => self.missed += 1,
                Err(TryRecvError::Lagged(missed)) => self.missed += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

impl History {
    pub(super) fn of(news: broadcast::Receiver<Event>) -> Self {
        Self { kept: Mutex::new(Kept { news, events: Vec::new(), missed: 0 }) }
    }

    /// Writes down what comes until the tree is gone. `bell` rings with each event.
    pub(super) async fn follow(&self, mut bell: broadcast::Receiver<Event>) {
        while !matches!(bell.recv().await, Err(broadcast::error::RecvError::Closed)) {
            drop(self.kept());
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.kept().events.len())
    }

    /// All that happened after a mark.
    ///
    /// # Panics
    /// When events were missed: what is not there may have happened.
    pub(super) fn since(&self, mark: Mark) -> Vec<Event> {
        let kept = self.kept();
        assert!(kept.missed == 0, "{} events were missed: nothing can be ruled out", kept.missed);
        kept.events.get(mark.0..).unwrap_or_default().to_vec()
    }

    /// The last events, and how many were missed.
    pub(super) fn lately(&self, events_max: usize) -> (Vec<Event>, u64) {
        let kept = self.kept();
        let from = kept.events.len().saturating_sub(events_max);
        (kept.events[from..].to_vec(), kept.missed)
    }

    pub(super) fn find(&self, mark: Mark, path: &ActorPath, what: What) -> Option<Event> {
        let kept = self.kept();
        let since = kept.events.get(mark.0..).unwrap_or_default();
        since.iter().find(|event| event.path == *path && What::of(&event.kind) == what).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.catch_up();
        kept
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn event(generation: u64) -> Event {
        Event { path: "node/x".into(), generation, at: Duration::ZERO, kind: EventKind::Started }
    }

    #[test]
    fn a_look_sees_what_was_emitted_before_it() {
        let (tree, news) = broadcast::channel(8);
        let history = History::of(news);
        tree.send(event(1)).unwrap();
        let mark = history.mark();
        assert_eq!(mark, Mark(1), "nobody had to follow first");
        tree.send(event(2)).unwrap();
        assert_eq!(history.since(mark), [event(2)]);
    }

    #[test]
    fn where_events_were_missed_nothing_is_ruled_out() {
        let (tree, news) = broadcast::channel(2);
        let history = History::of(news);
        for generation in 0..5 {
            tree.send(event(generation)).unwrap();
        }
        assert_eq!(history.lately(8), (vec![event(3), event(4)], 3));
        let refused = std::panic::catch_unwind(|| history.since(Mark::START)).unwrap_err();
        assert!(refused.downcast::<String>().unwrap().contains("3 events were missed"));
    }
}
