//! The newest entries of a replica, in memory: peers are sent them from here, before they are on
//! this node's disk and without reading them back. What is not here any more is read from the log.

use crate::log::{EntryPayload, LogView};
use crate::model::{PeerEntry, PeerPayload, RaftIndex, Term};
use crate::raft::EntrySizes;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// Entries `first..`, contiguous. Nothing is dropped that may not be in the log yet.
#[derive(Debug)]
pub struct Tail {
    entries: VecDeque<Newest>,
    bytes: u64,
    /// Entries that are in the log are dropped beyond this.
    bytes_max: u64,
    /// The newest entry that is in the log.
    persisted: RaftIndex,
}

#[derive(Debug)]
struct Newest {
    index: RaftIndex,
    term: Term,
    payload: EntryPayload,
    bytes: u64,
}

impl Tail {
    /// An empty one, behind what the log holds.
    pub fn new(bytes_max: u64, persisted: RaftIndex) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max, persisted }
    }

    /// Adds the entry that follows the last one; one of the same index or above is replaced.
    pub fn push(&mut self, index: RaftIndex, term: Term, payload: EntryPayload) {
        self.truncate_from(index);
        if self.entries.back().is_some_and(|last| last.index.next() != index) {
            self.clear(); // a log that was reset begins elsewhere
        }
        let bytes = payload.len_bytes();
        self.bytes += bytes;
        self.entries.push_back(Newest { index, term, payload, bytes });
    }

    /// Forgets entries from `index` on.
    pub fn truncate_from(&mut self, index: RaftIndex) {
        while self.entries.back().is_some_and(|last| last.index >= index) {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| entry.bytes);
        }
        self.persisted = self.persisted.min(RaftIndex(index.0.saturating_sub(1)));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Entries up to `upto` are in the log; those below `needed` are asked for no more.
    pub fn settle(&mut self, upto: RaftIndex, needed: RaftIndex) {
        self.persisted = self.persisted.max(upto);
        while let Some(first) = self.entries.front() {
            let is_spare = first.index < needed || self.bytes > self.bytes_max;
            if first.index > self.persisted || !is_spare {
                break;
            }
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
    }

    fn place(&self, index: RaftIndex) -> Option<usize> {
        let first = self.entries.front()?.index;
        let place = index.0.checked_sub(first.0)?;
        usize::try_from(place).ok().filter(|place| *place < self.entries.len())
    }

    /// Gives a message's entry what it holds, where that is here. False where it must be read from
    /// the log.
    pub fn fill(&self, entry: &mut PeerEntry) -> bool {
        let Some(newest) = self.place(entry.index).and_then(|place| self.entries.get(place)) else {
            return false;
        };
        if newest.term != entry.term {
            return false; // replaced since: the receiver will refuse the message as a whole
        }
        entry.payload = to_peer(&newest.payload);
        true
    }

    fn fit(&self, low: RaftIndex, high: RaftIndex, bytes_max: u64) -> Option<u64> {
        let place = self.place(low)?;
        let mut left = bytes_max;
        let entries = self.entries.range(place..).take_while(|entry| entry.index < high);
        let fitting = entries.take_while(|entry| {
            let fits = entry.bytes <= left;
            left = left.saturating_sub(entry.bytes);
            fits
        });
        Some((fitting.count() as u64).max(1))
    }

    /// The first entry here.
    fn first(&self) -> Option<RaftIndex> {
        self.entries.front().map(|entry| entry.index)
    }
}

/// An entry's payload as it is sent.
fn to_peer(payload: &EntryPayload) -> PeerPayload {
    match payload {
        EntryPayload::Data(groups) => {
            PeerPayload::Data(groups.iter().map(|group| group.bytes().clone()).collect())
        }
        EntryPayload::Internal(bytes) => PeerPayload::Internal(Bytes::clone(bytes)),
    }
}

/// How large entries are: from memory, else from the log's index.
pub struct Sizes {
    tail: Rc<RefCell<Tail>>,
    log: Arc<LogView>,
}

impl Sizes {
    pub fn new(tail: Rc<RefCell<Tail>>, log: Arc<LogView>) -> Self {
        Self { tail, log }
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sizes")
    }
}

impl EntrySizes for Sizes {
    fn fit(&self, low: RaftIndex, high: RaftIndex, bytes_max: u64) -> u64 {
        let tail = self.tail.borrow();
        tail.fit(low, high, bytes_max).unwrap_or_else(|| {
            let upto = tail.first().map_or(high, |first| first.min(high));
            self.log.fit(low, upto, bytes_max)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn internal(bytes: usize) -> EntryPayload {
        EntryPayload::Internal(Bytes::from(vec![1; bytes]))
    }

    fn filled(tail: &Tail, index: u64, term: u64) -> Option<u64> {
        let payload = PeerPayload::Stored;
        let mut entry = PeerEntry { term: Term(term), index: RaftIndex(index), payload };
        tail.fill(&mut entry).then(|| entry.payload.len_bytes())
    }

    #[test]
    fn what_is_not_in_the_log_stays_however_large() {
        let mut tail = Tail::new(10, RaftIndex(4));
        for index in 5..9 {
            tail.push(RaftIndex(index), Term(1), internal(8));
        }
        tail.settle(RaftIndex(6), RaftIndex(0));
        assert_eq!(filled(&tail, 6, 1), None, "in the log, and over the limit");
        assert_eq!((filled(&tail, 7, 1), filled(&tail, 8, 1)), (Some(8), Some(8)));
        tail.settle(RaftIndex(8), RaftIndex(9));
        assert_eq!(filled(&tail, 8, 1), None, "every peer has it");
    }

    #[test]
    fn an_entry_that_was_replaced_is_not_sent_in_its_place() {
        let mut tail = Tail::new(1000, RaftIndex(0));
        for index in 1..4 {
            tail.push(RaftIndex(index), Term(1), internal(2));
        }
        tail.push(RaftIndex(2), Term(2), internal(5));
        assert_eq!(filled(&tail, 2, 1), None);
        assert_eq!(filled(&tail, 2, 2), Some(5));
        assert_eq!(filled(&tail, 3, 1), None);
        assert_eq!(filled(&tail, 1, 1), Some(2));
    }

    #[test]
    fn messages_keep_to_their_bytes_and_carry_at_least_one_entry() {
        let mut tail = Tail::new(1000, RaftIndex(0));
        for index in 1..6 {
            tail.push(RaftIndex(index), Term(1), internal(10));
        }
        let fit = |low, high, bytes| tail.fit(RaftIndex(low), RaftIndex(high), bytes);
        assert_eq!(fit(1, 6, 25), Some(2));
        assert_eq!(fit(1, 6, 1), Some(1));
        assert_eq!(fit(4, 6, 1000), Some(2));
        assert_eq!(fit(6, 7, 1000), None);
    }
}
