//! Who gives way when a port has as many connections as it may: whoever uses theirs least.
//!
//! A connection costs a client next to nothing, and a port has only so many. Where all are taken, one ends
//! for each that comes: of those on which no call was ever let in the oldest, then the one whose last call is
//! over for longest, if it is over for long. Whoever uses theirs keeps it.

use super::listener::ConnectionCounters;
use crate::model::Clock;
use slog::{Logger, warn};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How long a connection on which calls were let in must have been without one to give way.
const QUIET_MIN: Duration = Duration::from_secs(30);
/// When it is looked again after nobody was found.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection, as far as it is used. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seat(Arc<Uses>);

#[derive(Debug, Default)]
struct Uses {
    /// Calls that are open, and that ever began.
    open: AtomicUsize,
    begun: AtomicU64,
    /// The same of those that were let in.
    let_in_open: AtomicUsize,
    let_in_begun: AtomicU64,
    /// It ended, or gave way.
    is_left: AtomicBool,
}

impl Seat {
    /// A call begins on the connection.
    pub fn call(&self) -> Use {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Use { seat: self.clone(), is_let_in: false }
    }

    /// How many calls have begun on it.
    pub fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Whether some of them are open.
    pub fn is_in_use(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }
}

/// A call on a connection, open for as long as this lives.
#[derive(Debug)]
pub struct Use {
    seat: Seat,
    is_let_in: bool,
}

