//! The reading half of recovery: looks at every file of a log, decides what it holds and what has
//! to be done, and changes nothing. An unreadable directory is left byte for byte as it was found.

use super::checkpoint::{Checkpoint, Mark};
use super::control::{Sin, commits};
use super::disk::Disk;
use super::error::LogError;
use super::frame::{self, FrameHeader, HEADER_BYTES};
use super::index::IndexEntry;
use super::options::INDEX_ENTRY_BYTES;
use super::producers;
use super::scan::{self, Found, Scan, Tail};
use super::segment::{Extent, Part, StoreFile};
use super::spare;
use super::time_index::TimeIndex;
use crate::model::{Offset, RaftIndex, Term};
use std::io;
use std::path::{Path, PathBuf};

/// What one segment holds, and what its files need.
#[derive(Debug)]
pub(super) struct Facts {
    pub base: Offset,
    pub first_index: RaftIndex,
    pub extent: Extent,
    pub store: StoreFile,
    /// The length of the store file; more than the extent where zeros or a torn tail follow.
    pub store_bytes: u64,
    /// The whole index, where the file does not hold it already.
    pub rebuilt: Option<Vec<IndexEntry>>,
    pub times: Option<TimeIndex>,
    pub terms: Vec<(RaftIndex, Term)>,
}

impl Facts {
    pub fn last_index(&self) -> RaftIndex {
        RaftIndex(self.first_index.0 + self.extent.entries - 1)
    }
}

/// What recovery has to do.
#[derive(Debug)]
pub(super) struct Survey {
    pub checkpoint: Option<Checkpoint>,
    pub log_start: Offset,
    pub previous_term: Term,
    /// Never empty, but for a new log; the last is the active one.
    pub segments: Vec<Facts>,
    /// The active segment's frames above the last known sync: to be written again.
    pub unsynced: Option<(u64, u64)>,
    /// True when bytes behind the active segment's frames have to go.
    pub torn: bool,
    pub clean: bool,
    /// Files that belong to no segment any more.
    pub leftovers: Vec<PathBuf>,
    pub scanned_bytes: u64,
    /// The log's identity, where a checkpoint or a frame tells.
    pub identity: Option<u32>,
}

/// Looks at one log directory.
pub(super) struct Surveyor<'a> {
    pub disk: &'a dyn Disk,
    pub directory: &'a Path,
    pub segment_bytes: u64,
    pub progress: &'a mut dyn FnMut(u64, u64),
    pub scanned_bytes: u64,
    pub identity: Option<u32>,
}

