//! Seeking by time: the first record at or after a moment.

use super::batch;
use super::disk::Disk;
use super::entry::{ReadMode, ReadOutcome};
use super::error::LogError;
use super::frame::HEADER_BYTES;
use super::segment::{Part, Segment, TIME_MAGIC, TIME_VERSION};
use super::stable;
use super::time_index::TimeIndex;
use super::view::LogView;
use crate::model::{Offset, Timestamp};
use std::path::Path;

/// How much is read at a time while looking for a record.
const STEP_BYTES: usize = 256 << 10;

impl LogView {
    /// The offset of the first record whose timestamp is `at` or later, `until` when there is
    /// none below `until`. Records need not be in the order of their timestamps. Blocks.
    ///
    /// # Errors
    /// As [`LogView::read`], and [`LogError::Undecodable`].
    pub fn find_time(&self, at: Timestamp, until: Offset) -> Result<Offset, LogError> {
        let segments = self.segments.load();
        for segment in segments.iter() {
            let extent = segment.extent();
            if extent.next <= self.start() || extent.entries == 0 {
                continue;
            }
            let times = times_of(self.disk.as_ref(), segment, &self.directory)?;
            if times.newest().is_none_or(|newest| newest < at) {
                continue;
            }
            let from = segment.base.plus(u64::from(times.search_from(at)));
            let end = until.min(extent.next);
            if let Some(found) = self.scan_for_time(from.max(self.start()), end, at)? {
                return Ok(found);
            }
            if end == until {
                break;
            }
        }
        Ok(until)
    }

    /// Looks at each batch's newest timestamp, and into the records of those that qualify.
    fn scan_for_time(
        &self,
        mut from: Offset,
        end: Offset,
        at: Timestamp,
    ) -> Result<Option<Offset>, LogError> {
        while from < end {
            let ReadOutcome::Chunk(chunk) = self.read(from, end, STEP_BYTES, ReadMode::Blocking)?
            else {
                break;
            };
            let undecodable = |source| LogError::Undecodable { offset: chunk.base, source };
            for one in batch::batches(&chunk.batches) {
                let (header, bytes) = one.map_err(undecodable)?;
                if header.max_timestamp < at {
                    continue;
                }
                for record in batch::records(bytes, self.limits) {
                    let (offset, record) = record.map_err(undecodable)?;
                    if record.timestamp >= at && offset >= from {
                        return Ok(Some(offset));
                    }
                }
            }
            from = chunk.next;
        }
        Ok(None)
    }
}

/// A segment's time index: from memory, from its file, or from its batches.
///
/// The file is a hint that is checked by its checksum: missing or damaged, it is rebuilt.
pub(super) fn times_of<'s>(
    disk: &dyn Disk,
    segment: &'s Segment,
    directory: &Path,
) -> Result<&'s TimeIndex, LogError> {
    if let Some(times) = segment.times() {
        return Ok(times);
    }
    let extent = segment.extent();
    let path = Part::Time.path(directory, segment.base);
    let loaded = stable::read(disk, &path, TIME_MAGIC, TIME_VERSION).ok();
    let decoded =
        loaded.and_then(|(_, bytes)| TimeIndex::decode(&bytes, extent.bytes, extent.bytes));
    match decoded {
        Some(times) => Ok(segment.keep_times(times)),
        None => Ok(segment.keep_times(rebuild(segment)?)),
    }
}

/// Notes every frame of a sealed segment again, by its batches' headers.
fn rebuild(segment: &Segment) -> Result<TimeIndex, LogError> {
    let times = TimeIndex::new(segment.extent().bytes);
    let mut failed = None;
    segment.walk(|_, position, header| {
        if header.records > 0 {
            let end = position + header.frame_bytes;
            match newest_in_frame(segment, position + HEADER_BYTES as u64, end) {
                Ok(newest) => {
                    // A segment's records are counted by 32 bits: see `Log::append`.
                    let relative = (header.next_offset().0 - segment.base.0) as u32;
                    times.note(newest, relative, end);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.is_some()
    })?;
    failed.map_or(Ok(times), Err)
}

/// The newest timestamp of the batches in `[position, end)` of a store.
fn newest_in_frame(segment: &Segment, mut position: u64, end: u64) -> Result<Timestamp, LogError> {
    let mut newest = Timestamp(i64::MIN);
    while position < end {
        let mut bytes = [0; batch::HEADER_BYTES];
        segment
            .store
            .read_at(&mut bytes, position)
            .map_err(|source| segment.read_failed(position, source))?;
        let header =
            batch::BatchHeader::parse(&bytes).map_err(|error| segment.corrupt(position, error))?;
        newest = newest.max(header.max_timestamp);
        position += header.length_bytes as u64;
    }
    Ok(newest)
}
