//! The log against a plain list, over random histories of appends, rolls, truncations at both
//! ends, beginnings anew, checkpoints, restarts and crashes.

use super::by_index::check_by_index;
use super::harness::*;
use crate::log::disk::SimDisk;
use crate::log::disk::sim::CrashMode;
use crate::log::{Log, LogOptions, ResetTo};
use crate::model::{Offset, RaftIndex, Term};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Entries of so many records of so many bytes; 0 records: an internal entry.
    Append(Vec<(usize, usize)>),
    Sync,
    /// Back by so many entries.
    TruncateAfter(u64),
    /// Up to this share of the log, in percent.
    TruncateBefore(u64),
    /// Begins anew behind this index and offset, given in percent of the log's.
    Reset(u64, u64),
    Checkpoint,
    ZeroAhead,
    Reopen,
    Crash(CrashMode, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (0usize..4, 0usize..700);
    let mode = prop_oneof![Just(CrashMode::Clean), Just(CrashMode::Lost), Just(CrashMode::Torn),];
    prop_oneof![
        8 => proptest::collection::vec(entry, 1..6).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => (0u64..8).prop_map(Step::TruncateAfter),
        1 => (0u64..100).prop_map(Step::TruncateBefore),
        1 => (0u64..150, 0u64..150).prop_map(|(index, offset)| Step::Reset(index, offset)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::ZeroAhead),
        1 => Just(Step::Reopen),
        1 => (mode, any::<u64>()).prop_map(|(mode, seed)| Step::Crash(mode, seed)),
    ]
}

fn options() -> impl Strategy<Value = LogOptions> {
    (4096u64..20_000, 1u32..40, 0u64..3000, 1u32..20).prop_map(|(bytes, entries, zeros, step)| {
        LogOptions {
            segment_bytes_max: bytes,
            segment_entries_max: entries,
            zero_ahead_bytes: zeros,
            index_entries_step: step,
            ..small()
        }
    })
}

fn take(step: &Step, log: &mut Log, model: &mut Model) {
    match step {
        Step::Append(sizes) => {
            let entries: Vec<_> = sizes
                .iter()
                .map(|(records, bytes)| match records {
                    0 => model.propose_internal(),
                    records => model.propose(*records, *bytes),
                })
                .collect();
            log.append(&entries).unwrap();
        }
        Step::Sync => model.durable = log.sync().unwrap().upto().0,
        Step::TruncateAfter(back) => {
            let to = model.last().saturating_sub(*back);
            if to >= log.first_index().0 && model.next_after(to) > model.start.0 {
                log.truncate_after(RaftIndex(to)).unwrap();
                model.cut(to);
                model.term += 1;
            }
        }
        Step::TruncateBefore(share) => {
            let upto = model.next_offset() * share / 100;
            let removed = log.truncate_before(Offset(upto)).unwrap();
            assert!(removed.log_start.0 <= upto.max(model.start.0));
            model.start = (removed.log_start.0, removed.log_start.0);
        }
        Step::Reset(index, offset) => {
            let index = RaftIndex(model.last() * index / 100);
            let offset = Offset(if index.0 == 0 { 0 } else { model.next_offset() * offset / 100 });
            let term = Term(if index.0 == 0 { 0 } else { model.term });
            let start = ResetTo { index, term, offset };
            log.reset(start).unwrap();
            model.reset(start);
        }
        Step::Checkpoint => log.checkpoint().unwrap(),
        Step::ZeroAhead => drop(log.zero_ahead(2048).unwrap()),
        Step::Reopen | Step::Crash(..) => unreachable!("the caller's"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_what_a_plain_list_would(
        options in options(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut disk = SimDisk::new();
        let mut model = Model { term: 1, ..Model::default() };
        let (mut log, _) = open(&disk, &options).unwrap();
        for step in &steps {
            match step {
                Step::Reopen => {
                    log.close().unwrap();
                    model.durable = model.last();
                    let (opened, recovered) = open(&disk, &options).unwrap();
                    log = opened;
                    model.check_recovered(&log, &recovered).unwrap();
                    prop_assert!(recovered.clean);
                }
                Step::Crash(mode, seed) => {
                    disk = disk.crash(*seed, *mode);
                    let (opened, recovered) = open(&disk, &options).unwrap();
                    log = opened;
                    model.check_recovered(&log, &recovered).unwrap();
                    model.term += 1;
                }
                step => take(step, &mut log, &mut model),
            }
        }
        model.check(&log).unwrap();
        check_by_index(&log, &model).unwrap();
    }
}
