//! Reading the log from any thread, without a lock and without asking the writer.
//!
//! A view is a list of segments behind an atomic pointer. A reader that holds the list keeps the
//! files open, so retention never takes bytes from under a read.

use super::batch::BatchLimits;
use super::buffer::Buffer;
use super::chunk::{Squeezed, Wanted, squeeze};
use super::disk::Disk;
use super::entry::{ReadMode, ReadOutcome};
use super::error::LogError;
use super::segment::Segment;
use crate::model::{Offset, RaftIndex};
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The readers' side of a [`super::Log`]. Outlives the log; then it shows where the log ended.
#[derive(Debug)]
pub struct LogView {
    pub(super) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) limits: BatchLimits,
    start: AtomicU64,
}

/// How much a read that must not wait allocates on the word of an index alone.
const TRUSTED_BYTES_MAX: u64 = 4 << 20;

/// Which bytes of a segment to read next.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u64,
    position: u64,
    bytes: usize,
    /// True when found by walking headers: then damage is damage, not a bad index.
    walked: bool,
}

impl LogView {
    pub(super) fn new(
        segments: Vec<Arc<Segment>>,
        start: Offset,
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        limits: BatchLimits,
    ) -> Self {
        let segments = ArcSwap::from_pointee(segments);
        Self { segments, disk, directory, limits, start: AtomicU64::new(start.0) }
    }

    pub(super) fn set_start(&self, start: Offset) {
        self.start.store(start.0, Ordering::Release);
    }

    /// The first offset that may be read.
    pub fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    /// The offset behind the last record written; it may be neither durable nor committed.
    pub fn next_offset(&self) -> Offset {
        self.segments.load().last().map_or(self.start(), |segment| segment.extent().next)
    }

    /// The first Raft entry present; one past the last when there is none.
    pub fn first_index(&self) -> RaftIndex {
        // A log has at least the segment that is written.
        self.segments.load().first().map_or(RaftIndex(1), |segment| segment.first_index)
    }

    /// The last Raft entry written; it may be neither durable nor committed.
    pub fn last_index(&self) -> RaftIndex {
        self.segments.load().last().map_or(RaftIndex(0), |segment| segment.last_index())
    }

    /// Bytes of all frames present.
    pub fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.extent().bytes).sum()
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.segments.load().len()
    }

    /// Reads whole record batches from the one that contains `from`, none of a frame that ends
    /// behind `until`: the caller passes the committed end.
    ///
    /// # Arguments
    /// - `max_bytes`: about how much to return; a first batch that is larger comes whole.
    /// - `mode`: whether to wait for the device.
    ///
    /// # Errors
    /// - [`LogError::OffsetOutOfRange`]: `from` is below the start or behind the end.
    /// - [`LogError::Corrupt`]: the record at `from` is not what was written. Records before it
    ///   are still returned by reads that begin there.
    /// - [`LogError::ReadFailed`]: the disk said no.
    pub fn read(
        &self,
        from: Offset,
        until: Offset,
        max_bytes: usize,
        mode: ReadMode,
    ) -> Result<ReadOutcome, LogError> {
        let segments = self.segments.load();
        // From the same list: a segment begun meanwhile must not look like the end of this one.
        let start = self.start();
        let next = segments.last().map_or(start, |segment| segment.extent().next);
        if from < start || from > next {
            return Err(LogError::OffsetOutOfRange { offset: from, start, next });
        }
        if from >= until.min(next) {
            return Ok(ReadOutcome::AtEnd);
        }
        let place = segments.partition_point(|segment| segment.base <= from);
        let Some(segment) = place.checked_sub(1).and_then(|place| segments.get(place)) else {
            return Err(LogError::OffsetOutOfRange { offset: from, start, next });
        };
        read_segment(segment, from, until, max_bytes, mode)
    }
}

