//! Each batch is stored once, whatever a client sends again; and what is forgotten is refused.

use super::*;
use crate::log::batch::{self, BatchBuilder, BatchFacts, ValidBatches, sequence_after};
use crate::log::disk::sim::CrashMode;
use crate::log::disk::{Disk, SimDisk};
use crate::log::{Entry, EntryPayload, Log, LogError, LogOptions, ResetTo};
use crate::model::{ManualClock, Offset, RaftIndex, Record, Term, Timestamp};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn facts(producer_id: i64, epoch: i16, first_sequence: i32, record_count: u32) -> BatchFacts {
    BatchFacts {
        producer_id,
        epoch,
        first_sequence,
        record_count,
        relative_offset: 0,
        max_timestamp: Timestamp(7),
    }
}

/// A partition that stores what is new, and its table.
#[derive(Default)]
struct Partition {
    table: ProducerTable,
    stored: Vec<(Offset, BatchFacts)>,
    next: Offset,
}

impl Partition {
    fn with_limit(producers_max: u32) -> Self {
        Self { table: ProducerTable::new(producers_max), ..Self::default() }
    }

    fn send(&mut self, batch: BatchFacts) -> Verdict {
        let verdict = self.table.check(&batch);
        if verdict == Verdict::New {
            self.table.apply(&batch, self.next);
            self.stored.push((self.next, batch));
            self.next = self.next.plus(u64::from(batch.record_count));
        }
        verdict
    }
}

#[test]
fn a_batch_is_new_once_and_a_retry_tells_where_it_is() {
    let mut partition = Partition::default();
    assert_eq!(partition.send(facts(1, 0, 0, 3)), Verdict::New);
    assert_eq!(partition.send(facts(2, 0, 0, 1)), Verdict::New);
    assert_eq!(partition.send(facts(1, 0, 3, 2)), Verdict::New);
    let again = |base| Verdict::Duplicate { base_offset: Offset(base) };
    assert_eq!(partition.send(facts(1, 0, 3, 2)), again(4));
    assert_eq!(partition.send(facts(1, 0, 0, 3)), again(0));
    assert_eq!(partition.send(facts(1, 0, 0, 2)), Verdict::OutOfOrder { expected: 5 });
    assert_eq!(partition.send(facts(1, 0, 6, 1)), Verdict::OutOfOrder { expected: 5 });
    assert_eq!(partition.send(facts(3, 0, 1, 1)), Verdict::Unknown { producer_id: 3 });
}

#[test]
fn a_later_life_of_a_producer_begins_at_0_and_fences_the_earlier() {
    let mut partition = Partition::default();
    assert_eq!(partition.send(facts(1, 3, 0, 2)), Verdict::New);
    assert_eq!(partition.send(facts(1, 4, 2, 2)), Verdict::OutOfOrder { expected: 0 });
    assert_eq!(partition.send(facts(1, 4, 0, 2)), Verdict::New, "no retry of the earlier life's");
    assert_eq!(partition.send(facts(1, 3, 2, 2)), Verdict::Fenced { epoch: 4 });
    let again = Verdict::Duplicate { base_offset: Offset(2) };
    assert_eq!(partition.send(facts(1, 4, 0, 2)), again);
}

#[test]
fn sequences_go_on_at_0_behind_the_largest() {
    let mut partition = Partition::default();
    let mut next = 0;
    for count in [i32::MAX as u32 - 1, 5, 3] {
        assert_eq!(partition.send(facts(1, 0, next, count)), Verdict::New, "at {next}");
        next = sequence_after(next, count);
    }
    assert_eq!(next, 6);
    let again = Verdict::Duplicate { base_offset: Offset(i32::MAX as u64 - 1) };
    assert_eq!(partition.send(facts(1, 0, i32::MAX - 1, 5)), again);
    assert_eq!(sequence_after(i32::MAX, 1), 0);
}

