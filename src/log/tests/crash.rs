//! Crash points: the machine stops after each mutating call of a workload in turn, and loses,
//! keeps or tears what was not synced. Nothing acknowledged may be lost, nothing unwritten found,
//! and the log must open.

use super::harness::*;
use crate::log::disk::SimDisk;
use crate::log::disk::sim::{CrashMode, DiskCall, Fault};
use crate::log::{Log, LogError, LogOptions};
use crate::model::{Chance, Offset, RaftIndex};

/// How a workload ends: in order, or with the machine.
pub type Ended = Result<(), LogError>;

/// A writer that may be made to lie, for the negative control.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    AcknowledgesAfterSync,
    AcknowledgesAfterWrite,
}

/// Appends, internal entries, rolls, checkpoints, truncations at both ends, idle work, by seed.
pub fn workload(log: &mut Log, model: &mut Model, seed: u64, honesty: Honesty) -> Ended {
    let mut dice = Chance::new(seed);
    model.term += 1;
    for _ in 0..40 {
        match dice.below(20) {
            0 => {
                let entry = model.propose_internal();
                log.append(&[entry])?;
            }
            1 => {
                // Some steps back, as a conflict would; not below what is the start.
                let back = dice.below(6);
                let floor = model.start.1.max(1);
                let to = model.last().saturating_sub(back);
                if to > 0 && model.next_after(to) > floor && to >= log.first_index().0 {
                    let cuts = to < model.last();
                    model.durable = model.durable.min(to);
                    log.truncate_after(RaftIndex(to))?;
                    if cuts {
                        // A cut is durable, and with it all below. Where there was nothing to
                        // cut nothing was synced either.
                        model.cut(to);
                        model.durable = to;
                    }
                    model.term += 1;
                }
            }
            2 => {
                let segments = log.view().segments.load_full();
                let upto = segments[segments.len() / 2].base.0.max(model.start.1);
                model.start.1 = upto;
                let removed = log.truncate_before(Offset(upto))?;
                model.start = (removed.log_start.0, removed.log_start.0);
            }
            3 => log.checkpoint()?,
            4 => drop(log.zero_ahead(512)?),
            5..9 => {
                let entries: Vec<_> = (0..1 + dice.below(6))
                    .map(|_| model.propose(1 + dice.below(3) as usize, dice.below(400) as usize))
                    .collect();
                log.append(&entries)?;
            }
            _ => {
                let entry = model.propose(1, dice.below(900) as usize);
                log.append(&[entry])?;
            }
        }
        if honesty == Honesty::AcknowledgesAfterWrite {
            model.durable = model.last();
        }
        if dice.below(3) > 0 {
            model.durable = log.sync()?.upto().0.max(model.durable);
        }
    }
    Ok(())
}

/// Runs a workload that ends after `stop` mutations; then crashes, recovers, checks, goes on.
fn one_crash(
    options: &LogOptions,
    seed: u64,
    stop: u64,
    mode: CrashMode,
    honesty: Honesty,
) -> Result<(), String> {
    let disk = SimDisk::new();
    disk.stop_after(stop);
    let mut model = Model::default();
    if let Ok((mut log, _)) = open(&disk, options) {
        let ended = workload(&mut log, &mut model, seed, honesty);
        if ended.is_ok() {
            let _ = log.close();
        }
    }
    let mut disk = disk.crash(seed ^ stop, mode);
    for round in 0..2 {
        let (mut log, recovered) = open(&disk, options).map_err(|e| format!("open: {e}"))?;
        model.check_recovered(&log, &recovered)?;
        // Terms of a later leader, so that stale frames cannot pass for new ones.
        model.term += 10;
        for _ in 0..3 {
            let entry = model.propose(2, 150);
            log.append(&[entry]).map_err(|e| format!("append after recovery: {e}"))?;
        }
        let synced = log.sync().map_err(|e| format!("sync after recovery: {e}"))?;
        model.durable = synced.upto().0;
        model.check(&log)?;
        disk = disk.crash(seed ^ stop ^ round, CrashMode::Lost);
    }
    let (log, recovered) = open(&disk, options).map_err(|e| format!("last open: {e}"))?;
    model.check_recovered(&log, &recovered)
}

fn mutations_of(options: &LogOptions, seed: u64) -> u64 {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, options).unwrap();
    let mut model = Model::default();
    workload(&mut log, &mut model, seed, Honesty::AcknowledgesAfterSync).unwrap();
    model.check(&log).unwrap();
    log.close().unwrap();
    disk.mutations()
}

#[test]
fn no_crash_point_loses_what_was_acknowledged_or_keeps_the_log_from_opening() {
    let options = small();
    for seed in 1..=4 {
        let mutations = mutations_of(&options, seed);
        assert!(mutations > 100, "{mutations} mutations are no workload");
        for stop in 1..=mutations + 1 {
            let mode = CrashMode::ALL[((stop + seed) % 3) as usize];
            one_crash(&options, seed, stop, mode, Honesty::AcknowledgesAfterSync)
                .unwrap_or_else(|error| panic!("seed {seed}, stop {stop}, {mode:?}: {error}"));
        }
    }
}

#[test]
fn torn_crashes_at_random_points_of_many_workloads_lose_nothing() {
    let options = LogOptions { segment_bytes_max: 6000, ..small() };
    for seed in 100..200 {
        let mutations = mutations_of(&options, seed);
        let mut dice = Chance::new(seed);
        for _ in 0..8 {
            let (stop, mode) = (1 + dice.below(mutations), CrashMode::Torn);
            one_crash(&options, seed, stop, mode, Honesty::AcknowledgesAfterSync)
                .unwrap_or_else(|error| panic!("seed {seed}, stop {stop}, {mode:?}: {error}"));
        }
    }
}

/// Negative control: a writer that acknowledges before its sync must be caught by the same check.
#[test]
fn a_writer_that_acknowledges_before_the_sync_is_caught() {
    let options = small();
    let caught = (1..mutations_of(&options, 1)).step_by(7).any(|stop| {
        let lies = Honesty::AcknowledgesAfterWrite;
        one_crash(&options, 1, stop, CrashMode::Lost, lies).is_err()
    });
    assert!(caught);
}

/// The page cache after a failed sync shows what the disk does not have: recovery without a
/// reboot must write it again, or a later crash takes it away after it was acknowledged.
#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_again_at_the_next_open() {
    let disk = SimDisk::new();
    let options = small();
    let mut model = Model { term: 1, ..Model::default() };
    let (mut log, _) = open(&disk, &options).unwrap();
    log.append(&[model.propose(2, 100)]).unwrap();
    let _ = log.sync().unwrap();
    log.append(&[model.propose(2, 100)]).unwrap();
    disk.fail(Fault::nth(DiskCall::Sync, 1));
    assert!(matches!(log.sync(), Err(LogError::SyncFailed { .. })));
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    drop(log);
    model.durable = 1;
    let (log, recovered) = open(&disk, &options).unwrap();
    assert!(recovered.rewritten_bytes > 0, "{recovered:?}");
    model.check_recovered(&log, &recovered).unwrap();
    assert_eq!(model.last(), 2, "the page cache had it, so it counts from now on");
    let disk = disk.crash(1, CrashMode::Lost);
    let (log, recovered) = open(&disk, &options).unwrap();
    model.check_recovered(&log, &recovered).unwrap();
}
