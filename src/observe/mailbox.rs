//! How many messages lie in the mailbox of one life of an actor.
//!
//! Counted per life: a thread that is given up keeps its mailbox for ever, and what lies in there
//! must not be counted as the next life's.

use super::Recorder;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The mailbox of one life, as its recorder counts it. Held by whoever sends to that life.
pub struct Mailbox {
    recorder: Arc<Recorder>,
    waiting: Arc<AtomicI64>,
}

impl Mailbox {
    /// The mailbox of a life that begins: from now on the recorder tells of this one.
    pub fn of_new_life(recorder: &Arc<Recorder>) -> Arc<Self> {
        let waiting = Arc::<AtomicI64>::default();
        recorder.count_in(&waiting);
        Arc::new(Self { recorder: Arc::clone(recorder), waiting })
    }

    /// Whose mailbox it is.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Notes that a message is on its way into the mailbox.
    pub fn sent(&self) {
        if super::IS_ON {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a message has left the mailbox: it is handled now, or never will be.
    pub fn left(&self) {
        if super::IS_ON {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({})", self.recorder.path_text())
    }
}
