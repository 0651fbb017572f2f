//! Making the log shorter: at its end for a Raft conflict, at its start for retention. Only the
//! end is cut inside a segment; the start moves by whole segments.
//!
//! A cut inside a segment goes back flush by flush, newest first: what a crash leaves of one that is
//! torn then proves nothing durable, and is never taken for corruption.
//!
//! The checkpoint is written before anything is removed: so a crash in between is never taken
//! for lost records, and the start never goes back.

use super::checkpoint::{Checkpoint, Mark};
use super::commit_log::{Active, Log, sync_failed, write_failed};
use super::entry::Removed;
use super::error::LogError;
use super::frame::FrameHeader;
use super::seek::times_of;
use super::segment::{Extent, Part, Segment};
use super::time_index::TimeIndex;
use crate::model::{Offset, RaftIndex};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Log {
    /// Removes all entries behind `index`; durable when it returns. For Raft conflicts: what is
    /// removed was never committed. Blocks.
    ///
    /// # Errors
    /// - [`LogError::IndexOutOfRange`]: `index` lies before the first entry present.
    /// - [`LogError::DiskFull`]: nothing was removed. Others poison the log.
    pub fn truncate_after(&mut self, index: RaftIndex) -> Result<(), LogError> {
        self.check_alive()?;
        let (first, last) = (self.first_index(), self.last_index());
        if index >= last {
            return Ok(());
        }
        if index.next() < first {
            return Err(LogError::IndexOutOfRange { index, first, last });
        }
        let outcome = self.cut_after(index);
        self.poison_unless_full(outcome)?;
        self.last_term = match index.next() == first {
            true => self.previous_term,
            false => {
                let header = locate(&self.active.segment, index).map(|(_, header)| header);
                let header = self.poison_unless_full(header)?;
                header.term
            }
        };
        Ok(())
    }

    /// Removes whole segments whose records all lie below `offset`, never the active one. Readers
    /// that hold them read on. Blocks.
    ///
    /// # Errors
    /// [`LogError::DiskFull`]: nothing was removed. Others poison the log.
    pub fn truncate_before(&mut self, offset: Offset) -> Result<Removed, LogError> {
        self.check_alive()?;
        let segments = self.view.segments.load_full();
        let sealed = &segments[..segments.len() - 1];
        let count = sealed.partition_point(|segment| segment.extent().next <= offset);
        let outcome = self.drop_front(count);
        self.poison_unless_full(outcome)
    }

    /// Removes the oldest sealed segments while the log is larger than, or their records older
    /// than, the options say; never one with a record at or above `committed`. Closes the active
    /// segment when it is over its age, so that it can go one day. Blocks.
    ///
    /// A segment whose age cannot be read goes with the next one behind it that has expired: one
    /// bad sector must not keep the disk filling up.
    ///
    /// # Errors
    /// As [`Log::truncate_before`].
    pub fn retain(&mut self, committed: Offset) -> Result<Removed, LogError> {
        self.check_alive()?;
        if self.is_aged() {
            self.roll_if_room()?;
        }
        let (count, unjudged) = self.count_to_drop(committed);
        let outcome = self.drop_front(count);
        let removed = self.poison_unless_full(outcome)?;
        Ok(Removed { unjudged, ..removed })
    }

    /// Removes whole segments whose records all lie below `offset`, of which nobody needs any, and
    /// closes the active one where some of its records do, so that it can go with the next. Blocks.
    ///
    /// # Errors
    /// As [`Log::truncate_before`].
    pub fn release(&mut self, offset: Offset) -> Result<Removed, LogError> {
        self.check_alive()?;
        if self.active.segment.base < offset {
            self.roll_if_room()?;
        }
        self.truncate_before(offset)
    }

    fn roll_if_room(&mut self) -> Result<(), LogError> {
        match self.roll() {
            // What is removed next is what makes room for the next try.
            Err(error) if error.is_disk_full() => Ok(()),
            outcome => self.poison_unless_full(outcome),
        }
    }

    /// How many segments retention removes from the front, and how many stay since they cannot be read.
    fn count_to_drop(&self, committed: Offset) -> (usize, u32) {
        let segments = self.view.segments.load_full();
        let mut size = self.view.size_bytes();
        let (mut count, mut unread) = (0, Vec::new());
        for (place, segment) in segments[..segments.len() - 1].iter().enumerate() {
            let extent = segment.extent();
            if extent.next > committed {
                break;
            }
            let too_large = self.options.retention_bytes_max.is_some_and(|max| size > max);
            let goes = if too_large { Ok(true) } else { self.is_expired(segment) };
            match goes {
                Ok(false) => break,
                // The term before what stays is read from the last one that goes.
                Ok(true) if locate(segment, segment.last_index()).is_ok() => count = place + 1,
                Ok(true) | Err(_) => unread.push(place),
            }
            size -= extent.bytes;
        }
        let unjudged = unread.iter().filter(|place| **place >= count).count() as u32;
        (count, unjudged)
    }

    /// True when all of a segment's records are older than retention allows.
    fn is_expired(&self, segment: &Segment) -> Result<bool, LogError> {
        let Some(age_max) = self.options.retention_age_max else { return Ok(false) };
        let times = times_of(self.disk.as_ref(), segment, &self.directory)?;
        let Some(newest) = times.newest() else { return Ok(false) };
        let age_ms = i128::from(self.clock.wall().0) - i128::from(newest.0);
        Ok(age_ms > age_max.as_millis() as i128)
    }

    /// Removes the first `count` segments.
    fn drop_front(&mut self, count: usize) -> Result<Removed, LogError> {
        let segments = self.view.segments.load_full();
        let (gone, rest) = segments.split_at(count);
        let mut removed = Removed {
            segments: count as u32,
            bytes: 0,
            log_start: rest[0].base.max(self.log_start()),
            first_index: rest[0].first_index,
            previous_term: self.previous_term,
            unjudged: 0,
        };
        let Some(newest_gone) = gone.last() else { return Ok(removed) };
        removed.previous_term = locate(newest_gone, newest_gone.last_index())?.1.term;
        let mut checkpoint = self.persisted.clone();
        checkpoint.log_start = rest[0].base;
        checkpoint.first_index = rest[0].first_index;
        checkpoint.previous_term = removed.previous_term;
        checkpoint.identity = self.identity();
        checkpoint.clean = false;
        if checkpoint.mark.base < rest[0].base {
            let (base, first) = (rest[0].base, rest[0].first_index);
            let index = RaftIndex(first.0 - 1);
            checkpoint.mark = Mark { base, position_bytes: 0, entries: 0, index, next: base };
            checkpoint.segment_since = self.active.since;
            checkpoint.times.clear();
        }
        self.persist_with_care(checkpoint, gone)?;
        self.previous_term = removed.previous_term;
        self.view.set_start(removed.log_start);
        self.view.segments.store(Arc::new(rest.to_vec()));
        for segment in gone {
            removed.bytes += segment.extent().bytes;
            Segment::remove_files(self.disk.as_ref(), &self.directory, segment.base)
                .map_err(|source| write_failed("removal", &segment.path, source))?;
        }
        self.disk
            .sync_dir(&self.directory)
            .map_err(|source| sync_failed(&self.directory, source))?;
        self.space.forget();
        Ok(removed)
    }

    /// Writes a checkpoint, before the segments in `going` are removed. Deleting must work above
    /// all on a disk without a block left: there, zeros written ahead are given up first, and the
    /// time indexes of what is going, which are rebuilt if it comes to that.
    pub(super) fn persist_with_care(
        &mut self,
        checkpoint: Checkpoint,
        going: &[Arc<Segment>],
    ) -> Result<(), LogError> {
        let mut outcome = checkpoint.write(self.disk.as_ref(), &self.directory);
        if outcome.as_ref().is_err_and(LogError::is_disk_full) {
            let segment = &self.active.segment;
            let bytes = segment.extent().bytes;
            segment
                .store
                .set_len(bytes)
                .map_err(|source| write_failed("trim", &segment.path, source))?;
            self.active.zeroed_bytes = bytes;
            self.drop_spare()?;
            for segment in going {
                let path = Part::Time.path(&self.directory, segment.base);
                let gone = match self.disk.exists(&path) {
                    Ok(true) => self.disk.remove(&path),
                    other => other.map(|_| ()),
                };
                gone.map_err(|source| write_failed("removal", &path, source))?;
            }
            outcome = checkpoint.write(self.disk.as_ref(), &self.directory);
        }
        outcome?;
        self.persisted = checkpoint;
        Ok(())
    }

    /// Removes all entries behind `index`, which the log reaches, durably.
    pub(super) fn cut_after(&mut self, index: RaftIndex) -> Result<(), LogError> {
        let segments = self.view.segments.load_full();
        let next = index.next();
        let behind = segments.partition_point(|segment| segment.first_index <= next);
        let mut place = behind - 1;
        if segments[place].first_index == next && place > 0 {
            place -= 1; // all of it goes: the one before is written on
        }
        let kept = &segments[place];
        let extent = self.extent_up_to(kept, index)?;
        let mark = Mark {
            base: kept.base,
            position_bytes: extent.bytes,
            entries: extent.entries,
            index,
            next: extent.next,
        };
        let times = times_of(self.disk.as_ref(), kept, &self.directory)?;
        let times = times.encode(extent.next.0 - kept.base.0);
        let since = match kept.base == self.active.segment.base {
            true => self.active.since,
            false => self.clock.wall(),
        };
        // The mark may also lie at the very start of a segment that goes, and cover none of it.
        if self.persisted.mark.index > index || self.persisted.mark.base > kept.base {
            let mut checkpoint = self.persisted.clone();
            (checkpoint.mark, checkpoint.clean) = (mark, false);
            (checkpoint.segment_since, checkpoint.times) = (since, times.clone());
            self.persist_with_care(checkpoint, &segments[place + 1..])?;
        }
        let segment = self.reopened(kept, extent, &times)?;
        let mut list = segments[..place].to_vec();
        list.push(segment.clone());
        self.view.segments.store(Arc::new(list));
        // Newest first, each durable before the next: no crash leaves a gap.
        for later in segments[place + 1..].iter().rev() {
            Segment::remove_files(self.disk.as_ref(), &self.directory, later.base)
                .map_err(|source| write_failed("removal", &later.path, source))?;
            self.disk
                .sync_dir(&self.directory)
                .map_err(|source| sync_failed(&self.directory, source))?;
        }
        for end_bytes in steps_down(kept, extent) {
            let store = &segment.store;
            store
                .set_len(end_bytes)
                .map_err(|source| write_failed("cut", &segment.path, source))?;
            store.sync_data().map_err(|source| sync_failed(&segment.path, source))?;
        }
        self.active = Active::new(segment, extent.bytes, since);
        self.durable = mark;
        Ok(())
    }

    /// A segment's extent when it ends with entry `index`.
    fn extent_up_to(&self, segment: &Segment, index: RaftIndex) -> Result<Extent, LogError> {
        let entries = index.0 + 1 - segment.first_index.0;
        let extent = segment.extent();
        if entries == extent.entries {
            return Ok(extent);
        }
        let (bytes, header) = locate(segment, index.next())?;
        Ok(Extent { entries, bytes, next: header.base })
    }

    /// The same segment to be written on, shorter, with an index that can grow.
    fn reopened(
        &self,
        segment: &Segment,
        extent: Extent,
        times: &[u8],
    ) -> Result<Arc<Segment>, LogError> {
        let index = segment
            .index
            .remapped(extent.entries.max(1))
            .map_err(|source| self.failed("growth", &segment.index.path, source))?;
        let segment_bytes = self.options.segment_bytes_max;
        let times = TimeIndex::decode(times, segment_bytes, extent.bytes);
        let times = times.expect("encoded by this program");
        let store = (segment.path.clone(), segment.store.clone());
        let (base, first) = (segment.base, segment.first_index);
        Ok(Arc::new(Segment::new(base, first, store, index, Some(times), extent)))
    }

    /// Rebuilds the indexes that readers found pointing at the wrong place.
    pub(super) fn mend_indexes(&mut self) -> Result<(), LogError> {
        for segment in self.view.segments.load_full().iter() {
            if !segment.suspect.swap(false, Ordering::Relaxed) {
                continue;
            }
            let walked = segment.walk(|number, position_bytes, header| {
                let relative = (header.base.0 - segment.base.0) as u32;
                segment.index.set(number, super::index::IndexEntry { relative, position_bytes });
                false
            });
            if walked.is_err() {
                continue; // who reads there is told; the rest of the log is well
            }
            let path = &segment.index.path;
            segment.index.sync().map_err(|source| sync_failed(path, source))?;
        }
        Ok(())
    }
}

