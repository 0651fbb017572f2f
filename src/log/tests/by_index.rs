//! What followers are sent: entries by their Raft index, in runs, and where their records end.

use super::harness::*;
use crate::log::disk::SimDisk;
use crate::log::frame::HEADER_BYTES;
use crate::log::{EntryPayload, Log, LogError, LogOptions, ResetTo};
use crate::model::{Chance, Offset, RaftIndex, Term};
use std::sync::atomic::{AtomicBool, Ordering};

/// Compares all that is answered by index with the plain list of entries.
pub fn check_by_index(log: &Log, model: &Model) -> Result<(), String> {
    let view = log.view();
    let (first, last) = (log.first_index().0, model.last());
    if view.first_index().0 != first || view.last_index().0 != last {
        return Err(format!("[{}, {}]", view.first_index(), view.last_index()));
    }
    for index in first.saturating_sub(2)..last + 3 {
        let is_there = index + 1 >= first && index <= last;
        let wanted = is_there.then(|| Offset(model.next_after(index)));
        let found = view.end_of(RaftIndex(index));
        if found != wanted {
            return Err(format!("{index} ends at {found:?}, not {wanted:?}"));
        }
    }
    let mut all = Vec::new();
    for index in first..=last {
        all.push(view.entry(RaftIndex(index)).map_err(|error| error.to_string())?);
    }
    let stored = |place: usize| (HEADER_BYTES + all[place].payload.len()) as u64;
    for place in 0..all.len() {
        let low = RaftIndex(first + place as u64);
        for bytes_max in [0, 1, 200, 1000, 5000, u64::MAX] {
            for count_max in [1, 3, 1000] {
                let (mut wanted, mut bytes) = (0, 0);
                while wanted < count_max && place + wanted < all.len() {
                    bytes += stored(place + wanted);
                    if bytes > bytes_max && wanted > 0 {
                        break;
                    }
                    wanted += 1;
                }
                let fits = view.fit(low, low.plus(count_max as u64), bytes_max);
                if fits != wanted as u64 {
                    return Err(format!("{fits} fit {bytes_max} from {low}, not {wanted}"));
                }
                if place % 5 > 0 {
                    continue;
                }
                let found = view.entries(low, count_max as u64, bytes_max);
                let found = found.map_err(|error| error.to_string())?;
                if found[..] != all[place..place + wanted] {
                    return Err(format!("{} entries from {low}, not {wanted}", found.len()));
                }
            }
        }
    }
    for index in [RaftIndex(first - 1), RaftIndex(last + 1)] {
        let outcome = view.entries(index, 5, 500);
        if !matches!(outcome, Err(LogError::IndexOutOfRange { .. })) {
            return Err(format!("{index}: {outcome:?}"));
        }
        if view.fit(index, index.plus(5), 500) != 0 || view.fit(index, index, 500) != 0 {
            return Err(format!("something fits at {index}"));
        }
    }
    Ok(())
}

/// Entries without records where a segment ends, one of another length, and one alone in a segment.
fn uneven() -> (SimDisk, Log, Model) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for round in 0..12 {
        log.append(&[model.propose_internal(), model.propose(2, 900)]).unwrap();
        log.append(&[model.propose(1, 700 + round * 10)]).unwrap();
        log.append(&[model.propose_internal(), model.propose_internal()]).unwrap();
        log.append(&[model.propose(1, 3900), model.propose_internal()]).unwrap();
    }
    let _ = log.sync().unwrap();
    (disk, log, model)
}

#[test]
fn entries_are_found_over_the_borders_of_segments_also_those_without_records() {
    let (disk, mut log, mut model) = uneven();
    assert!(log.view().segments() > 20);
    check_by_index(&log, &model).unwrap();
    for to in [model.last() - 1, model.last() - 9, model.last() - 30] {
        log.truncate_after(RaftIndex(to)).unwrap();
        model.cut(to);
        check_by_index(&log, &model).unwrap();
    }
    let removed = log.truncate_before(Offset(model.next_offset() / 2)).unwrap();
    assert!(removed.segments > 2);
    check_by_index(&log, &model).unwrap();
    drop(log);
    let (log, _) = open(&disk, &small()).unwrap();
    check_by_index(&log, &model).unwrap();
}

#[test]
fn a_comparison_with_a_list_that_is_off_by_one_fails() {
    let (_, log, model) = uneven();
    let mut off = model.clone();
    off.entries.last_mut().unwrap().base += 1;
    assert!(check_by_index(&log, &off).is_err());
}

