//! What a partition's log needs to be opened again and again: the same for every generation.

use super::closing::Closers;
use crate::actors::published::Published;
use crate::log::LogOptions;
use crate::log::disk::Disk;
use crate::model::{Clock, Durability, ReplicaId};
use crate::observe::metrics::LogMetrics;
use crate::observe::{Instruments, Recorder};
use crate::supervision::Fence;
use slog::Logger;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct LogPlan {
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Time for timestamps and ages.
    pub clock: Arc<dyn Clock>,
    /// Which replica of its group it belongs to.
    pub me: ReplicaId,
    /// The partition's directory.
    pub directory: PathBuf,
    /// Limits of the log.
    pub options: LogOptions,
    /// When an append counts as done.
    pub durability: Durability,
    /// How often [`Durability::Interval`] syncs.
    pub sync_interval: Duration,
    /// What readers see.
    pub published: Arc<Published>,
    /// Diagnostics.
    pub logger: Logger,
    /// What is measured.
    pub instruments: Instruments,
    /// What is counted of this log.
    pub metrics: Arc<LogMetrics>,
    /// Closes the log where no thread has it in hand.
    pub closers: Arc<Closers>,
    /// New to begin with.
    pub lives: Lives,
}

/// What the generations of a log leave to each other.
#[derive(Debug, Default)]
pub struct Lives {
    /// Keeps threads of earlier generations from writing; nobody has passed it yet.
    pub(super) fence: Arc<Fence>,
    /// Of the flush thread.
    recorder: OnceLock<Arc<Recorder>>,
    threads: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

/// Counts until it is dropped: a log that is open, or a thread at work.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn among(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LogPlan {
    /// What records the flush thread's jobs: it lies below its actor's.
    pub(super) fn flush_recorder(&self, above: &Recorder) -> Arc<Recorder> {
        Arc::clone(self.lives.recorder.get_or_init(|| above.below("flush")))
    }

    /// A flush thread counts as at work until what is returned is dropped: the last thing that it does.
    /// A thread that ended and is not joined keeps its stack, so no handle to it is kept.
    pub(super) fn thread(&self) -> Counted {
        Counted::among(&self.lives.threads)
    }

    /// The log counts as open until what is returned is dropped.
    pub(super) fn opened(&self) -> Counted {
        Counted::among(&self.lives.open)
    }

    /// True when the log is open and no thread has it in hand: there is nothing to do.
    pub fn is_at_rest(&self) -> bool {
        self.has_no_thread() && self.lives.open.load(Ordering::Acquire) > 0
    }

    fn has_no_thread(&self) -> bool {
        self.lives.threads.load(Ordering::Acquire) == 0
    }

    /// True when no flush thread is left, and the log is closed.
    pub fn is_closed(&self) -> bool {
        // In this order: a thread that ends may leave the log open behind it.
        self.has_no_thread() && self.lives.open.load(Ordering::Acquire) == 0
    }
}
