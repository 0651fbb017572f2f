//! The bytes on disk are those of `docs/formats/segment.md`: its worked example is made here.
//! Also the small files, and the offline tools that read all of it.

use super::harness::*;
use crate::log::batch;
use crate::log::disk::{Disk, SimDisk};
use crate::log::inspect::{self, Tail};
use crate::log::stable;
use crate::log::{Entry, EntryPayload, LogError};
use crate::model::{Offset, RaftIndex, Record, Term, Timestamp};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// A log of one no-op and one entry of one batch of two records.
fn example() -> SimDisk {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut builder = batch::BatchBuilder::new();
    for (value, at) in [("hello", 1_700_000_000_000), ("world", 1_700_000_000_005)] {
        builder.push(&Record::of_value(value, Timestamp(at))).unwrap();
    }
    let payload = EntryPayload::Data(vec![builder.finish().unwrap()]);
    log.append(&[internal(1, 1, b"")]).unwrap();
    let _ = log.sync().unwrap();
    log.append(&[Entry { term: Term(1), index: RaftIndex(2), payload }]).unwrap();
    log.close().unwrap();
    disk
}

/// Bytes as the document shows them: 16 a line, with their place.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        write!(text, "{:04x} ", line * 16).unwrap();
        for byte in bytes {
            write!(text, " {byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_worked_example_of_the_format_document_is_what_the_log_writes() {
    let files = files_of(&example());
    let reports = inspect::verify(&example(), directory()).unwrap();
    let end = reports[0].end_bytes as usize;
    let document = include_str!("../../../docs/formats/segment.md");
    let parts = [
        ("store", hex(&files["00000000000000000000.store"][..end])),
        ("index", hex(&files["00000000000000000000.index"][..24])),
        ("checkpoint", hex(&files["checkpoint"])),
    ];
    for (what, hex) in parts {
        assert!(document.contains(&hex), "docs/formats/segment.md, {what}, should say:\n{hex}");
    }
}

#[test]
fn verify_counts_what_is_whole_and_names_the_first_bad_place() {
    let disk = example();
    let reports = inspect::verify(&disk, directory()).unwrap();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.frames, report.batches, report.records), (2, 1, 2));
    assert_eq!(report.entries, Some((RaftIndex(1), RaftIndex(2))));
    assert_eq!((report.next, &report.tail, report.index_is_right), (Offset(2), &Tail::End, true));
    disk.flip_bit(store_path(0), report.end_bytes - 1, 0);
    let alone = inspect::verify(&disk, &store_path(0)).unwrap();
    assert!(matches!(alone[0].tail, Tail::Torn { .. }), "nothing else is known: {alone:?}");
    assert_eq!((alone[0].frames, alone[0].end_bytes), (1, 56));
    let whole = inspect::verify(&disk, directory()).unwrap();
    assert!(matches!(whole[0].tail, Tail::Corrupt { .. }), "the checkpoint knows: {whole:?}");
    let missing = inspect::verify(&disk, &directory().join("no")).unwrap_err();
    assert!(matches!(missing, LogError::FileMissing { .. }), "{missing}");
}

#[test]
fn verify_sees_that_only_the_last_segment_may_end_early() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..40 {
        log.append(&[model.propose(3, 100)]).unwrap();
    }
    let reports = inspect::verify(&disk, directory()).unwrap();
    assert!(reports.len() > 2 && reports.iter().all(|report| report.tail == Tail::End));
    assert_eq!(reports.iter().map(|report| report.records).sum::<u64>(), 120);
    let file = disk.open(&reports[0].path).unwrap();
    file.set_len(reports[0].end_bytes - 5).unwrap();
    let reports = inspect::verify(&disk, directory()).unwrap();
    assert!(matches!(reports[0].tail, Tail::Corrupt { .. }), "{:?}", reports[0]);
}

#[test]
fn dump_goes_through_frames_and_lets_their_records_be_decoded() {
    let frames: Result<Vec<_>, _> =
        inspect::dump(Arc::new(example()), directory()).unwrap().collect();
    let frames = frames.unwrap();
    let places: Vec<_> = frames.iter().map(|frame| frame.position_bytes).collect();
    assert_eq!(places, [0, 56]);
    let records = batch::records(frames[1].payload.clone(), batch::BatchLimits::default());
    let values: Vec<_> = records.map(|record| record.unwrap().1.value.unwrap().0).collect();
    assert_eq!(values, ["hello", "world"]);
}

const MAGIC: [u8; 4] = *b"test";

fn stable_file() -> (SimDisk, &'static Path) {
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).unwrap();
    let path = Path::new("/data/log-0/vote");
    stable::write(&disk, path, MAGIC, 3, b"term 7, voted for 1").unwrap();
    (disk, path)
}

#[test]
fn a_stable_file_is_read_back_and_replaced_whole() {
    use crate::log::disk::sim::CrashMode;
    let (disk, path) = stable_file();
    let read = |disk: &SimDisk| stable::read(disk, path, MAGIC, 3).unwrap();
    assert_eq!(read(&disk), (3, b"term 7, voted for 1".to_vec()));
    let before = disk.mutations();
    stable::write(&disk.after_crash(1, CrashMode::Lost), path, MAGIC, 3, b"term 8").unwrap();
    for stop in before..before + 8 {
        for mode in CrashMode::ALL {
            let (disk, _) = stable_file();
            disk.stop_after(stop);
            let written = stable::write(&disk, path, MAGIC, 3, b"term 8").is_ok();
            let (_, content) = read(&disk.crash(stop, mode));
            let old = content == b"term 7, voted for 1";
            assert!((old && !written) || content == b"term 8", "{stop} {mode:?} {content:?}");
        }
    }
}

#[test]
fn a_stable_file_that_is_missing_damaged_or_newer_is_told_apart() {
    let (disk, path) = stable_file();
    let missing = stable::read(&disk, Path::new("/data/log-0/no"), MAGIC, 3).unwrap_err();
    assert!(matches!(missing, LogError::FileMissing { .. }), "{missing}");
    let newer = stable::read(&disk, path, MAGIC, 2).unwrap_err();
    assert!(matches!(newer, LogError::UnknownVersion { found: 3, supported: 2, .. }), "{newer}");
    let other = stable::read(&disk, path, *b"else", 3).unwrap_err();
    assert!(matches!(other, LogError::FileDamaged { .. }), "{other}");
    let bytes = disk.open(path).unwrap().len().unwrap();
    for bit in 0..bytes * 8 {
        disk.flip_bit(path, bit / 8, (bit % 8) as u8);
        let flipped = stable::read(&disk, path, MAGIC, 3).unwrap_err();
        assert!(matches!(flipped, LogError::FileDamaged { .. }), "bit {bit}: {flipped}");
        disk.flip_bit(path, bit / 8, (bit % 8) as u8);
    }
    for cut in (0..bytes).rev() {
        disk.open(path).unwrap().set_len(cut).unwrap();
        let torn = stable::read(&disk, path, MAGIC, 3).unwrap_err();
        assert!(matches!(torn, LogError::FileDamaged { .. }), "cut at {cut}: {torn}");
    }
}
