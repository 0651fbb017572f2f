//! How many messages lie in the mailbox of one life of an actor or a worker.
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

    /// Counts a message that is on its way into the mailbox, until the guard is dropped.
    pub fn post(self: &Arc<Self>) -> Posted {
        Posted(super::IS_ON.then(|| {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            Arc::clone(self)
        }))
    }
}

/// A message's place in a mailbox. Dropped with the message: whether that is handled, refused or
/// lost, it waits no longer.
#[derive(Debug)]
#[must_use = "the message counts as waiting until this is dropped"]
pub struct Posted(Option<Arc<Mailbox>>);

impl Posted {
    /// The message is taken out. Returns where it lay; `None` in a build that records nothing.
    pub fn leave(mut self) -> Option<Arc<Mailbox>> {
        self.end()
    }

    fn end(&mut self) -> Option<Arc<Mailbox>> {
        self.0.take().inspect(|mailbox| {
            mailbox.waiting.fetch_sub(1, Ordering::Relaxed);
        })
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({})", self.recorder.path_text())
    }
}