impl Use {
    /// It asks for something, and whoever makes it may.
    #[must_use]
    pub fn let_in(mut self) -> Self {
        if !self.is_let_in {
            self.is_let_in = true;
            self.seat.0.let_in_open.fetch_add(1, Ordering::Relaxed);
            self.seat.0.let_in_begun.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let Uses { open, let_in_open, .. } = &*self.seat.0;
        open.fetch_sub(1, Ordering::Relaxed);
        if self.is_let_in {
            let_in_open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts a connection as open until it ends, however it does, or gives way.
#[derive(Debug)]
pub(super) struct Sitting {
    seat: Seat,
    counters: Arc<ConnectionCounters>,
}

impl Drop for Sitting {
    fn drop(&mut self) {
        leave(&self.seat.0, &self.counters);
    }
}

fn leave(uses: &Uses, counters: &ConnectionCounters) {
    if !uses.is_left.swap(true, Ordering::Relaxed) {
        counters.closed();
    }
}

/// What there is for one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// An ordinary place.
    Free,
    /// One of those that are kept.
    Kept,
    /// Nothing.
    None,
}

/// The connections of a port.
pub(super) struct Seats {
    max: usize,
    kept: usize,
    counters: Arc<ConnectionCounters>,
    clock: Arc<dyn Clock>,
    logger: Logger,
    /// In the order in which they came; some have ended.
    taken: Vec<Taken>,
    /// Who may give way, the first of them last.
    leavers: Vec<Leaver>,
    next_look: Duration,
}

/// A connection as it was when it was last looked at.
struct Taken {
    uses: Weak<Uses>,
    connection: AbortHandle,
    /// Calls that had been let in …
    let_in: u64,
    /// … and since when there are no more.
    quiet_since: Duration,
}

/// One that may give way, if nothing more has been let in.
struct Leaver {
    uses: Weak<Uses>,
    connection: AbortHandle,
    let_in: u64,
}

impl Seats {
    /// `max` places, and so many that are `kept` for whoever is not known before the first call.
    pub fn new(
        (max, kept): (usize, usize),
        counters: Arc<ConnectionCounters>,
        clock: Arc<dyn Clock>,
        logger: Logger,
    ) -> Self {
        let (taken, leavers, next_look) = Default::default();
        Self { max, kept, counters, clock, logger, taken, leavers, next_look }
    }

    /// Room for one more; where there is none, somebody gives way who may.
    pub fn room(&mut self) -> Room {
        if self.counters.open() < self.max || self.made_room() {
            Room::Free
        } else if self.counters.open() < self.max + self.kept {
            Room::Kept
        } else {
            Room::None
        }
    }

    /// A new connection counts as open from now on.
    pub fn sit(&self, seat: &Seat) -> Sitting {
        self.counters.opened();
        Sitting { seat: seat.clone(), counters: Arc::clone(&self.counters) }
    }

    /// This is how the new connection is ended.
    pub fn taken(&mut self, seat: &Seat, connection: AbortHandle) {
        if self.taken.len() >= 2 * (self.max + self.kept) {
            self.taken.retain(|taken| taken.uses.strong_count() > 0);
        }
        let (uses, quiet_since) = (Arc::downgrade(&seat.0), self.clock.monotonic());
        self.taken.push(Taken { uses, connection, let_in: 0, quiet_since });
    }

    fn made_room(&mut self) -> bool {
        let is_over = |uses: &Uses| uses.is_left.load(Ordering::Relaxed);
        loop {
            while let Some(Leaver { uses, connection, let_in }) = self.leavers.pop() {
                let Some(uses) = uses.upgrade().filter(|uses| !is_over(uses)) else { continue };
                if uses.let_in_begun.load(Ordering::Relaxed) == let_in {
                    leave(&uses, &self.counters);
                    connection.abort();
                    self.tell();
                    return true;
                }
            }
            let now = self.clock.monotonic();
            if now < self.next_look {
                return false;
            }
            self.look(now);
            if self.leavers.is_empty() {
                self.next_look = now + PAUSE;
                return false;
            }
        }
    }

    /// Finds out who may give way.
    fn look(&mut self, now: Duration) {
        let (mut strangers, mut quiet) = (Vec::new(), Vec::new());
        self.taken.retain_mut(|Taken { uses: weak, connection, let_in, quiet_since }| {
            let Some(uses) = weak.upgrade() else { return false };
            if uses.is_left.load(Ordering::Relaxed) {
                return false;
            }
            let begun = uses.let_in_begun.load(Ordering::Relaxed);
            if begun != *let_in || uses.let_in_open.load(Ordering::Relaxed) > 0 {
                (*let_in, *quiet_since) = (begun, now);
            }
            let leaver =
                Leaver { uses: weak.clone(), connection: connection.clone(), let_in: begun };
            if begun == 0 {
                strangers.push(leaver);
            } else if now.saturating_sub(*quiet_since) >= QUIET_MIN {
                quiet.push((*quiet_since, leaver));
            }
            true
        });
        quiet.sort_by_key(|(since, _)| *since);
        self.leavers.extend(quiet.into_iter().rev().map(|(_, leaver)| leaver));
        self.leavers.extend(strangers.into_iter().rev());
    }

    fn tell(&self) {
        self.counters.crowded.one();
        let crowded = self.counters.crowded.get();
        // Powers of two: a flood of connections must not become a flood of log lines.
        if crowded.is_power_of_two() {
            warn!(self.logger, "a connection without calls gave way to a newer one: too many are open";
                "connections_max" => self.max, "gave_way" => crowded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;

    /// A port of so many places and two more that are kept, where nothing is served.
    struct Port {
        seats: Seats,
        clock: Arc<ManualClock>,
    }

    type Connection = tokio::task::JoinHandle<()>;

    impl Port {
        fn new(max: usize) -> Self {
            let clock = Arc::new(ManualClock::default());
            let logger = Logger::root(slog::Discard, slog::o!());
            let seats = Seats::new((max, 2), Arc::default(), clock.clone(), logger);
            Self { seats, clock }
        }

        /// One more comes; nothing if it finds no room.
        fn comes(&mut self) -> (Room, Option<(Seat, Connection)>) {
            let room = self.seats.room();
            if room == Room::None {
                return (room, None);
            }
            let seat = Seat::default();
            let sitting = self.seats.sit(&seat);
            let connection = tokio::spawn(async move {
                let _sitting = sitting;
                std::future::pending().await
            });
            self.seats.taken(&seat, connection.abort_handle());
            (room, Some((seat, connection)))
        }

        fn free(&mut self) -> (Seat, Connection) {
            let (room, came) = self.comes();
            assert_eq!(room, Room::Free);
            came.unwrap()
        }
    }

    async fn has_ended(connection: Connection) -> bool {
        let ended = tokio::time::timeout(Duration::from_millis(50), connection).await;
        ended.is_ok_and(|ended| ended.unwrap_err().is_cancelled())
    }

    #[tokio::test]
    async fn where_all_places_are_taken_the_oldest_gives_way_on_which_nothing_was_let_in() {
        let mut port = Port::new(3);
        let (user, used) = port.free();
        drop(user.call().let_in());
        let (refused, first) = port.free();
        let (_silent, second) = port.free();
        // One who calls and is refused, or asks for nothing, is a stranger for all that.
        let _open = refused.call();
        let (_newer, third) = port.free();
        assert!(has_ended(first).await);
        assert!(!second.is_finished() && !used.is_finished() && !third.is_finished());
        port.free();
        assert!(has_ended(second).await);
        port.free();
        assert!(has_ended(third).await);
        assert!(!used.is_finished());
        assert_eq!(port.seats.counters.open(), 3);
        assert_eq!(port.seats.counters.crowded.get(), 3);
    }

    #[tokio::test]
    async fn one_whose_calls_are_long_over_gives_way_and_nobody_who_makes_some() {
        let mut port = Port::new(2);
        let (busy, of_busy) = port.free();
        let (quiet, of_quiet) = port.free();
        let open = busy.call().let_in();
        drop(quiet.call().let_in());
        let (room, kept) = port.comes();
        assert_eq!(room, Room::Kept);
        let (node, of_node) = kept.unwrap();
        let _exchange = node.call().let_in();
        // Until it was looked nobody knows since when it is quiet.
        port.clock.advance(QUIET_MIN);
        let (_new, of_new) = port.free();
        assert!(has_ended(of_quiet).await);
        assert!(!of_busy.is_finished() && !of_node.is_finished());
        port.free();
        assert!(has_ended(of_new).await, "it has not called yet");
        drop(open);
        assert!(!of_busy.is_finished());
    }

    #[tokio::test]
    async fn where_everybody_uses_theirs_more_find_the_places_that_are_kept_and_then_none() {
        let mut port = Port::new(2);
        let mut all = Vec::new();
        for expected in [Room::Free, Room::Free, Room::Kept, Room::Kept] {
            let (room, came) = port.comes();
            assert_eq!(room, expected);
            let (seat, connection) = came.unwrap();
            all.push((seat.call().let_in(), connection));
        }
        assert_eq!(port.comes().0, Room::None);
        port.clock.advance(2 * QUIET_MIN);
        assert_eq!(port.comes().0, Room::None, "their calls are open");
        let (_, connection) = all.pop().unwrap();
        connection.abort();
        assert!(has_ended(connection).await);
        assert_eq!(port.comes().0, Room::Kept);
        assert_eq!(port.seats.counters.crowded.get(), 0);
    }

    #[tokio::test]
    async fn of_those_that_are_gone_nothing_is_kept() {
        let mut port = Port::new(2);
        for _ in 0..100 {
            let (_, connection) = port.free();
            connection.abort();
            assert!(has_ended(connection).await);
        }
        assert!(port.seats.taken.len() <= 8, "{}", port.seats.taken.len());
        assert_eq!(port.seats.counters.open(), 0);
    }
}