#[test]
fn the_producer_unused_for_longest_is_forgotten_and_refused() {
    let mut partition = Partition::with_limit(2);
    for (id, sequence) in [(1, 0), (2, 0), (1, 1), (3, 0)] {
        assert_eq!(partition.send(facts(id, 0, sequence, 1)), Verdict::New);
    }
    assert_eq!(partition.table.len(), 2);
    assert_eq!(partition.send(facts(2, 0, 1, 1)), Verdict::Unknown { producer_id: 2 });
    assert_eq!(partition.send(facts(1, 0, 2, 1)), Verdict::New, "used later than 2");
}

/// What a client does next.
#[derive(Debug, Clone)]
enum Step {
    /// The next batch of a producer, of so many records.
    Send(i64, u32),
    /// The last batch but so many, again.
    Retry(i64, usize),
    /// A batch that leaves out so many records.
    Skip(i64, i32),
    /// A new life.
    Restart(i64),
    /// The table goes through its bytes, and the log is applied again from this share of it.
    Recover(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0i64..4;
    prop_oneof![
        8 => (id.clone(), 1u32..4).prop_map(|(id, count)| Step::Send(id, count)),
        4 => (id.clone(), 0usize..7).prop_map(|(id, back)| Step::Retry(id, back)),
        2 => (id.clone(), 1i32..9).prop_map(|(id, gap)| Step::Skip(id, gap)),
        1 => id.prop_map(Step::Restart),
        2 => (0usize..=100).prop_map(Step::Recover),
    ]
}

/// A client that counts from just below the wrap, with all that it was told is stored.
struct Client {
    epoch: i16,
    next: i32,
    sent: Vec<(BatchFacts, Offset)>,
}

const NEAR_WRAP: i32 = i32::MAX - 12;

fn begin(partition: &mut Partition, id: i64, epoch: i16) -> Client {
    let first = facts(id, epoch, 0, NEAR_WRAP as u32);
    let base = partition.next;
    assert_eq!(partition.send(first), Verdict::New);
    Client { epoch, next: NEAR_WRAP, sent: vec![(first, base)] }
}

fn take(step: &Step, partition: &mut Partition, clients: &mut [Client]) {
    match *step {
        Step::Send(id, count) => {
            let client = &mut clients[id as usize];
            let batch = facts(id, client.epoch, client.next, count);
            let base = partition.next;
            assert_eq!(partition.send(batch), Verdict::New);
            client.next = sequence_after(client.next, count);
            client.sent.push((batch, base));
        }
        Step::Retry(id, back) => {
            let client = &clients[id as usize];
            // The first is as long as the way round: from there on it would be a new one.
            let Some(place @ 1..) = client.sent.len().checked_sub(back + 1) else { return };
            let (batch, base_offset) = client.sent[place];
            let wanted = match back < BATCHES_KEPT {
                true => Verdict::Duplicate { base_offset },
                false => Verdict::OutOfOrder { expected: client.next },
            };
            assert_eq!(partition.send(batch), wanted);
        }
        Step::Skip(id, gap) => {
            let client = &clients[id as usize];
            let batch = facts(id, client.epoch, sequence_after(client.next, gap as u32), 40);
            let wanted = Verdict::OutOfOrder { expected: client.next };
            assert_eq!(partition.send(batch), wanted);
        }
        Step::Restart(id) => {
            let epoch = clients[id as usize].epoch + 1;
            clients[id as usize] = begin(partition, id, epoch);
            let old = facts(id, epoch - 1, 0, 1);
            assert_eq!(partition.send(old), Verdict::Fenced { epoch });
        }
        Step::Recover(share) => {
            let mut table = ProducerTable::decode(&partition.table.encode()).unwrap();
            assert_eq!(table, partition.table);
            for (base, batch) in &partition.stored[partition.stored.len() * share / 100..] {
                table.apply(batch, *base);
            }
            assert_eq!(table, partition.table, "what was applied changes nothing");
            partition.table = table;
        }
    }
}

proptest! {
    #[test]
    fn each_batch_is_stored_once_whatever_is_sent_again(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut partition = Partition::default();
        let mut clients: Vec<_> = (0..4).map(|id| begin(&mut partition, id, 0)).collect();
        for step in &steps {
            take(step, &mut partition, &mut clients);
        }
        for client in &clients {
            for sent in &client.sent {
                let stored = partition.stored.iter().filter(|(_, batch)| *batch == sent.0).count();
                prop_assert_eq!(stored, 1);
            }
        }
    }

    /// A table saved at any place, and what follows applied to it, is the table of who never stopped:
    /// also where more producers come than are remembered.
    #[test]
    fn a_table_from_any_place_of_the_log_becomes_the_same(
        ids in proptest::collection::vec(0i64..12, 1..60),
        saved in 0usize..60,
        replayed in 0usize..60,
    ) {
        let mut partition = Partition::with_limit(4);
        let mut tables = vec![partition.table.encode()];
        for id in ids {
            let newest = partition.table.producers.get(&id).and_then(|known| known.kept.back());
            let sequence = newest.map_or(0, |kept| sequence_after(kept.last_sequence, 1));
            prop_assert_eq!(partition.send(facts(id, 0, sequence, 2)), Verdict::New);
            tables.push(partition.table.encode());
        }
        let saved = saved.min(partition.stored.len());
        let mut table = ProducerTable::decode(&tables[saved]).unwrap();
        for (base, batch) in &partition.stored[replayed.min(saved)..] {
            table.apply(batch, *base);
        }
        prop_assert_eq!(&table, &partition.table);
        prop_assert!(table.len() <= 4 && table.by_position.len() == table.len());
    }

    #[test]
    fn bytes_that_are_no_table_are_refused_and_never_more(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(table) = ProducerTable::decode(&bytes) {
            prop_assert_eq!(&table.encode()[..], &bytes[..]);
        }
    }
}

fn some_table() -> ProducerTable {
    let mut partition = Partition::with_limit(10);
    for batch in [facts(4, 1, 0, 2), facts(9, 0, 0, 3), facts(4, 1, 2, 1)] {
        assert_eq!(partition.send(batch), Verdict::New);
    }
    partition.table
}

#[test]
fn a_changed_byte_of_a_snapshot_is_refused() {
    let table = some_table();
    let bytes = snapshot_state(Offset(6), &table);
    assert_eq!(read_snapshot_state(bytes.clone()).unwrap(), (Offset(6), table));
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(read_snapshot_state(changed.into()).is_err(), "byte {at}");
        assert!(read_snapshot_state(bytes.slice(..at)).is_err(), "cut at {at}");
    }
}

