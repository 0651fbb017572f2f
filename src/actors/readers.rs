//! Who reads a partition just now: where each reader stands and what it waits for. Bounded by the
//! calls that may be open.

use crate::model::{Clock, Offset};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderWait {
    /// For records that are not there yet.
    Records,
    /// For the node to read what it asked for.
    Node,
    /// For its own client to take what it was given.
    Client,
}

/// A reader, at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderStatus {
    /// Tells readers of one partition apart.
    pub number: u64,
    /// The client; `None` where it is in this process.
    pub peer: Option<SocketAddr>,
    /// The offset that it gets next.
    pub next: Offset,
    /// What it waits for.
    pub wait: ReaderWait,
    /// Since when (monotonic time).
    pub since: Duration,
}

/// The readers of one partition.
#[derive(Debug, Default)]
pub struct Readers {
    numbers: AtomicU64,
    open: Mutex<BTreeMap<u64, ReaderStatus>>,
}

impl Readers {
    /// Registers a reader.
    pub fn open(
        self: &Arc<Self>,
        peer: Option<SocketAddr>,
        next: Offset,
        clock: &Arc<dyn Clock>,
    ) -> Reader {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let since = clock.monotonic();
        let status = ReaderStatus { number, peer, next, wait: ReaderWait::Node, since };
        self.lock().insert(number, status);
        Reader { number, readers: Arc::clone(self), clock: Arc::clone(clock) }
    }

    /// All of them, those that have waited longest first.
    pub fn list(&self) -> Vec<ReaderStatus> {
        let mut list: Vec<_> = self.lock().values().cloned().collect();
        list.sort_by_key(|reader| reader.since);
        list
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, ReaderStatus>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's entry; leaves with it.
pub struct Reader {
    number: u64,
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
}

impl Reader {
    /// Says what it waits for from now on, and where it stands.
    pub fn waits(&self, wait: ReaderWait, next: Offset) {
        let now = self.clock.monotonic();
        if let Some(status) = self.readers.lock().get_mut(&self.number) {
            // Each response that a client takes begins its time anew.
            if status.wait != wait || status.next != next {
                status.since = now;
            }
            (status.wait, status.next) = (wait, next);
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.number)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManualClock, Timestamp};

    #[test]
    fn a_reader_is_listed_while_it_lives_and_its_time_begins_anew_with_each_step() {
        let manual = Arc::new(ManualClock::at(Timestamp(0)));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
        let readers = Arc::<Readers>::default();
        let slow = readers.open(None, Offset(5), &clock);
        slow.waits(ReaderWait::Client, Offset(6));
        manual.advance(Duration::from_secs(1));
        let quick = readers.open(None, Offset(0), &clock);
        slow.waits(ReaderWait::Client, Offset(6));
        let list = readers.list();
        assert_eq!((list[0].next, list[0].since), (Offset(6), Duration::ZERO), "longest first");
        slow.waits(ReaderWait::Client, Offset(7));
        assert_eq!(readers.list()[1].since, Duration::from_secs(1));
        drop((slow, quick));
        assert_eq!(readers.count(), 0);
    }
}
