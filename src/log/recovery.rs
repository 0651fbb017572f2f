//! The acting half of recovery: does what the survey found to be needed, durably, before the log
//! takes its first call. Each step may be cut short by a crash and is then found needed again.

use super::checkpoint::Checkpoint;
use super::commit_log::{Active, Ready, sync_failed, write_failed};
use super::disk::{Disk, DiskFile};
use super::entry::Recovered;
use super::error::{LogError, is_full};
use super::index::{Index, IndexEntry};
use super::options::{INDEX_ENTRY_BYTES, LogOptions};
use super::producers;
use super::roll::{self, Start};
use super::segment::{Extent, Part, Segment};
use super::survey::{Facts, Survey, Surveyor};
use crate::model::{Clock, Offset, RaftIndex, Term};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Surveys the directory and makes it ready for the writer.
pub(super) fn recover(
    disk: &dyn Disk,
    clock: &dyn Clock,
    directory: &Path,
    options: &LogOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Ready, Recovered), LogError> {
    disk.create_dir_all(directory).map_err(|source| write_failed("creation", directory, source))?;
    let surveyor = Surveyor {
        disk,
        directory,
        segment_bytes: options.segment_bytes_max,
        progress,
        scanned_bytes: 0,
        identity: None,
    };
    let survey = surveyor.survey()?;
    let mender = Mender { disk, directory, options };
    mender.remove(&survey.leftovers)?;
    if survey.segments.is_empty() {
        return mender.begin(clock, survey);
    }
    mender.restore(clock, survey)
}

struct Mender<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    options: &'a LogOptions,
}

