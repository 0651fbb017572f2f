//! Closes the logs that no thread has in hand as their actor ends: a stop ends a thousand of them at
//! once, and each close waits for the disk.

use super::flush::FlushThread;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many logs are closed at a time.
const THREADS_MAX: usize = 8;

/// See the module; one for a node. It has threads only while there is something to close.
#[derive(Default)]
pub struct Closers(Mutex<Left>);

#[derive(Default)]
struct Left {
    logs: VecDeque<Box<FlushThread>>,
    threads: usize,
}

impl fmt::Debug for Closers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.left();
        write!(f, "Closers({} logs, {} threads)", left.logs.len(), left.threads)
    }
}

impl Closers {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a log closed, soon. Bounded by the number of logs.
    pub(super) fn close(self: &Arc<Self>, log: Box<FlushThread>) {
        let mut left = self.left();
        left.logs.push_back(log);
        if left.threads == THREADS_MAX {
            return;
        }
        left.threads += 1;
        drop(left);
        let closers = Arc::clone(self);
        let thread = std::thread::Builder::new().name("duramen-close".into());
        if thread.stack_size(512 << 10).spawn(move || closers.work()).is_err() {
            let mut left = self.left();
            left.threads -= 1;
            if left.threads == 0 {
                // Nobody can close them: the next start recovers them.
                let unclosed = std::mem::take(&mut left.logs);
                drop(left);
                drop(unclosed);
            }
        }
    }

    fn work(&self) {
        loop {
            let mut left = self.left();
            let Some(log) = left.logs.pop_front() else {
                left.threads -= 1;
                return;
            };
            drop(left);
            log.close_parked();
        }
    }
}
