//! Reading by Raft index: what followers are sent, and where an entry's records end. What need not
//! look at the store is answered from the index in memory.
//!
//! The writer may meanwhile cut off entries that were never committed, and write others in their
//! place. A read that ran into that is made again on the list of segments that the writer
//! published before it cut: never is a conflict of terms told as damage.

use super::entry::StoredEntry;
use super::error::LogError;
use super::frame::{self, FrameHeader, FrameKind, HEADER_BYTES};
use super::segment::Segment;
use super::view::LogView;
use crate::model::{Offset, RaftIndex};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

type Segments = Vec<Arc<Segment>>;

impl LogView {
    /// How many entries from `low`, below `high`, are stored in `bytes_max` (frames included): at
    /// least one, where `low` is present and below `high`; else 0. From memory: never waits.
    pub fn fit(&self, low: RaftIndex, high: RaftIndex, bytes_max: u64) -> u64 {
        let segments = self.segments.load();
        let (mut next, mut left, mut count) = (low, bytes_max, 0);
        while next < high
            && let Some(segment) = holding(&segments, next)
        {
            let (extent, number) = (segment.extent(), next.0 - segment.first_index.0);
            let index = segment.index.entries(extent.entries);
            let most = high.0 - next.0;
            let fits = index.fit(number, most, left, extent.bytes);
            if fits == 0 {
                break;
            }
            let end = index.end_of(number + fits - 1, extent.bytes);
            left = left.saturating_sub(end.saturating_sub(index.get(number).position_bytes));
            (next, count) = (next.plus(fits), count + fits);
            if number + fits < extent.entries {
                break;
            }
        }
        let is_present = low < high && holding(&segments, low).is_some();
        count.max(u64::from(is_present))
    }

    /// The offset behind an entry's last record, whether it has any or not; also for the entry
    /// before the first one, where it is the log's start. `None` for one that is not there. From
    /// memory: never waits.
    pub fn end_of(&self, index: RaftIndex) -> Option<Offset> {
        let segments = self.segments.load();
        let first = segments.first()?;
        if index.next() == first.first_index {
            return Some(first.base);
        }
        let segment = holding(&segments, index)?;
        let (extent, next) = (segment.extent(), index.next().0 - segment.first_index.0);
        if next >= extent.entries {
            return Some(extent.next);
        }
        let relative = segment.index.entries(extent.entries).get(next).relative;
        Some(segment.base.plus(u64::from(relative)).min(extent.next))
    }

    /// Reads one Raft entry, checked. Blocks.
    ///
    /// # Errors
    /// [`LogError::IndexOutOfRange`], [`LogError::Corrupt`], [`LogError::ReadFailed`].
    pub fn entry(&self, index: RaftIndex) -> Result<StoredEntry, LogError> {
        self.steadily(|segments| {
            let segment = holding(segments, index).ok_or_else(|| out_of_range(segments, index))?;
            read_one(segment, index)
        })
    }

