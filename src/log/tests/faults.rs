//! Rungs A6, A7 and A9: calls that fail, disks that fill up, reads that go wrong.

use super::harness::*;
use crate::log::control::{Sin, committing};
use crate::log::disk::sim::{CrashMode, DiskCall, Errno, Fault, ReadDamage};
use crate::log::disk::{Disk, SimDisk};
use crate::log::segment::Part;
use crate::log::{Log, LogError, LogOptions, ReadMode, ReadOutcome};
use crate::model::{Disposition, Offset, RaftIndex};
use std::time::Duration;

/// Appends, rolls, checkpoints, truncates at both ends, works ahead. Ends at the first error
/// that is not a full disk; after a full disk it goes on, since nothing may have changed.
fn workload(log: &mut Log, model: &mut Model) -> Result<u64, LogError> {
    let mut refused = 0;
    let mut tolerate = |outcome: Result<(), LogError>| match outcome {
        Err(error) if error.is_disk_full() => {
            refused += 1;
            Ok(())
        }
        other => other,
    };
    for round in 0..30 {
        let before = model.clone();
        let entries: Vec<_> = (0..1 + round % 4).map(|_| model.propose(2, 90)).collect();
        match log.append(&entries) {
            Ok(_) => {}
            Err(error) if error.is_disk_full() => {
                *model = Model { numbers: model.numbers, ..before };
                tolerate(Err(error))?;
            }
            Err(error) => return Err(error),
        }
        model.durable = log.sync()?.upto().0;
        match round % 10 {
            3 => tolerate(log.checkpoint())?,
            5 => {
                let to = model.last() - 1;
                model.durable = model.durable.min(to);
                match log.truncate_after(RaftIndex(to)) {
                    Ok(()) => {
                        model.cut(to);
                        model.term += 1;
                    }
                    Err(error) => {
                        tolerate(Err(error))?;
                        model.durable = model.last();
                    }
                }
            }
            7 => {
                let upto = model.next_offset() / 2;
                model.start.1 = model.start.1.max(upto);
                let removed = log.truncate_before(Offset(upto)).map(|_| ());
                tolerate(removed)?;
                model.start = (log.log_start().0, log.log_start().0);
            }
            9 => drop(log.zero_ahead(4096)?),
            _ => {}
        }
    }
    Ok(refused)
}

/// Reads what was acknowledged; the log may be poisoned.
fn acknowledged_is_served(log: &Log, model: &Model) -> Result<(), String> {
    let until = Offset(model.next_after(model.durable.min(log.last_index().0)));
    let wanted = until.0 - log.log_start().0.min(until.0);
    let found = read_all(&log.view(), until, 1 << 20).map_err(|error| error.to_string())?;
    if found.len() as u64 == wanted { Ok(()) } else { Err(format!("{} records", found.len())) }
}

/// One fault in one run, then a crash, then recovery. Says whether the fault was met.
fn one_fault(fault: &Fault, mode: CrashMode, seed: u64) -> Result<bool, String> {
    let disk = SimDisk::new();
    disk.fail(fault.clone());
    let mut model = Model { term: 1, ..Model::default() };
    let mut met = true;
    match open(&disk, &small()) {
        Err(error) if error.disposition() == Disposition::TellCaller && !error.is_disk_full() => {
            return Err(format!("open told the caller: {error}"));
        }
        Err(_) => {}
        Ok((mut log, _)) => match workload(&mut log, &mut model) {
            Ok(refused) => {
                met = refused > 0;
                model.check(&log)?;
            }
            Err(_) => {
                let syncs = disk.calls(DiskCall::Sync);
                let again = log.sync();
                if !matches!(again, Err(LogError::Poisoned { .. })) {
                    return Err(format!("sync after a failure: {again:?}"));
                }
                let append = log.append(&[model.clone().propose(1, 1)]);
                if !matches!(append, Err(LogError::Poisoned { .. })) {
                    return Err(format!("append after a failure: {append:?}"));
                }
                if disk.calls(DiskCall::Sync) != syncs {
                    return Err("a failed sync was tried again".into());
                }
                acknowledged_is_served(&log, &model)?;
            }
        },
    }
    let disk = disk.crash(seed, mode);
    let (mut log, recovered) = open(&disk, &small()).map_err(|error| format!("open: {error}"))?;
    model.check_recovered(&log, &recovered)?;
    model.term += 10;
    log.append(&[model.propose(1, 10)]).map_err(|error| error.to_string())?;
    let _ = log.sync().map_err(|error| error.to_string())?;
    model.check(&log)?;
    Ok(met)
}

