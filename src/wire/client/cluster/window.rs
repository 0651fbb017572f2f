//! The batches of one partition that are not acknowledged, in order, and what is known of each.
//! Pure. It numbers them, so that the server stores each once however often it is sent.
//!
//! Invariants: answers belong to batches in the order in which these were sent; a number is given
//! to no other batch as long as it is not certain that the first one was never stored.

use super::stamp::{sequence_after, stamp_producer};
use crate::wire::client::Refusal;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::Duration;

/// See the module. `R` is how a batch's fate is told.
#[derive(Debug)]
pub struct Window<R> {
    /// Who sends, where batches are numbered.
    producer: Option<i64>,
    next_sequence: i32,
    batches: VecDeque<Pending<R>>,
    /// How many from the front have been sent on the present stream …
    sent: usize,
    /// … and how many of those were refused on it. What was stored is no longer here.
    refused: usize,
}

#[derive(Debug)]
struct Pending<R> {
    batch: Bytes,
    records: u32,
    /// When it is given up.
    deadline: Duration,
    /// An earlier try may have stored it.
    is_maybe_stored: bool,
    /// It was sent on the present stream and not answered.
    is_open: bool,
    refusal: Option<Refusal>,
    reply: R,
}

impl<R> Pending<R> {
    fn is_unknown(&self) -> bool {
        self.is_maybe_stored || self.is_open
    }
}

/// What is left of a batch that is given up.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp<R> {
    /// Whom to tell.
    pub reply: R,
    /// Whether it may be stored all the same.
    pub is_unknown: bool,
}

impl<R> Window<R> {
    /// An empty one. Without a producer nothing is numbered.
    pub fn new(producer: Option<i64>) -> Self {
        let batches = VecDeque::new();
        Self { producer, next_sequence: 0, batches, sent: 0, refused: 0 }
    }

    /// How many batches are in it.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether a batch was sent on the present stream and not answered.
    pub fn is_waiting(&self) -> bool {
        self.sent > self.refused
    }

    /// Adds a batch of so many records behind all others.
    pub fn push(&mut self, batch: Bytes, records: u32, deadline: Duration, reply: R) {
        let batch = self.stamped(batch, records);
        self.batches.push_back(Pending {
            batch,
            records,
            deadline,
            is_maybe_stored: false,
            is_open: false,
            refusal: None,
            reply,
        });
    }

    fn stamped(&mut self, batch: Bytes, records: u32) -> Bytes {
        let Some(producer) = self.producer else { return batch };
        let mut batch = BytesMut::from(batch);
        stamp_producer(&mut batch, producer, 0, self.next_sequence);
        self.next_sequence = sequence_after(self.next_sequence, records);
        batch.freeze()
    }

    /// A new stream begins: what the last one left unanswered may be stored.
    pub fn begin(&mut self) {
        for pending in &mut self.batches {
            pending.is_maybe_stored |= std::mem::take(&mut pending.is_open);
            pending.refusal = None;
        }
        (self.sent, self.refused) = (0, 0);
    }

    /// The next batch to send on the present stream.
    pub fn send(&mut self) -> Option<Bytes> {
        let pending = self.batches.get_mut(self.sent)?;
        pending.is_open = true;
        self.sent += 1;
        Some(pending.batch.clone())
    }

    /// The oldest batch that waits for an answer is stored.
    pub fn stored(&mut self) -> Option<R> {
        if !self.is_waiting() {
            return None;
        }
        self.sent -= 1;
        self.batches.remove(self.refused).map(|pending| pending.reply)
    }

    /// The oldest batch that waits for an answer was refused.
    pub fn refused(&mut self, refusal: Refusal) {
        if let Some(pending) =
            self.batches.get_mut(self.refused).filter(|_| self.sent > self.refused)
        {
            pending.is_open = false;
            pending.is_maybe_stored |= !refusal.definite;
            pending.refusal = Some(refusal);
            self.refused += 1;
        }
    }

