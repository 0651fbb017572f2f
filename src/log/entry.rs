//! What goes into the log and what comes back out of it: plain values, no behaviour.

use super::batch::ValidBatches;
use crate::model::{Offset, RaftIndex, Term};
use bytes::Bytes;
use std::fmt;

/// One Raft entry on its way to disk.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The term of the leader that proposed it; stamped into its batches as leader epoch.
    pub term: Term,
    /// Its place in the Raft log; entries are contiguous.
    pub index: RaftIndex,
    /// What it holds.
    pub payload: EntryPayload,
}

/// The content of a Raft entry.
#[derive(Clone)]
pub enum EntryPayload {
    /// Record batches; each record takes one offset.
    Data(Vec<ValidBatches>),
    /// Bytes of the consensus room (election no-op, membership): no record, no offset.
    Internal(Bytes),
}

impl EntryPayload {
    /// Bytes of what it holds, without framing.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Data(groups) => groups.iter().map(|group| group.len_bytes() as u64).sum(),
            Self::Internal(bytes) => bytes.len() as u64,
        }
    }

    /// How many records it holds.
    pub fn records(&self) -> u64 {
        match self {
            Self::Data(groups) => groups.iter().map(|group| u64::from(group.record_count())).sum(),
            Self::Internal(_) => 0,
        }
    }
}

/// Lengths only: user bytes never reach a message or a crash report.
impl fmt::Debug for EntryPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(groups) => write!(f, "Data({} groups)", groups.len()),
            Self::Internal(bytes) => write!(f, "Internal({}B)", bytes.len()),
        }
    }
}

/// Where one entry's records went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The entry.
    pub index: RaftIndex,
    /// The offset of its first record; of the next record when it holds none.
    pub base: Offset,
    /// How many records it holds.
    pub records: u32,
}

/// What an append wrote. Says nothing about durability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// One item per entry, in the order given.
    pub placed: Vec<Placed>,
    /// Bytes written to stores, frames included.
    pub bytes: u64,
}

/// Proof that everything up to an index is on stable storage. Only a successful
/// [`super::Log::sync`] makes one, and it cannot be copied: the only way to an `fsync`
/// acknowledgement.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a sync that nobody is told of acknowledges nothing"]
pub struct Synced {
    upto: RaftIndex,
    next_offset: Offset,
}

impl Synced {
    pub(super) fn new(upto: RaftIndex, next_offset: Offset) -> Self {
        Self { upto, next_offset }
    }

    /// The last durable entry.
    pub fn upto(&self) -> RaftIndex {
        self.upto
    }

    /// The offset behind the last durable record.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }
}

/// Proof that everything up to an index was handed to the operating system: survives a crash of
/// the process, not of the machine. For the durability levels below `fsync`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a write that nobody is told of acknowledges nothing"]
pub struct Written {
    upto: RaftIndex,
    next_offset: Offset,
}

impl Written {
    pub(super) fn new(upto: RaftIndex, next_offset: Offset) -> Self {
        Self { upto, next_offset }
    }

    /// The last entry written.
    pub fn upto(&self) -> RaftIndex {
        self.upto
    }

    /// The offset behind the last record written.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }
}

/// What [`super::Log::open`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// True when the log had been closed in order, and for a new log.
    pub clean: bool,
    /// The first entry present; one past `last_index` when there is none.
    pub first_index: RaftIndex,
    /// The last entry present; 0 in a new log.
    pub last_index: RaftIndex,
    /// The term of the entry before `first_index`; 0 when there never was one.
    pub previous_term: Term,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// The offset of the first record that may be read.
    pub log_start: Offset,
    /// Where each term begins, for all entries present, ascending.
    pub terms: Vec<(RaftIndex, Term)>,
    /// Bytes of a torn tail that were cut: no acknowledged record was in them.
    pub cut_bytes: u64,
    /// Bytes written again, since no sync was known to have covered them.
    pub rewritten_bytes: u64,
    /// Bytes that were read and checked.
    pub scanned_bytes: u64,
    /// Index files that were rebuilt from their stores.
    pub rebuilt_indexes: u32,
}

/// Where a log begins anew: behind what a snapshot stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetTo {
    /// The last entry that the snapshot stands for; the next one appended follows it.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// The offset of the next record: the log's start.
    pub offset: Offset,
}

/// What a truncation from the front or retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Whole segments removed.
    pub segments: u32,
    /// Bytes of their files.
    pub bytes: u64,
    /// The log's start afterwards.
    pub log_start: Offset,
    /// The first Raft entry afterwards.
    pub first_index: RaftIndex,
    /// The term of the entry before `first_index`; 0 when there never was one.
    pub previous_term: Term,
    /// Old segments that stay because the disk refuses to be read where retention has to look.
    pub unjudged: u32,
}

/// Whether a read may wait for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// From memory or not at all: [`ReadOutcome::NeedsBlocking`] when the device would be waited
    /// for. For threads that must not block.
    Cached,
    /// Waits. For the blocking pool.
    Blocking,
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Whole batches.
    Chunk(Chunk),
    /// Nothing to read yet at this offset: it is the end, or the upper bound.
    AtEnd,
    /// Ask again with [`ReadMode::Blocking`] from a thread that may wait.
    NeedsBlocking,
}

/// Whole record batches, one after another, checked against their checksums.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The batches. The first may begin below the offset asked for: batches are not cut.
    pub batches: Bytes,
    /// The offset of the first record.
    pub base: Offset,
    /// The offset to read next.
    pub next: Offset,
    /// How many records the batches hold.
    pub records: u64,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk([{}, {}), {}B)", self.base, self.next, self.batches.len())
    }
}

/// One entry as read back, for the consensus room.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its term.
    pub term: Term,
    /// Its place in the Raft log.
    pub index: RaftIndex,
    /// The offset of its first record.
    pub base: Offset,
    /// How many records it holds.
    pub records: u32,
    /// True for record batches, false for bytes of the consensus room.
    pub is_data: bool,
    /// The batches or bytes.
    pub payload: Bytes,
}

impl fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredEntry({}/{}, {}B)", self.index, self.term, self.payload.len())
    }
}
