//! Clients whose requests make no sense: who, how often, and why the last time. Bounded.

use crate::model::Clock;
use slog::{Logger, debug, warn};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients remembered; the one that was silent for longest makes room.
const CLIENTS_MAX: usize = 64;
/// A client's further mistakes are counted for so long before the log tells of them again.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Of a reason so many characters are kept.
const REASON_CHARS_MAX: usize = 200;

/// One client's mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Who.
    pub peer: SocketAddr,
    /// How many requests of it were refused for making no sense.
    pub requests: u64,
    /// When the first was (monotonic time).
    pub since: Duration,
    /// When the last was (monotonic time).
    pub last: Duration,
    /// Why that one was refused.
    pub reason: String,
}

#[derive(Debug)]
struct Known {
    complaint: Complaint,
    told: Duration,
    untold: u64,
}

/// See the module.
pub struct Complaints {
    clock: Arc<dyn Clock>,
    logger: Logger,
    known: Mutex<HashMap<SocketAddr, Known>>,
}

impl Complaints {
    /// Nothing so far. Lines go to the logger.
    pub fn new(clock: Arc<dyn Clock>, logger: Logger) -> Arc<Self> {
        Arc::new(Self { clock, logger, known: Mutex::default() })
    }

    /// Notes that a request of this client was refused for this reason.
    pub fn note(&self, peer: SocketAddr, reason: &str) {
        let now = self.clock.monotonic();
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        debug!(self.logger, "a request makes no sense"; "peer" => %peer, "reason" => &reason);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CLIENTS_MAX && !known.contains_key(&peer) {
            let quiet = known.values().min_by_key(|known| known.complaint.last);
            if let Some(quiet) = quiet.map(|known| known.complaint.peer) {
                known.remove(&quiet);
            }
        }
        let entry = known.entry(peer).or_insert_with(|| Known {
            complaint: Complaint {
                peer,
                requests: 0,
                since: now,
                last: now,
                reason: String::new(),
            },
            told: Duration::ZERO,
            untold: 0,
        });
        let is_new = entry.complaint.requests == 0;
        entry.complaint.requests += 1;
        entry.complaint.last = now;
        entry.untold += 1;
        if is_new || now.saturating_sub(entry.told) >= TELL_AGAIN {
            warn!(self.logger, "a client sends requests that make no sense"; "peer" => %peer,
                "requests" => entry.untold, "reason" => &reason);
            (entry.told, entry.untold) = (now, 0);
        }
        entry.complaint.reason = reason;
    }

    /// All that is remembered, the newest first.
    pub fn list(&self) -> Vec<Complaint> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = known.values().map(|known| known.complaint.clone()).collect();
        list.sort_by_key(|complaint| std::cmp::Reverse(complaint.last));
        list
    }
}

impl fmt::Debug for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Complaints({})", self.list().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManualClock, Timestamp};

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_client_is_remembered_with_its_last_reason_and_the_quietest_makes_room() {
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let logger = Logger::root(slog::Discard, slog::o!());
        let complaints = Complaints::new(Arc::clone(&clock) as _, logger);
        complaints.note(peer(1), "first");
        complaints.note(peer(1), "second");
        let list = complaints.list();
        assert_eq!((list[0].requests, list[0].reason.as_str()), (2, "second"));
        for port in 2..=(CLIENTS_MAX as u16 + 1) {
            clock.advance(Duration::from_millis(1));
            complaints.note(peer(port), "x");
        }
        let list = complaints.list();
        assert_eq!(list.len(), CLIENTS_MAX);
        assert!(list.iter().all(|complaint| complaint.peer != peer(1)), "the quietest went");
        assert_eq!(list[0].peer, peer(CLIENTS_MAX as u16 + 1), "the newest comes first");
    }
}
