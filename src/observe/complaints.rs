//! Clients whose requests make no sense: who, how often, and why the last time. Bounded.

use crate::model::escape::one_line;
use crate::model::{Clock, Seldom};
use slog::{Logger, debug, warn};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients remembered; the one that was silent for longest makes room.
const CLIENTS_MAX: usize = 64;
/// A client's further mistakes are counted for so long before the log tells of them again.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Over all clients the log tells this often: new ones may come faster than anybody reads.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Of a reason so many characters are kept.
const REASON_CHARS_MAX: usize = 200;

/// One client's mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Who, and by which port the last time: a client that connects anew is the same client.
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
    /// When the log last told of it.
    told: Seldom,
    untold: u64,
}

#[derive(Debug, Default)]
struct Notes {
    known: HashMap<IpAddr, Known>,
    /// When the log last told of anybody.
    told: Seldom,
    /// Mistakes since then, of anybody.
    untold: u64,
}

/// See the module.
pub struct Complaints {
    clock: Arc<dyn Clock>,
    logger: Logger,
    notes: Mutex<Notes>,
}

impl Complaints {
    /// Nothing so far. Lines go to the logger.
    pub fn new(clock: Arc<dyn Clock>, logger: Logger) -> Arc<Self> {
        Arc::new(Self { clock, logger, notes: Mutex::default() })
    }

    /// Notes that a request of this client was refused for this reason.
    pub fn note(&self, peer: SocketAddr, reason: &str) {
        let now = self.clock.monotonic();
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let reason = one_line(&reason).into_owned();
        debug!(self.logger, "a request makes no sense"; "peer" => %peer, "reason" => &reason);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let Notes { known, told, untold } = &mut *notes;
        let client = peer.ip().to_canonical();
        if known.len() >= CLIENTS_MAX && !known.contains_key(&client) {
            let quiet = known.iter().min_by_key(|(_, known)| known.complaint.last);
            if let Some(quiet) = quiet.map(|(client, _)| *client) {
                known.remove(&quiet);
            }
        }
        let entry = known.entry(client).or_insert_with(|| Known {
            complaint: Complaint {
                peer,
                requests: 0,
                since: now,
                last: now,
                reason: String::new(),
            },
            told: Seldom::default(),
            untold: 0,
        });
        entry.complaint.peer = peer;
        entry.complaint.requests += 1;
        entry.complaint.last = now;
        entry.untold += 1;
        *untold += 1;
        if entry.told.is_due(now, TELL_AGAIN) && told.take(now, TELL_INTERVAL) {
            warn!(self.logger, "a client sends requests that make no sense"; "peer" => %peer,
                "requests" => entry.untold, "reason" => &reason,
                "untold_of_others" => untold.saturating_sub(entry.untold));
            entry.told.tell(now);
            (entry.untold, *untold) = (0, 0);
        }
        entry.complaint.reason = reason;
    }

    /// All that is remembered, the newest first.
    pub fn list(&self) -> Vec<Complaint> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = notes.known.values().map(|known| known.complaint.clone()).collect();
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
    use slog::{Drain, Level, OwnedKVList, Record, o};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts warnings.
    #[derive(Default)]
    struct Warnings(AtomicUsize);

    impl Drain for Warnings {
        type Ok = ();
        type Err = Infallible;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Infallible> {
            let is_one = record.level() == Level::Warning;
            self.0.fetch_add(usize::from(is_one), Ordering::Relaxed);
            Ok(())
        }
    }

    fn noted() -> (Arc<Complaints>, Arc<ManualClock>, Arc<Warnings>) {
        let (clock, warnings) =
            (Arc::new(ManualClock::at(Timestamp(0))), Arc::<Warnings>::default());
        let logger = Logger::root(Arc::clone(&warnings), o!());
        (Complaints::new(Arc::clone(&clock) as _, logger), clock, warnings)
    }

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], port))
    }

    #[test]
    fn a_client_is_remembered_with_its_last_reason_and_the_quietest_makes_room() {
        let (complaints, clock, _) = noted();
        complaints.note(peer(1, 1), "first");
        complaints.note(peer(1, 1), "second");
        let list = complaints.list();
        assert_eq!((list[0].requests, list[0].reason.as_str()), (2, "second"));
        for host in 2..=(CLIENTS_MAX as u8 + 1) {
            clock.advance(Duration::from_millis(1));
            complaints.note(peer(host, 1), "x");
        }
        let list = complaints.list();
        assert_eq!(list.len(), CLIENTS_MAX);
        assert!(list.iter().all(|complaint| complaint.peer != peer(1, 1)), "the quietest went");
        assert_eq!(list[0].peer, peer(CLIENTS_MAX as u8 + 1, 1), "the newest comes first");
    }

    #[test]
    fn a_client_that_connects_anew_for_each_mistake_is_one_client_and_told_once() {
        let (complaints, _, warnings) = noted();
        for port in 1..=500 {
            complaints.note(peer(1, port), "x");
        }
        let list = complaints.list();
        assert_eq!((list.len(), list[0].requests, list[0].peer), (1, 500, peer(1, 500)));
        assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn many_clients_at_once_are_a_line_a_second() {
        let (complaints, clock, warnings) = noted();
        for round in 1..=3 {
            for host in 1..=20 {
                complaints.note(peer(host, 1), "x");
            }
            assert_eq!(warnings.0.load(Ordering::Relaxed), round);
            clock.advance(TELL_INTERVAL);
        }
    }

    #[test]
    fn a_reason_moves_no_cursor() {
        let (complaints, _, _) = noted();
        complaints.note(peer(1, 1), "\x1b[2Jtwo\nlines");
        assert_eq!(complaints.list()[0].reason, "\\u{1b}[2Jtwo\\nlines");
    }
}
