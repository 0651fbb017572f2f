//! Calls whose clients send requests and take no answers: nothing more of them is read, and what comes
//! lies in HTTP/2, in nobody's books, as much as a stream's window. A few may stand so on a port. Beyond
//! that a connection gives way that has several and comes with another one, or else that of which a call has
//! stood for longest, if that is more than a moment: an honest client's stand for a turn around the network
//! when it also reads in bulk.
//!
//! HTTP/2 asks a call for its next answer when its client has taken the one before. So a call stands that
//! had its turn on its thread, and was not asked until it knew of nothing more to say or to read. To read
//! nothing more of the connection would be no way out: what frees the call may lie behind what its client
//! sent before.

use crate::frontends::unsent::Taker;
use crate::model::Clock;
use crate::observe::metrics::Metrics;
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// So many may stand, of clients and of nodes each …
const MANY: usize = 32;
/// … so many of one connection …
const OF_ONE: usize = 4;
/// … and more than many for less than this, …
const MOMENT: Duration = Duration::from_secs(1);
/// … but no more than so many.
const CALLS_MAX: usize = 128;

/// Who makes a call. Clients push out no nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Whoever it is.
    Client,
    /// Another node, or who poses as one.
    Node,
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
    taker: Taker,
}

impl Standing {
    /// The connection that gives way, where one is to, now that another call of `last` stands.
    fn gives_way(&self, last: &Taker, now: Duration) -> Option<Taker> {
        let calls = self.by_age.len();
        if calls <= MANY {
            return None;
        }
        if self.by_age.values().filter(|stood| stood.taker.is(last)).count() > OF_ONE {
            return Some(last.clone());
        }
        let (_, oldest) = self.by_age.first_key_value()?;
        let is_long = now.saturating_sub(oldest.since) >= MOMENT;
        (is_long || calls > CALLS_MAX).then(|| oldest.taker.clone())
    }
}

impl Stalled {
    /// Counts those that give way.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { clock, metrics, standing: Default::default() }))
    }

    /// What runs the calls of a connection.
    pub fn of_connection(&self, taker: Taker) -> Turns {
        Turns { stalled: self.clone(), taker }
    }

    /// A call stands from now on; under which number.
    fn stands(&self, whose: Whose, taker: &Taker) -> u64 {
        let since = self.0.clock.monotonic();
        let mut standing = self.standing(whose);
        let number = standing.next;
        standing.next += 1;
        standing.by_age.insert(number, Stood { since, taker: taker.clone() });
        while let Some(one) = standing.gives_way(taker, since) {
            standing.by_age.retain(|_, stood| !stood.taker.is(&one));
            self.0.metrics.connections_gave_way.one();
            one.give_way();
        }
        number
    }

    fn goes_on(&self, whose: Whose, number: u64) {
        self.standing(whose).by_age.remove(&number);
    }

    fn standing(&self, whose: Whose) -> MutexGuard<'_, Standing> {
        self.0.standing[whose as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a call, in its turn.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// It sends one request, or is not answered yet.
    NoStream,
    /// Its client may have no room for answers.
    Not(Whose),
    /// It knew of nothing more.
    ToTheEnd(Whose),
}

thread_local! {
    /// Of the call whose turn it is.
    static ASKED: Cell<Asked> = const { Cell::new(Asked::NoStream) };
}

/// A call begins to answer a stream of requests.
pub fn begins(whose: Whose) {
    ASKED.set(Asked::Not(whose));
}

/// A stream of requests is asked for its next answer; whether it knew of nothing more.
pub fn asked(whose: Whose, is_all: bool) {
    ASKED.set(if is_all { Asked::ToTheEnd(whose) } else { Asked::Not(whose) });
}

/// Gives the calls of a connection their turns, as tasks.
#[derive(Debug, Clone)]
pub struct Turns {
    stalled: Stalled,
    taker: Taker,
}

impl<F> Executor<F> for Turns
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let spot = Spot { turns: self.clone(), number: None };
        tokio::spawn(Call { call, asked: Asked::NoStream, spot });
    }
}

pin_project! {
    struct Call<F> {
        #[pin]
        call: F,
        asked: Asked,
        spot: Spot,
    }
}

/// Where a call stands, while it does.
struct Spot {
    turns: Turns,
    number: Option<(Whose, u64)>,
}

impl<F: Future<Output = ()>> Future for Call<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Something woke it: it stands unless it is asked now, which some versions of hyper do not do
        // before there is room.
        ASKED.set(match *this.asked {
            Asked::ToTheEnd(whose) => Asked::Not(whose),
            other => other,
        });
        let polled = this.call.poll(cx);
        *this.asked = ASKED.replace(Asked::NoStream);
        match *this.asked {
            Asked::Not(whose) if polled.is_pending() => this.spot.stand(whose),
            _ => this.spot.leave(),
        }
        polled
    }
}

impl Spot {
    fn stand(&mut self, whose: Whose) {
        let Turns { stalled, taker } = &self.turns;
        self.number.get_or_insert_with(|| (whose, stalled.stands(whose, taker)));
    }

    fn leave(&mut self) {
        if let Some((whose, number)) = self.number.take() {
            self.turns.stalled.goes_on(whose, number);
        }
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;
    use futures_util::task::noop_waker_ref;
    use std::future::poll_fn;

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
        /// It ends.
        Ends,
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
            Self::on(Taker::default(), stalled, whose)
        }

        fn on(taker: Taker, stalled: &Stalled, whose: Whose) -> Self {
            let turn = Arc::new(Mutex::new(Turn::Waits));
            let now = Arc::clone(&turn);
            let call = poll_fn(move |_| {
                match *now.lock().unwrap() {
                    Turn::Waits | Turn::IsWoken => {}
                    Turn::Begins => begins(whose),
                    Turn::Gives => asked(whose, false),
                    Turn::HasNothing => asked(whose, true),
                    Turn::Ends => return Poll::Ready(()),
                }
                Poll::Pending
            });
            let turns = stalled.of_connection(taker.clone());
            let spot = Spot { turns, number: None };
            let call = Call { call, asked: Asked::NoStream, spot };
            Self { taker, call: Some(Box::pin(call)), turn }
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
        let several = Taker::default();
        let mut calls: Vec<_> =
            (0..MANY).map(|_| Played::on(several.clone(), &stalled, Whose::Client)).collect();
        for call in &mut calls {
            call.play(&[Turn::Begins]);
        }
        assert!(gone(&oldest) == 0 && several.has_given_way());
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
}