#[test]
fn a_table_that_says_what_cannot_be_is_refused() {
    let right = some_table().encode();
    assert!(ProducerTable::decode(&right).is_ok());
    // limit, count, order of ids, number of batches, place behind the end
    for (at, value) in [(3, 0), (15, 200), (23, 99), (26, 6), (42, 255)] {
        let mut wrong = right.to_vec();
        wrong[at] = value;
        assert!(ProducerTable::decode(&wrong).is_err(), "byte {at}");
    }
    for length in 0..right.len() {
        assert!(ProducerTable::decode(&right[..length]).is_err(), "cut at {length}");
    }
    assert!(ProducerTable::decode(&[&right[..], &[0]].concat()).is_err());
}

fn batch_of(id: i64, epoch: i16, sequence: i32, records: usize) -> ValidBatches {
    let mut builder = BatchBuilder::new().with_producer(id, epoch, sequence);
    for _ in 0..records {
        builder.push(&Record::of_value("x", Timestamp(5))).unwrap();
    }
    builder.finish().unwrap()
}

fn directory() -> &'static Path {
    Path::new("/data/log-0")
}

fn open(disk: &SimDisk) -> (Log, RaftIndex, RaftIndex) {
    let options = LogOptions { reserve_free_bytes: 0, ..LogOptions::default() };
    let clock = Arc::new(ManualClock::at(Timestamp(1)));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (log, recovered) = Log::open(disk, clock, directory(), options, &mut |_, _| {}).unwrap();
    (log, recovered.first_index, recovered.last_index)
}

