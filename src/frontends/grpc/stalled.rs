//! Calls whose clients send requests and take no answers: nothing more of them is read, and what comes
//! lies in HTTP/2, in nobody's books, as much as a stream's window. A few may stand so on a port. Beyond
//! that a connection gives way that has several and comes with another one, or else that of which a call has
//! stood for longest, if that is more than a moment: an honest client's stand for a turn around the network
//! when it also reads in bulk.
//!
//! To read nothing more of the connection would be no way out: what frees a call may lie behind what its
//! client sent before.
//!
//! A window bounds what is sent of a call and not what that lies in: a few bytes of it keep all that was
//! read along with them. So the connection gives way of which most was read since something lies unread of
//! a call that stands, where that is too much of all of them together.

use crate::frontends::unsent::Taker;
use crate::model::Clock;
use crate::observe::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many may stand, of clients and of nodes each …
const MANY: usize = 32;
/// … so many of one connection …
const OF_ONE: usize = 4;
/// … and more than many for less than this, …
const MOMENT: Duration = Duration::from_secs(1);
/// … but no more than so many.
const CALLS_MAX: usize = 128;
/// What calls that stand may keep of what was read, beyond what their windows allow (unit: bytes).
const KEPT_MAX: u64 = 16 << 20;

/// Read of a connection from one look at what its calls keep to the next (unit: bytes).
const LOOK_BYTES: u64 = 64 << 10;

/// Who makes a call. Clients push out no nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Whoever it is.
    Client,
    /// Another node, or who poses as one.
    Node,
}

/// A connection, as far as its calls stand.
#[derive(Debug)]
pub struct Connection {
    taker: Taker,
    /// What may be sent of one call before it is read (unit: bytes).
    pub window: u64,
    came: Arc<AtomicU64>,
    /// How much had come when it was last looked at.
    looked: AtomicU64,
    /// Calls of it that stand.
    standing: AtomicUsize,
}

impl Connection {
    /// One whose client takes answers so, whose calls have such a window, and which counts there what is
    /// read of it, frames and all (both in bytes).
    pub fn new(taker: Taker, window: u32, came: Arc<AtomicU64>) -> Self {
        let (looked, standing) = Default::default();
        Self { taker, window: window.into(), came, looked, standing }
    }

    /// How much was read of it (unit: bytes).
    pub fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }
}

/// Of a port. Clones share it.
#[derive(Debug, Clone)]
pub struct Stalled(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    standing: [Mutex<Standing>; 2],
}

#[derive(Debug, Default)]
struct Standing {
    /// Numbers are given once, so that who has stood for longest is the first.
    next: u64,
    by_age: BTreeMap<u64, Stood>,
}

#[derive(Debug)]
struct Stood {
    since: Duration,
    connection: Arc<Connection>,
    /// What is unread of the call came after so much of its connection (unit: bytes).
    after: u64,
}

/// A call stands; until it is told that it goes on.
#[derive(Debug)]
pub struct Stand(Whose, u64);

impl Standing {
    /// The connection that gives way, where one is to, now that another call of `last` stands.
    fn gives_way(&self, last: &Taker, now: Duration) -> Option<Taker> {
        let calls = self.by_age.len();
        if calls <= MANY {
            return None;
        }
        if self.of(last).count() > OF_ONE {
            return Some(last.clone());
        }
        let (_, oldest) = self.by_age.first_key_value()?;
        let is_long = now.saturating_sub(oldest.since) >= MOMENT;
        (is_long || calls > CALLS_MAX).then(|| oldest.connection.taker.clone())
    }

    /// The connection of which most is kept, where too much is of all together.
    fn keeps_most(&self) -> Option<Taker> {
        let mut connections = BTreeMap::new();
        for Stood { connection, after, .. } in self.by_age.values() {
            let entry =
                connections.entry(Arc::as_ptr(connection)).or_insert((connection, *after, 0));
            // One part of what was read is kept once, whatever number of calls have some of it.
            entry.1 = entry.1.min(*after);
            entry.2 += connection.window;
        }
        let kept = connections.into_values().map(|(connection, after, windows)| {
            let kept = connection.came().saturating_sub(after).saturating_sub(windows);
            (kept, &connection.taker)
        });
        let kept: Vec<_> = kept.collect();
        let is_much = kept.iter().map(|(bytes, _)| bytes).sum::<u64>() > KEPT_MAX;
        let (_, most) = kept.into_iter().max_by_key(|(bytes, _)| *bytes).filter(|_| is_much)?;
        Some(most.clone())
    }

