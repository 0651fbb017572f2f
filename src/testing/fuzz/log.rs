//! What a log's directory may hold when it is opened: everything, its index files only, or arbitrary
//! bytes as its one store.

use super::disk::{
    CHECKPOINTED, Edited, Files, directory, disk_of, edited, entry, files_of, first_at, open,
    written,
};
use crate::log::batch::{BatchLimits, records};
use crate::log::disk::SimDisk;
use crate::log::frame::{FrameKind, HEADER_BYTES, verify};
use crate::log::{Log, LogError, LogView, ReadMode, ReadOutcome, inspect};
use crate::model::{Offset, RaftIndex, Record, Timestamp};
use std::sync::Arc;

/// Whatever is in the index and time files, and whichever of them are gone: the log opens and shows
/// what was written. They are never the only copy of anything.
pub(super) fn index(bytes: &[u8]) {
    let Edited { files, is_sealed } =
        edited(bytes, |name| name.ends_with(".index") || name.ends_with(".time"));
    let disk = disk_of(&files);
    let (log, recovered) = open(&disk).expect("an index is rebuilt");
    let wanted = written();
    assert_eq!(recovered.last_index, wanted.last, "all entries");
    assert_eq!(recovered.cut_bytes, 0, "an index says nothing of what is to be cut");
    let view = log.view();
    let shown: Vec<_> = shown(&view).expect("every place can be read").into_iter().collect();
    assert_eq!(shown.len(), wanted.values.len(), "all records");
    for ((offset, record), (at, value)) in shown.iter().zip(&wanted.values) {
        assert!(record.timestamp == *at && value_of(record) == value, "the record at {offset}");
    }
    for index in 1..=wanted.last.0 {
        let entry = view.entry(RaftIndex(index)).expect("every entry can be read");
        assert_eq!(entry.index, RaftIndex(index));
    }
    // A time file is believed by its checksum.
    if is_sealed {
        return;
    }
    let step = (wanted.values.len() / 5).max(1);
    for (at, _) in wanted.values.iter().step_by(step) {
        let found = view.find_time(*at, view.next_offset()).expect("every place can be read");
        assert_eq!(found, first_at(*at), "what was written at {at:?}");
    }
}

/// Whatever is in the files: the log opens or says what is wrong and changes nothing; it never cuts
/// what was proven durable, never shows what was not written, and opens the second time as the first.
pub(super) fn recovery(bytes: &[u8]) {
    let Edited { files, is_sealed } = edited(bytes, |_| true);
    let proven = proven(&files);
    opened(&files, |log, disk| {
        if is_sealed {
            return;
        }
        let last = log.last_index();
        assert!(last >= proven, "entry {proven} was proven durable, the log ends at {last}");
        if disk == Kept::Whole {
            only_what_was_written(&log.view());
        }
    });
}

