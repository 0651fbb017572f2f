//! What has been answered and not taken: so much of it lies in memory at most, on the whole port.
//!
//! HTTP/2 keeps an answer until its client has read what came before, for as long as that client
//! likes. Where much lies, answers to readers become small, which costs who does read some speed and nobody
//! else anything. Where there would be too much all the same, the connection gives way on which something
//! has lain for longest: of whoever reads it is gone in milliseconds.

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Smaller parts are not counted: they cost less than the counting, and HTTP/2 bounds them itself.
const COUNTED_MIN: usize = 4 << 10;
/// Where more than this lies, answers are small …
const MUCH: usize = 16 << 20;
/// … that is, of so many bytes, or one larger batch.
const SMALL: usize = 32 << 10;

/// Of a port. Clones share it.
#[derive(Debug, Clone)]
pub struct Unsent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    lying: Mutex<Lying>,
}

#[derive(Debug, Default)]
struct Lying {
    bytes: usize,
    next: u64,
    by_age: BTreeMap<u64, (usize, Reader)>,
}

/// A connection, as far as it reads. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Reader(Arc<Reading>);

#[derive(Debug, Default)]
struct Reading {
    has_given_way: AtomicBool,
    connection: AtomicWaker,
}

impl Reader {
    /// Ready when the connection is to end, since it does not read what it asked for.
    pub fn poll_gave_way(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.connection.register(cx.waker());
        if self.0.has_given_way.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn give_way(&self) {
        self.0.has_given_way.store(true, Ordering::Release);
        self.0.connection.wake();
    }
}

impl Unsent {
    /// Keeps at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared { bytes_max, lying: Mutex::default() }))
    }

    /// How many bytes the next answer should have to somebody who asks for so many.
    pub fn answer_bytes(&self, asked: usize) -> usize {
        if self.lying().bytes > MUCH { asked.min(SMALL) } else { asked }
    }

    /// The same bytes, counted until the last of them is dropped.
    pub fn counted(&self, bytes: Bytes, reader: &Reader) -> Bytes {
        if bytes.len() < COUNTED_MIN {
            return bytes;
        }
        let mut lying = self.lying();
        let number = lying.next;
        lying.next += 1;
        lying.bytes += bytes.len();
        lying.by_age.insert(number, (bytes.len(), reader.clone()));
        while lying.bytes > self.0.bytes_max
            && let Some((_, (bytes, reader))) = lying.by_age.pop_first()
        {
            lying.bytes -= bytes;
            reader.give_way();
        }
        drop(lying);
        Bytes::from_owner(Counted { bytes, number, unsent: self.clone() })
    }

    fn lying(&self) -> MutexGuard<'_, Lying> {
        self.0.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    bytes: Bytes,
    number: u64,
    unsent: Unsent,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut lying = self.unsent.lying();
        if let Some((bytes, _)) = lying.by_age.remove(&self.number) {
            lying.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker_ref;

    fn has_given_way(reader: &Reader) -> bool {
        reader.poll_gave_way(&mut Context::from_waker(noop_waker_ref())).is_ready()
    }

    #[test]
    fn the_connection_gives_way_on_which_something_has_lain_for_longest() {
        let unsent = Unsent::new(3 * COUNTED_MIN);
        let (slow, quick) = (Reader::default(), Reader::default());
        let part = || Bytes::from(vec![7; COUNTED_MIN]);
        let lies = unsent.counted(part(), &slow);
        for _ in 0..100 {
            // It is taken at once.
            assert_eq!(unsent.counted(part(), &quick), part());
        }
        let two = [unsent.counted(part(), &quick), unsent.counted(part(), &quick)];
        assert!(!has_given_way(&slow) && !has_given_way(&quick), "there is room for three");
        let fourth = unsent.counted(part(), &quick);
        assert!(has_given_way(&slow) && !has_given_way(&quick));
        drop((lies, two, fourth));
        assert_eq!(unsent.lying().bytes, 0);
        assert!(unsent.lying().by_age.is_empty());
    }

    #[test]
    fn where_much_lies_answers_are_small_until_it_is_taken() {
        let (unsent, reader) = (Unsent::new(usize::MAX), Reader::default());
        assert_eq!(unsent.answer_bytes(1 << 20), 1 << 20);
        let lies = unsent.counted(vec![7; MUCH + 1].into(), &reader);
        assert_eq!((unsent.answer_bytes(1 << 20), unsent.answer_bytes(100)), (SMALL, 100));
        drop(lies);
        assert_eq!(unsent.answer_bytes(1 << 20), 1 << 20);
    }

    #[test]
    fn small_parts_are_not_counted() {
        let (unsent, reader) = (Unsent::new(0), Reader::default());
        let _small = unsent.counted(vec![7; COUNTED_MIN - 1].into(), &reader);
        assert!(!has_given_way(&reader));
        let _large = unsent.counted(vec![7; COUNTED_MIN].into(), &reader);
        assert!(has_given_way(&reader));
    }
}