const CHANGES: [DiskCall; 11] = [
    DiskCall::CreateDir,
    DiskCall::Create,
    DiskCall::Rename,
    DiskCall::Remove,
    DiskCall::SyncDir,
    DiskCall::Write,
    DiskCall::Sync,
    DiskCall::SetLen,
    DiskCall::Allocate,
    DiskCall::Map,
    DiskCall::MapSync,
];

#[test]
fn a6_a_call_that_fails_is_never_acknowledged_nor_retried_and_recovery_finds_all_that_was() {
    let mut met = 0;
    for call in CHANGES {
        for n in 1..=50 {
            for fault in [Fault::nth(call, n), Fault::every(call).during(n..u64::MAX)] {
                let mode = CrashMode::ALL[n as usize % 3];
                let was_met = one_fault(&fault, mode, n)
                    .unwrap_or_else(|error| panic!("{fault:?}, {mode:?}: {error}"));
                met += u64::from(was_met);
            }
        }
    }
    assert!(met > 300, "only {met} faults were met");
}

#[test]
fn a6_a_file_system_that_turns_read_only_stops_writes_and_not_reads() {
    for call in [DiskCall::Write, DiskCall::Create, DiskCall::SetLen] {
        for n in [1, 4, 9] {
            let fault = Fault::every(call).during(n..u64::MAX).with(Errno::ReadOnly);
            one_fault(&fault, CrashMode::Torn, n).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        }
    }
}

/// Negative control: an acknowledgement in spite of a failed sync must be caught.
#[test]
fn a6_an_acknowledgement_in_spite_of_a_failed_sync_is_caught() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    log.append(&[model.propose(1, 10)]).unwrap();
    disk.fail(Fault::every(DiskCall::Sync));
    let _ = log.sync().unwrap_err();
    model.durable = model.last(); // the lie
    let disk = disk.crash(1, CrashMode::Lost);
    let (log, recovered) = open(&disk, &small()).unwrap();
    assert!(model.check_recovered(&log, &recovered).is_err());
}

/// Each call of a kind in turn meets a full disk, as do the next ones. Says how often one was met.
fn full_disks(call: DiskCall) -> Result<u64, String> {
    let mut met = 0;
    for n in 3..=60 {
        for width in [1, 2, 5] {
            let fault = Fault::every(call).during(n..n + width).with(Errno::NoSpace);
            let mode = CrashMode::ALL[n as usize % 3];
            let was_met = one_fault(&fault, mode, n)
                .map_err(|error| format!("{fault:?}, {mode:?}: {error}"))?;
            met += u64::from(was_met);
        }
    }
    Ok(met)
}

#[test]
fn a7_each_allocation_may_meet_a_full_disk_and_the_next_append_goes_on() {
    let allocating = [DiskCall::Write, DiskCall::Allocate, DiskCall::Create];
    let met: u64 = allocating.map(|call| full_disks(call).unwrap()).iter().sum();
    assert!(met > 150, "only {met} full disks were met");
}

/// Negative control: what a refused write left behind must be seen to come back as entries.
#[test]
fn a7_a_writer_that_leaves_half_of_a_refused_write_is_caught() {
    let outcome = committing(Sin::LeaveHalfAWrite, || full_disks(DiskCall::Write));
    assert!(outcome.is_err(), "{outcome:?}");
}

#[test]
fn a7_a_full_disk_refuses_appends_serves_reads_and_takes_up_again_when_space_returns() {
    let options = LogOptions { reserve_free_bytes: 8 << 10, ..small() };
    for capacity in (12..=72).step_by(4) {
        let disk = SimDisk::new();
        disk.set_capacity(capacity << 10);
        let (mut log, _) = match open(&disk, &options) {
            Ok(opened) => opened,
            Err(error) => panic!("{capacity} KiB: {error}"),
        };
        let mut model = Model { term: 1, ..Model::default() };
        let error = loop {
            let before = model.clone();
            let entry = model.propose(2, 300);
            match log.append(&[entry]) {
                Ok(_) => model.durable = log.sync().unwrap().upto().0,
                Err(error) => {
                    model = before;
                    break error;
                }
            }
        };
        assert!(matches!(error, LogError::DiskFull { .. }), "{capacity} KiB: {error}");
        assert_eq!(error.disposition(), Disposition::TellCaller);
        assert!(error.to_string().contains("no restart is needed"), "{error}");
        model.check(&log).unwrap();
        // A restart on the full disk serves reads as well.
        let (after, recovered) = open(&disk.after_crash(1, CrashMode::Clean), &options).unwrap();
        model.clone().check_recovered(&after, &recovered).unwrap();
        // Deleting works with what others have left of the reserve, and makes room.
        disk.set_capacity(disk.used_bytes() + 4096);
        let removed = log.truncate_before(Offset(u64::MAX)).unwrap();
        model.start = (removed.log_start.0, removed.log_start.0);
        disk.set_capacity(1 << 20);
        for _ in 0..20 {
            log.append(&[model.propose(2, 300)]).unwrap();
        }
        model.durable = log.sync().unwrap().upto().0;
        model.check(&log).unwrap();
    }
}