/// Arbitrary bytes as the one store of a log that knows nothing else.
pub(super) fn store(bytes: &[u8]) {
    let name = format!("{:020}.store", 0);
    let sealed = sealed(bytes);
    for content in [bytes.to_vec(), sealed] {
        opened(&Files::from([(name.clone(), content)]), |_, _| {});
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Kept {
    /// The stores are those that were written, up to their ends.
    Whole,
    /// A store is missing or was put in another one's place.
    Parts,
}

/// What must hold of every directory.
fn opened(files: &Files, check: impl Fn(&Log, Kept)) {
    let disk = disk_of(files);
    looked_into(&disk);
    assert_eq!(files_of(&disk), *files, "who looks changes nothing");
    let (log, recovered) = match open(&disk) {
        Ok(opened) => opened,
        Err(
            error @ (LogError::Corrupt { .. }
            | LogError::FileDamaged { .. }
            | LogError::UnknownVersion { .. }),
        ) => {
            assert_eq!(files_of(&disk), *files, "refused, and changed");
            let again = open(&disk).map(|_| ()).expect_err("as before");
            assert_eq!(again.to_string(), error.to_string(), "two answers for the same bytes");
            return;
        }
        Err(error) => panic!("neither opened nor called damaged: {error}"),
    };
    let kept = if files.keys().eq(written().files.keys()) { Kept::Whole } else { Kept::Parts };
    check(&log, kept);
    let bounds =
        |log: &Log| (log.first_index(), log.last_index(), log.log_start(), log.next_offset());
    let (before, seen) = (bounds(&log), shown(&log.view()).map_err(|error| error.to_string()));
    drop(log);
    let (log, again) = open(&disk).expect("what was opened opens again");
    assert_eq!(bounds(&log), before, "the second time as the first");
    assert_eq!(again.cut_bytes, 0, "what had to be cut is cut");
    assert_eq!(again.terms, recovered.terms, "the same terms");
    let seen_again = shown(&log.view()).map_err(|error| error.to_string());
    assert!(seen_again == seen, "the same records");
    goes_on(&disk, log);
}

/// An entry more, and a start after an orderly close: it is there.
fn goes_on(disk: &SimDisk, mut log: Log) {
    let next = log.last_index().next();
    let term = log.last_term().0.max(1);
    // An index or a term at the end of what there can be is the only reason.
    let Ok(appended) = log.append(&[entry(next.0, term, &[(Timestamp(1), b"more".to_vec())])])
    else {
        return;
    };
    let base = appended.placed[0].base;
    let _ = log.sync().expect("nothing fails");
    log.close().expect("nothing fails");
    let (log, recovered) = open(disk).expect("a log that was closed in order");
    assert_eq!((recovered.last_index, recovered.cut_bytes), (next, 0), "closed in order");
    let stored = log.view().entry(next).expect("it was synced");
    assert_eq!((stored.base, stored.records), (base, 1), "the entry that was added");
}

/// The tools that look at files offline.
fn looked_into(disk: &SimDisk) {
    let reports = inspect::verify(disk, directory()).map_err(|error| error.to_string());
    let again = inspect::verify(disk, directory()).map_err(|error| error.to_string());
    assert_eq!(reports, again, "two looks at the same files");
    let Ok(dump) = inspect::dump(Arc::new(disk.clone()), directory()) else { return };
    let mut frames = 0;
    for frame in dump {
        let frame = frame.expect("the disk fails nothing");
        frames += 1;
        if frame.header.kind == FrameKind::Data {
            let decoded = records(frame.payload, BatchLimits::default());
            assert!(decoded.count() as u64 <= u64::from(frame.header.records) + 1, "no more");
        }
    }
    let whole: u64 = reports.into_iter().flatten().map(|report| report.frames).sum();
    assert!(frames >= whole, "what is whole is shown: {frames} of {whole}");
}

/// Every record from the start, or the first error.
fn shown(view: &LogView) -> Result<Vec<(Offset, Record)>, LogError> {
    let (mut from, until) = (view.start(), view.next_offset());
    let mut found = Vec::new();
    while from < until {
        let ReadOutcome::Chunk(chunk) = view.read(from, until, 700, ReadMode::Blocking)? else {
            panic!("a blocking read at {from} gave nothing")
        };
        assert!(chunk.base <= from && chunk.next > from && chunk.next <= until, "{chunk:?}");
        for record in records(chunk.batches, BatchLimits::default()) {
            // A checksum that is right over records that are not: whoever reads is told.
            let Ok((offset, record)) = record else { break };
            if offset >= from {
                found.push((offset, record));
            }
        }
        from = chunk.next;
    }
    Ok(found)
}

fn value_of(record: &Record) -> &[u8] {
    record.value.as_deref().unwrap_or_default()
}

/// No record is shown that nobody wrote, none at another offset.
fn only_what_was_written(view: &LogView) {
    let Ok(shown) = shown(view) else { return };
    for (offset, record) in shown {
        let (at, value) = &written().values[offset.0 as usize];
        assert!(record.timestamp == *at && value_of(&record) == value, "the record at {offset}");
    }
}

/// The last entry that the checkpoint, or a frame that is still in its place, says was durable: of
/// files as the log wrote them.
fn proven(files: &Files) -> RaftIndex {
    let original = &written().files;
    let is_kept = |name: &str| files.get(name) == original.get(name);
    let mut proven = if is_kept("checkpoint") { CHECKPOINTED } else { RaftIndex(0) };
    for (name, bytes) in original.iter().filter(|(name, _)| name.ends_with(".store")) {
        let Some(found) = files.get(name) else { continue };
        let mut at = 0;
        while let Ok(header) = verify(&bytes[at..]) {
            let end = at + header.frame_bytes as usize;
            if found.get(at..end) == Some(&bytes[at..end]) {
                proven = proven.max(header.durable);
            }
            at = end;
        }
    }
    proven
}

/// Whole frames, one after another, with checksums that are right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut store = bytes.to_vec();
    let mut at = 0;
    while store.len() - at > HEADER_BYTES {
        let stated = u64::from_be_bytes(store[at..at + 8].try_into().expect("8 bytes"));
        let room = (store.len() - at) as u64;
        let length = if stated.saturating_add(8) <= room { stated + 8 } else { room } as usize;
        let end = at + length.max(HEADER_BYTES);
        super::frame::reseal(&mut store[at..end]);
        at = end;
    }
    store
}

/// An edit as [`edited`] reads it.
pub(super) fn edit(operation: u8, file: u8, place: u16, given: &[u8]) -> Vec<u8> {
    let [high, low] = place.to_be_bytes();
    [&[operation, file, high, low, given.len() as u8], given].concat()
}

pub(super) fn index_seeds() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        edit(2, 0, 0, &[]),
        edit(1, 1, 13, &[]),
        edit(0, 0, 12, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7]),
        edit(6, 2, 16, &[255; 8]),
        edit(4, 0, 0, &[5; 9]),
        edit(5, 1, 24, &[0; 6]),
    ]
}

