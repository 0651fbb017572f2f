//! What the log promises on a disk that works.

use super::harness::*;
use crate::log::batch::BatchBuilder;
use crate::log::disk::SimDisk;
use crate::log::{Entry, EntryPayload, Log, LogError, LogOptions, ReadMode, ReadOutcome};
use crate::model::{Chance, Disposition, Offset, RaftIndex, Record, Term, Timestamp};
use std::time::Duration;

fn filled(entries: u64) -> (SimDisk, Log, Model) {
    let disk = SimDisk::new();
    let (mut log, recovered) = open(&disk, &small()).unwrap();
    assert!(recovered.clean);
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..entries {
        let entry = model.propose(3, 100);
        let appended = log.append(&[entry]).unwrap();
        assert_eq!(appended.placed[0].base.0 + 3, model.next_offset());
        let synced = log.sync().unwrap();
        assert_eq!(synced.upto().0, model.last());
        model.durable = model.last();
    }
    (disk, log, model)
}

#[test]
fn what_is_appended_is_read_back_in_order_over_many_segments() {
    let (_, log, model) = filled(60);
    assert!(log.view().segments() > 3);
    model.check(&log).unwrap();
}

#[test]
fn a_log_closed_in_order_opens_clean_and_without_a_scan() {
    let (disk, log, mut model) = filled(60);
    log.close().unwrap();
    let (log, recovered) = open(&disk, &small()).unwrap();
    assert!(recovered.clean, "{recovered:?}");
    assert!(recovered.scanned_bytes <= 1024, "only the zeros ahead: {recovered:?}");
    assert_eq!((recovered.rewritten_bytes, recovered.rebuilt_indexes), (0, 0));
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn a_log_that_was_not_closed_opens_with_all_of_its_entries() {
    let (disk, log, mut model) = filled(60);
    drop(log);
    let (log, recovered) = open(&disk, &small()).unwrap();
    assert!(!recovered.clean);
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn a_checkpoint_spares_the_next_start_what_lies_below_it() {
    let options = LogOptions { segment_bytes_max: 1 << 20, ..small() };
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..200 {
        log.append(&[model.propose(1, 1000)]).unwrap();
    }
    let _ = log.sync().unwrap();
    log.checkpoint().unwrap();
    log.append(&[model.propose(1, 1000)]).unwrap();
    let _ = log.sync().unwrap();
    drop(log);
    let (log, recovered) = open(&disk, &options).unwrap();
    assert!(recovered.scanned_bytes < 4096, "{recovered:?}");
    model.durable = model.last();
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn large_batches_travel_by_reference_and_come_back_whole() {
    let options = LogOptions { segment_bytes_max: 1 << 20, frame_bytes_max: 1 << 20, ..small() };
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &options).unwrap();
    let groups: Vec<_> = [10, 5000, 3, 70_000]
        .iter()
        .enumerate()
        .map(|(number, bytes)| batch_at(&[value(number as u64, *bytes)], NOW))
        .collect();
    let payload = EntryPayload::Data(groups);
    let entry = Entry { term: Term(7), index: RaftIndex(1), payload };
    assert_eq!(log.append(&[entry]).unwrap().placed[0].records, 4);
    let found = read_all(&log.view(), Offset(4), 1000).unwrap();
    let lengths: Vec<_> = found.iter().map(|(_, value)| value.len()).collect();
    assert_eq!(lengths, [10, 5000, 8, 70_000]);
}

#[test]
fn a_read_that_begins_inside_an_entry_leaves_out_the_batches_before_it() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let groups = (0..3).map(|n| batch_at(&[value(n, 20), value(n + 10, 20)], NOW)).collect();
    let payload = EntryPayload::Data(groups);
    log.append(&[Entry { term: Term(1), index: RaftIndex(1), payload }]).unwrap();
    let read = log.view().read(Offset(3), Offset(6), 1 << 20, ReadMode::Blocking).unwrap();
    let ReadOutcome::Chunk(chunk) = read else { panic!("{read:?}") };
    assert_eq!((chunk.base, chunk.next, chunk.records), (Offset(2), Offset(6), 4));
}

#[test]
fn no_read_shows_an_entry_that_ends_behind_the_bound() {
    let (_, log, _) = filled(3);
    let view = log.view();
    let read = |from, until| view.read(Offset(from), Offset(until), 1 << 20, ReadMode::Blocking);
    let ReadOutcome::Chunk(chunk) = read(0, 8).unwrap() else { panic!("records 0 to 5") };
    assert_eq!(chunk.next, Offset(6));
    assert_eq!(read(6, 8).unwrap(), ReadOutcome::AtEnd);
    assert_eq!(read(9, 9).unwrap(), ReadOutcome::AtEnd);
    let error = read(10, 20).unwrap_err();
    assert!(matches!(error, LogError::OffsetOutOfRange { next: Offset(9), .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::TellCaller);
}

#[test]
fn a_cold_read_is_not_waited_for_unless_asked() {
    let (disk, log, _) = filled(3);
    disk.set_cold(true);
    let view = log.view();
    let read = |mode| view.read(Offset(0), Offset(9), 1 << 20, mode).unwrap();
    assert_eq!(read(ReadMode::Cached), ReadOutcome::NeedsBlocking);
    assert!(matches!(read(ReadMode::Blocking), ReadOutcome::Chunk(_)));
}

#[test]
fn internal_entries_take_no_offset_and_are_not_shown_to_readers() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for round in 0..40 {
        let mut entries = vec![model.propose_internal()];
        entries.extend((0..round % 3).map(|_| model.propose(2, 50)));
        entries.push(model.propose_internal());
        log.append(&entries).unwrap();
        model.term += 1;
    }
    model.check(&log).unwrap();
    assert_eq!(&log.view().entry(RaftIndex(1)).unwrap().payload[..], b"no-op of an election");
    let (log, recovered) = open(&disk, &small()).unwrap();
    model.check_recovered(&log, &recovered).unwrap();
    assert_eq!(recovered.terms.len(), 40);
}

#[test]
fn entries_out_of_order_are_refused_and_change_nothing() {
    let (_, mut log, mut model) = filled(2);
    let gap = log.append(&[data(4, 1, &[value(1, 1)])]).unwrap_err();
    assert!(matches!(gap, LogError::NotContiguous { expected: RaftIndex(3), .. }), "{gap}");
    let back = log.append(&[data(3, 0, &[value(1, 1)])]).unwrap_err();
    assert!(matches!(back, LogError::TermWentBack { .. }), "{back}");
    let large = log.append(&[data(3, 1, &[value(1, 5000)])]).unwrap_err();
    assert!(matches!(large, LogError::EntryTooLarge { frame_bytes_max: 4096, .. }), "{large}");
    let payload = EntryPayload::Data(Vec::new());
    let empty = Entry { term: Term(1), index: RaftIndex(3), payload };
    assert!(matches!(log.append(&[empty]).unwrap_err(), LogError::EmptyEntry { .. }));
    assert!(!log.is_poisoned());
    log.append(&[model.propose(1, 10)]).unwrap();
    model.check(&log).unwrap();
}

#[test]
fn a_truncated_end_is_gone_for_good_and_written_over() {
    for keep in (0..=60).rev().step_by(7) {
        let (disk, mut log, mut model) = filled(60);
        log.checkpoint().unwrap();
        log.truncate_after(RaftIndex(keep)).unwrap();
        model.cut(keep);
        model.check(&log).unwrap();
        drop(log);
        let (mut log, recovered) = open(&disk, &small()).unwrap();
        model.check_recovered(&log, &recovered).unwrap();
        model.term = 2;
        for _ in 0..30 {
            log.append(&[model.propose(2, 120)]).unwrap();
        }
        model.check(&log).unwrap();
        log.close().unwrap();
        let (log, recovered) = open(&disk, &small()).unwrap();
        model.check_recovered(&log, &recovered).unwrap();
    }
}

/// A checkpoint may lie at the very start of a segment, and cover none of it.
#[test]
fn a_truncation_that_removes_the_segment_of_the_checkpoint_leaves_a_log_that_opens() {
    let options = LogOptions { segment_entries_max: 2, ..small() };
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..3 {
        log.append(&[model.propose(1, 10)]).unwrap();
    }
    log.checkpoint().unwrap();
    log.truncate_after(RaftIndex(2)).unwrap();
    model.cut(2);
    drop(log);
    let (log, recovered) = open(&disk, &options).unwrap();
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn the_start_moves_by_whole_segments_and_never_goes_back() {
    let (disk, mut log, mut model) = filled(60);
    let reader = log.view();
    let held = reader.segments.load_full();
    let removed = log.truncate_before(Offset(100)).unwrap();
    assert!(removed.segments > 1 && removed.log_start <= Offset(100), "{removed:?}");
    assert_eq!(removed.log_start, log.log_start());
    model.start = (removed.log_start.0, removed.log_start.0);
    model.check(&log).unwrap();
    assert!(held[0].header_at(0).is_ok(), "who holds a removed segment reads on");
    let error = reader.read(Offset(0), Offset(9), 100, ReadMode::Blocking).unwrap_err();
    assert!(matches!(error, LogError::OffsetOutOfRange { .. }), "{error}");
    let again = log.truncate_before(Offset(100)).unwrap();
    assert_eq!((again.segments, again.log_start), (0, removed.log_start));
    drop(log);
    let (log, recovered) = open(&disk, &small()).unwrap();
    assert_eq!((recovered.first_index, recovered.previous_term), (removed.first_index, Term(1)));
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn what_nobody_needs_is_released_also_where_it_lies_in_the_active_segment() {
    let (disk, mut log, mut model) = filled(3);
    assert_eq!(log.view().segments(), 1, "all of it is in the active segment");
    let end = log.next_offset();
    let kept = log.release(Offset(end.0 - 1)).unwrap();
    assert_eq!((kept.segments, kept.log_start), (0, Offset(0)), "one record of it is needed");
    assert_eq!(log.view().segments(), 2, "it grows no further");
    let again = log.release(Offset(end.0 - 1)).unwrap();
    assert_eq!((again.segments, log.view().segments()), (0, 2), "once is enough");
    let removed = log.release(end).unwrap();
    assert_eq!((removed.segments, removed.log_start), (1, end));
    model.start = (end.0, end.0);
    model.check(&log).unwrap();
    drop(log);
    let (log, recovered) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.first_index, removed.first_index);
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn retention_by_bytes_keeps_what_is_not_committed_and_the_active_segment() {
    let options = LogOptions { retention_bytes_max: Some(1), ..small() };
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..60 {
        log.append(&[model.propose(3, 100)]).unwrap();
    }
    assert_eq!(log.retain(Offset(5)).unwrap().segments, 0);
    let removed = log.retain(Offset(50)).unwrap();
    assert!(removed.segments > 0 && removed.log_start <= Offset(50), "{removed:?}");
    log.retain(Offset(u64::MAX)).unwrap();
    assert_eq!(log.view().segments(), 1);
    let start = log.log_start().0;
    model.start = (start, start);
    model.check(&log).unwrap();
}

#[test]
fn retention_by_age_removes_segments_whose_newest_record_is_too_old() {
    let options = LogOptions {
        retention_age_max: Some(Duration::from_secs(60)),
        segment_age_max: Some(Duration::from_secs(30)),
        ..small()
    };
    let (disk, clock) = (SimDisk::new(), clock());
    let (mut log, _) = open_at(&disk, &options, clock.clone()).unwrap();
    log.append(&[data(1, 1, &[value(1, 10)])]).unwrap();
    assert_eq!(log.retain(Offset(1)).unwrap().segments, 0);
    clock.advance(Duration::from_secs(59));
    assert_eq!(log.retain(Offset(1)).unwrap().segments, 0, "closed by age, not expired");
    assert_eq!(log.view().segments(), 2);
    clock.advance(Duration::from_secs(2));
    let removed = log.retain(Offset(1)).unwrap();
    assert_eq!((removed.segments, removed.log_start), (1, Offset(1)));
    log.append(&[data(2, 1, &[value(2, 10)])]).unwrap();
    assert_eq!(read_all(&log.view(), Offset(2), 100).unwrap().len(), 1);
}

#[test]
fn a_time_is_found_across_segments_also_when_times_go_back() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut times = Vec::new();
    let mut dice = Chance::new(5);
    for index in 1..=120 {
        let mut builder = BatchBuilder::new();
        for _ in 0..3 {
            let time = Timestamp(index * 1000 + dice.below(3000) as i64);
            times.push(time);
            builder.push(&Record::of_value(value(index as u64, 60), time)).unwrap();
        }
        let payload = EntryPayload::Data(vec![builder.finish().unwrap()]);
        let entry = Entry { term: Term(1), index: RaftIndex(index as u64), payload };
        log.append(&[entry]).unwrap();
    }
    let check = |log: &Log| {
        let end = Offset(times.len() as u64);
        for at in (-500..125_000).step_by(379).map(Timestamp) {
            let wanted = times.iter().position(|time| *time >= at).unwrap_or(times.len());
            assert_eq!(log.view().find_time(at, end).unwrap(), Offset(wanted as u64), "{at}");
        }
    };
    check(&log);
    drop(log);
    let (log, _) = open(&disk, &small()).unwrap();
    check(&log);
    // Without its files the time index is rebuilt from the batches.
    use crate::log::disk::Disk;
    for name in disk.list(directory()).unwrap() {
        if name.ends_with(".time") {
            disk.remove(&directory().join(name)).unwrap();
        }
    }
    let (log, _) = open(&disk, &small()).unwrap();
    check(&log);
}

#[test]
fn a_spare_is_prepared_while_idle_and_taken_by_the_next_segment() {
    let options = LogOptions {
        segment_bytes_max: 4 << 20,
        zero_ahead_bytes: 64 << 10,
        frame_bytes_max: 1 << 20,
        ..small()
    };
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &options).unwrap();
    assert!(!log.zero_ahead(u64::MAX).unwrap(), "an empty log is left alone");
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..3 {
        log.append(&[model.propose(1, 700 << 10)]).unwrap();
    }
    let mut steps = 0;
    while log.zero_ahead(u64::MAX).unwrap() {
        steps += 1;
    }
    assert!(steps >= 4, "4 MiB in steps of at most 1 MiB, {steps}");
    for _ in 0..5 {
        log.append(&[model.propose(1, 700 << 10)]).unwrap();
    }
    assert_eq!(log.view().segments(), 2);
    assert!(log.active.zeroed_bytes == 4 << 20, "the second segment lies in the spare");
    model.check(&log).unwrap();
    let after = disk.crash(1, crate::log::disk::sim::CrashMode::Clean);
    let (log, recovered) = open(&after, &options).unwrap();
    model.check_recovered(&log, &recovered).unwrap();
}

#[test]
fn an_empty_log_takes_less_than_a_mebibyte_of_disk() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &LogOptions::default()).unwrap();
    log.append(&[internal(1, 1, b"no-op")]).unwrap();
    let _ = log.sync().unwrap();
    log.checkpoint().unwrap();
    assert!(disk.used_bytes() < 256 << 10, "{}", disk.used_bytes());
}

