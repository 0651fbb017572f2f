//! Who gives way when a port has as many connections as it may: whoever uses theirs least.
//!
//! A connection costs a client next to nothing, and a port has only so many. Where all are taken, one ends
//! for each that comes: of those on which no call was ever let in the oldest, then the one whose last call is
//! over for longest, if it is over for long. Whoever uses theirs keeps it.

use super::listener::ConnectionCounters;
use super::unsent::Taker;
use crate::model::Clock;
use slog::{Logger, warn};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How long a connection on which calls were let in must have been without one to give way.
const QUIET_MIN: Duration = Duration::from_secs(30);
/// Between two looks at who is quiet.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection, as far as it is used. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seat(Arc<Uses>);

#[derive(Debug, Default)]
struct Uses {
    /// Calls that are open, and that ever began.
    open: AtomicUsize,
    begun: AtomicU64,
    /// Those that were let in and are open …
    let_in: AtomicUsize,
    /// … and how often one of them began or ended.
    changes: AtomicU64,
    taker: Taker,
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

    /// Who takes its answers.
    pub fn taker(&self) -> &Taker {
        &self.0.taker
    }
}

impl Uses {
    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether a call that was let in is open, or its answer on its way.
    fn is_busy(&self) -> bool {
        self.let_in.load(Ordering::Relaxed) > 0 || self.taker.is_owed()
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
            self.seat.0.let_in.fetch_add(1, Ordering::Relaxed);
            self.seat.0.changes.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let Uses { open, let_in, changes, .. } = &*self.seat.0;
        open.fetch_sub(1, Ordering::Relaxed);
        if self.is_let_in {
            let_in.fetch_sub(1, Ordering::Relaxed);
            changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a connection as open until it ends, however it does, or gives way.
#[derive(Debug)]
pub(super) struct Sitting {
    seat: Seat,
    counted: Counted,
}

/// Where a connection is counted: of its kind, and for whoever reports them.
#[derive(Debug, Clone)]
struct Counted {
    open: Arc<AtomicUsize>,
    counters: Arc<ConnectionCounters>,
}

impl Counted {
    fn new(counters: &Arc<ConnectionCounters>) -> Self {
        Self { open: Arc::default(), counters: Arc::clone(counters) }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn leave(&self, uses: &Uses) {
        if !uses.is_left.swap(true, Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.counters.closed();
        }
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.counted.leave(&self.seat.0);
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
    clock: Arc<dyn Clock>,
    logger: Logger,
    ordinary: Kind,
    /// Of whoever is not known before the first call.
    kept: Kind,
    /// Of the ordinary ones: on which calls were let in, some of which have ended …
    users: Vec<User>,
    /// … and those that may give way since they are quiet, the first of them last.
    quiet: Vec<(Taken, u64)>,
    next_look: Duration,
    has_given_way: bool,
}

/// Places of one kind.
struct Kind {
    max: usize,
    counted: Counted,
    /// In the order in which they came: whoever was not let in when it was last looked at.
    strangers: VecDeque<Taken>,
}

#[derive(Clone)]
struct Taken {
    uses: Weak<Uses>,
    connection: AbortHandle,
}

impl Taken {
    /// What is known of it, while it is open.
    fn uses(&self) -> Option<Arc<Uses>> {
        self.uses.upgrade().filter(|uses| !uses.is_left.load(Ordering::Relaxed))
    }
}

/// As it was when it was last looked at.
struct User {
    taken: Taken,
    changes: u64,
    quiet_since: Duration,
}

impl Kind {
    fn new(max: usize, counters: &Arc<ConnectionCounters>) -> Self {
        Self { max, counted: Counted::new(counters), strangers: VecDeque::new() }
    }

    fn has_room(&self) -> bool {
        self.counted.open() < self.max
    }

    /// The oldest stranger goes; whoever is none any more is passed to `known`.
    fn made_room(&mut self, mut known: impl FnMut(Taken)) -> bool {
        while let Some(taken) = self.strangers.pop_front() {
            match taken.uses() {
                Some(uses) if uses.changes() == 0 => {
                    self.counted.leave(&uses);
                    taken.connection.abort();
                    return true;
                }
                Some(_) => known(taken),
                None => {}
            }
        }
        false
    }

    /// Forgets who is gone, and passes on who is no stranger, where there are many.
    fn tidy(&mut self, mut known: impl FnMut(Taken)) {
        if self.strangers.len() < 2 * self.max.max(1) {
            return;
        }
        for taken in std::mem::take(&mut self.strangers) {
            match taken.uses() {
                Some(uses) if uses.changes() == 0 => self.strangers.push_back(taken),
                Some(_) => known(taken),
                None => {}
            }
        }
    }
}

impl Seats {
    /// `max` places, and so many that are `kept` for whoever is not known before the first call.
    pub fn new(
        (max, kept): (usize, usize),
        counters: &Arc<ConnectionCounters>,
        clock: Arc<dyn Clock>,
        logger: Logger,
    ) -> Self {
        let [ordinary, kept] = [max, kept].map(|max| Kind::new(max, counters));
        let (users, quiet, next_look, has_given_way) = Default::default();
        Self { clock, logger, ordinary, kept, users, quiet, next_look, has_given_way }
    }

    /// Room for one more; where there is none, somebody gives way who may.
    pub fn room(&mut self) -> Room {
        if self.ordinary.has_room() {
            Room::Free
        } else if self.made_room() {
            self.gave_way();
            Room::Free
        } else if self.kept.has_room() {
            Room::Kept
        } else if self.kept.made_room(|_node| {}) {
            self.gave_way();
            Room::Kept
        } else {
            Room::None
        }
    }

    /// Whether somebody gave way since this was asked, whose connection is still to be closed.
    pub fn has_given_way(&mut self) -> bool {
        std::mem::take(&mut self.has_given_way)
    }

    /// A new connection counts as open from now on.
    pub fn sit(&self, seat: &Seat, is_kept: bool) -> Sitting {
        let kind = if is_kept { &self.kept } else { &self.ordinary };
        kind.counted.open.fetch_add(1, Ordering::Relaxed);
        kind.counted.counters.opened();
        Sitting { seat: seat.clone(), counted: kind.counted.clone() }
    }

    /// This is how the new connection is ended.
    pub fn taken(&mut self, seat: &Seat, is_kept: bool, connection: AbortHandle) {
        let Self { ordinary, kept, users, .. } = self;
        let kind = if is_kept { kept } else { ordinary };
        kind.strangers.push_back(Taken { uses: Arc::downgrade(&seat.0), connection });
        let now = self.clock.monotonic();
        kind.tidy(|known| {
            if !is_kept {
                users.push(User::new(known, now));
            }
        });
        if users.len() >= 2 * self.ordinary.max {
            users.retain(|user| user.taken.uses().is_some());
        }
    }

    fn made_room(&mut self) -> bool {
        let now = self.clock.monotonic();
        let Self { ordinary, users, .. } = self;
        if ordinary.made_room(|known| users.push(User::new(known, now))) {
            return true;
        }
        if self.quiet.is_empty() && now >= self.next_look {
            self.next_look = now + PAUSE;
            self.look(now);
        }
        while let Some((taken, changes)) = self.quiet.pop() {
            let still = taken.uses().filter(|uses| uses.changes() == changes && !uses.is_busy());
            if let Some(uses) = still {
                self.ordinary.counted.leave(&uses);
                taken.connection.abort();
                return true;
            }
        }
        false
    }

    /// Finds out who is quiet.
    fn look(&mut self, now: Duration) {
        let mut quiet = Vec::new();
        self.users.retain_mut(|User { taken, changes, quiet_since }| {
            let Some(uses) = taken.uses() else { return false };
            if uses.changes() != *changes || uses.is_busy() {
                (*changes, *quiet_since) = (uses.changes(), now);
            } else if now.saturating_sub(*quiet_since) >= QUIET_MIN {
                quiet.push((*quiet_since, taken.clone(), *changes));
            }
            true
        });
        quiet.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
        self.quiet = quiet.into_iter().map(|(_, taken, changes)| (taken, changes)).collect();
    }

    fn gave_way(&mut self) {
        self.has_given_way = true;
        let crowded = &self.ordinary.counted.counters.crowded;
        crowded.one();
        // Powers of two: a flood of connections must not become a flood of log lines.
        if crowded.get().is_power_of_two() {
            warn!(self.logger, "a connection without calls gave way to a newer one: too many are open";
                "connections_max" => self.ordinary.max, "gave_way" => crowded.get());
        }
    }
}

impl User {
    /// Known to be one since now: nobody has seen it quiet yet.
    fn new(taken: Taken, now: Duration) -> Self {
        Self { taken, changes: 0, quiet_since: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontends::unsent::Unsent;
    use crate::model::ManualClock;

    /// A port of so many places and two more that are kept, where nothing is served.
    struct Port {
        seats: Seats,
        counters: Arc<ConnectionCounters>,
        clock: Arc<ManualClock>,
    }

    type Connection = tokio::task::JoinHandle<()>;

    impl Port {
        fn new(max: usize) -> Self {
            let clock = Arc::new(ManualClock::default());
            let logger = Logger::root(slog::Discard, slog::o!());
            let counters = Arc::default();
            let seats = Seats::new((max, 2), &counters, clock.clone(), logger);
            Self { seats, counters, clock }
        }

        /// One more comes; nothing if it finds no room.
        fn comes(&mut self) -> (Room, Option<(Seat, Connection)>) {
            let room = self.seats.room();
            if room == Room::None {
                return (room, None);
            }
            let seat = Seat::default();
            let is_kept = room == Room::Kept;
            let sitting = self.seats.sit(&seat, is_kept);
            let connection = tokio::spawn(async move {
                let _sitting = sitting;
                std::future::pending().await
            });
            self.seats.taken(&seat, is_kept, connection.abort_handle());
            (room, Some((seat, connection)))
        }

        /// What there is, after it was looked again at who is quiet.
        fn room_of_look(&mut self) -> Room {
            self.clock.advance(2 * PAUSE);
            self.seats.room()
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
        assert!(!port.seats.has_given_way());
        let (_newer, third) = port.free();
        assert!(port.seats.has_given_way() && !port.seats.has_given_way());
        assert!(has_ended(first).await);
        assert!(!second.is_finished() && !used.is_finished() && !third.is_finished());
        port.free();
        assert!(has_ended(second).await);
        port.free();
        assert!(has_ended(third).await);
        assert!(!used.is_finished());
        assert_eq!(port.counters.open(), 3);
        assert_eq!(port.counters.crowded.get(), 3);
    }

    #[tokio::test]
    async fn one_whose_calls_are_long_over_gives_way_behind_all_strangers() {
        let mut port = Port::new(3);
        let (longest, of_longest) = port.free();
        let (quiet, of_quiet) = port.free();
        drop(longest.call().let_in());
        let open = quiet.call().let_in();
        // Until it was looked nobody knows since when one is quiet.
        port.free();
        port.free();
        assert_eq!(port.counters.crowded.get(), 1);
        port.clock.advance(QUIET_MIN);
        drop(open);
        // Each of these is a stranger, and goes for the next one.
        for _ in 0..10 {
            let (_, stranger) = port.free();
            assert!(!of_longest.is_finished() && !of_quiet.is_finished());
            drop(stranger);
        }
        let (seat, _of_user) = port.free();
        let _used = seat.call().let_in();
        assert_eq!(port.room_of_look(), Room::Kept, "it is now known since when they are quiet");
        port.clock.advance(QUIET_MIN);
        port.free();
        assert!(has_ended(of_longest).await || has_ended(of_quiet).await);
    }

    #[tokio::test]
    async fn one_whose_call_has_just_ended_or_whose_answer_is_on_its_way_is_not_quiet() {
        let mut port = Port::new(1);
        let (seat, connection) = port.free();
        let open = seat.call().let_in();
        assert_eq!(port.room_of_look(), Room::Kept);
        port.clock.advance(100 * QUIET_MIN);
        drop(open);
        assert_eq!(port.room_of_look(), Room::Kept, "it ended just now");
        let unsent = Unsent::default();
        let answer = unsent.counted(vec![0; 64 << 10].into(), seat.taker());
        port.clock.advance(QUIET_MIN);
        assert_eq!(port.room_of_look(), Room::Kept, "its answer is not taken");
        drop(answer);
        port.clock.advance(QUIET_MIN);
        port.free();
        assert!(has_ended(connection).await);
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
        assert_eq!(port.counters.crowded.get(), 0);
    }

    #[tokio::test]
    async fn strangers_on_places_that_are_kept_give_way_to_others_there_and_make_no_ordinary_place()
    {
        let mut port = Port::new(1);
        let (seat, _ordinary) = port.free();
        let _used = seat.call().let_in();
        let mut strangers = VecDeque::new();
        for _ in 0..10 {
            port.clock.advance(2 * PAUSE);
            let (room, came) = port.comes();
            assert_eq!(room, Room::Kept);
            strangers.push_back(came.unwrap().1);
        }
        for _ in 0..8 {
            assert!(has_ended(strangers.pop_front().unwrap()).await);
        }
        assert!(strangers.iter().all(|stranger| !stranger.is_finished()));
        assert_eq!(port.counters.open(), 3);
    }

    #[tokio::test]
    async fn of_those_that_are_gone_nothing_is_kept() {
        let mut port = Port::new(2);
        for number in 0..100 {
            let (seat, connection) = port.free();
            if number % 3 == 0 {
                drop(seat.call().let_in());
            }
            connection.abort();
            assert!(has_ended(connection).await);
        }
        let (strangers, users) = (&port.seats.ordinary.strangers, &port.seats.users);
        assert!(strangers.len() <= 4 && users.len() <= 4, "{} {}", strangers.len(), users.len());
        assert_eq!(port.counters.open(), 0);
    }
}
