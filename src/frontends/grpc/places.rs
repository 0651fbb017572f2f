//! Places for calls: each holds memory for as long as its client likes, so there is a bound for all that
//! are open on the port together.
//!
//! Where all places are taken, a connection that has its share of them is refused more, and one that has
//! few is not: whoever makes a call now and then is served, however many others hold open.

use crate::observe::metrics::Counter;
use crate::observe::metrics::Snapshot;
use crate::observe::metrics::catalogue as of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the bound is unless told otherwise.
const CALLS_MAX: usize = 2048;
/// A connection may always have so many, so that the bound is passed by that for each at most.
const SHARE_MIN: usize = 8;
/// When to come again after it was reached.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a call is not begun.
#[derive(Debug, thiserror::Error)]
#[error(
    "{calls_max} calls are open on this port, as many as may (rpc.calls_max), and {own} of them are of \
     this connection: end some, or make fewer at once"
)]
pub struct AllTaken {
    calls_max: usize,
    own: usize,
}

/// Of a port. Clones share it.
#[derive(Debug, Clone)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    calls_max: usize,
    taken: AtomicUsize,
    /// Connections that have taken any.
    connections: AtomicUsize,
    refused: Counter,
}

/// Of a connection. Clones share it.
#[derive(Debug, Clone)]
pub struct OwnPlaces(Arc<Own>);

#[derive(Debug)]
struct Own {
    port: Places,
    taken: AtomicUsize,
}

/// A call that is open for as long as this lives.
#[derive(Debug)]
pub struct Place(OwnPlaces);

impl Default for Places {
    fn default() -> Self {
        Self::new(CALLS_MAX)
    }
}

impl Places {
    /// As many.
    pub fn new(calls_max: usize) -> Self {
        let (taken, connections) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Shared { calls_max, taken, connections, refused: Counter::default() }))
    }

    /// Those of a new connection.
    pub fn of_connection(&self) -> OwnPlaces {
        OwnPlaces(Arc::new(Own { port: self.clone(), taken: AtomicUsize::new(0) }))
    }

    /// Adds what is counted here to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot) {
        snapshot.number(&of::CALLS_OPEN, &[], self.0.taken.load(Ordering::Relaxed) as f64);
        snapshot.counter(&of::CALLS_REFUSED, &[], &self.0.refused);
    }
}

impl OwnPlaces {
    /// Takes one.
    ///
    /// # Errors
    /// [`AllTaken`]: others on the port may have some still.
    pub fn take(&self) -> Result<Place, AllTaken> {
        let Own { port, taken } = &*self.0;
        let Shared { calls_max, taken: all, connections, refused } = &*port.0;
        let (own, calls_max) = (taken.load(Ordering::Relaxed), *calls_max);
        if own >= SHARE_MIN && all.load(Ordering::Relaxed) >= calls_max {
            let share = calls_max / connections.load(Ordering::Relaxed).max(1);
            if own >= share {
                refused.one();
                return Err(AllTaken { calls_max, own });
            }
        }
        if taken.fetch_add(1, Ordering::Relaxed) == 0 {
            connections.fetch_add(1, Ordering::Relaxed);
        }
        all.fetch_add(1, Ordering::Relaxed);
        Ok(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Own { port, taken } = &*self.0.0;
        if taken.fetch_sub(1, Ordering::Relaxed) == 1 {
            port.0.connections.fetch_sub(1, Ordering::Relaxed);
        }
        port.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(own: &OwnPlaces, count: usize) -> Vec<Place> {
        (0..count).map_while(|_| own.take().ok()).collect()
    }

    #[test]
    fn whoever_has_their_share_is_refused_and_whoever_has_few_is_not() {
        let places = Places::new(100);
        let (greedy, other) = (places.of_connection(), places.of_connection());
        let all = held(&greedy, 1_000);
        assert_eq!(all.len(), 100);
        let told = greedy.take().unwrap_err().to_string();
        assert!(told.contains("100 calls are open") && told.contains("rpc.calls_max"), "{told}");
        // The greedy one holds all; the other comes to what it may have with two of them there.
        let few = held(&other, 1_000);
        assert_eq!(few.len(), 50);
        drop(all);
        assert_eq!(held(&greedy, 30).len(), 30);
    }

    #[test]
    fn a_place_is_free_again_when_its_call_ends_and_none_is_counted_twice() {
        let places = Places::new(10);
        let connections: Vec<_> = (0..20).map(|_| places.of_connection()).collect();
        let all: Vec<_> = connections.iter().map(|own| held(own, SHARE_MIN + 1)).collect();
        // Each may have a few, beyond the bound.
        assert_eq!(all[19].len(), SHARE_MIN);
        assert!(places.0.refused.get() >= 19);
        drop(all);
        let counts = (&places.0.taken, &places.0.connections);
        assert_eq!((counts.0.load(Ordering::Relaxed), counts.1.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(held(&connections[0], 1_000).len(), 10);
    }
}
