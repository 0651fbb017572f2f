//! Places for calls: each holds memory for as long as its client likes, so there is a bound for all that
//! are open on the port together.
//!
//! Where all places are taken, a connection still gets a few: whoever makes a call now and then is served,
//! however many others hold open.

use crate::observe::metrics::Counter;
use crate::observe::metrics::Snapshot;
use crate::observe::metrics::catalogue as of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the bound is unless told otherwise.
const CALLS_MAX: usize = 1024;
/// A connection may always have so many, so that the bound is passed by that for each at most.
const FEW: usize = 8;
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
        let (taken, refused) = (AtomicUsize::new(0), Counter::default());
        Self(Arc::new(Shared { calls_max, taken, refused }))
    }

    /// Those of a new connection.
    pub fn of_connection(&self) -> OwnPlaces {
        let taken = AtomicUsize::new(0);
        OwnPlaces(Arc::new(Own { port: self.clone(), taken }))
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
        let Shared { calls_max, taken: all, refused } = &*port.0;
        let own = taken.load(Ordering::Relaxed);
        if own >= FEW && all.load(Ordering::Relaxed) >= *calls_max {
            refused.one();
            return Err(AllTaken { calls_max: *calls_max, own });
        }
        taken.fetch_add(1, Ordering::Relaxed);
        all.fetch_add(1, Ordering::Relaxed);
        Ok(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Own { port, taken } = &*self.0.0;
        taken.fetch_sub(1, Ordering::Relaxed);
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
    fn where_all_are_taken_whoever_has_few_is_served_and_whoever_has_many_is_told() {
        let places = Places::new(100);
        let (greedy, other) = (places.of_connection(), places.of_connection());
        let all = held(&greedy, 1_000);
        assert_eq!(all.len(), 100);
        let told = greedy.take().unwrap_err().to_string();
        assert!(told.contains("100 calls are open") && told.contains("rpc.calls_max"), "{told}");
        let few = held(&other, 1_000);
        assert_eq!(few.len(), FEW);
        drop(all);
        assert_eq!(held(&greedy, 1_000).len(), 100 - FEW);
    }

    #[test]
    fn a_place_is_free_again_when_its_call_ends() {
        let places = Places::new(10);
        let connections: Vec<_> = (0..20).map(|_| places.of_connection()).collect();
        let all: Vec<_> = connections.iter().flat_map(|own| held(own, 20)).collect();
        assert_eq!(all.len(), 10 + 19 * FEW, "the first took all, and each has a few");
        drop(all);
        assert_eq!(places.0.taken.load(Ordering::Relaxed), 0);
        assert_eq!(held(&connections[0], 1_000).len(), 10);
        assert_eq!(places.0.refused.get(), 21);
    }
}
