//! What the tests share: small logs on simulated disks, records that no two writes have in
//! common, and a model that knows what must and what may be found after a crash.

use crate::log::batch::{self, BatchBuilder, BatchLimits, ValidBatches};
use crate::log::disk::{Disk, SimDisk};
use crate::log::{
    Entry, EntryPayload, Log, LogError, LogOptions, LogView, ReadMode, ReadOutcome, Recovered,
    ResetTo,
};
use crate::model::{Clock, ManualClock, Offset, RaftIndex, Record, Term, Timestamp};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const DIRECTORY: &str = "/data/log-0";
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

pub fn store_path(base: u64) -> PathBuf {
    directory().join(format!("{base:020}.store"))
}

/// Segments of 4 KiB, an index that has to grow, little zeroing ahead.
pub fn small() -> LogOptions {
    LogOptions {
        segment_bytes_max: 4096,
        frame_bytes_max: 4096,
        index_entries_step: 4,
        zero_ahead_bytes: 1024,
        reserve_free_bytes: 0,
        ..LogOptions::default()
    }
}

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

pub fn open(disk: &SimDisk, options: &LogOptions) -> Result<(Log, Recovered), LogError> {
    open_at(disk, options, clock())
}

pub fn open_at(
    disk: &SimDisk,
    options: &LogOptions,
    clock: Arc<dyn Clock>,
) -> Result<(Log, Recovered), LogError> {
    open_on(Arc::new(disk.clone()), options, clock)
}

pub fn open_on(
    disk: Arc<dyn Disk>,
    options: &LogOptions,
    clock: Arc<dyn Clock>,
) -> Result<(Log, Recovered), LogError> {
    Log::open(disk, clock, directory(), options.clone(), &mut |_, _| {})
}

/// One batch of these values, one millisecond apart from `at` on.
pub fn batch_at(values: &[Vec<u8>], at: Timestamp) -> ValidBatches {
    let mut builder = BatchBuilder::new();
    for (step, value) in values.iter().enumerate() {
        let record = Record::of_value(value.clone(), Timestamp(at.0 + step as i64));
        builder.push(&record).unwrap();
    }
    builder.finish().unwrap()
}

pub fn data(index: u64, term: u64, values: &[Vec<u8>]) -> Entry {
    let payload = EntryPayload::Data(vec![batch_at(values, NOW)]);
    Entry { term: Term(term), index: RaftIndex(index), payload }
}

pub fn internal(index: u64, term: u64, bytes: &'static [u8]) -> Entry {
    let payload = EntryPayload::Internal(Bytes::from_static(bytes));
    Entry { term: Term(term), index: RaftIndex(index), payload }
}

/// A value that tells where it came from.
pub fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = format!("value {number} ").into_bytes();
    value.resize(bytes.max(value.len()), b'a' + (number % 26) as u8);
    value
}

/// Every record from the start to `until`, read in chunks of about `max_bytes`.
pub fn read_all(
    view: &LogView,
    until: Offset,
    max_bytes: usize,
) -> Result<Vec<(Offset, Vec<u8>)>, LogError> {
    let mut found = Vec::new();
    let mut from = view.start();
    while from < until {
        let outcome = view.read(from, until, max_bytes, ReadMode::Blocking)?;
        let ReadOutcome::Chunk(chunk) = outcome else { panic!("{outcome:?} at {from}") };
        assert!(chunk.base <= from && chunk.next > from && chunk.next <= until, "{chunk:?}");
        for one in batch::batches(&chunk.batches) {
            batch::verify_crc(&one.unwrap().1).unwrap();
        }
        for record in batch::records(chunk.batches.clone(), BatchLimits::default()) {
            let (offset, record) = record.unwrap();
            if offset >= from {
                found.push((offset, record.value.unwrap().to_vec()));
            }
        }
        assert_eq!(found.last().unwrap().0.next(), chunk.next);
        from = chunk.next;
    }
    Ok(found)
}

/// One entry as the model remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub term: u64,
    pub base: u64,
    /// None for an internal entry.
    pub values: Option<Vec<Vec<u8>>>,
}