    /// Why the oldest batch was refused on the present stream, where it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.batches.front()?.refusal.as_ref()
    }

    /// Whether the oldest batch may be stored.
    pub fn is_unknown(&self) -> bool {
        self.batches.front().is_some_and(Pending::is_unknown)
    }

    /// When the oldest batch is given up.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.batches.front()?.deadline)
    }

    /// Gives up the oldest batch, and with it all others that may be stored: whether they are is
    /// known only if it is. The rest goes on under another producer's name, for the server waits
    /// for the numbers that are given up. Returns what is given up, oldest first.
    pub fn give_up(&mut self, producer: i64) -> Vec<GivenUp<R>> {
        let mut given_up = Vec::new();
        let mut kept = Vec::new();
        for (position, pending) in self.batches.drain(..).enumerate() {
            if position == 0 || pending.is_unknown() {
                let is_unknown = pending.is_unknown();
                given_up.push(GivenUp { reply: pending.reply, is_unknown });
            } else {
                kept.push(pending);
            }
        }
        self.producer = self.producer.map(|_| producer);
        (self.next_sequence, self.sent, self.refused) = (0, 0, 0);
        for pending in kept {
            self.push(pending.batch, pending.records, pending.deadline, pending.reply);
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::super::stamp::tests::{batch, stamped};
    use super::*;
    use proptest::prelude::*;
    use tonic::Code;

    fn refusal(definite: bool) -> Refusal {
        let (message, retry_after, leader) = ("no".into(), None, None);
        Refusal { code: Code::Unavailable, message, retry_after, definite, leader }
    }

    fn window(batches: u32) -> Window<u32> {
        let mut window = Window::new(Some(7));
        for number in 0..batches {
            window.push(batch(2, &number.to_be_bytes()).freeze(), 2, Duration::ZERO, number);
        }
        window
    }

    fn send_all(window: &mut Window<u32>) -> Vec<(i64, i32)> {
        std::iter::from_fn(|| window.send()).map(|batch| stamped(&batch)).collect()
    }

    #[test]
    fn what_a_lost_stream_left_unanswered_is_sent_again_under_the_same_numbers() {
        let mut window = window(3);
        window.begin();
        assert_eq!(send_all(&mut window), [(7, 0), (7, 2), (7, 4)]);
        assert_eq!(window.stored(), Some(0));
        window.begin();
        assert!(window.is_unknown());
        assert_eq!(send_all(&mut window), [(7, 2), (7, 4)]);
        assert_eq!((window.stored(), window.stored(), window.stored()), (Some(1), Some(2), None));
        assert!(window.is_empty());
    }

    #[test]
    fn numbers_begin_anew_behind_a_batch_that_is_given_up() {
        let mut window = window(3);
        window.begin();
        send_all(&mut window);
        (0..3).for_each(|_| window.refused(refusal(true)));
        assert_eq!(window.give_up(8), [GivenUp { reply: 0, is_unknown: false }]);
        window.begin();
        assert_eq!(send_all(&mut window), [(8, 0), (8, 2)]);
    }

    #[test]
    fn what_may_be_stored_is_never_sent_under_another_number() {
        let mut window = window(4);
        window.begin();
        (0..3).for_each(|_| drop(window.send()));
        window.refused(refusal(true));
        window.refused(refusal(true));
        let unknown = |reply| GivenUp { reply, is_unknown: true };
        let given_up = window.give_up(8);
        assert_eq!(given_up, [GivenUp { reply: 0, is_unknown: false }, unknown(2)]);
        window.begin();
        assert_eq!(send_all(&mut window), [(8, 0), (8, 2)], "1 was refused for sure, 3 not sent");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Send,
        Store,
        Refuse(bool),
        Begin,
        GiveUp,
    }

    proptest! {
        #[test]
        fn a_batch_that_a_server_may_have_keeps_its_number_and_order_holds(
            steps in proptest::collection::vec(prop_oneof![
                Just(Step::Push), Just(Step::Send), Just(Step::Store),
                any::<bool>().prop_map(Step::Refuse), Just(Step::Begin), Just(Step::GiveUp),
            ], 1..120),
        ) {
            let mut window = Window::new(Some(0));
            // What a server could have seen of each batch, unless it said for sure that it did not
            // take it.
            let mut names: std::collections::HashMap<u32, (i64, i32)> = Default::default();
            let (mut pushed, mut generation) = (0u32, 0);
            let mut on_stream: VecDeque<u32> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push => {
                        let bytes = batch(1, &pushed.to_be_bytes()).freeze();
                        window.push(bytes, 1, Duration::ZERO, pushed);
                        pushed += 1;
                    }
                    Step::Send => if let Some(bytes) = window.send() {
                        let number = u32::from_be_bytes(bytes[61..65].try_into().unwrap());
                        let name = stamped(&bytes);
                        prop_assert_eq!(*names.entry(number).or_insert(name), name);
                        prop_assert!(on_stream.back().is_none_or(|last| *last < number));
                        on_stream.push_back(number);
                    },
                    Step::Store => {
                        let told = window.stored();
                        prop_assert_eq!(told, on_stream.pop_front());
                        if let Some(number) = told { names.remove(&number); }
                    }
                    Step::Refuse(definite) => {
                        let was_unknown = window.batches.get(window.refused)
                            .is_some_and(|pending| pending.is_maybe_stored);
                        window.refused(refusal(definite));
                        if let Some(number) = on_stream.pop_front() && definite && !was_unknown {
                            names.remove(&number);
                        }
                    }
                    Step::Begin => { window.begin(); on_stream.clear(); }
                    Step::GiveUp => {
                        generation += 1;
                        for given_up in window.give_up(generation) {
                            prop_assert_eq!(
                                given_up.is_unknown,
                                names.remove(&given_up.reply).is_some(),
                            );
                        }
                        on_stream.clear();
                    }
                }
            }
        }
    }
}