/// Reads a chunk from one segment. The index says where; when what is there is not what must be
/// there, the headers are walked before anything is called corrupt.
fn read_segment(
    segment: &Segment,
    from: Offset,
    until: Offset,
    max_bytes: usize,
    mode: ReadMode,
) -> Result<ReadOutcome, LogError> {
    let mut planned = plan(segment, from, until, max_bytes, mode);
    loop {
        let run = match planned {
            Some(run) => run,
            None if mode == ReadMode::Cached => return Ok(ReadOutcome::NeedsBlocking),
            None => match walk_to(segment, from)? {
                Some(run) => run,
                None => return Ok(ReadOutcome::AtEnd),
            },
        };
        let mut bytes = Buffer::take(run.bytes);
        if !fill(segment, &mut bytes, run.position, mode)? {
            return Ok(ReadOutcome::NeedsBlocking);
        }
        let index = RaftIndex(segment.first_index.0 + run.first);
        let Squeezed { chunk, frames, fault, bounded } =
            squeeze(bytes, Wanted { index, from, until });
        if let Some(chunk) = chunk {
            return Ok(ReadOutcome::Chunk(chunk));
        }
        match fault {
            Some((at, fault)) if run.walked => {
                return Err(segment.corrupt(run.position + at as u64, fault));
            }
            Some(_) => {
                planned = None;
                continue;
            }
            None if bounded => return Ok(ReadOutcome::AtEnd),
            None => {}
        }
        // Only frames without records so far: go on behind them.
        planned = plan_at(segment, run.first + frames, until, max_bytes, mode);
        if run.first + frames >= segment.extent().entries {
            return Ok(ReadOutcome::AtEnd);
        }
    }
}

/// Fills the buffer; `Ok(false)` when that would wait and must not.
fn fill(
    segment: &Segment,
    bytes: &mut [u8],
    position: u64,
    mode: ReadMode,
) -> Result<bool, LogError> {
    let outcome = match mode {
        ReadMode::Cached => segment.store.read_cached_at(bytes, position),
        ReadMode::Blocking => segment.store.read_at(bytes, position).map(|()| true),
    };
    outcome.map_err(|source| segment.read_failed(position, source))
}

/// Where the index says that the records from `from` on lie; `None` when it makes no sense, or
/// when saying so would wait.
fn plan(
    segment: &Segment,
    from: Offset,
    until: Offset,
    max_bytes: usize,
    mode: ReadMode,
) -> Option<Run> {
    let relative = u32::try_from(from.0 - segment.base.0).ok()?;
    let first = segment.entries().holding(relative)?;
    plan_at(segment, first, until, max_bytes, mode)
}

fn plan_at(
    segment: &Segment,
    first: u64,
    until: Offset,
    max_bytes: usize,
    mode: ReadMode,
) -> Option<Run> {
    let extent = segment.extent();
    let entries = segment.index.entries(extent.entries);
    if first >= entries.count() {
        return None;
    }
    let position = entries.get(first).position_bytes;
    let until_relative = until.0.saturating_sub(segment.base.0);
    let last = entries.read_end(first, until_relative, max_bytes as u64, extent.bytes);
    let end = match last < entries.count() {
        true => entries.get(last).position_bytes,
        false => extent.bytes,
    };
    if position >= end || end > extent.bytes {
        return None;
    }
    let mut bytes = end - position;
    if last == first + 1 && bytes > max_bytes as u64 {
        // One frame that is larger than asked for: its own header must agree before so much is
        // allocated on the word of an index.
        bytes = match mode {
            ReadMode::Blocking => segment.header_at(position).ok()?.frame_bytes,
            ReadMode::Cached if bytes > TRUSTED_BYTES_MAX => return None,
            ReadMode::Cached => bytes,
        };
    }
    if bytes > extent.bytes - position {
        return None;
    }
    Some(Run { first, position, bytes: bytes as usize, walked: false })
}

/// The frame that holds `from`, found without the index, which is marked for a rebuild.
fn walk_to(segment: &Segment, from: Offset) -> Result<Option<Run>, LogError> {
    segment.suspect.store(true, Ordering::Relaxed);
    let found = segment.walk(|_, _, header| header.next_offset() > from)?;
    Ok(found.map(|(first, position, header)| Run {
        first,
        position,
        bytes: header.frame_bytes as usize,
        walked: true,
    }))
}