/// Negative control: a writer that counts what a full disk refused as acknowledged must be caught.
#[test]
fn a7_an_acknowledgement_in_spite_of_a_full_disk_is_caught() {
    let disk = SimDisk::new();
    disk.set_capacity(64 << 10);
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    while log.append(&[model.propose(2, 300)]).is_ok() {
        model.durable = log.sync().unwrap().upto().0;
    }
    assert!(model.check(&log).is_err(), "the refused entry is not in the log");
    model.durable = model.last();
    let (log, recovered) = open(&disk.crash(1, CrashMode::Clean), &small()).unwrap();
    assert!(model.check_recovered(&log, &recovered).is_err());
}

#[test]
fn a7_space_kept_in_reserve_is_not_taken_by_appends() {
    let segment_bytes_max = 1 << 20;
    let options = LogOptions { reserve_free_bytes: 64 << 10, segment_bytes_max, ..small() };
    let disk = SimDisk::new();
    disk.set_capacity(128 << 10);
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    let error = loop {
        if let Err(error) = log.append(&[model.propose(1, 2000)]) {
            break error;
        }
    };
    assert!(matches!(error, LogError::DiskFull { reserve_bytes: 65536, .. }), "{error}");
    assert!(disk.free_bytes(directory()).unwrap() > 48 << 10);
    log.checkpoint().unwrap();
}

/// Several segments whose records are all too old, and an active one over its age. Reopened, so
/// that no time index is in memory.
fn expired(disk: &SimDisk) -> (Log, Model) {
    let options = LogOptions {
        retention_age_max: Some(Duration::from_secs(60)),
        segment_age_max: Some(Duration::from_secs(30)),
        reserve_free_bytes: 4096,
        ..small()
    };
    let clock = clock();
    let (mut log, _) = open_at(disk, &options, clock.clone()).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..60 {
        log.append(&[model.propose(3, 100)]).unwrap();
    }
    log.close().unwrap();
    clock.advance(Duration::from_secs(3600));
    let (log, _) = open_at(disk, &options, clock).unwrap();
    assert!(log.view().segments() > 4);
    (log, model)
}

fn bases(log: &Log) -> Vec<Offset> {
    log.view().segments.load().iter().map(|segment| segment.base).collect()
}

#[test]
fn a7_retention_makes_room_though_the_disk_is_too_full_to_close_the_aged_segment() {
    let disk = SimDisk::new();
    let (mut log, mut model) = expired(&disk);
    let newest = *bases(&log).last().unwrap();
    disk.set_capacity(disk.used_bytes());
    let removed = log.retain(Offset(u64::MAX)).unwrap();
    assert!(removed.segments > 3, "{removed:?}");
    assert_eq!(bases(&log), [newest], "the active one was not closed");
    model.start = (newest.0, newest.0);
    model.check(&log).unwrap();
    // Now there is room to close it, and it has expired as well.
    assert_eq!(log.retain(Offset(u64::MAX)).unwrap().segments, 1);
    log.append(&[model.propose(1, 100)]).unwrap();
    let _ = log.sync().unwrap();
}

#[test]
fn a9_a_time_file_that_cannot_be_read_does_not_hold_up_retention() {
    let disk = SimDisk::new();
    let (mut log, _) = expired(&disk);
    let first = Part::Time.path(directory(), bases(&log)[0]);
    let all = 0..u64::MAX;
    disk.damage_reads(first, all, ReadDamage::Fail(Errno::Io));
    log.retain(Offset(u64::MAX)).unwrap();
    assert_eq!(log.view().segments(), 1, "its times were rebuilt from its batches");
    assert!(!log.is_poisoned());
}

