//! Beginning anew behind a snapshot: the old log or the new one, whatever happens in between.

use super::by_index::check_by_index;
use super::harness::*;
use crate::log::control::{Sin, committing};
use crate::log::disk::SimDisk;
use crate::log::disk::sim::{CrashMode, DiskCall, Fault};
use crate::log::{Log, LogError, LogOptions, ResetTo};
use crate::model::{Offset, RaftIndex, Term};

fn to(index: u64, term: u64, offset: u64) -> ResetTo {
    ResetTo { index: RaftIndex(index), term: Term(term), offset: Offset(offset) }
}

fn filled() -> (SimDisk, Log, Model) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut model = Model { term: 3, ..Model::default() };
    for _ in 0..20 {
        log.append(&[model.propose(3, 200), model.propose_internal()]).unwrap();
    }
    model.durable = log.sync().unwrap().upto().0;
    assert!(log.view().segments() > 3 && model.last() == 40 && model.next_offset() == 60);
    (disk, log, model)
}

/// Behind, before, and at borders of what is there.
fn places() -> Vec<ResetTo> {
    vec![
        to(100, 4, 500),
        to(40, 3, 60),
        to(40, 2, 12),
        to(10, 2, 100),
        to(10, 1, 12),
        to(1, 1, 0),
        to(0, 0, 0),
    ]
}

#[test]
fn a_log_goes_on_where_it_is_told_to_begin_anew() {
    for start in places() {
        let (disk, mut log, mut model) = filled();
        let (view, identity) = (log.view(), log.identity());
        log.reset(start).unwrap();
        model.reset(start);
        assert_eq!((log.first_index(), log.last_index()), (start.index.next(), start.index));
        assert_eq!((log.next_offset(), log.log_start()), (start.offset, start.offset));
        assert_eq!((log.last_term(), log.durable_index()), (start.term, start.index));
        assert_eq!(view.first_index(), start.index.next());
        assert_eq!((view.segments(), view.size_bytes()), (1, 0));
        check_by_index(&log, &model).unwrap();
        drop(log);
        let (mut log, recovered) = open(&disk.crash(1, CrashMode::Lost), &small()).unwrap();
        assert_eq!(recovered.previous_term, start.term);
        assert_eq!(
            (recovered.first_index, recovered.log_start),
            (start.index.next(), start.offset)
        );
        assert_eq!(log.identity(), identity, "the log keeps its identity");
        model.check_recovered(&log, &recovered).unwrap();
        let gap = data(start.index.0 + 2, 9, &[value(1, 10)]);
        assert!(matches!(log.append(&[gap]), Err(LogError::NotContiguous { .. })));
        if start.term > Term(0) {
            let old = data(start.index.0 + 1, start.term.0 - 1, &[value(1, 10)]);
            assert!(matches!(log.append(&[old]), Err(LogError::TermWentBack { .. })));
        }
        log.append(&[model.propose(2, 100)]).unwrap();
        let _ = log.sync().unwrap();
        model.check(&log).unwrap();
    }
}

#[test]
fn retention_and_truncation_work_on_after_it() {
    let disk = SimDisk::new();
    let options = LogOptions { retention_bytes_max: Some(8000), ..small() };
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    log.append(&[model.propose(3, 200)]).unwrap();
    let start = to(70, 5, 700);
    log.reset(start).unwrap();
    model.reset(start);
    log.append(&[model.propose_internal(), model.propose(1, 100)]).unwrap();
    // All of it goes, down to the place that it began anew at.
    log.truncate_after(RaftIndex(70)).unwrap();
    model.cut(70);
    assert_eq!((log.last_term(), log.next_offset()), (Term(5), Offset(700)));
    assert!(matches!(log.truncate_after(RaftIndex(69)), Err(LogError::IndexOutOfRange { .. })));
    for _ in 0..40 {
        log.append(&[model.propose(2, 300), model.propose_internal()]).unwrap();
    }
    model.durable = log.sync().unwrap().upto().0;
    let removed = log.retain(log.next_offset()).unwrap();
    assert!(removed.segments > 1 && removed.previous_term == Term(5), "{removed:?}");
    let removed = log.truncate_before(Offset(760)).unwrap();
    assert!(removed.log_start > Offset(700), "{removed:?}");
    model.start = (removed.log_start.0, removed.log_start.0);
    model.check(&log).unwrap();
    check_by_index(&log, &model).unwrap();
    let (log, recovered) = open(&disk.crash(1, CrashMode::Lost), &options).unwrap();
    model.check_recovered(&log, &recovered).unwrap();
    check_by_index(&log, &model).unwrap();
}