/// Where to cut a segment on the way down to `extent`. A cut that is torn by a crash may damage all
/// that it takes away: no frame of it may then be left that says of another that it was durable.
fn steps_down(segment: &Segment, extent: Extent) -> Vec<u64> {
    let mut steps = Vec::new();
    let (mut claimed, mut end_bytes) = (RaftIndex(0), 0);
    for number in (extent.entries..segment.extent().entries).rev() {
        // What cannot be read proves nothing either.
        let index = segment.first_index.plus(number);
        let Ok((position, header)) = locate(segment, index) else { continue };
        if claimed >= index {
            steps.push(end_bytes);
            claimed = RaftIndex(0);
        }
        (claimed, end_bytes) = (claimed.max(header.durable), position);
    }
    steps.push(extent.bytes);
    steps
}

/// Where an entry's frame is, by the index or by walking; with its header.
fn locate(segment: &Segment, index: RaftIndex) -> Result<(u64, FrameHeader), LogError> {
    let position = segment.place(index.0 - segment.first_index.0).position_bytes;
    match segment.header_at(position) {
        Ok(header) if header.index == index => Ok((position, header)),
        _ => {
            segment.suspect.store(true, Ordering::Relaxed);
            let found = segment.walk(|_, _, header| header.index == index)?;
            let (_, position, header) = found.expect("the walk covers what is published");
            Ok((position, header))
        }
    }
}
