//! Calls whose clients send requests and take no answers: nothing more of them is read, and what comes
//! lies in HTTP/2, in nobody's books, as much as a stream's window. So many may stand so on a port;
//! beyond that a connection gives way that has the most of them, and of several the one that has for
//! longest. Whoever has one for a moment is not pushed out by somebody who has many.
//!
//! HTTP/2 asks a call for its next answer when its client has taken the one before. So a call stands that
//! had its turn on its thread, and was not asked until it knew of nothing more to say or to read. To read
//! nothing more of the connection would be no way out: what frees the call may lie behind what its client
//! sent before.

use crate::frontends::unsent::Taker;
use crate::observe::metrics::Metrics;
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// So many may stand, of clients and of nodes each.
const CALLS_MAX: usize = 32;

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
    calls_max: usize,
    metrics: Arc<Metrics>,
    standing: [Mutex<Standing>; 2],
}

#[derive(Debug, Default)]
struct Standing {
    /// Numbers are given once, so that who has stood for longest is the first.
    next: u64,
    by_age: BTreeMap<u64, Taker>,
}

impl Standing {
    /// The connection with the most calls, and of several with as many that of the oldest.
    fn most(&self) -> Option<Taker> {
        let all = || self.by_age.values();
        // Of several the last is taken: so the oldest comes last.
        all().rev().max_by_key(|taker| all().filter(|other| other.is(taker)).count()).cloned()
    }
}

impl Stalled {
    /// Counts those that give way.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::with(CALLS_MAX, metrics)
    }

    fn with(calls_max: usize, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { calls_max, metrics, standing: Default::default() }))
    }

    /// What runs the calls of a connection.
    pub fn of_connection(&self, taker: Taker) -> Turns {
        Turns { stalled: self.clone(), taker }
    }

    /// A call stands from now on; under which number.
    fn stands(&self, whose: Whose, taker: &Taker) -> u64 {
        let mut standing = self.standing(whose);
        let number = standing.next;
        standing.next += 1;
        standing.by_age.insert(number, taker.clone());
        while standing.by_age.len() > self.0.calls_max
            && let Some(most) = standing.most()
        {
            standing.by_age.retain(|_, taker| !taker.is(&most));
            self.0.metrics.connections_gave_way.one();
            most.give_way();
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
    use futures_util::task::noop_waker_ref;
    use std::future::poll_fn;

    fn has_given_way(taker: &Taker) -> bool {
        taker.poll_gave_way(&mut Context::from_waker(noop_waker_ref())).is_ready()
    }

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
            let stalled = Stalled::with(4, Arc::default());
            let mut call = Played::new(&stalled, Whose::Client);
            call.play(turns);
            assert_eq!(standing(&stalled), wanted, "row {at}");
            drop(call);
            assert_eq!(standing(&stalled), 0, "row {at}");
        }
    }

    #[test]
    fn of_those_that_stand_the_one_gives_way_that_has_for_longest() {
        let stalled = Stalled::with(2, Arc::default());
        let mut calls: Vec<_> = (0..4).map(|_| Played::new(&stalled, Whose::Client)).collect();
        calls[0].play(&[Turn::Begins]);
        calls[1].play(&[Turn::Begins]);
        // The first has room again, and then none: it is the last now.
        calls[0].play(&[Turn::HasNothing, Turn::IsWoken]);
        calls[2].play(&[Turn::Begins]);
        let gone = |calls: &[Played]| -> Vec<_> {
            calls.iter().map(|call| has_given_way(&call.taker)).collect()
        };
        assert_eq!(gone(&calls), [false, true, false, false]);
        // It has room after all, and takes nobody's place.
        calls[1].play(&[Turn::HasNothing]);
        assert_eq!(standing(&stalled), 2);
        calls[3].play(&[Turn::Begins]);
        assert_eq!(gone(&calls), [true, true, false, false]);
        assert_eq!(stalled.0.metrics.connections_gave_way.get(), 2);
    }

    #[test]
    fn who_has_one_is_not_pushed_out_by_who_has_many() {
        let stalled = Stalled::with(8, Arc::default());
        let mut oldest = Played::new(&stalled, Whose::Client);
        oldest.play(&[Turn::Begins]);
        let many = Taker::default();
        let mut calls: Vec<_> =
            (0..8).map(|_| Played::on(many.clone(), &stalled, Whose::Client)).collect();
        for call in &mut calls {
            call.play(&[Turn::Begins]);
        }
        assert!(!has_given_way(&oldest.taker) && has_given_way(&many));
        assert_eq!(standing(&stalled), 1, "all calls of a connection end with it");
        assert_eq!(stalled.0.metrics.connections_gave_way.get(), 1);
    }

    #[test]
    fn clients_push_out_no_nodes() {
        let stalled = Stalled::with(1, Arc::default());
        let mut node = Played::new(&stalled, Whose::Node);
        node.play(&[Turn::Begins]);
        let mut clients: Vec<_> = (0..9).map(|_| Played::new(&stalled, Whose::Client)).collect();
        for client in &mut clients {
            client.play(&[Turn::Begins]);
        }
        assert!(!has_given_way(&node.taker));
        assert_eq!(stalled.0.metrics.connections_gave_way.get(), 8);
    }
}
