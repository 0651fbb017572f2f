//! What the writer does while nobody waits for it: zeroing ahead, so that small appends change no
//! metadata; and a spare store for the next segment.

use super::commit_log::{Log, write_failed};
use super::error::{LogError, is_full};
use super::spare::{self, Spare};
use super::zeros;

/// No step takes longer than writing this much.
const STEP_BYTES_MAX: u64 = 1 << 20;
/// Smaller segments are not worth a spare.
const SPARE_FROM_BYTES: u64 = 4 << 20;

impl Log {
    /// Does one step of at most `budget_bytes` (at most 1 MiB): zeroes ahead in the active
    /// segment, or prepares a spare store once that is a quarter full. Blocks. Returns true while
    /// there is more to do. An empty log is left alone.
    ///
    /// # Errors
    /// Those that poison the log. A full disk is none: there is nothing to do then.
    pub fn zero_ahead(&mut self, budget_bytes: u64) -> Result<bool, LogError> {
        self.check_alive()?;
        let budget = budget_bytes.min(STEP_BYTES_MAX);
        let bytes = self.active.segment.extent().bytes;
        if budget == 0 || bytes == 0 || !self.has_room_to_spare() {
            return Ok(false);
        }
        if self.wants_zeros(bytes) {
            let outcome = self.zero_active(budget);
            return self.poison_unless_full(outcome).or_else(none_when_full);
        }
        if self.wants_spare(bytes) {
            let outcome = self.extend_spare(budget);
            return self.poison_unless_full(outcome).or_else(none_when_full);
        }
        Ok(false)
    }

    /// Gives back the memory of its indexes, and of what the last appends were made in: nobody will
    /// use them in a while.
    pub fn rest(&mut self) {
        for segment in self.view.segments.load().iter() {
            // It is a comfort: the pages stay where they are.
            let _ = segment.index.rest();
        }
        self.encoder.rest();
    }

    /// True when small appends are near the end of the zeros.
    fn wants_zeros(&self, bytes: u64) -> bool {
        let step = self.options.zero_ahead_bytes;
        let ahead = self.active.zeroed_bytes.saturating_sub(bytes);
        // Nothing ahead at all: appends are large, and gain nothing from zeros.
        ahead > 0 && ahead < step / 2 && self.active.zeroed_bytes < self.options.segment_bytes_max
    }

    fn zero_active(&mut self, budget: u64) -> Result<bool, LogError> {
        let segment = self.active.segment.clone();
        let room = self.options.segment_bytes_max - self.active.zeroed_bytes;
        let step = budget.min(self.options.zero_ahead_bytes).min(room);
        segment
            .store
            .write_at(&zeros::parts(step), self.active.zeroed_bytes)
            .map_err(|source| self.failed("write", &segment.path, source))?;
        self.active.zeroed_bytes += step;
        // Now, not in the next append's sync: that is the point.
        self.sync_active()?;
        Ok(self.wants_zeros(segment.extent().bytes))
    }

    fn wants_spare(&self, bytes: u64) -> bool {
        let segment_bytes = self.options.segment_bytes_max;
        segment_bytes >= SPARE_FROM_BYTES
            && bytes > segment_bytes / 4
            && self.spare.as_ref().is_none_or(|spare| !spare.is_ready())
    }

    /// A spare is a comfort: it never takes space that appends may need soon.
    fn has_room_to_spare(&self) -> bool {
        let wanted = self.options.segment_bytes_max * 2 + self.options.reserve_free_bytes;
        self.disk.free_bytes(&self.directory).is_ok_and(|free| free > wanted)
    }

    fn extend_spare(&mut self, budget: u64) -> Result<bool, LogError> {
        let path = self.directory.join(spare::NAME);
        let target = self.options.segment_bytes_max;
        let taken = self.spare.take();
        let step = || {
            let mut spare = match taken {
                Some(spare) => spare,
                None => Spare::create(self.disk.as_ref(), &self.directory)?,
            };
            let more = spare.extend(budget, target)?;
            Ok((spare, more))
        };
        match step() {
            Ok((spare, more)) => {
                self.spare = Some(spare);
                Ok(more)
            }
            Err(error) if is_full(&error) => {
                self.remove_spare_file()?;
                Err(self.failed("write", &path, error))
            }
            Err(error) => Err(write_failed("write", &path, error)),
        }
    }

    /// Gives the spare's space back.
    pub(super) fn drop_spare(&mut self) -> Result<(), LogError> {
        match self.spare.take() {
            None => Ok(()),
            Some(_) => self.remove_spare_file(),
        }
    }

    fn remove_spare_file(&self) -> Result<(), LogError> {
        let path = self.directory.join(spare::NAME);
        let outcome = match self.disk.exists(&path) {
            Ok(false) => Ok(()),
            Ok(true) => self.disk.remove(&path),
            Err(error) => Err(error),
        };
        outcome.map_err(|source| write_failed("removal", &path, source))
    }
}

fn none_when_full(error: LogError) -> Result<bool, LogError> {
    if error.is_disk_full() { Ok(false) } else { Err(error) }
}