pub(super) fn recovery_seeds() -> Vec<Vec<u8>> {
    let names: Vec<&String> = written().files.keys().collect();
    let of = |ending: &str, n: usize| {
        let ending = names.iter().enumerate().filter(|(_, name)| name.ends_with(ending));
        ending.map(|(at, _)| at as u8).nth(n).expect("there are three segments")
    };
    let checkpoint = of("checkpoint", 0);
    vec![
        Vec::new(),
        // Torn within the last frames, torn where it was durable, flipped in a sealed segment.
        edit(1, of("store", 2), 700, &[]),
        edit(1, of("store", 2), 9, &[]),
        edit(6, of("store", 0), 300, &[1]),
        edit(5, of("store", 2), 60, &[0; 30]),
        edit(2, of("store", 1), 0, &[]),
        edit(2, checkpoint, 0, &[]),
        [edit(0, checkpoint, 40, &[0, 0, 0, 0, 0, 0, 0, 3]), edit(7, checkpoint, 0, &[])].concat(),
        [edit(0, of("store", 2), 30, &[1]), edit(8, of("store", 2), 30, &[])].concat(),
        edit(4, of("store", 2), 200, &[7; 40]),
    ]
}

pub(super) fn store_seeds() -> Vec<Vec<u8>> {
    use super::frame::frame;
    let three = [frame(1, 0, 0, b""), frame(2, 0, 2, b"a"), frame(3, 2, 1, b"b")].concat();
    let behind_zeros = [three.clone(), vec![0; 300]].concat();
    let behind_damage = [vec![7; 90], frame(2, 0, 1, b"a")].concat();
    let nested = frame(1, 0, 1, &frame(2, 0, 1, b"within"));
    vec![Vec::new(), vec![0; 64], three, behind_zeros, behind_damage, nested]
}
