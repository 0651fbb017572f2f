//! Idempotent producers of a group: what of theirs is committed, what is in the log and may be, and
//! what the leader has under way. It tells a batch that is sent again from a new one. Pure.
//!
//! The table follows committed entries alone, in the order of the log: every replica comes to the
//! same one. What a leader has under way is judged beside it, and forgotten when it leads no more:
//! whatever became of it then, the next leader's table tells.

use crate::log::batch::{BatchFacts, sequence_after};
use crate::log::producers::{ProducerTable, Verdict};
use crate::log::{EntryPayload, Placed};
use crate::model::{Offset, RaftIndex};
use std::collections::{BTreeMap, VecDeque};

/// A table of nobody is saved after so many entries only: then a start has not far to read, and a
/// partition without such producers hardly anything to write.
const SAVE_EMPTY_AFTER: u64 = 1024;

/// What a start finds of producers on disk.
#[derive(Debug, Default)]
pub struct ProducersFound {
    /// The entries up to here are applied to the table.
    pub upto: RaftIndex,
    /// What was saved.
    pub table: ProducerTable,
    /// What entries behind that tell, in order: entry, its base offset, its numbered batches.
    pub behind: Vec<(RaftIndex, Offset, Vec<BatchFacts>)>,
}

/// An entry with numbered batches that is not known to be committed.
#[derive(Debug)]
struct Coming {
    index: RaftIndex,
    /// Known once it is in the log.
    base: Option<Offset>,
    facts: Vec<BatchFacts>,
}

/// What is to become of a numbered batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is to be stored; it counts as under way from now on.
    New,
    /// It is stored, from this offset on.
    Stored(Offset),
    /// The same is under way.
    UnderWay,
    /// Nothing is stored; why, for people.
    Refused(String),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    committed: ProducerTable,
    /// The entries up to here are applied.
    upto: RaftIndex,
    coming: VecDeque<Coming>,
    /// By producer, oldest first. Bounded as proposals are.
    under_way: BTreeMap<i64, VecDeque<BatchFacts>>,
    /// As leader: the table is complete once this entry is applied.
    leads_from: RaftIndex,
    /// What was handed out to be saved is of this entry.
    saved: RaftIndex,
}

/// Whether two tell of the same batch.
pub(super) fn is_same(one: &BatchFacts, other: &BatchFacts) -> bool {
    let key = |facts: &BatchFacts| {
        (facts.producer_id, facts.epoch, facts.first_sequence, facts.record_count)
    };
    key(one) == key(other)
}

fn facts_of(payload: &EntryPayload) -> Vec<BatchFacts> {
    let mut all = Vec::new();
    let mut before = 0;
    if let EntryPayload::Data(groups) = payload {
        for group in groups {
            let here = |facts: BatchFacts| {
                let relative_offset = before + facts.relative_offset;
                BatchFacts { relative_offset, ..facts }
            };
            all.extend(group.producers().map(here));
            before += u64::from(group.record_count());
        }
    }
    all
}

impl Sequences {
    /// As a start finds them. Nothing behind the table is applied before it is committed.
    pub fn recovered(found: ProducersFound) -> Self {
        let ProducersFound { upto, table, behind } = found;
        let coming = behind.into_iter().map(|(index, base, facts)| Coming {
            index,
            base: Some(base),
            facts,
        });
        let coming = coming.collect();
        Self { committed: table, upto, coming, saved: upto, ..Self::default() }
    }

    /// What is committed.
    pub fn committed(&self) -> &ProducerTable {
        &self.committed
    }

    /// The log begins anew behind this entry, with what the leader's table was.
    pub fn begin_anew(&mut self, index: RaftIndex, table: ProducerTable) {
        *self = Self { committed: table, upto: index, saved: index, ..Self::default() };
    }

    /// An entry is on its way into the log, in the place of all from its index on.
    pub fn append(&mut self, index: RaftIndex, payload: &EntryPayload) {
        self.forget_from(index);
        let facts = facts_of(payload);
        if !facts.is_empty() {
            self.coming.push_back(Coming { index, base: None, facts });
        }
    }

    /// Entries from `index` on are no more.
    pub fn forget_from(&mut self, index: RaftIndex) {
        while self.coming.back().is_some_and(|coming| coming.index >= index) {
            self.coming.pop_back();
        }
    }

    /// An entry is in the log.
    pub fn placed(&mut self, placed: &Placed) {
        if let Ok(at) = self.coming.binary_search_by_key(&placed.index, |coming| coming.index) {
            self.coming[at].base = Some(placed.base);
        }
    }

    /// All entries up to `index` are committed, and in the log.
    pub fn commit(&mut self, index: RaftIndex) {
        while let Some(coming) = self.coming.pop_front_if(|coming| coming.index <= index) {
            let base = coming.base.expect("what is committed here is in the log");
            for facts in &coming.facts {
                self.committed.apply(facts, base.plus(facts.relative_offset));
                self.arrived(facts);
            }
        }
        self.upto = self.upto.max(index);
    }

