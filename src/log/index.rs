//! The index of a segment: where each Raft entry's frame begins. Entry `i` is the segment's
//! `i`-th Raft entry: `u32` offset relative to the segment's base, `u64` position in the store.
//!
//! It is mapped memory over reserved blocks, so that an append costs no system call, and it is
//! never the only copy of anything: each use checks the frame that it points at, and a bad index
//! is rebuilt from the store.

use super::disk::{DiskFile, Map};
use super::options::INDEX_ENTRY_BYTES;
use arc_swap::{ArcSwap, Guard};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One index entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry {
    /// The frame's base offset minus the segment's.
    pub relative: u32,
    /// Where the frame begins in the store.
    pub position_bytes: u64,
}

impl IndexEntry {
    pub fn encode(self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.relative.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position_bytes.to_be_bytes());
        bytes
    }

    /// Reads an entry from its 12 bytes.
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            relative: u32::from_be_bytes(bytes[..4].try_into().expect("4 of 12 bytes")),
            position_bytes: u64::from_be_bytes(bytes[4..12].try_into().expect("8 of 12 bytes")),
        }
    }
}

/// An index file, mapped. One writer; readers look only at entries published to them.
pub(super) struct Index {
    pub path: PathBuf,
    file: Arc<dyn DiskFile>,
    map: ArcSwap<Box<dyn Map>>,
    /// False once the segment was cut: who still holds it as it was looks behind its new end.
    may_trim: bool,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({})", self.path.display())
    }
}

impl Index {
    /// Reserves blocks for `entries` in the file and maps them.
    pub fn reserve_and_map(
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        entries: u64,
    ) -> io::Result<Self> {
        let bytes = entries as usize * INDEX_ENTRY_BYTES;
        file.allocate(bytes as u64)?;
        let map = ArcSwap::from_pointee(file.map(bytes)?);
        Ok(Self { path, file, map, may_trim: true })
    }

    /// The same file mapped anew, for its first `entries`, which it holds. Takes no space.
    pub fn remapped(&self, entries: u64) -> io::Result<Self> {
        let map = self.file.map(entries as usize * INDEX_ENTRY_BYTES)?;
        let (path, file) = (self.path.clone(), self.file.clone());
        Ok(Self { path, file, map: ArcSwap::from_pointee(map), may_trim: false })
    }

    /// How many entries fit without growing.
    pub fn capacity(&self) -> u64 {
        (self.map.load().len() / INDEX_ENTRY_BYTES) as u64
    }

    /// Makes room for `entries`, doubling. Readers keep the mapping that they hold.
    pub fn reserve(&self, entries: u64) -> io::Result<()> {
        let capacity = self.capacity();
        if entries <= capacity {
            return Ok(());
        }
        let grown = entries.max(capacity * 2) as usize * INDEX_ENTRY_BYTES;
        self.file.allocate(grown as u64)?;
        self.map.store(Arc::new(self.file.map(grown)?));
        Ok(())
    }

    /// Stores entry `number`, for which room was reserved.
    pub fn set(&self, number: u64, entry: IndexEntry) {
        self.map.load().store(number as usize * INDEX_ENTRY_BYTES, &entry.encode());
    }

    /// The first `count` entries, for look-ups.
    pub fn entries(&self, count: u64) -> Entries {
        let map = self.map.load();
        let count = count.min((map.len() / INDEX_ENTRY_BYTES) as u64);
        Entries { map, count }
    }

    /// Makes the first entries durable, so that recovery may begin behind them.
    pub fn sync(&self) -> io::Result<()> {
        self.map.load().sync()?;
        self.file.sync_data()
    }

    /// Leaves it to the page cache until it is used again.
    pub fn rest(&self) -> io::Result<()> {
        self.map.load().rest()
    }

    /// Cuts the file to its entries, unless a reader may still look behind them: then the
    /// next start does.
    pub fn seal(&self, count: u64) -> io::Result<()> {
        self.map.load().sync()?;
        if self.may_trim {
            self.file.set_len(count * INDEX_ENTRY_BYTES as u64)?;
        }
        self.file.sync_data()
    }
}

/// A reader's hold on an index.
pub(super) struct Entries {
    map: Guard<Arc<Box<dyn Map>>>,
    count: u64,
}

impl Entries {
    /// Entry `number`; it must be below the count.
    pub fn get(&self, number: u64) -> IndexEntry {
        assert!(number < self.count, "entry {number} of {}", self.count);
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        self.map.load(number as usize * INDEX_ENTRY_BYTES, &mut bytes);
        IndexEntry::decode(&bytes)
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last entry at or below a relative offset: with records, the one that holds it.
    pub fn holding(&self, relative: u32) -> Option<u64> {
        let above = partition(0, self.count, |entry| self.get(entry).relative <= relative);
        above.checked_sub(1)
    }

    /// How many entries from `first`, at most `most`, have their frames within `bytes_max`.
    /// `end` is where the last frame ends.
    pub fn fit(&self, first: u64, most: u64, bytes_max: u64, end: u64) -> u64 {
        let limit = self.get(first).position_bytes.saturating_add(bytes_max);
        let high = first.saturating_add(most).min(self.count);
        partition(first, high, |number| self.end_of(number, end) <= limit) - first
    }

    /// Where an entry's frame ends.
    pub fn end_of(&self, number: u64, end: u64) -> u64 {
        match number + 1 {
            next if next < self.count => self.get(next).position_bytes,
            _ => end,
        }
    }

    /// One past the last entry of a read that begins at entry `first`: its frames begin below
    /// `until_relative` and end within `bytes_max`; at least `first` itself.
    pub fn read_end(&self, first: u64, until_relative: u64, bytes_max: u64, end: u64) -> u64 {
        let limit = self.get(first).position_bytes.saturating_add(bytes_max);
        let fits = |number: u64| {
            u64::from(self.get(number).relative) < until_relative
                && self.end_of(number, end) <= limit
        };
        // A read is short beside the segment: gallop, then search the last stride.
        let (mut low, mut stride) = (first + 1, 1);
        while low + stride <= self.count && fits(low + stride - 1) {
            low += stride;
            stride *= 2;
        }
        partition(low, (low + stride).min(self.count), fits)
    }
}

/// The first number in `[low, high)` for which `below` is false.
pub(super) fn partition(mut low: u64, mut high: u64, below: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
