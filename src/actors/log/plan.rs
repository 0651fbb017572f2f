//! What a partition's log needs to be opened again and again: the same for every generation.

use crate::actors::published::Published;
use crate::log::LogOptions;
use crate::log::disk::Disk;
use crate::model::{Clock, Durability};
use crate::observe::{Instruments, Recorder};
use crate::supervision::Fence;
use slog::Logger;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct LogPlan {
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Time for timestamps and ages.
    pub clock: Arc<dyn Clock>,
    /// The partition's directory.
    pub directory: PathBuf,
    /// Limits of the log.
    pub options: LogOptions,
    /// When an append counts as done.
    pub durability: Durability,
    /// How often [`Durability::Interval`] syncs.
    pub sync_interval: Duration,
    /// Keeps threads of earlier generations from writing.
    pub fence: Arc<Fence>,
    /// How long a new generation waits for the writes of the one before it.
    pub fence_wait: Duration,
    /// What readers see.
    pub published: Arc<Published>,
    /// Diagnostics.
    pub logger: Logger,
    /// What is measured.
    pub instruments: Instruments,
    /// Of the flush thread, over all its lives.
    recorder: OnceLock<Arc<Recorder>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The values of a [`LogPlan`].
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the field of the same name of the plan")]
pub struct LogPlanParts {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub directory: PathBuf,
    pub options: LogOptions,
    pub durability: Durability,
    pub sync_interval: Duration,
    pub published: Arc<Published>,
    pub logger: Logger,
    pub instruments: Instruments,
}

impl LogPlan {
    /// A plan whose fence has let nobody in yet.
    pub fn new(parts: LogPlanParts) -> Self {
        let LogPlanParts {
            disk,
            clock,
            directory,
            options,
            durability,
            sync_interval,
            published,
            logger,
            instruments,
        } = parts;
        Self {
            disk,
            clock,
            directory,
            options,
            durability,
            sync_interval,
            fence: Fence::new(),
            fence_wait: Duration::from_secs(5),
            published,
            logger,
            instruments,
            recorder: OnceLock::new(),
            threads: Mutex::default(),
        }
    }

    /// What records the flush thread's jobs: it lies below its actor's.
    pub(super) fn flush_recorder(&self, above: &Recorder) -> Arc<Recorder> {
        Arc::clone(self.recorder.get_or_init(|| above.below("flush")))
    }

    /// Remembers a flush thread, so that a stop can wait for it; forgets those that ended.
    pub(super) fn started(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// True when no flush thread is left: the log is closed.
    pub fn is_closed(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().all(JoinHandle::is_finished)
    }
}
