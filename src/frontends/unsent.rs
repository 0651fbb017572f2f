//! What has been answered and not taken: so much of it lies in memory at most, on the whole port.
//!
//! An answer is kept until its client has read what came before, for as long as that client likes.
//! Where much lies, answers to readers become small, and a connection of HTTP/2 on which some lie already
//! gets no more until it takes them, which costs who does read some speed and nobody else anything.
//! Where there would be too much all the same, the connection gives way on which something has lain for
//! longest: of whoever reads it is gone in milliseconds.

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// What may lie unless told otherwise (unit: bytes). Many consumers that do read have much on its way
/// too: far above that.
const BYTES_MAX: usize = 256 << 20;
/// Smaller parts are not counted: they cost less than the counting, and HTTP/2 bounds them itself.
const COUNTED_MIN: usize = 4 << 10;
/// Where more than this lies, answers are small …
const MUCH: usize = 8 << 20;
/// … that is, of so many bytes, or one larger batch …
const SMALL: usize = 32 << 10;
/// … and no more are made for a connection on which so much lies: room for one that rests beside one
/// that reads.
const OWN_MUCH: usize = 2 * SMALL;

/// Of a port. Clones share it.
#[derive(Debug, Clone)]
pub struct Unsent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    lying: Mutex<Lying>,
    /// There is not much any more.
    eased: Notify,
}

#[derive(Debug, Default)]
struct Lying {
    bytes: usize,
    /// Of answers that are being made.
    promised: usize,
    next: u64,
    by_age: BTreeMap<u64, (usize, Taker)>,
}

impl Lying {
    fn is_much(&self) -> bool {
        self.bytes + self.promised > MUCH
    }
}

/// A connection, as far as it takes answers. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Taker(Arc<Taking>);

#[derive(Debug, Default)]
struct Taking {
    /// What lies for it or is promised to it.
    bytes: AtomicUsize,
    /// It has taken something.
    took: Notify,
    has_given_way: AtomicBool,
    connection: AtomicWaker,
}

impl Taker {
    /// Ready when the connection is to end, since it does not read what it asked for.
    pub fn poll_gave_way(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.connection.register(cx.waker());
        if self.0.has_given_way.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the connection is to end.
    #[cfg(test)]
    pub fn has_given_way(&self) -> bool {
        let waker = futures_util::task::noop_waker_ref();
        self.poll_gave_way(&mut Context::from_waker(waker)).is_ready()
    }

    /// Whether an answer lies for it.
    pub fn is_owed(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) > 0
    }

    /// Whether both are of the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Ends the connection.
    pub fn give_way(&self) {
        self.0.has_given_way.store(true, Ordering::Release);
        self.0.connection.wake();
    }
}

/// Room for an answer of so many bytes, which is kept while the answer is made.
#[derive(Debug)]
pub struct Promise {
    /// How many.
    pub bytes: usize,
    unsent: Unsent,
    taker: Taker,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.unsent.less(|lying| lying.promised -= self.bytes, self.bytes, &self.taker);
    }
}

impl Default for Unsent {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Unsent {
    /// Keeps at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let (lying, eased) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { bytes_max, lying, eased }))
    }

    /// Waits until there is room for another answer to somebody who asks for so many bytes; it may be
    /// room for fewer. To be dropped when the answer is made.
    pub async fn promise(&self, taker: &Taker, asked: usize) -> Promise {
        loop {
            // Before it is looked: nothing is missed from here on.
            let (eased, took) = (self.0.eased.notified(), taker.0.took.notified());
            if let Some(promise) = self.try_promise(taker, asked) {
                return promise;
            }
            tokio::select! {
                () = eased => {}
                () = took => {}
            }
        }
    }

    fn try_promise(&self, taker: &Taker, asked: usize) -> Option<Promise> {
        let mut lying = self.lying();
        let bytes = if !lying.is_much() {
            asked
        } else if taker.0.bytes.load(Ordering::Relaxed) < OWN_MUCH {
            asked.min(SMALL)
        } else {
            return None;
        };
        Some(self.promised(&mut lying, taker, bytes))
    }

    /// Room for another answer at once, for those who get one after the other; where much lies it is
    /// room for a small one. To be dropped when the answer is made.
    pub fn promise_some(&self, taker: &Taker, asked: usize) -> Promise {
        let mut lying = self.lying();
        let bytes = if lying.is_much() { asked.min(SMALL) } else { asked };
        self.promised(&mut lying, taker, bytes)
    }

    fn promised(&self, lying: &mut Lying, taker: &Taker, bytes: usize) -> Promise {
        lying.promised += bytes;
        taker.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Promise { bytes, unsent: self.clone(), taker: taker.clone() }
    }