    /// Reads consecutive entries, checked: at most `count_max`, and about `bytes_max` stored bytes,
    /// but at least one. Fewer when the log ends. A run in one segment is one read. Blocks.
    ///
    /// # Errors
    /// [`LogError::IndexOutOfRange`]: `first` is not there. [`LogError::Corrupt`],
    /// [`LogError::ReadFailed`]: about the first entry; damage further on ends the answer before
    /// it, and is told to who asks for it.
    pub fn entries(
        &self,
        first: RaftIndex,
        count_max: u64,
        bytes_max: u64,
    ) -> Result<Vec<StoredEntry>, LogError> {
        let high = RaftIndex(first.0.saturating_add(count_max.max(1)));
        let wanted = self.fit(first, high, bytes_max);
        let mut found: Vec<StoredEntry> = Vec::new();
        while (found.len() as u64) < wanted.max(1) {
            let next = first.plus(found.len() as u64);
            let left = wanted.max(1) - found.len() as u64;
            match self.steadily(|segments| read_run(segments, next, left, bytes_max)) {
                Ok(run) => found.extend(run),
                Err(error) if found.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(found)
    }

    /// Reads from the segments of one moment. An error counts only when they were the log's
    /// segments still when it was met.
    fn steadily<T>(&self, read: impl Fn(&Segments) -> Result<T, LogError>) -> Result<T, LogError> {
        loop {
            let segments = self.segments.load_full();
            let outcome = read(&segments);
            if outcome.is_ok() || Arc::ptr_eq(&segments, &self.segments.load()) {
                return outcome;
            }
        }
    }
}

fn holding(segments: &Segments, index: RaftIndex) -> Option<&Segment> {
    let place = segments.partition_point(|segment| segment.first_index <= index);
    let segment = &segments[place.checked_sub(1)?];
    (index <= segment.last_index()).then_some(segment)
}

fn out_of_range(segments: &Segments, index: RaftIndex) -> LogError {
    let first = segments.first().map_or(RaftIndex(1), |segment| segment.first_index);
    let last = segments.last().map_or(RaftIndex(0), |segment| segment.last_index());
    LogError::IndexOutOfRange { index, first, last }
}

/// Up to `most` entries of one segment, with one read. What is not where the index says is looked
/// for one by one.
fn read_run(
    segments: &Segments,
    first: RaftIndex,
    most: u64,
    bytes_max: u64,
) -> Result<Vec<StoredEntry>, LogError> {
    let segment = holding(segments, first).ok_or_else(|| out_of_range(segments, first))?;
    let (extent, number) = (segment.extent(), first.0 - segment.first_index.0);
    let index = segment.index.entries(extent.entries);
    let count = index.fit(number, most, bytes_max, extent.bytes);
    let begin = index.get(number).position_bytes;
    let end = match count {
        // A first entry that is larger than asked for, or a wrong index: its header decides.
        0 | 1 => return Ok(vec![read_one(segment, first)?]),
        count => index.end_of(number + count - 1, extent.bytes),
    };
    let Some(length) = end.checked_sub(begin).filter(|_| end <= extent.bytes) else {
        return Ok(vec![read_one(segment, first)?]);
    };
    // Not a buffer of the readers': entries wait in queues, and would keep all of it.
    let mut bytes = vec![0; length as usize];
    segment
        .store
        .read_at(&mut bytes, begin)
        .map_err(|source| segment.read_failed(begin, source))?;
    let bytes = Bytes::from(bytes);
    let mut found = Vec::with_capacity(count as usize);
    let mut at = 0;
    while found.len() < count as usize {
        let wanted = first.plus(found.len() as u64);
        match frame::verify(&bytes[at..]) {
            Ok(header) if header.index == wanted => {
                let frame_end = at + header.frame_bytes as usize;
                found.push(stored(&header, bytes.slice(at + HEADER_BYTES..frame_end)));
                at = frame_end;
            }
            // The next call begins with it, and says what is the matter.
            _ if !found.is_empty() => break,
            _ => return Ok(vec![read_one(segment, first)?]),
        }
    }
    Ok(found)
}

/// One entry of a segment that holds it, by its index or by walking.
fn read_one(segment: &Segment, index: RaftIndex) -> Result<StoredEntry, LogError> {
    let hinted = segment.place(index.0 - segment.first_index.0).position_bytes;
    let right = |header: &FrameHeader| header.index == index;
    let (position, header) = match segment.header_at(hinted) {
        Ok(header) if right(&header) => (hinted, header),
        _ => {
            let found = segment.walk(|_, _, header| right(header))?;
            segment.suspect.store(true, Ordering::Relaxed);
            let (_, position, header) = found.expect("the walk covers what is published");
            (position, header)
        }
    };
    if header.frame_bytes > segment.extent().bytes - position {
        return Err(segment.corrupt(position, "the frame ends behind the segment"));
    }
    let mut bytes = vec![0; header.frame_bytes as usize];
    segment
        .store
        .read_at(&mut bytes, position)
        .map_err(|source| segment.read_failed(position, source))?;
    let header = frame::verify(&bytes).map_err(|fault| segment.corrupt(position, fault))?;
    if !right(&header) {
        return Err(segment.corrupt(position, "a frame of another place"));
    }
    Ok(stored(&header, Bytes::from(bytes).slice(HEADER_BYTES..)))
}

fn stored(header: &FrameHeader, payload: Bytes) -> StoredEntry {
    StoredEntry {
        term: header.term,
        index: header.index,
        base: header.base,
        records: header.records,
        is_data: header.kind == FrameKind::Data,
        payload,
    }
}