impl Surveyor<'_> {
    /// Reads what recovery needs to know.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::UnknownVersion`], [`LogError::FileDamaged`] (the
    /// checkpoint), [`LogError::ReadFailed`].
    pub fn survey(mut self) -> Result<Survey, LogError> {
        let checkpoint = Checkpoint::read(self.disk, self.directory)?;
        self.identity = checkpoint.as_ref().map(|found| found.identity);
        let (bases, leftovers) = self.list(checkpoint.as_ref())?;
        let previous_term = checkpoint.as_ref().map_or(Term(0), |found| found.previous_term);
        let first = bases.first().copied();
        let log_start = checkpoint.as_ref().map_or(first.unwrap_or_default(), |c| c.log_start);
        self.check_presence(&bases, checkpoint.as_ref(), log_start)?;
        let mut survey = Survey {
            previous_term,
            log_start,
            segments: Vec::new(),
            unsynced: None,
            torn: false,
            clean: checkpoint.is_none() && bases.is_empty(),
            leftovers,
            scanned_bytes: 0,
            identity: self.identity,
            checkpoint,
        };
        let Some((active, sealed)) = bases.split_last() else { return Ok(survey) };
        let mut expected = match (&survey.checkpoint, log_start) {
            (Some(checkpoint), _) => Some(checkpoint.first_index),
            (None, Offset(0)) => Some(RaftIndex(1)),
            (None, _) => None,
        };
        for (place, base) in sealed.iter().enumerate() {
            let facts = self.sealed(*base, expected)?;
            if facts.extent.next != bases[place + 1] {
                let reason = format!(
                    "records end at {}, the next segment begins at {}",
                    facts.extent.next,
                    bases[place + 1]
                );
                return Err(self.corrupt(*base, facts.extent.bytes, reason));
            }
            expected = Some(facts.last_index().next());
            survey.segments.push(facts);
        }
        self.active(*active, expected, &mut survey)?;
        survey.scanned_bytes = self.scanned_bytes;
        survey.identity = self.identity;
        Ok(survey)
    }

    /// The bases of the segments that count, ascending, and the files that do not.
    fn list(
        &self,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(Vec<Offset>, Vec<PathBuf>), LogError> {
        let names = self.disk.list(self.directory).map_err(|source| LogError::ReadFailed {
            file: self.directory.display().to_string(),
            position_bytes: 0,
            source,
        })?;
        let parts: Vec<_> = names.iter().filter_map(|name| Part::parse(name)).collect();
        let stores = parts.iter().filter(|(part, _)| *part == Part::Store);
        let mut bases: Vec<Offset> = stores.map(|(_, base)| *base).collect();
        bases.sort_unstable();
        // Removed by retention, but the names came back with a crash: the start never goes back.
        // Of a log that begins anew nothing stays, not even what was begun since.
        if let Some(checkpoint) = checkpoint {
            bases.retain(|base| *base >= checkpoint.log_start && !checkpoint.begins_anew);
        }
        let mut leftovers: Vec<PathBuf> = parts
            .iter()
            .filter(|(_, base)| bases.binary_search(base).is_err())
            .map(|(part, base)| part.path(self.directory, *base))
            .collect();
        // The snapshot of a reset that did not come to its turn.
        let ahead = checkpoint.is_none_or(|found| !found.begins_anew).then_some(producers::AHEAD);
        let scraps = [spare::NAME, "checkpoint.tmp"].into_iter().chain(ahead);
        let present = scraps.filter(|scrap| names.iter().any(|name| name == scrap));
        leftovers.extend(present.map(|scrap| self.directory.join(scrap)));
        Ok((bases, leftovers))
    }

    /// No segment that the checkpoint knows of may be gone.
    fn check_presence(
        &self,
        bases: &[Offset],
        checkpoint: Option<&Checkpoint>,
        log_start: Offset,
    ) -> Result<(), LogError> {
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let missing = |base: Offset| !bases.contains(&base);
        let is_new = checkpoint.begins_anew || checkpoint.mark == Mark::default();
        if is_new && bases.is_empty() {
            return Ok(());
        }
        for base in [log_start, checkpoint.mark.base] {
            if missing(base) {
                return Err(self.corrupt(base, 0, "the checkpoint knows of it, but it is gone"));
            }
        }
        Ok(())
    }

    /// A segment behind which another one was begun: all of it was synced before that.
    fn sealed(&mut self, base: Offset, expected: Option<RaftIndex>) -> Result<Facts, LogError> {
        let (store, store_bytes) = self.open_store(base)?;
        let looked = self.glance(base, &store, store_bytes, None);
        if let Some(Glance { first_index, entries, last: end, terms }) = looked
            && expected.is_none_or(|index| index == first_index)
            && self.identity.is_none_or(|identity| identity == end.identity)
        {
            self.identity = Some(end.identity);
            let extent = Extent { entries, bytes: store_bytes, next: end.next_offset() };
            let (rebuilt, times) = (None, None);
            return Ok(Facts {
                base,
                first_index,
                extent,
                store,
                store_bytes,
                rebuilt,
                times,
                terms,
            });
        }
        let from = scan::From {
            position_bytes: 0,
            index: expected,
            next: base,
            term: Term(0),
            durable: RaftIndex(0),
            identity: self.identity,
        };
        let scan = self.scan(&store, store_bytes, from)?;
        if scan.tail != Tail::End {
            let reason = match scan.tail {
                Tail::Torn { reason } | Tail::Corrupt { reason } => reason,
                Tail::UnknownVersion { found } => return Err(unknown(&store.0, found)),
                Tail::End => unreachable!("checked above"),
            };
            return Err(self.corrupt(base, scan.end_bytes, reason));
        }
        let Some(first) = scan.frames.first() else {
            return Err(self.corrupt(base, 0, "no frame in a segment that others follow"));
        };
        Ok(self.facts(base, first.header.index, store, store_bytes, scan, None))
    }

    /// The segment that was written last.
    fn active(
        &mut self,
        base: Offset,
        expected: Option<RaftIndex>,
        survey: &mut Survey,
    ) -> Result<(), LogError> {
        let (store, store_bytes) = self.open_store(base)?;
        let checkpoint = survey.checkpoint.clone();
        let mark = checkpoint.as_ref().map(|checkpoint| checkpoint.mark);
        let mark = mark.filter(|mark| mark.base == base);
        if let Some(mark) = mark.filter(|mark| mark.position_bytes > store_bytes) {
            let reason = format!("it ends here, but was durable to byte {}", mark.position_bytes);
            return Err(self.corrupt(base, store_bytes, reason));
        }
        let before = survey.segments.last().map_or(RaftIndex(0), Facts::last_index);
        let floor = checkpoint.as_ref().map_or(before, |found| found.mark.index.max(before));
        let shortcut = mark.and_then(|mark| self.shortcut(base, &store, mark, &checkpoint));
        let known = shortcut.as_ref().map(|(mark, ..)| *mark);
        let from = match &shortcut {
            Some((mark, _, terms, _)) => scan::From {
                position_bytes: mark.position_bytes,
                index: Some(mark.index.next()),
                next: mark.next,
                term: terms.last().map_or(Term(0), |(_, term)| *term),
                durable: floor,
                identity: self.identity,
            },
            None => scan::From {
                position_bytes: 0,
                index: expected,
                next: base,
                term: survey.segments.last().map_or(survey.previous_term, last_term),
                durable: floor,
                identity: self.identity,
            },
        };
        let scan = self.scan(&store, store_bytes, from)?;
        match &scan.tail {
            Tail::End => {}
            Tail::Torn { .. } => survey.torn = true,
            Tail::Corrupt { reason } => return Err(self.corrupt(base, scan.end_bytes, reason)),
            Tail::UnknownVersion { found } => return Err(unknown(&store.0, *found)),
        }
        let first = expected.or(scan.frames.first().map(|found| found.header.index));
        let Some(first) = first else {
            let reason = "it holds no entry and no checkpoint says which would be the first";
            return Err(self.corrupt(base, 0, reason));
        };
        let ends_clean = scan.frames.is_empty() && scan.tail == Tail::End;
        let at_mark = known.is_some() || mark.is_some_and(|mark| mark.entries == 0);
        survey.clean = ends_clean && checkpoint.is_some_and(|c| c.clean) && at_mark;
        let unsynced = scan.frames.iter().find(|found| found.header.index > scan.durable);
        survey.unsynced = unsynced.map(|found| (found.position_bytes, scan.end_bytes));
        let facts = self.facts(base, first, store, store_bytes, scan, shortcut);
        if floor > facts.last_index() {
            let reason =
                format!("entry {floor} was durable, but the log ends at {}", facts.last_index());
            return Err(self.corrupt(base, facts.extent.bytes, reason));
        }
        survey.segments.push(facts);
        Ok(())
    }

    /// What the checkpoint spares us from reading; `None` when index and store do not bear it out.
    fn shortcut(
        &self,
        base: Offset,
        store: &StoreFile,
        mark: Mark,
        checkpoint: &Option<Checkpoint>,
    ) -> Option<Shortcut> {
        let checkpoint = checkpoint.as_ref()?;
        if mark.entries == 0 {
            return None;
        }
        let Glance { first_index, terms, .. } =
            self.glance(base, store, mark.position_bytes, Some(mark))?;
        (first_index.0 + mark.entries == mark.index.0 + 1).then_some(())?;
        let entries = self.read_index(base, Some(mark.entries))?;
        let bytes = mark.position_bytes;
        let times = TimeIndex::decode(&checkpoint.times, self.segment_bytes, bytes)?;
        Some((mark, entries, terms, times))
    }

    /// Checks what can be checked without reading everything: the index ascends, its first and
    /// last frames are what it says, the last ends at `end_bytes`, terms ascend.
    fn glance(
        &self,
        base: Offset,
        store: &StoreFile,
        end_bytes: u64,
        mark: Option<Mark>,
    ) -> Option<Glance> {
        let entries = self.read_index(base, mark.map(|mark| mark.entries))?;
        let ascends = entries.windows(2).all(|pair| {
            pair[0].position_bytes < pair[1].position_bytes && pair[0].relative <= pair[1].relative
        });
        let [begin, end] = [entries.first()?, entries.last()?].map(|entry| entry.position_bytes);
        // Nothing is read at a place that the store cannot have.
        if !ascends || begin != 0 || end >= end_bytes {
            return None;
        }
        let first = self.head(store, 0)?;
        if first.base != base {
            return None;
        }
        let header = |number: usize| {
            let header = self.head(store, entries[number].position_bytes)?;
            let right = header.index.0 == first.index.0 + number as u64
                && header.base.0 == base.0 + u64::from(entries[number].relative);
            right.then_some(header)
        };
        let count = entries.len();
        let last = header(count - 1)?;
        let reaches_end = entries[count - 1].position_bytes + last.frame_bytes == end_bytes;
        if !reaches_end && !commits(Sin::TrustShortIndex) {
            return None;
        }
        // A checkpoint whose mark does not lie on a frame's end is no help.
        if mark.is_some_and(|mark| mark.next != last.next_offset() || mark.index != last.index) {
            return None;
        }
        let mut terms = vec![(first.index, first.term)];
        term_changes(&header, (0, first.term), (count - 1, last.term), &mut terms)?;
        Some(Glance { first_index: first.index, entries: count as u64, last, terms })
    }

    /// The index file's entries: `count` of them, or all.
    fn read_index(&self, base: Offset, count: Option<u64>) -> Option<Vec<IndexEntry>> {
        let path = Part::Index.path(self.directory, base);
        let file = self.disk.open(&path).ok()?;
        let length = file.len().ok()?;
        let wanted =
            count.map_or(Some(length), |count| count.checked_mul(INDEX_ENTRY_BYTES as u64))?;
        if wanted > length || !wanted.is_multiple_of(INDEX_ENTRY_BYTES as u64) {
            return None;
        }
        let mut bytes = vec![0; wanted as usize];
        file.read_at(&mut bytes, 0).ok()?;
        Some(bytes.chunks_exact(INDEX_ENTRY_BYTES).map(IndexEntry::decode).collect())
    }

    /// A frame's header whose checksum holds.
    fn head(&self, store: &StoreFile, position: u64) -> Option<FrameHeader> {
        let mut bytes = [0; HEADER_BYTES];
        store.1.read_at(&mut bytes, position).ok()?;
        let header = FrameHeader::parse(&bytes).ok()?;
        let read = |at: u64, target: &mut [u8]| store.1.read_at(target, position + at).is_ok();
        frame::head_holds(&bytes, &header, read).then_some(header)
    }

    fn scan(
        &mut self,
        store: &StoreFile,
        store_bytes: u64,
        from: scan::From,
    ) -> Result<Scan, LogError> {
        let (begin, done) = (from.position_bytes, self.scanned_bytes);
        let total = done + store_bytes - begin;
        let mut reported = 0;
        let progress = &mut *self.progress;
        let scan = scan::scan(store.1.as_ref(), store_bytes, from, &mut |position| {
            let scanned = done + position - begin;
            if reported == 0 || scanned >= reported + (1 << 20) {
                reported = scanned.max(1);
                progress(scanned, total);
            }
        })
        .map_err(|source| read_failed(&store.0, begin, source))?;
        self.identity = self.identity.or(scan.frames.first().map(|f| f.header.identity));
        self.scanned_bytes = total;
        (self.progress)(total, total);
        Ok(scan)
    }

    /// Puts together what a scan found and what was known before it.
    fn facts(
        &self,
        base: Offset,
        first_index: RaftIndex,
        store: StoreFile,
        store_bytes: u64,
        scan: Scan,
        shortcut: Option<Shortcut>,
    ) -> Facts {
        let (mut entries, mut terms, times, next) = match shortcut {
            Some((mark, entries, terms, times)) => (entries, terms, times, mark.next),
            None => (Vec::new(), Vec::new(), TimeIndex::new(self.segment_bytes), base),
        };
        let next = scan.frames.last().map_or(next, |found| found.header.next_offset());
        for Found { position_bytes, header, newest, .. } in &scan.frames {
            let relative = (header.base.0 - base.0) as u32;
            entries.push(IndexEntry { relative, position_bytes: *position_bytes });
            if terms.last().is_none_or(|(_, term)| *term != header.term) {
                terms.push((header.index, header.term));
            }
            if let Some(newest) = newest {
                let relative = (header.next_offset().0 - base.0) as u32;
                times.note(*newest, relative, position_bytes + header.frame_bytes);
            }
        }
        let extent = Extent { entries: entries.len() as u64, bytes: scan.end_bytes, next };
        let (rebuilt, times) = (Some(entries), Some(times));
        Facts { base, first_index, extent, store, store_bytes, rebuilt, times, terms }
    }

    fn open_store(&self, base: Offset) -> Result<(StoreFile, u64), LogError> {
        let path = Part::Store.path(self.directory, base);
        let open = || {
            let file = self.disk.open(&path)?;
            let length = file.len()?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(|source| read_failed(&path, 0, source))?;
        Ok(((path, file), length))
    }

    fn corrupt(&self, base: Offset, position_bytes: u64, reason: impl ToString) -> LogError {
        let file = Part::Store.path(self.directory, base).display().to_string();
        LogError::Corrupt { file, position_bytes, reason: reason.to_string() }
    }
}

/// What a look at a segment's index and a few of its frames tells.
struct Glance {
    first_index: RaftIndex,
    entries: u64,
    /// The last frame.
    last: FrameHeader,
    terms: Vec<(RaftIndex, Term)>,
}

/// A mark that was borne out, with the index entries, terms and times before it.
type Shortcut = (Mark, Vec<IndexEntry>, Vec<(RaftIndex, Term)>, TimeIndex);

fn last_term(facts: &Facts) -> Term {
    facts.terms.last().map_or(Term(0), |(_, term)| *term)
}

fn read_failed(path: &Path, position_bytes: u64, source: io::Error) -> LogError {
    LogError::ReadFailed { file: path.display().to_string(), position_bytes, source }
}

fn unknown(path: &Path, found: u8) -> LogError {
    LogError::UnknownVersion {
        file: path.display().to_string(),
        found: u32::from(found),
        supported: u32::from(frame::VERSION),
    }
}

/// Finds where terms change between two frames by halving: terms never go back.
fn term_changes(
    header: &impl Fn(usize) -> Option<FrameHeader>,
    low: (usize, Term),
    high: (usize, Term),
    terms: &mut Vec<(RaftIndex, Term)>,
) -> Option<()> {
    if low.1 > high.1 {
        return None;
    }
    if low.1 == high.1 {
        return Some(());
    }
    if high.0 == low.0 + 1 {
        terms.push((header(high.0)?.index, high.1));
        return Some(());
    }
    let middle = low.0 + (high.0 - low.0) / 2;
    let term = header(middle)?.term;
    term_changes(header, low, (middle, term), terms)?;
    term_changes(header, (middle, term), high, terms)
}