    /// The same bytes, counted until the last of them is dropped.
    pub fn counted(&self, bytes: Bytes, taker: &Taker) -> Bytes {
        if bytes.len() < COUNTED_MIN {
            return bytes;
        }
        let mut lying = self.lying();
        let number = lying.next;
        lying.next += 1;
        lying.bytes += bytes.len();
        taker.0.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        lying.by_age.insert(number, (bytes.len(), taker.clone()));
        while lying.bytes > self.0.bytes_max
            && let Some((_, (bytes, oldest))) = lying.by_age.pop_first()
        {
            lying.bytes -= bytes;
            oldest.give_way();
        }
        drop(lying);
        Bytes::from_owner(Counted { bytes, number, unsent: self.clone(), taker: taker.clone() })
    }

    /// Less lies than before, by so many bytes of one connection.
    fn less(&self, change: impl FnOnce(&mut Lying), bytes: usize, taker: &Taker) {
        let mut lying = self.lying();
        let was_much = lying.is_much();
        change(&mut lying);
        taker.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if was_much {
            taker.0.took.notify_waiters();
            if !lying.is_much() {
                self.0.eased.notify_waiters();
            }
        }
    }

    fn lying(&self) -> MutexGuard<'_, Lying> {
        self.0.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    bytes: Bytes,
    number: u64,
    unsent: Unsent,
    taker: Taker,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let taken = |lying: &mut Lying| {
            if let Some((bytes, _)) = lying.by_age.remove(&self.number) {
                lying.bytes -= bytes;
            }
        };
        self.unsent.less(taken, self.bytes.len(), &self.taker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_one_answer_after_the_other_gets_a_small_one_at_once_where_much_lies() {
        let (unsent, slow, other) = (Unsent::default(), Taker::default(), Taker::default());
        assert_eq!(unsent.promise_some(&other, MUCH).bytes, MUCH);
        let lies = unsent.counted(Bytes::from(vec![7; MUCH + 1]), &slow);
        assert_eq!(unsent.promise_some(&other, MUCH).bytes, SMALL);
        assert_eq!(unsent.promise_some(&other, 7).bytes, 7);
        drop(lies);
        assert_eq!(unsent.promise_some(&other, MUCH).bytes, MUCH);
    }

    #[test]
    fn the_connection_gives_way_on_which_something_has_lain_for_longest() {
        let unsent = Unsent::new(3 * COUNTED_MIN);
        let (slow, quick) = (Taker::default(), Taker::default());
        let part = || Bytes::from(vec![7; COUNTED_MIN]);
        let lies = unsent.counted(part(), &slow);
        for _ in 0..100 {
            // It is taken at once.
            assert_eq!(unsent.counted(part(), &quick), part());
        }
        let two = [unsent.counted(part(), &quick), unsent.counted(part(), &quick)];
        assert!(!slow.has_given_way() && !quick.has_given_way(), "there is room for three");
        let fourth = unsent.counted(part(), &quick);
        assert!(slow.has_given_way() && !quick.has_given_way());
        drop((lies, two, fourth));
        assert_eq!(unsent.lying().bytes, 0);
        assert!(unsent.lying().by_age.is_empty());
    }

    #[test]
    fn where_much_lies_answers_are_small_and_whoever_takes_none_gets_none() {
        let unsent = Unsent::new(usize::MAX);
        let (idle, reader) = (Taker::default(), Taker::default());
        let promised = |taker: &Taker, asked| unsent.try_promise(taker, asked).map(|it| it.bytes);
        assert_eq!(promised(&reader, 1 << 20), Some(1 << 20));
        let lies = unsent.counted(vec![7; MUCH + 1].into(), &idle);
        assert_eq!(promised(&reader, 1 << 20), Some(SMALL));
        assert_eq!((promised(&reader, 100), promised(&idle, 100)), (Some(100), None));
        // What is promised counts as what lies.
        let made: Vec<_> = (0..10).map_while(|_| unsent.try_promise(&reader, 1 << 20)).collect();
        assert_eq!(made.len(), OWN_MUCH / SMALL);
        drop((made, lies));
        assert_eq!(promised(&idle, 1 << 20), Some(1 << 20));
        assert_eq!(unsent.lying().promised, 0);
        assert_eq!(unsent.lying().bytes, 0);
        assert_eq!(idle.0.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_it_has_taken_something_and_when_others_have() {
        for is_own in [true, false] {
            let (unsent, taker) = (Unsent::new(usize::MAX), Taker::default());
            let much = unsent.counted(vec![7; MUCH].into(), &Taker::default());
            let own = unsent.counted(vec![7; OWN_MUCH].into(), &taker);
            let waiting = tokio::spawn({
                let (unsent, taker) = (unsent.clone(), taker.clone());
                async move { unsent.promise(&taker, 1 << 20).await.bytes }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if is_own {
                drop(own)
            } else {
                drop(much)
            }
            assert_eq!(waiting.await.unwrap(), 1 << 20);
        }
    }

    #[test]
    fn small_parts_are_not_counted() {
        let (unsent, taker) = (Unsent::new(0), Taker::default());
        let _small = unsent.counted(vec![7; COUNTED_MIN - 1].into(), &taker);
        assert!(!taker.has_given_way());
        let _large = unsent.counted(vec![7; COUNTED_MIN].into(), &taker);
        assert!(taker.has_given_way());
    }
}