impl Mender<'_> {
    fn remove(&self, leftovers: &[std::path::PathBuf]) -> Result<(), LogError> {
        for path in leftovers {
            self.disk.remove(path).map_err(|source| write_failed("removal", path, source))?;
        }
        if leftovers.is_empty() {
            return Ok(());
        }
        self.disk.sync_dir(self.directory).map_err(|source| sync_failed(self.directory, source))
    }

    /// The first segment of a new log, or of one that a crash kept from beginning anew.
    fn begin(&self, clock: &dyn Clock, survey: Survey) -> Result<(Ready, Recovered), LogError> {
        let anew = survey.checkpoint.as_ref().filter(|found| found.begins_anew);
        let (base, first_index, previous_term) = match anew {
            Some(found) => (found.log_start, found.first_index, found.previous_term),
            None => (Offset(0), RaftIndex(1), Term(0)),
        };
        if anew.is_some() {
            producers::take_turn(self.disk, self.directory)?;
        }
        let start = Start { base, first_index, since: clock.wall() };
        let active = roll::create(self.disk, self.directory, self.options, start, None)
            .map_err(|source| self.failed("creation", self.directory, source))?;
        let mut persisted = survey.checkpoint.unwrap_or_default();
        if persisted.begins_anew {
            persisted.begins_anew = false;
            persisted.write(self.disk, self.directory)?;
        }
        let recovered = Recovered {
            clean: survey.clean,
            first_index,
            last_index: active.segment.last_index(),
            previous_term,
            next_offset: base,
            log_start: base,
            terms: Vec::new(),
            cut_bytes: 0,
            rewritten_bytes: 0,
            scanned_bytes: 0,
            rebuilt_indexes: 0,
        };
        let segments = vec![active.segment.clone()];
        let identity = self.identity(clock, survey.identity);
        Ok((Ready { segments, active, persisted, previous_term, identity }, recovered))
    }

    fn restore(&self, clock: &dyn Clock, survey: Survey) -> Result<(Ready, Recovered), LogError> {
        let first_index = survey.segments[0].first_index;
        let last = survey.segments.last().expect("checked by the caller");
        let mut recovered = Recovered {
            clean: survey.clean,
            first_index,
            last_index: last.last_index(),
            previous_term: survey.previous_term,
            next_offset: last.extent.next,
            log_start: survey.log_start,
            terms: Vec::new(),
            cut_bytes: 0,
            rewritten_bytes: 0,
            scanned_bytes: survey.scanned_bytes,
            rebuilt_indexes: 0,
        };
        if survey.torn {
            recovered.cut_bytes = self.cut(last)?;
        }
        if let Some((from, to)) = survey.unsynced {
            recovered.rewritten_bytes = self.rewrite(last, from, to)?;
        }
        let zeroed_bytes = if survey.torn { last.extent.bytes } else { last.store_bytes };
        let active_base = last.base;
        let mut segments = Vec::with_capacity(survey.segments.len());
        for facts in survey.segments {
            for (index, term) in &facts.terms {
                if recovered.terms.last().is_none_or(|(_, last)| last != term) {
                    recovered.terms.push((*index, *term));
                }
            }
            let is_active = facts.base == active_base;
            segments.push(Arc::new(self.segment(facts, is_active, &mut recovered)?));
        }
        let known = survey.checkpoint.as_ref().filter(|known| known.mark.base == active_base);
        let since = known.map_or_else(|| clock.wall(), |known| known.segment_since);
        let segment = segments.last().expect("at least the active one").clone();
        let active = Active::new(segment, zeroed_bytes, since);
        let persisted = survey.checkpoint.unwrap_or_else(|| Checkpoint {
            log_start: recovered.log_start,
            ..Checkpoint::default()
        });
        let previous_term = survey.previous_term;
        let identity = self.identity(clock, survey.identity);
        Ok((Ready { segments, active, persisted, previous_term, identity }, recovered))
    }

    /// The identity of a log that has none yet: two logs need only be unlikely to share it.
    fn identity(&self, clock: &dyn Clock, known: Option<u32>) -> u32 {
        known.unwrap_or_else(|| {
            let since = crc32c::crc32c(&clock.wall().0.to_be_bytes());
            crc32c::crc32c_append(since, self.directory.as_os_str().as_encoded_bytes())
        })
    }

    /// Cuts a torn tail, so that no later frame is ever followed by what is left of it.
    fn cut(&self, facts: &Facts) -> Result<u64, LogError> {
        let (path, file) = &facts.store;
        file.set_len(facts.extent.bytes).map_err(|source| write_failed("cut", path, source))?;
        file.sync_data().map_err(|source| sync_failed(path, source))?;
        Ok(facts.store_bytes - facts.extent.bytes)
    }

    /// Writes again what no sync is known to have covered: after a failed sync the page cache may
    /// show as clean what the disk never got.
    fn rewrite(&self, facts: &Facts, from: u64, to: u64) -> Result<u64, LogError> {
        let (path, file) = &facts.store;
        let read_failed = |position_bytes, source| LogError::ReadFailed {
            file: path.display().to_string(),
            position_bytes,
            source,
        };
        let mut position = from;
        while position < to {
            let mut bytes = vec![0; (to - position).min(1 << 20) as usize];
            file.read_at(&mut bytes, position).map_err(|source| read_failed(position, source))?;
            file.write_at(&[&bytes], position)
                .map_err(|source| self.failed("write", path, source))?;
            position += bytes.len() as u64;
        }
        file.sync_data().map_err(|source| sync_failed(path, source))?;
        Ok(to - from)
    }

    /// Opens a segment as the survey describes it; rebuilds its index where that is needed.
    fn segment(
        &self,
        facts: Facts,
        is_active: bool,
        recovered: &mut Recovered,
    ) -> Result<Segment, LogError> {
        let path = Part::Index.path(self.directory, facts.base);
        let open = || -> io::Result<(Arc<dyn DiskFile>, bool)> {
            let exists = self.disk.exists(&path)?;
            let file = if exists { self.disk.open(&path)? } else { self.disk.create_new(&path)? };
            let Some(entries) = &facts.rebuilt else { return Ok((file, false)) };
            Ok((file.clone(), fill_index(file.as_ref(), entries)? || !exists))
        };
        let (file, changed) = open().map_err(|source| self.failed("repair", &path, source))?;
        let Extent { entries, bytes, next } = facts.extent;
        let held = file.len().map_err(|source| self.failed("repair", &path, source))?;
        let held = held / INDEX_ENTRY_BYTES as u64;
        let capacity = match is_active {
            // A log must open on a full disk: take what is there before asking for more.
            true if held > entries => held,
            true => entries.max(u64::from(self.options.index_entries_step)),
            false => entries,
        };
        if changed {
            recovered.rebuilt_indexes += 1;
        }
        if !is_active && facts.rebuilt.is_some() {
            file.set_len(entries * INDEX_ENTRY_BYTES as u64)
                .and_then(|()| file.sync_data())
                .and_then(|()| self.disk.sync_dir(self.directory))
                .map_err(|source| self.failed("repair", &path, source))?;
            // Zeros ahead that a crash kept from being trimmed.
            facts
                .store
                .1
                .set_len(bytes)
                .map_err(|source| write_failed("trim", &facts.store.0, source))?;
        }
        let index = Index::reserve_and_map(path.clone(), file, capacity)
            .map_err(|source| self.failed("growth", &path, source))?;
        let extent = Extent { entries, bytes, next };
        Ok(Segment::new(facts.base, facts.first_index, facts.store, index, facts.times, extent))
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> LogError {
        if !is_full(&source) {
            return write_failed(action, path, source);
        }
        let free_bytes = self.disk.free_bytes(self.directory).unwrap_or(0);
        let needed_bytes = u64::from(self.options.index_entries_step) * INDEX_ENTRY_BYTES as u64;
        LogError::DiskFull { needed_bytes, free_bytes, reserve_bytes: 0 }
    }
}

/// Makes the file hold these entries; true when it did not.
fn fill_index(file: &dyn DiskFile, entries: &[IndexEntry]) -> io::Result<bool> {
    let wanted: Vec<u8> = entries.iter().flat_map(|entry| entry.encode()).collect();
    let mut held = vec![0; wanted.len().min(file.len()? as usize)];
    file.read_at(&mut held, 0)?;
    if held == wanted {
        return Ok(false);
    }
    file.allocate(wanted.len() as u64)?;
    file.write_at(&[&wanted], 0)?;
    Ok(true)
}