/// What a log must and may hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Entry 1 is at 0. All that was tried, in the order that it has to be found in.
    pub entries: Vec<Remembered>,
    /// The last entry that was acknowledged as durable.
    pub durable: u64,
    /// The log's start lies between these.
    pub start: (u64, u64),
    pub term: u64,
    pub numbers: u64,
}

impl Model {
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn next_offset(&self) -> u64 {
        self.next_after(self.last())
    }

    /// The offset behind entry `index`.
    pub fn next_after(&self, index: u64) -> u64 {
        let Some(place) = index.checked_sub(1) else { return 0 };
        let entry = &self.entries[place as usize];
        entry.base + entry.values.as_ref().map_or(0, Vec::len) as u64
    }

    /// The next data entry, remembered.
    pub fn propose(&mut self, records: usize, bytes: usize) -> Entry {
        let values: Vec<_> = (0..records)
            .map(|_| {
                self.numbers += 1;
                value(self.numbers, bytes)
            })
            .collect();
        let entry = data(self.last() + 1, self.term, &values);
        let base = self.next_offset();
        self.entries.push(Remembered { term: self.term, base, values: Some(values) });
        entry
    }

    pub fn propose_internal(&mut self) -> Entry {
        let entry = internal(self.last() + 1, self.term, b"no-op of an election");
        let base = self.next_offset();
        self.entries.push(Remembered { term: self.term, base, values: None });
        entry
    }

    pub fn cut(&mut self, last: u64) {
        self.entries.truncate(last as usize);
        self.durable = self.durable.min(last);
    }

    /// As a log that begins anew: what came before counts as entries without records.
    pub fn reset(&mut self, start: ResetTo) {
        let before = Remembered { term: start.term.0, base: start.offset.0, values: None };
        self.entries = vec![before; start.index.0 as usize];
        self.durable = start.index.0;
        self.start = (start.offset.0, start.offset.0);
        self.term = self.term.max(start.term.0);
    }

    /// Says what is wrong with what a recovered log holds, and takes over what it holds.
    pub fn check_recovered(&mut self, log: &Log, recovered: &Recovered) -> Result<(), String> {
        let last = log.last_index().0;
        if last < self.durable {
            return Err(format!("entry {} was durable, recovered up to {last}", self.durable));
        }
        if last > self.last() {
            return Err(format!("recovered entry {last}, only {} were written", self.last()));
        }
        self.cut(last);
        let start = log.log_start().0;
        if start < self.start.0 || start > self.start.1 {
            return Err(format!("start {start}, not within {:?}", self.start));
        }
        self.start = (start, start);
        if recovered.last_index.0 != last || recovered.next_offset.0 != self.next_offset() {
            return Err(format!("{recovered:?} does not end at {last}/{}", self.next_offset()));
        }
        let before = recovered.first_index.0.checked_sub(2);
        let before = before.map_or(0, |place| self.entries[place as usize].term);
        if recovered.previous_term.0 != before {
            return Err(format!("previous term {}, not {before}", recovered.previous_term));
        }
        let mut terms: Vec<(RaftIndex, Term)> = Vec::new();
        for index in recovered.first_index.0..=last {
            let term = Term(self.entries[index as usize - 1].term);
            if terms.last().is_none_or(|(_, last)| *last != term) {
                terms.push((RaftIndex(index), term));
            }
        }
        if terms != recovered.terms {
            return Err(format!("terms {:?}, not {terms:?}", recovered.terms));
        }
        self.durable = last;
        self.check(log)
    }

