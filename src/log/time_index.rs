//! The sparse time index of a segment: at which record the newest timestamp so far had grown to
//! what. Kept in memory while the segment is written, in its `.time` file once it is sealed.
//!
//! A slot `(max, relative)` says: no record before `relative` is newer than `max`. So a search
//! for a time begins at the last slot whose `max` is older, and misses nothing. Readers and the
//! one writer share it without a lock: a slot is published by the count.

use super::index::partition;
use crate::model::Timestamp;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Slots per segment: 64 KiB apart in a segment of 32 MiB, 512 KiB in one of 256 MiB.
const SLOTS: usize = CHUNKS * CHUNK_SLOTS;
/// They take memory as they are needed: most partitions hold little.
const CHUNKS: usize = 16;
const CHUNK_SLOTS: usize = 32;
const STEP_BYTES_MIN: u64 = 64 << 10;
const SLOT_BYTES: usize = 12;

#[derive(Debug, Default)]
struct Slot {
    max: AtomicI64,
    relative: AtomicU32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct TimeIndex {
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    count: AtomicUsize,
    max: AtomicI64,
    step_bytes: u64,
    noted_bytes: AtomicU64,
}

impl TimeIndex {
    /// An empty one for a segment of about so many bytes.
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            chunks: Default::default(),
            count: AtomicUsize::new(0),
            max: AtomicI64::new(i64::MIN),
            step_bytes: (segment_bytes / SLOTS as u64).max(STEP_BYTES_MIN),
            noted_bytes: AtomicU64::new(0),
        }
    }

    fn slot(&self, number: usize) -> Option<&Slot> {
        self.chunks.get(number / CHUNK_SLOTS)?.get()?.get(number % CHUNK_SLOTS)
    }

    /// As [`TimeIndex::slot`], with memory for it; `None` behind the last.
    fn room(&self, number: usize) -> Option<&Slot> {
        let chunk = self.chunks.get(number / CHUNK_SLOTS)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK_SLOTS).map(|_| Slot::default()).collect());
        chunk.get(number % CHUNK_SLOTS)
    }

    /// Takes note of a frame that ends before `relative_next` and at `end_bytes` of the store.
    pub fn note(&self, newest: Timestamp, relative_next: u32, end_bytes: u64) {
        let max = self.max.load(Ordering::Relaxed).max(newest.0);
        self.max.store(max, Ordering::Relaxed);
        let count = self.count.load(Ordering::Relaxed);
        let due = end_bytes >= self.noted_bytes.load(Ordering::Relaxed) + self.step_bytes;
        if due && let Some(slot) = self.room(count) {
            slot.max.store(max, Ordering::Relaxed);
            slot.relative.store(relative_next, Ordering::Relaxed);
            self.noted_bytes.store(end_bytes, Ordering::Relaxed);
            self.count.store(count + 1, Ordering::Release);
        }
    }

    /// The newest timestamp noted; `None` before the first record.
    pub fn newest(&self) -> Option<Timestamp> {
        let max = self.max.load(Ordering::Relaxed);
        (max != i64::MIN).then_some(Timestamp(max))
    }

    /// The relative offset before which every record is older than `at`.
    pub fn search_from(&self, at: Timestamp) -> u32 {
        let count = self.count.load(Ordering::Acquire);
        let slot = |number: u64| self.slot(number as usize);
        let older = |n| slot(n).is_some_and(|slot| slot.max.load(Ordering::Relaxed) < at.0);
        let above = partition(0, count as u64, older);
        let last = above.checked_sub(1).and_then(slot);
        last.map_or(0, |last| last.relative.load(Ordering::Relaxed))
    }

    /// The newest timestamp, then the slots; as stored in `.time` files and checkpoints. Slots
    /// behind `relative_end` are left out.
    pub fn encode(&self, relative_end: u64) -> Vec<u8> {
        let mut bytes = self.max.load(Ordering::Relaxed).to_be_bytes().to_vec();
        let count = self.count.load(Ordering::Acquire);
        for slot in (0..count).filter_map(|number| self.slot(number)) {
            let relative = slot.relative.load(Ordering::Relaxed);
            if u64::from(relative) <= relative_end {
                bytes.extend_from_slice(&slot.max.load(Ordering::Relaxed).to_be_bytes());
                bytes.extend_from_slice(&relative.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads what [`TimeIndex::encode`] wrote; the next slot is due a step behind `end_bytes`.
    /// `None` when the bytes cannot be that: it is rebuilt then.
    pub fn decode(bytes: &[u8], segment_bytes: u64, end_bytes: u64) -> Option<Self> {
        let (max, slots) = bytes.split_first_chunk::<8>()?;
        if !slots.len().is_multiple_of(SLOT_BYTES) || slots.len() / SLOT_BYTES > SLOTS {
            return None;
        }
        let index = Self::new(segment_bytes);
        index.max.store(i64::from_be_bytes(*max), Ordering::Relaxed);
        for (number, stored) in slots.chunks_exact(SLOT_BYTES).enumerate() {
            let slot = index.room(number)?;
            let max = i64::from_be_bytes(stored[..8].try_into().expect("8 of 12 bytes"));
            let relative = u32::from_be_bytes(stored[8..].try_into().expect("4 of 12 bytes"));
            slot.max.store(max, Ordering::Relaxed);
            slot.relative.store(relative, Ordering::Relaxed);
        }
        index.count.store(slots.len() / SLOT_BYTES, Ordering::Release);
        index.noted_bytes.store(end_bytes, Ordering::Relaxed);
        Some(index)
    }
}
