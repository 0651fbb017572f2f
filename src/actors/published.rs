//! What a partition's actors publish for everybody else: read from any thread, without a
//! message or a wait, and alive while the actors behind it are replaced.

use super::partition::{ReplicaProgress, ReplicaRole};
use super::readers::Readers;
use crate::log::LogView;
use crate::model::{Offset, ReplicaId, Term};
use crate::observe::WaitCell;
use crate::raft::Membership;
use arc_swap::ArcSwapOption;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// What a partition is doing, as far as its own actors know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Reads its files; so many bytes of so many are checked.
    Recovering {
        /// Bytes checked.
        done_bytes: u64,
        /// Bytes to check in all.
        total_bytes: u64,
    },
    /// Takes writes and reads.
    Serving,
    /// The disk is full: reads only, until space returns.
    Full {
        /// What is missing.
        reason: String,
    },
    /// Down, for the reason given; the supervisor knows what comes next.
    Down {
        /// Why.
        reason: String,
    },
}

/// What the raft actor says of its replica and its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// The part that it plays.
    pub role: ReplicaRole,
    /// Who leads, as it knows.
    pub leader: Option<ReplicaId>,
    /// The group's members as it has applied them.
    pub members: Arc<Membership>,
    /// How far each replica is; empty where another one leads.
    pub progress: Vec<ReplicaProgress>,
}

/// See the module.
#[derive(Debug)]
pub struct Published {
    view: ArcSwapOption<LogView>,
    high_watermark: watch::Sender<Offset>,
    /// The high watermark has been told: until then 0 stands for "not known".
    is_bounded: AtomicBool,
    // Locked for a moment only: to replace what an `ArcSwap` holds costs a look at every thread that there
    // ever was at once, and leaders of a thousand groups do so all the time.
    phase: RwLock<Arc<Phase>>,
    term: AtomicU64,
    replica: RwLock<Arc<ReplicaView>>,
    flushes: AtomicU64,
    /// Nothing below this offset is needed by whoever the log is kept for.
    needed_from: AtomicU64,
    /// Where the log ends that this one is a copy of; 0: it is none, or nothing was heard of it yet.
    source_end: AtomicU64,
    flush_wait: Arc<WaitCell>,
    raft_wait: Arc<WaitCell>,
    readers: Arc<Readers>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            view: ArcSwapOption::empty(),
            high_watermark: watch::channel(Offset(0)).0,
            is_bounded: AtomicBool::new(false),
            phase: RwLock::new(Arc::new(Phase::Recovering { done_bytes: 0, total_bytes: 0 })),
            term: AtomicU64::new(0),
            replica: RwLock::default(),
            flushes: AtomicU64::new(0),
            needed_from: AtomicU64::new(0),
            source_end: AtomicU64::new(0),
            flush_wait: Arc::default(),
            raft_wait: Arc::default(),
            readers: Arc::default(),
        }
    }
}

impl Published {
    /// The log as readers see it; `None` until it was recovered once.
    pub fn view(&self) -> Option<Arc<LogView>> {
        self.view.load_full()
    }

    /// One past the newest committed record.
    pub fn high_watermark(&self) -> Offset {
        *self.high_watermark.borrow()
    }

    /// Whether the high watermark has been told since the node started.
    pub fn is_bounded(&self) -> bool {
        self.is_bounded.load(Ordering::Acquire)
    }

    /// The high watermark as it moves.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.high_watermark.subscribe()
    }

    /// What the partition is doing.
    pub fn phase(&self) -> Arc<Phase> {
        Arc::clone(&self.phase.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    /// What the replica is in its group.
    pub fn replica(&self) -> Arc<ReplicaView> {
        Arc::clone(&self.replica.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the replica is known not to take what is to be appended.
    pub fn is_follower(&self) -> bool {
        !matches!(self.replica().role, ReplicaRole::Leader | ReplicaRole::Starting)
    }

    /// Flushes since the node started.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Nothing below this offset is needed any more: what retention may remove whatever the settings
    /// say. 0 until somebody knows.
    pub fn needed_from(&self) -> Offset {
        Offset(self.needed_from.load(Ordering::Relaxed))
    }

    /// What the flush thread waits for.
    pub fn flush_wait(&self) -> &Arc<WaitCell> {
        &self.flush_wait
    }

    /// What the raft actor waits for, before it makes its next entry.
    pub fn raft_wait(&self) -> &Arc<WaitCell> {
        &self.raft_wait
    }

    /// Who reads.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    pub(super) fn recovered(&self, view: Arc<LogView>) {
        self.view.store(Some(view));
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(phase);
    }

    pub(super) fn not_serving(&self, reason: &str) {
        self.enter(Phase::Down { reason: reason.to_owned() });
    }

    /// Tells what the replica is from now on, and in which term.
    pub(super) fn replica_is(&self, term: Term, view: ReplicaView) {
        self.term.store(term.0, Ordering::Relaxed);
        *self.replica.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// Moves the high watermark. It never goes back: what was committed stays committed, also
    /// across a restart of the partition.
    pub(super) fn commit(&self, upto: Offset) {
        self.high_watermark.send_if_modified(|known| {
            let moved = upto > *known;
            *known = upto.max(*known);
            moved
        });
        self.is_bounded.store(true, Ordering::Release);
    }

    /// Of a copy: one past the newest record of its source, as heard last.
    pub fn source_end(&self) -> Option<Offset> {
        Some(Offset(self.source_end.load(Ordering::Relaxed))).filter(|end| *end > Offset(0))
    }

    /// Tells where the source ends.
    pub fn source_ends(&self, end: Offset) {
        self.source_end.fetch_max(end.0, Ordering::Relaxed);
    }

    /// Tells what is needed; it never goes back.
    pub(super) fn need_from(&self, offset: Offset) {
        self.needed_from.fetch_max(offset.0, Ordering::Relaxed);
    }

    pub(super) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_watermark_never_goes_back_and_wakes_only_when_it_moves() {
        let published = Published::default();
        let mut watch = published.watch();
        published.commit(Offset(5));
        assert!(watch.has_changed().expect("alive"));
        assert_eq!(*watch.borrow_and_update(), Offset(5));
        published.commit(Offset(3));
        assert!(!watch.has_changed().expect("alive"));
        assert_eq!(published.high_watermark(), Offset(5));
    }
}