    /// Says what is wrong with what a log shows.
    pub fn check(&self, log: &Log) -> Result<(), String> {
        let view = log.view();
        let (first, last) = (log.first_index().0, log.last_index().0);
        if last != self.last() || view.next_offset().0 != self.next_offset() {
            return Err(format!("ends at {last}/{}", view.next_offset()));
        }
        for index in first..=last {
            let wanted = &self.entries[index as usize - 1];
            let entry = view.entry(RaftIndex(index)).map_err(|error| error.to_string())?;
            let records = wanted.values.as_ref().map_or(0, Vec::len);
            if (entry.term.0, entry.base.0, entry.records as usize)
                != (wanted.term, wanted.base, records)
            {
                return Err(format!("entry {index} is {entry:?}, not {wanted:?}"));
            }
        }
        let start = view.start().0;
        let wanted: Vec<(Offset, Vec<u8>)> = self
            .entries
            .iter()
            .flat_map(|entry| {
                let values = entry.values.iter().flatten().cloned();
                values.enumerate().map(|(step, value)| (Offset(entry.base + step as u64), value))
            })
            .filter(|(offset, _)| offset.0 >= start)
            .collect();
        for max_bytes in [1, 700, 1 << 20] {
            let found = read_all(&view, Offset(self.next_offset()), max_bytes)
                .map_err(|error| error.to_string())?;
            if found != wanted {
                let place = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
                return Err(format!(
                    "{} records, {} wanted, first difference at {place:?}",
                    found.len(),
                    wanted.len()
                ));
            }
        }
        Ok(())
    }
}

/// The files of a log, as bytes.
pub type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// Copies a log's files out of a disk.
pub fn files_of(disk: &SimDisk) -> Files {
    let read = |name: &String| {
        let file = disk.open(&directory().join(name)).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    disk.list(directory()).unwrap().iter().map(|name| (name.clone(), read(name))).collect()
}

/// A disk that holds these files, durably.
pub fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).unwrap();
    for (name, bytes) in files {
        let file = disk.create_new(&directory().join(name)).unwrap();
        file.write_at(&[bytes], 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir(directory()).unwrap();
    disk
}

/// What became of a log whose files were tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Open refused, and left every byte as it was.
    Refused,
    /// All entries are there.
    Whole,
    /// So many entries were cut from the end.
    Cut(u64),
    /// Open accepted; some read says that its place is corrupt.
    ReadRefused,
}

/// Opens tampered files and says what became of them; an error when something wrong was shown.
pub fn fate_of(files: &Files, model: &Model, options: &LogOptions) -> Result<Fate, String> {
    let disk = disk_of(files);
    let (log, recovered) = match open(&disk, options) {
        Ok(opened) => opened,
        Err(
            LogError::Corrupt { .. }
            | LogError::FileDamaged { .. }
            | LogError::UnknownVersion { .. },
        ) => {
            let same = files_of(&disk) == *files;
            return if same { Ok(Fate::Refused) } else { Err("refused, but changed".into()) };
        }
        Err(error) => return Err(format!("unexpected: {error}")),
    };
    let last = log.last_index().0;
    if last > model.last() {
        return Err(format!("{last} entries, {} were written", model.last()));
    }
    if let Some(wrong) = first_wrong(&log, model)? {
        return Err(wrong);
    }
    let mut model = model.clone();
    (model.durable, model.start) = (0, (0, 0));
    let lost = model.last() - last;
    match model.check_recovered(&log, &recovered) {
        Ok(()) if lost == 0 => Ok(Fate::Whole),
        Ok(()) => Ok(Fate::Cut(lost)),
        Err(error) if error.contains("is corrupt") => Ok(Fate::ReadRefused),
        Err(error) => Err(error),
    }
}

/// The first record that reads show and nobody wrote there.
fn first_wrong(log: &Log, model: &Model) -> Result<Option<String>, String> {
    let view = log.view();
    for entry in model.entries.iter().take(log.last_index().0 as usize) {
        let Some(values) = &entry.values else { continue };
        let (from, until) = (Offset(entry.base), view.next_offset());
        let outcome = match view.read(from, until, 1, ReadMode::Blocking) {
            Ok(ReadOutcome::Chunk(chunk)) => chunk,
            Ok(other) => return Err(format!("{other:?} at {from}")),
            Err(LogError::Corrupt { .. }) => continue,
            Err(error) => return Err(error.to_string()),
        };
        let found: Result<Vec<_>, _> =
            batch::records(outcome.batches, BatchLimits::default()).collect();
        let Ok(found) = found else { return Ok(Some(format!("undecodable at {from}"))) };
        let same = found.iter().zip(values).all(|((_, record), value)| {
            record.value.as_ref().is_some_and(|found| found[..] == value[..])
        });
        if !same || found.len() != values.len() {
            return Ok(Some(format!("wrong bytes at {from}")));
        }
    }
    Ok(None)
}