/// Stops the machine after `stop` changes of a reset; says what is wrong with what is found then, and
/// otherwise whether the reset was done.
fn one_crash(start: ResetTo, stop: u64, mode: CrashMode) -> Result<bool, String> {
    let (disk, mut log, old) = filled();
    disk.stop_after(disk.mutations() + stop);
    let done = log.reset(start).is_ok();
    drop(log);
    let mut disk = disk.crash(stop, mode);
    let mut model = None;
    for round in 0..3 {
        let (mut log, recovered) = open(&disk, &small()).map_err(|e| format!("open: {e}"))?;
        let model = model.get_or_insert_with(|| {
            let mut model = old.clone();
            if log.first_index() != old_first() || done {
                model.reset(start);
            }
            model
        });
        if round == 0 && log.last_index().0 != model.last() {
            return Err(format!("ends at {}, not {}", log.last_index(), model.last()));
        }
        model.check_recovered(&log, &recovered)?;
        check_by_index(&log, model)?;
        model.term += 10;
        log.append(&[model.propose(2, 150)]).map_err(|e| format!("append: {e}"))?;
        model.durable = log.sync().map_err(|e| format!("sync: {e}"))?.upto().0;
        disk = disk.crash(stop ^ round, CrashMode::Lost);
    }
    Ok(done)
}

fn old_first() -> RaftIndex {
    RaftIndex(1)
}

#[test]
fn every_crash_point_leaves_the_old_log_whole_or_the_new_one_empty() {
    for start in places().into_iter().filter(|start| start.index.next() != old_first()) {
        for mode in CrashMode::ALL {
            let mut stop = 0;
            while !one_crash(start, stop, mode)
                .unwrap_or_else(|error| panic!("{start:?}, stop {stop}, {mode:?}: {error}"))
            {
                stop += 1;
                assert!(stop < 200, "an end is in sight");
            }
            assert!(stop > 10, "{stop} changes are no reset");
        }
    }
}

/// Negative control: one that removes the old log first is caught by the same check.
#[test]
fn a_log_that_is_given_up_too_early_is_caught() {
    let caught = (0..30).any(|stop| {
        committing(Sin::DropBeforeTheTurn, || {
            one_crash(to(100, 4, 500), stop, CrashMode::Clean).is_err()
        })
    });
    assert!(caught);
}

/// The second crash comes while recovery finishes what the first one cut short.
#[test]
fn a_reset_is_finished_by_recovery_however_often_that_is_cut_short() {
    let start = to(10, 4, 12);
    for first in 0..40 {
        for second in 0..12 {
            let (disk, mut log, mut model) = filled();
            disk.stop_after(disk.mutations() + first);
            drop(log.reset(start));
            drop(log);
            let disk = disk.crash(first, CrashMode::Torn);
            disk.stop_after(second);
            drop(open(&disk, &small()));
            let disk = disk.crash(second, CrashMode::Torn);
            let (log, recovered) = open(&disk, &small()).unwrap();
            if log.first_index() != old_first() {
                model.reset(start);
            }
            model.check_recovered(&log, &recovered).unwrap();
        }
    }
}

#[test]
fn a_call_that_fails_leaves_the_log_as_it_was_or_closed_to_writes() {
    let start = to(100, 4, 500);
    let (mut refused, mut closed) = (0, 0);
    for call in [DiskCall::Write, DiskCall::Sync, DiskCall::SyncDir, DiskCall::Create] {
        for nth in 1..6 {
            let (disk, mut log, mut model) = filled();
            disk.fail(Fault::nth(call, nth));
            let outcome = log.reset(start);
            disk.heal();
            match outcome {
                Ok(()) => model.reset(start),
                Err(_) if log.is_poisoned() => closed += 1,
                Err(_) => {
                    refused += 1;
                    model.check(&log).unwrap();
                }
            }
            drop(log);
            let (log, recovered) = open(&disk, &small()).unwrap();
            if recovered.first_index != old_first() && model.last() != start.index.0 {
                model.reset(start);
            }
            model.check_recovered(&log, &recovered).unwrap();
        }
    }
    assert!(closed > 3, "{closed} closed, {refused} refused");
}

#[test]
fn a_full_disk_refuses_it_and_nothing_is_lost() {
    let (disk, mut log, mut model) = filled();
    let start = to(100, 4, 500);
    disk.set_capacity(0);
    let error = log.reset(start).unwrap_err();
    assert!(error.is_disk_full() && !log.is_poisoned(), "{error}");
    model.check(&log).unwrap();
    disk.set_capacity(u64::MAX);
    log.append(&[model.propose(1, 10)]).unwrap();
    log.reset(start).unwrap();
    model.reset(start);
    model.check(&log).unwrap();
}