/// On the machine's own disk: readers follow a writer that syncs, rolls and checkpoints, and see
/// each record once, in order, whole.
#[test]
fn readers_follow_a_writer_without_a_lock_and_miss_nothing() {
    use crate::log::batch::{BatchLimits, records};
    use std::sync::atomic::{AtomicU64, Ordering};
    const RECORDS: u64 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes_max: 64 << 10, ..small() };
    let disk = std::sync::Arc::new(crate::log::disk::RealDisk);
    let opened = Log::open(disk, clock(), directory.path(), options, &mut |_, _| {});
    let (mut log, _) = opened.unwrap();
    let (view, committed) = (log.view(), AtomicU64::new(0));
    let follow = || {
        let mut from = 0;
        while from < RECORDS {
            let until = Offset(committed.load(Ordering::Acquire));
            let outcome = view.read(Offset(from), until, 4096, ReadMode::Blocking).unwrap();
            let ReadOutcome::Chunk(chunk) = outcome else {
                assert_eq!(from, until.0, "only the bound is the end");
                std::thread::yield_now();
                continue;
            };
            for record in records(chunk.batches, BatchLimits::default()) {
                let (offset, record) = record.unwrap();
                assert_eq!((offset.0, record.value.unwrap().to_vec()), (from, value(from, 90)));
                from += 1;
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(follow), scope.spawn(follow)];
        for number in 0..RECORDS {
            log.append(&[data(number + 1, 1, &[value(number, 90)])]).unwrap();
            if number % 50 == 49 {
                committed.store(log.sync().unwrap().next_offset().0, Ordering::Release);
            }
            if number % 500 == 499 {
                log.checkpoint().unwrap();
            }
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(view.segments() > 5);
}

#[test]
fn a_sync_without_a_write_costs_no_call() {
    use crate::log::disk::sim::DiskCall;
    let (disk, mut log, _) = filled(1);
    let before = disk.calls(DiskCall::Sync);
    assert_eq!(log.sync().unwrap().upto(), RaftIndex(1));
    assert_eq!(disk.calls(DiskCall::Sync), before);
    assert_eq!(log.written().next_offset(), Offset(3));
}

#[test]
fn options_that_contradict_each_other_are_refused_before_a_file_is_touched() {
    let disk = SimDisk::new();
    let options = LogOptions { frame_bytes_max: 1 << 20, ..small() };
    let error = open(&disk, &options).unwrap_err();
    let field = "frame_bytes_max";
    assert!(matches!(error, LogError::InvalidOption { field: found, .. } if found == field));
    assert_eq!(disk.mutations(), 0);
}