#[test]
fn a_run_is_one_read_in_each_segment() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_bytes_max: 1 << 20, ..small() };
    let (mut log, _) = open(&disk, &options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for _ in 0..100 {
        log.append(&[model.propose(1, 50)]).unwrap();
    }
    let reads = || disk.calls(crate::log::disk::sim::DiskCall::Read);
    let before = reads();
    assert_eq!(log.view().entries(RaftIndex(1), 100, 1 << 20).unwrap().len(), 100);
    assert_eq!(reads() - before, 1);
    assert!(log.view().fit(RaftIndex(1), RaftIndex(90), 1000) > 1);
    assert!(log.view().end_of(RaftIndex(90)).is_some());
    assert_eq!(reads() - before, 1, "answered from memory");
}

#[test]
fn what_precedes_damage_is_given_out_and_damage_is_told_to_who_asks_for_it() {
    let (disk, log, model) = uneven();
    let view = log.view();
    let bad = view.entry(RaftIndex(3)).unwrap();
    disk.flip_bit(store_path(0), 56 * 3 + bad.payload.len() as u64 + 2000, 2);
    let damaged = (1..=5).find(|index| view.entry(RaftIndex(*index)).is_err()).unwrap();
    assert!(damaged > 1);
    let found = view.entries(RaftIndex(1), 20, 1 << 20).unwrap();
    assert_eq!(found.len() as u64, damaged - 1);
    let error = view.entries(RaftIndex(damaged), 20, 1 << 20).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
    assert!(view.entries(RaftIndex(damaged + 1), 20, 1 << 20).unwrap().len() > 1);
    assert!(model.last() > 20);
}

#[test]
fn a_wrong_index_is_not_believed() {
    let (disk, log, model) = uneven();
    let view = log.view();
    let wanted = view.entries(RaftIndex(1), 1000, 1 << 20).unwrap();
    drop(log);
    for at in [4, 11, 16, 23, 28, 35, 40] {
        let path = directory().join("00000000000000000000.index");
        disk.flip_bit(&path, at, 1);
        let (log, _) = open(&disk, &small()).unwrap();
        let found = log.view().entries(RaftIndex(1), 1000, 1 << 20).unwrap();
        assert_eq!(found[..], wanted[..found.len()], "byte {at}");
        assert!(!found.is_empty() && model.last() > 1);
    }
}

/// Goal: whoever reads by index while the writer appends, cuts and begins anew sees entries of some
/// moment, and is never told of damage. Method: each entry has three records, so that all that may
/// be answered follows from the index.
#[test]
fn readers_by_index_are_never_shown_a_mixture() {
    const ROUNDS: u64 = 3000;
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small()).unwrap();
    let (view, done) = (log.view(), AtomicBool::new(false));
    let read = || {
        let (mut dice, mut seen) = (Chance::new(7), 0u64);
        while !done.load(Ordering::Relaxed) || seen == 0 {
            let last = view.last_index().0;
            let index = RaftIndex((last + 2).saturating_sub(dice.below(12)));
            let end = view.end_of(index);
            assert!(end.is_none_or(|end| end.0 == index.0 * 3), "{index} ends at {end:?}");
            assert!(view.fit(index, index.plus(6), 2000) <= 6);
            match view.entries(index, 6, 2000) {
                Err(LogError::IndexOutOfRange { .. }) => {}
                Err(error) => panic!("{error}"),
                Ok(found) => {
                    seen += 1;
                    for (place, entry) in found.iter().enumerate() {
                        assert_eq!(entry.index, index.plus(place as u64));
                        assert_eq!(entry.base.0, (entry.index.0 - 1) * 3);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        let mut dice = Chance::new(3);
        for round in 0..ROUNDS {
            let last = log.last_index();
            match dice.below(12) {
                0 => {
                    let to = last.0.saturating_sub(dice.below(5)).max(log.first_index().0);
                    log.truncate_after(RaftIndex(to)).unwrap();
                }
                1 if round % 9 == 0 => {
                    let index = RaftIndex(last.0.saturating_sub(20) + dice.below(40));
                    let offset = Offset(index.0 * 3);
                    log.reset(ResetTo { index, term: Term(1), offset }).unwrap();
                }
                _ => {
                    let values: Vec<_> =
                        (0..3).map(|n| value(n, dice.below(300) as usize)).collect();
                    let entry = data(last.0 + 1, 1, &values);
                    assert!(matches!(entry.payload, EntryPayload::Data(_)));
                    log.append(&[entry]).unwrap();
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