    fn arrived(&mut self, facts: &BatchFacts) {
        let Some(under_way) = self.under_way.get_mut(&facts.producer_id) else { return };
        if under_way.front().is_some_and(|first| is_same(first, facts)) {
            under_way.pop_front();
        }
        if under_way.is_empty() {
            self.under_way.remove(&facts.producer_id);
        }
    }

    /// This replica leads from now on; `last` is the newest entry of its log.
    pub fn lead(&mut self, last: RaftIndex) {
        self.under_way.clear();
        self.leads_from = last;
    }

    /// Whatever is under way may or may not be stored in the end.
    pub fn forget_under_way(&mut self) {
        self.under_way.clear();
    }

    /// Whether all that earlier leaders stored is in the table: before that no batch can be judged.
    pub fn is_complete(&self) -> bool {
        self.upto >= self.leads_from
    }

    /// Says what is to become of a batch, as the leader.
    pub fn judge(&mut self, batch: &BatchFacts) -> Judged {
        let verdict = match self.under_way.get(&batch.producer_id) {
            None => self.committed.check(batch),
            Some(under_way) => {
                if under_way.iter().any(|other| is_same(other, batch)) {
                    return Judged::UnderWay;
                }
                let newest = under_way.back().expect("forgotten with its last batch");
                self.beside(newest, batch)
            }
        };
        match verdict {
            Verdict::New => {
                self.under_way.entry(batch.producer_id).or_default().push_back(*batch);
                Judged::New
            }
            Verdict::Duplicate { base_offset } => Judged::Stored(base_offset),
            refused => Judged::Refused(told(batch, refused)),
        }
    }

    /// As the table would say it, were `newest` in it.
    fn beside(&self, newest: &BatchFacts, batch: &BatchFacts) -> Verdict {
        if batch.epoch < newest.epoch {
            return Verdict::Fenced { epoch: newest.epoch };
        }
        let expected = match batch.epoch == newest.epoch {
            true => sequence_after(newest.last_sequence(), 1),
            false => 0,
        };
        if batch.first_sequence == expected {
            return Verdict::New;
        }
        match self.committed.check(batch) {
            stored @ Verdict::Duplicate { .. } if batch.epoch == newest.epoch => stored,
            _ => Verdict::OutOfOrder { expected },
        }
    }

    /// The table to be saved before anything goes from the log's beginning, and up to which entry it
    /// holds; `None` where what was saved does as well.
    pub fn take_unsaved(&mut self) -> Option<(RaftIndex, ProducerTable)> {
        let since = self.upto.0.saturating_sub(self.saved.0);
        if since == 0 || self.committed.is_empty() && since < SAVE_EMPTY_AFTER {
            return None;
        }
        self.saved = self.upto;
        Some((self.upto, self.committed.clone()))
    }
}