/// The table that a start comes to: what was saved, and the entries behind it.
fn started(disk: &SimDisk) -> (ProducerTable, Log) {
    let (log, first, last) = open(disk);
    let (upto, mut table) = load(disk, directory(), first, last).unwrap();
    let view = log.view();
    for index in upto.0 + 1..=last.0 {
        let entry = view.entry(RaftIndex(index)).unwrap();
        for facts in batch::producers_of(&entry.payload) {
            table.apply(&facts, entry.base.plus(facts.relative_offset));
        }
    }
    (table, log)
}

fn append(log: &mut Log, id: i64, sequence: i32) {
    let payload =
        EntryPayload::Data(vec![batch_of(id, 0, sequence, 2), batch_of(id + 50, 0, 0, 1)]);
    let index = log.last_index().next();
    log.append(&[Entry { term: Term(1), index, payload }]).unwrap();
    let _ = log.sync().unwrap();
}

#[test]
fn a_start_goes_on_from_the_table_saved_last() {
    let disk = SimDisk::new();
    let (table, mut log) = started(&disk);
    assert!(table.is_empty());
    append(&mut log, 1, 0);
    append(&mut log, 2, 0);
    drop(log);
    let (all, mut log) = started(&disk);
    assert_eq!(all.len(), 4);
    save(&disk, directory(), RaftIndex(2), &all).unwrap();
    append(&mut log, 1, 2);
    drop(log);
    let disk = disk.crash(1, CrashMode::Lost);
    let (table, log) = started(&disk);
    assert_eq!(table.check(&facts(1, 0, 4, 1)), Verdict::New);
    assert_eq!(table.check(&facts(52, 0, 1, 1)), Verdict::New);
    let (first, last) = (log.first_index(), log.last_index());
    assert_eq!(load(&disk, directory(), first, last).unwrap(), (RaftIndex(2), all));
}

#[test]
fn a_damaged_table_is_told_with_what_to_do() {
    let disk = SimDisk::new();
    let (_, log) = started(&disk);
    let (first, last) = (log.first_index(), log.last_index());
    save(&disk, directory(), RaftIndex(0), &some_table()).unwrap();
    disk.flip_bit(directory().join("producers"), 60, 3);
    let error = load(&disk, directory(), first, last).unwrap_err();
    assert!(matches!(error, LogError::ProducersDamaged { .. }), "{error}");
    assert!(error.to_string().contains("remove it"), "{error}");
}

/// Goal: a log that begins anew has the table of its snapshot, one that does not its own. Method: the
/// machine stops after each change to the disk in turn.
#[test]
fn no_crash_while_beginning_anew_leaves_a_table_of_another_log() {
    for ahead in [true, false] {
        let mut torn = 0;
        for stop in 0.. {
            let disk = SimDisk::new();
            let (sent, before) =
                (some_table(), ResetTo { index: RaftIndex(4), term: Term(1), offset: Offset(40) });
            let (_, mut log) = started(&disk);
            append(&mut log, 1, 0);
            let (mut old, _) = started(&disk);
            save_ahead(&disk, directory(), before.index, &old).unwrap();
            log.reset(before).unwrap();
            append(&mut log, 2, 0);
            drop(log);
            let (table, mut log) = started(&disk);
            assert_eq!(table.len(), 4);
            old = table;
            let start = ResetTo { index: RaftIndex(9), term: Term(2), offset: Offset(90) };
            disk.stop_after(disk.mutations() + stop);
            let install = |log: &mut Log| {
                match ahead {
                    true => save_ahead(&disk, directory(), start.index, &sent)?,
                    false => save(&disk, directory(), start.index, &sent)?,
                }
                log.reset(start)
            };
            let done = install(&mut log).is_ok();
            for mode in CrashMode::ALL {
                let (table, log) = started(&disk.crash(stop, mode));
                let wanted = if log.first_index() == RaftIndex(10) { &sent } else { &old };
                torn += u32::from(table != *wanted);
            }
            if done {
                break;
            }
            assert!(stop < 100, "an end is in sight");
        }
        // Negative control: saved under the name of the table that it replaces, it is lost.
        assert_eq!(torn == 0, ahead, "{torn} tables of another log");
    }
}
