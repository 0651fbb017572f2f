//! Beginning anew behind a snapshot: what the log holds is given up for a place from which a leader
//! can send what follows.
//!
//! Order: a checkpoint that says where the log begins anew; then the segments go, and the table of
//! producers that was saved ahead takes its place; then the first new segment is created; then the
//! checkpoint says that this is done. The first checkpoint is the turn:
//! before it, recovery finds the old log whole, and from it on does the rest. Nothing is appended
//! before the last.

use super::checkpoint::{Checkpoint, Mark};
use super::commit_log::{Log, sync_failed, write_failed};
use super::control::{Sin, commits};
use super::entry::ResetTo;
use super::error::LogError;
use super::producers;
use super::roll::{self, Start};
use super::segment::{Part, Segment};
use std::sync::Arc;

impl Log {
    /// Drops everything, and goes on behind `start`: the next entry is the one after its index, the
    /// next record gets its offset. Durable when it returns; a crash leaves the old log, or the new
    /// one without an entry. The log's identity stays. [`producers::save_ahead`] comes first. Blocks.
    ///
    /// Readers that hold what was dropped read on.
    ///
    /// # Errors
    /// - [`LogError::DiskFull`]: nothing was dropped. Others poison the log.
    pub fn reset(&mut self, start: ResetTo) -> Result<(), LogError> {
        self.check_alive()?;
        let ResetTo { index, term, offset } = start;
        let since = self.clock.wall();
        let checkpoint = Checkpoint {
            mark: Mark { base: offset, position_bytes: 0, entries: 0, index, next: offset },
            log_start: offset,
            first_index: index.next(),
            previous_term: term,
            segment_since: since,
            identity: self.identity(),
            clean: false,
            begins_anew: true,
            times: Vec::new(),
        };
        let going = self.view.segments.load_full();
        if commits(Sin::DropBeforeTheTurn) {
            self.remove_segments(&going)?;
        }
        let outcome = self.persist_with_care(checkpoint, &going);
        self.poison_unless_full(outcome)?;
        self.finish_reset(start, &going).map_err(|error| {
            // The old log is given up: a full disk, too, can only be met by recovery now.
            let is_full = error.is_disk_full();
            let error = self.poison(error);
            if is_full { LogError::Poisoned { cause: error.to_string() } } else { error }
        })
    }

    fn remove_segments(&self, going: &[Arc<Segment>]) -> Result<(), LogError> {
        for segment in going {
            Segment::remove_files(self.disk.as_ref(), &self.directory, segment.base)
                .map_err(|source| write_failed("removal", &segment.path, source))?;
        }
        Ok(())
    }

    fn finish_reset(&mut self, start: ResetTo, going: &[Arc<Segment>]) -> Result<(), LogError> {
        self.remove_segments(going)?;
        self.drop_spare()?;
        producers::take_turn(self.disk.as_ref(), &self.directory)?;
        self.disk
            .sync_dir(&self.directory)
            .map_err(|source| sync_failed(&self.directory, source))?;
        let since = self.persisted.segment_since;
        let begin = Start { base: start.offset, first_index: start.index.next(), since };
        let active = roll::create(self.disk.as_ref(), &self.directory, &self.options, begin, None)
            .map_err(|source| {
                let path = Part::Store.path(&self.directory, begin.base);
                self.failed("creation", &path, source)
            })?;
        let checkpoint = Checkpoint { begins_anew: false, ..self.persisted.clone() };
        checkpoint.write(self.disk.as_ref(), &self.directory)?;
        self.persisted = checkpoint;
        (self.last_term, self.previous_term) = (start.term, start.term);
        self.view.segments.store(Arc::new(vec![active.segment.clone()]));
        self.view.set_start(start.offset);
        self.durable = active.mark();
        self.active = active;
        self.space.forget();
        Ok(())
    }
}