    fn of(&self, taker: &Taker) -> impl Iterator<Item = &Stood> {
        self.by_age.values().filter(|stood| stood.connection.taker.is(taker))
    }

    /// Ends a connection.
    fn end(&mut self, one: &Taker, metrics: &Metrics) {
        self.by_age.retain(|_, stood| !stood.connection.taker.is(one));
        metrics.connections_gave_way.one();
        one.give_way();
    }
}

impl Stalled {
    /// Counts those that give way.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { clock, metrics, standing: Default::default() }))
    }

    /// A call of a connection stands from now on. What is unread of it came after so much of that.
    pub fn stands(&self, whose: Whose, connection: &Arc<Connection>, after: u64) -> Stand {
        let (since, taker) = (self.0.clock.monotonic(), &connection.taker);
        let mut standing = self.standing(whose);
        connection.standing.fetch_add(1, Ordering::Relaxed);
        let number = standing.next;
        standing.next += 1;
        standing.by_age.insert(number, Stood { since, connection: Arc::clone(connection), after });
        while let Some(one) = standing.gives_way(taker, since) {
            standing.end(&one, &self.0.metrics);
        }
        Stand(whose, number)
    }

    /// It does not stand any more.
    pub fn goes_on(&self, Stand(whose, number): Stand) {
        if let Some(stood) = self.standing(whose).by_age.remove(&number) {
            stood.connection.standing.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// More was read of a connection: is there still room for what calls that stand keep?
    pub fn look(&self, connection: &Connection) {
        let Connection { looked, standing, .. } = connection;
        let came = connection.came();
        let is_time = came - looked.load(Ordering::Relaxed) >= LOOK_BYTES;
        if !is_time || standing.load(Ordering::Relaxed) == 0 {
            return;
        }
        looked.store(came, Ordering::Relaxed);
        for whose in [Whose::Client, Whose::Node] {
            let mut standing = self.standing(whose);
            while let Some(one) = standing.keeps_most() {
                standing.end(&one, &self.0.metrics);
            }
        }
    }

    fn standing(&self, whose: Whose) -> MutexGuard<'_, Standing> {
        self.0.standing[whose as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontends::grpc::turns::{Call, Taken, Turns, asked, begins};
    use crate::model::ManualClock;
    use bytes::Bytes;
    use futures_util::task::noop_waker_ref;
    use http_body::{Body, Frame, SizeHint};
    use std::convert::Infallible;
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    const WINDOW: u32 = 1 << 10;

    /// What happens to a call in its turn.
    #[derive(Clone, Copy)]
    enum Turn {
        /// Its handler has not answered.
        Waits,
        /// Its answer begins, and its client has no room.
        Begins,
        /// It is asked, has an answer, and is not asked for another.
        Gives,
        /// It is asked, and has nothing.
        HasNothing,
        /// It is not asked.
        IsWoken,
        /// It takes so much of what came for it, and is not asked for its next answer.
        Takes(u32),
        /// It takes all, and is not asked.
        TakesAll,
        /// It ends.
        Ends,
    }

    /// What comes for a call: so much, or nothing for now.
    struct Came(Option<u32>);

    impl Body for Came {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(bytes) = self.0.take() else { return Poll::Pending };
            Poll::Ready(Some(Ok(Frame::data(vec![0; bytes as usize].into()))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }

    /// A connection.
    struct Open {
        taker: Taker,
        came: Arc<AtomicU64>,
        turns: Turns,
    }

    impl Open {
        fn new(stalled: &Stalled) -> Self {
            let (taker, came) = (Taker::default(), Arc::<AtomicU64>::default());
            let connection = Connection::new(taker.clone(), WINDOW, Arc::clone(&came));
            let turns = Turns::new(stalled, connection);
            Self { taker, came, turns }
        }

        /// So much is read of it.
        fn read(&self, bytes: u64) {
            self.came.fetch_add(bytes, Ordering::Relaxed);
            self.turns.look();
        }

        fn calls(&self, count: usize) -> Vec<Played> {
            (0..count).map(|_| Played::on(self, Whose::Client)).collect()
        }
    }

    /// A call, which is given its turns by hand.
    struct Played {
        taker: Taker,
        call: Option<Pin<Box<dyn Future<Output = ()>>>>,
        turn: Arc<Mutex<Turn>>,
    }

    impl Played {
        /// On a connection of its own.
        fn new(stalled: &Stalled, whose: Whose) -> Self {
            Self::on(&Open::new(stalled), whose)
        }

        fn on(connection: &Open, whose: Whose) -> Self {
            let turn = Arc::new(Mutex::new(Turn::Waits));
            let now = Arc::clone(&turn);
            let take = |bytes, cx: &mut Context<'_>| {
                let _ = Pin::new(&mut Taken(Came(bytes))).poll_frame(cx);
            };
            let call = poll_fn(move |cx| {
                match *now.lock().unwrap() {
                    Turn::Waits | Turn::IsWoken => {}
                    Turn::Takes(bytes) => take(Some(bytes), cx),
                    Turn::TakesAll => {
                        take(Some(1), cx);
                        take(None, cx);
                    }
                    Turn::Begins => begins(whose),
                    Turn::Gives => asked(whose, false),
                    Turn::HasNothing => asked(whose, true),
                    Turn::Ends => return Poll::Ready(()),
                }
                Poll::Pending
            });
            let call = Call::new(call, connection.turns.clone());
            Self { taker: connection.taker.clone(), call: Some(Box::pin(call)), turn }
        }

        fn play(&mut self, turns: &[Turn]) {
            for turn in turns {
                *self.turn.lock().unwrap() = *turn;
                let call = self.call.as_mut().unwrap().as_mut();
                let _ = call.poll(&mut Context::from_waker(noop_waker_ref()));
            }
        }
    }

    fn stalled() -> (Stalled, Arc<ManualClock>) {
        let clock = Arc::<ManualClock>::default();
        (Stalled::new(Arc::clone(&clock) as _, Arc::default()), clock)
    }

    fn standing(stalled: &Stalled) -> usize {
        stalled.standing(Whose::Client).by_age.len()
    }

    #[test]
    fn a_call_stands_that_is_not_asked_in_its_turn_until_it_knows_of_nothing_more() {
        use Turn::*;
        let turns: [(&[Turn], usize); 9] = [
            (&[Waits], 0),
            (&[Waits, Begins], 1),
            (&[Begins, HasNothing], 0),
            (&[Begins, Gives], 1),
            (&[Begins, Gives, HasNothing], 0),
            (&[Begins, HasNothing, IsWoken], 1),
            (&[Begins, HasNothing, IsWoken, IsWoken, HasNothing], 0),
            (&[Begins, Gives, Ends], 0),
            (&[Begins, HasNothing, Ends], 0),
        ];
        for (at, (turns, wanted)) in turns.into_iter().enumerate() {
            let (stalled, _) = stalled();
            let mut call = Played::new(&stalled, Whose::Client);
            call.play(turns);
            assert_eq!(standing(&stalled), wanted, "row {at}");
            drop(call);
            assert_eq!(standing(&stalled), 0, "row {at}");
        }
    }

    /// Calls that stand, each on a connection of its own.
    fn stand(stalled: &Stalled, count: usize) -> Vec<Played> {
        let begun = |_| {
            let mut call = Played::new(stalled, Whose::Client);
            call.play(&[Turn::Begins]);
            call
        };
        (0..count).map(begun).collect()
    }

    fn gone(calls: &[Played]) -> usize {
        calls.iter().filter(|call| call.taker.has_given_way()).count()
    }

    #[test]
    fn of_many_that_stand_for_long_the_one_gives_way_that_has_for_longest() {
        let (stalled, clock) = stalled();
        let mut many = stand(&stalled, MANY);
        // The first has room again, and then none: it is the last now.
        many[0].play(&[Turn::HasNothing, Turn::IsWoken]);
        clock.advance(MOMENT);
        assert_eq!(gone(&many), 0);
        let one_more = stand(&stalled, 1);
        assert!(many[1].taker.has_given_way() && gone(&many) == 1 && gone(&one_more) == 0);
        // It has room after all, and takes nobody's place.
        many[1].play(&[Turn::HasNothing]);
        assert_eq!(standing(&stalled), MANY);
        assert_eq!(stalled.0.metrics.connections_gave_way.get(), 1);
    }

    #[test]
    fn who_stands_for_a_moment_stays_unless_there_are_too_many_even_for_that() {
        let (stalled, clock) = stalled();
        let all = stand(&stalled, CALLS_MAX);
        assert_eq!(gone(&all), 0);
        let one_more = stand(&stalled, 1);
        assert!(all[0].taker.has_given_way() && gone(&all) == 1);
        clock.advance(MOMENT);
        // Once it was longer than that only so many remain.
        let last = stand(&stalled, 1);
        assert_eq!(gone(&all), CALLS_MAX + 2 - MANY);
        assert_eq!((gone(&one_more), gone(&last)), (0, 0));
    }

    #[test]
    fn who_has_one_is_not_pushed_out_by_who_has_several() {
        let (stalled, clock) = stalled();
        let oldest = stand(&stalled, 1);
        clock.advance(MOMENT);
        let several = Open::new(&stalled);
        let mut calls = several.calls(MANY);
        for call in &mut calls {
            call.play(&[Turn::Begins]);
        }
        assert!(gone(&oldest) == 0 && several.taker.has_given_way());
        assert_eq!(standing(&stalled), 1, "all calls of a connection end with it");
        assert_eq!(stalled.0.metrics.connections_gave_way.get(), 1);
    }

    #[test]
    fn clients_push_out_no_nodes() {
        let (stalled, clock) = stalled();
        let mut node = Played::new(&stalled, Whose::Node);
        node.play(&[Turn::Begins]);
        clock.advance(MOMENT);
        let clients = stand(&stalled, CALLS_MAX + 1);
        assert!(!node.taker.has_given_way());
        assert_eq!(gone(&clients), 1);
    }

    #[test]
    fn of_calls_that_stand_the_connection_gives_way_that_keeps_most_of_what_was_read() {
        let (stalled, _) = stalled();
        let [small, large, not_standing] = [(); 3].map(|()| Open::new(&stalled));
        let mut calls = small.calls(1).into_iter().chain(large.calls(2)).collect::<Vec<_>>();
        for call in &mut calls {
            call.play(&[Turn::Begins]);
        }
        not_standing.calls(1)[0].play(&[Turn::Begins, Turn::HasNothing]);
        not_standing.read(4 * KEPT_MAX);
        small.read(KEPT_MAX / 4 + u64::from(WINDOW));
        // Once for both of its calls.
        large.read(KEPT_MAX / 4 * 3 + 2 * u64::from(WINDOW));
        assert_eq!(gone(&calls), 0);
        small.read(LOOK_BYTES);
        assert!(large.taker.has_given_way() && !small.taker.has_given_way());
        assert_eq!(standing(&stalled), 1);
        assert_eq!(stalled.0.metrics.connections_gave_way.get(), 1);
    }

    #[test]
    fn what_a_call_keeps_was_read_since_it_took_a_window_less_than_it_has_taken() {
        use Turn::*;
        let half = WINDOW / 2;
        // What a call does before it stands, between two parts read of its connection of which either
        // would be too much; whether the part before counts.
        let rows: [(&[Turn], bool); 8] = [
            (&[], true),
            (&[IsWoken], true),
            (&[Takes(half)], true),
            (&[Takes(half), Takes(half)], true),
            (&[Takes(half), Takes(half), Takes(half)], true),
            (&[Takes(half), Takes(half), Takes(half), Takes(half)], false),
            (&[TakesAll], false),
            (&[TakesAll, Takes(1)], false),
        ];
        for (at, (turns, is_kept)) in rows.into_iter().enumerate() {
            let (stalled, _) = stalled();
            let one = Open::new(&stalled);
            let mut call = Played::on(&one, Whose::Client);
            call.play(&[Begins, Gives, Takes(1), HasNothing]);
            one.read(2 * KEPT_MAX);
            call.play(turns);
            call.play(&[HasNothing, IsWoken]);
            one.read(LOOK_BYTES);
            assert_eq!(one.taker.has_given_way(), is_kept, "row {at}");
            one.read(2 * KEPT_MAX);
            assert!(one.taker.has_given_way(), "row {at}");
        }
    }
}