fn told(batch: &BatchFacts, verdict: Verdict) -> String {
    let BatchFacts { producer_id: id, epoch, first_sequence: first, .. } = batch;
    match verdict {
        Verdict::OutOfOrder { expected } => format!(
            "producer {id} sent a batch from sequence {first} on where {expected} comes next: one \
            before it is missing, or it is older than what is remembered; read the log's end, then go \
            on under a new producer id"
        ),
        Verdict::Fenced { epoch: newer } => format!(
            "producer {id} was heard of with epoch {newer}: its epoch {epoch} is over; another \
            process sends under its id, stop this one or give it an id of its own"
        ),
        _ => format!(
            "nothing is known (any more) of producer {id}, and a batch from sequence {first} on is not \
            its first: whether it is stored cannot be told; read the log's end, then go on under a \
            new producer id"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::{BatchBuilder, ValidBatches};
    use crate::model::{Record, Timestamp};

    fn batch(id: i64, epoch: i16, sequence: i32, records: usize) -> ValidBatches {
        let mut builder = BatchBuilder::new().with_producer(id, epoch, sequence);
        for _ in 0..records {
            builder.push(&Record::of_value("x", Timestamp(5))).unwrap();
        }
        builder.finish().unwrap()
    }

    fn facts(id: i64, epoch: i16, sequence: i32, records: usize) -> BatchFacts {
        batch(id, epoch, sequence, records).producers().next().unwrap()
    }

    /// Entry `index` with these batches is appended, and lies at `base`.
    fn store(sequences: &mut Sequences, index: u64, base: u64, batches: Vec<ValidBatches>) {
        let payload = EntryPayload::Data(batches);
        let (index, records) = (RaftIndex(index), payload.records() as u32);
        sequences.append(index, &payload);
        sequences.placed(&Placed { index, base: Offset(base), records });
    }

    fn refused(judged: &Judged, part: &str) -> bool {
        matches!(judged, Judged::Refused(message) if message.contains(part))
    }

    #[test]
    fn a_batch_is_new_then_under_way_then_stored() {
        let mut sequences = Sequences::default();
        let first = facts(7, 0, 0, 3);
        assert_eq!(sequences.judge(&first), Judged::New);
        assert_eq!(sequences.judge(&first), Judged::UnderWay);
        assert_eq!(sequences.judge(&facts(7, 0, 3, 2)), Judged::New, "the next one behind it");
        assert!(refused(&sequences.judge(&facts(7, 0, 9, 1)), "where 5 comes next"));
        store(&mut sequences, 1, 100, vec![batch(9, 0, 0, 4), batch(7, 0, 0, 3)]);
        assert_eq!(sequences.judge(&first), Judged::UnderWay, "in the log is not committed");
        sequences.commit(RaftIndex(1));
        assert_eq!(sequences.judge(&first), Judged::Stored(Offset(104)));
        assert_eq!(sequences.judge(&facts(7, 0, 3, 2)), Judged::UnderWay);
        assert_eq!(sequences.judge(&facts(9, 0, 0, 4)), Judged::Stored(Offset(100)));
    }

    #[test]
    fn what_cannot_be_next_is_refused_with_what_to_do() {
        let mut sequences = Sequences::default();
        let unknown = sequences.judge(&facts(7, 0, 4, 1));
        assert!(refused(&unknown, "whether it is stored cannot be told"), "{unknown:?}");
        assert_eq!(sequences.judge(&facts(7, 3, 0, 1)), Judged::New);
        let fenced = sequences.judge(&facts(7, 2, 0, 1));
        assert!(refused(&fenced, "its epoch 2 is over"), "{fenced:?}");
        assert!(refused(&sequences.judge(&facts(7, 4, 5, 1)), "where 0 comes next"));
        assert_eq!(sequences.judge(&facts(7, 4, 0, 1)), Judged::New, "a later life begins anew");
        assert!(refused(&sequences.judge(&facts(7, 3, 1, 1)), "its epoch 3 is over"));
    }

    #[test]
    fn an_entry_that_was_replaced_leaves_no_trace() {
        let mut sequences = Sequences::default();
        store(&mut sequences, 1, 0, vec![batch(1, 0, 0, 1)]);
        store(&mut sequences, 2, 1, vec![batch(2, 0, 0, 1)]);
        store(&mut sequences, 2, 1, vec![batch(3, 0, 0, 1)]);
        sequences.commit(RaftIndex(2));
        assert_eq!(sequences.judge(&facts(2, 0, 0, 1)), Judged::New);
        assert_eq!(sequences.judge(&facts(3, 0, 0, 1)), Judged::Stored(Offset(1)));
    }

    #[test]
    fn a_leader_that_lost_what_was_under_way_judges_by_what_is_committed() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.judge(&facts(1, 0, 0, 1)), Judged::New);
        store(&mut sequences, 4, 0, vec![batch(1, 0, 0, 1)]);
        sequences.forget_under_way();
        sequences.lead(RaftIndex(5));
        assert!(!sequences.is_complete(), "an entry of an earlier leader may yet be committed");
        sequences.commit(RaftIndex(5));
        assert!(sequences.is_complete());
        assert_eq!(sequences.judge(&facts(1, 0, 0, 1)), Judged::Stored(Offset(0)));
        assert_eq!(sequences.judge(&facts(1, 0, 1, 1)), Judged::New);
    }

    #[test]
    fn a_start_applies_what_lies_behind_the_saved_table_once_it_is_committed() {
        let mut before = Sequences::default();
        store(&mut before, 1, 0, vec![batch(1, 0, 0, 2)]);
        before.commit(RaftIndex(1));
        let (upto, table) = before.take_unsaved().unwrap();
        assert_eq!((upto, before.take_unsaved()), (RaftIndex(1), None));
        let behind = vec![
            (RaftIndex(2), Offset(2), vec![facts(1, 0, 2, 2)]),
            (RaftIndex(3), Offset(4), vec![facts(1, 0, 4, 2)]),
        ];
        let mut after = Sequences::recovered(ProducersFound { upto, table, behind });
        after.commit(RaftIndex(2));
        assert_eq!(after.judge(&facts(1, 0, 2, 2)), Judged::Stored(Offset(2)));
        after.forget_from(RaftIndex(3));
        assert_eq!(after.judge(&facts(1, 0, 4, 2)), Judged::New);
    }

    #[test]
    fn a_table_of_nobody_is_saved_now_and_then_only() {
        let mut sequences = Sequences::default();
        sequences.commit(RaftIndex(SAVE_EMPTY_AFTER - 1));
        assert_eq!(sequences.take_unsaved(), None);
        sequences.commit(RaftIndex(SAVE_EMPTY_AFTER));
        assert!(sequences.take_unsaved().is_some_and(|(upto, _)| upto.0 == SAVE_EMPTY_AFTER));
        store(&mut sequences, 2000, 0, vec![batch(1, 0, 0, 1)]);
        sequences.commit(RaftIndex(2000));
        assert!(sequences.take_unsaved().is_some_and(|(_, table)| table.len() == 1));
    }
}