#[test]
fn a9_a_segment_that_cannot_be_read_goes_with_the_next_one_that_has_expired() {
    let disk = SimDisk::new();
    let (mut log, mut model) = expired(&disk);
    let bases = bases(&log);
    let hide = |base: Offset| {
        for part in [Part::Time, Part::Store] {
            let file = part.path(directory(), base);
            disk.damage_reads(file, 0..u64::MAX, ReadDamage::Fail(Errno::Io));
        }
    };
    hide(bases[0]);
    let removed = log.retain(bases[1]).unwrap();
    assert_eq!((removed.segments, removed.unjudged), (0, 1), "no other may go yet");
    assert_eq!(log.log_start(), bases[0]);
    let removed = log.retain(bases[2]).unwrap();
    assert_eq!((removed.segments, removed.unjudged), (2, 0));
    // The last one that may go is the one that cannot be read: those before it go.
    hide(bases[3]);
    let removed = log.retain(bases[4]).unwrap();
    assert_eq!((removed.segments, removed.unjudged), (1, 1));
    assert_eq!(log.log_start(), bases[3]);
    log.checkpoint().unwrap();
    disk.heal();
    model.start = (bases[3].0, bases[3].0);
    log.append(&[model.propose(1, 100)]).unwrap();
    model.check(&log).unwrap();
}

#[test]
fn a9_retention_by_size_passes_over_a_segment_that_cannot_be_read() {
    let options = LogOptions { retention_bytes_max: Some(1), ..small() };
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..60 {
        log.append(&[model.propose(3, 100)]).unwrap();
    }
    let bases = bases(&log);
    disk.damage_reads(store_path(bases[1].0), 0..u64::MAX, ReadDamage::Fail(Errno::Io));
    let removed = log.retain(bases[2]).unwrap();
    assert_eq!((removed.segments, removed.unjudged), (1, 1));
    log.checkpoint().expect("it does not stand in the way of a checkpoint either");
    log.retain(Offset(u64::MAX)).unwrap();
    assert_eq!(log.view().segments(), 1);
}

/// A log of three entries of one record each; the places of their frames in the store.
fn three() -> (SimDisk, Log, Vec<u64>) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut places = vec![0];
    for index in 1..=3 {
        let appended = log.append(&[data(index, 1, &[value(index, 300)])]).unwrap();
        places.push(places.last().unwrap() + appended.bytes);
    }
    (disk, log, places)
}

/// What a read from `from` shows: its records, or the error.
fn show(log: &Log, from: u64) -> Result<u64, LogError> {
    match log.view().read(Offset(from), Offset(3), 1 << 20, ReadMode::Blocking)? {
        ReadOutcome::Chunk(chunk) => Ok(chunk.records),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a9_a_flipped_bit_in_a_read_is_an_error_for_that_record_and_never_wrong_bytes() {
    let (disk, log, places) = three();
    for byte in places[1]..places[2] {
        for bit in [0, 3, 7] {
            disk.damage_reads(store_path(0), byte..byte + 1, ReadDamage::FlipBit(bit));
            assert_eq!(show(&log, 0).unwrap(), 1, "byte {byte}: the record before is served");
            let error = show(&log, 1).unwrap_err();
            assert!(matches!(error, LogError::Corrupt { .. }), "byte {byte}: {error}");
            assert!(log.view().entry(RaftIndex(2)).is_err());
            assert_eq!(show(&log, 2).unwrap(), 1, "byte {byte}: the record behind is served");
            disk.heal();
        }
    }
    assert_eq!(show(&log, 0).unwrap(), 3);
}

#[test]
fn a9_a_read_that_the_disk_refuses_is_an_error_and_takes_nobody_down() {
    let (disk, mut log, places) = three();
    let damage = ReadDamage::Fail(Errno::Io);
    disk.damage_reads(store_path(0), places[1]..places[2], damage);
    let error = show(&log, 1).unwrap_err();
    assert!(matches!(error, LogError::ReadFailed { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::TellCaller);
    assert_eq!(show(&log, 2).unwrap(), 1);
    log.append(&[data(4, 1, &[value(4, 10)])]).unwrap();
    disk.heal();
    assert_eq!(show(&log, 0).unwrap(), 3);
}

/// Negative control: readers that ignore checksums must be seen to show wrong bytes.
#[test]
fn a9_a_reader_that_ignores_checksums_is_caught() {
    let (disk, log, places) = three();
    disk.damage_reads(store_path(0), places[2] - 9..places[2] - 8, ReadDamage::FlipBit(1));
    let shown = committing(Sin::IgnoreChecksums, || read_all_unchecked(&log));
    assert_ne!(shown, [value(1, 300), value(2, 300), value(3, 300)].map(Some));
}

fn read_all_unchecked(log: &Log) -> Vec<Option<Vec<u8>>> {
    use crate::log::batch::{BatchLimits, records};
    let read = log.view().read(Offset(0), Offset(3), 1 << 20, ReadMode::Blocking).unwrap();
    let ReadOutcome::Chunk(chunk) = read else { panic!("{read:?}") };
    records(chunk.batches, BatchLimits::default())
        .map(|record| record.ok().and_then(|(_, record)| record.value).map(|v| v.to_vec()))
        .collect()
}
