//! Proposals on their way: those that wait to become part of an entry, and those whose entry is
//! not committed yet.

use super::super::gather::{Gather, Verdict};
use super::super::partition::{Ack, AckSender, ProduceError};
use super::messages::{Body, Propose};
use super::sequences::{Judged, Sequences, is_same};
use super::traces::{Appending, Queued, Tracing};
use super::{RaftOptions, RaftPlan};
use crate::log::batch::{BatchBuilder, BatchFacts};
use crate::log::{EntryPayload, Placed};
use crate::model::{Durability, RaftIndex, Timestamp};
use crate::observe::metrics::LogMetrics;
use crate::observe::{Answer, Receipt, TraceContext};
use crate::raft::Handle;
use crate::supervision::Permit;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A proposal that waits to become part of an entry.
#[derive(Debug)]
struct Pending {
    body: Body,
    bytes: usize,
    asked: Asked,
}

/// Who asked, while that is no part of an entry.
#[derive(Debug)]
struct Asked {
    answer: AckSender,
    receipt: Receipt,
    traced: Option<Queued>,
    permit: Permit,
}

impl Asked {
    /// As what asked for `records` of an entry, from its first one on.
    fn part(
        self,
        tracing: &Tracing,
        records: u32,
        timestamp: Timestamp,
        numbered: Option<BatchFacts>,
    ) -> Asker {
        let Self { answer, receipt, traced, permit: _permit } = self;
        let traced = traced.map(|queued| tracing.gathered(queued));
        Asker { answer, receipt, traced, relative: 0, records, timestamp, numbered, _permit }
    }
}

impl Pending {
    /// What a batch says of its idempotent producer; such a batch comes alone.
    fn numbered(&self) -> Option<BatchFacts> {
        match &self.body {
            Body::Records(_) | Body::Copied(_) => None,
            Body::Batches(whole) => whole.producers().next(),
        }
    }
}

/// A proposal that is part of an entry.
#[derive(Debug)]
pub(super) struct Asker {
    answer: AckSender,
    pub receipt: Receipt,
    pub traced: Option<Appending>,
    /// Offset of its first record within the entry.
    relative: u32,
    records: u32,
    timestamp: Timestamp,
    /// Who sent it, where it may be sent again.
    numbered: Option<BatchFacts>,
    _permit: Permit,
}

/// What the next entry is made of.
#[derive(Debug)]
pub(super) struct Gathered {
    pub payload: EntryPayload,
    pub askers: Vec<Asker>,
    pub handle: Handle,
}

/// An entry that is not committed yet, and who waits for it.
#[derive(Debug)]
pub(super) struct InFlight {
    pub index: RaftIndex,
    pub askers: Vec<Asker>,
}

/// How a proposal ends, and what is told of it.
pub(super) type Told = Vec<(Receipt, Answer)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Proposals {
    options: RaftOptions,
    gather: Gather,
    builder: BatchBuilder,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    in_flight: VecDeque<InFlight>,
    metrics: Arc<LogMetrics>,
    pub tracing: Tracing,
}

impl Proposals {
    pub fn new(plan: &RaftPlan) -> Self {
        let options = plan.options;
        Self {
            options,
            gather: Gather::new(options.gather),
            builder: BatchBuilder::new().with_limits(options.limits),
            pending: VecDeque::new(),
            pending_bytes: 0,
            in_flight: VecDeque::new(),
            metrics: Arc::clone(&plan.metrics),
            tracing: Tracing::new(Arc::clone(&plan.instruments.tracer)),
        }
    }

    /// Takes a proposal, to be part of a later entry.
    pub fn take(&mut self, propose: Propose) {
        let Propose { body, bytes, answer, permit } = propose;
        self.pending_bytes += bytes;
        let (receipt, traced) = (Receipt::of_current(), self.tracing.queued());
        let asked = Asked { answer, receipt, traced, permit };
        self.pending.push_back(Pending { body, bytes, asked });
    }

    /// Whether nothing waits to become part of an entry.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the next one is of an idempotent producer.
    pub fn begins_numbered(&self) -> bool {
        self.pending.front().is_some_and(|next| next.numbered().is_some())
    }

    /// Whether nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// The longest wait for more.
    pub fn wait_max(&self) -> Duration {
        self.gather.wait_max()
    }

    /// Whether to make an entry now.
    pub fn decide(&mut self, waited: bool) -> Verdict {
        let unanswered = self.in_flight.iter().map(|entry| entry.askers.len()).sum();
        self.gather.decide(self.pending.len(), self.pending_bytes, unanswered, waited)
    }

    /// Takes proposals off the queue, up to the size of an entry: records of several producers
    /// share a batch, whole batches stay as they are. What idempotent producers send again, and what
    /// cannot be theirs, becomes part of none; `None` where nothing is left for one.
    pub fn gather(&mut self, sequences: &mut Sequences) -> (Option<Gathered>, Told) {
        let mut told = Told::new();
        let mut batches = Vec::new();
        let mut askers = Vec::with_capacity(self.pending.len());
        let mut bytes = 0;
        let mut relative = 0u32;
        while let Some(next) = self.pending.front() {
            let numbered = next.numbered();
            let is_over = bytes > 0 && bytes + next.bytes > self.options.entry_bytes_max;
            if is_over || numbered.is_some() && !sequences.is_complete() {
                break;
            }
            let Some(pending) = self.pending.pop_front() else { break };
            self.pending_bytes -= pending.bytes;
            let pending = match numbered {
                Some(facts) => match self.judge(pending, facts, sequences, &mut askers) {
                    Ok(pending) => pending,
                    Err(answered) => {
                        told.extend(answered);
                        continue;
                    }
                },
                None => pending,
            };
            let Pending { body, bytes: size, asked } = pending;
            bytes += size;
            let (records, timestamp) = match body {
                Body::Records(records) => {
                    let mut newest = Timestamp(i64::MIN);
                    for record in &records {
                        newest = newest.max(record.timestamp);
                        if self.builder.push(record).is_err() {
                            // Full, by size or by a timestamp too far from the first one's.
                            batches.extend(self.builder.finish());
                            self.builder.push(record).expect("checked when it was proposed");
                        }
                    }
                    (records.len() as u32, newest)
                }
                Body::Batches(whole) | Body::Copied(whole) => {
                    batches.extend(self.builder.finish());
                    let facts = (whole.record_count(), whole.max_timestamp());
                    batches.push(whole);
                    facts
                }
            };
            let asker = asked.part(&self.tracing, records, timestamp, numbered);
            askers.push(Asker { relative, ..asker });
            relative += records;
        }
        batches.extend(self.builder.finish());
        let handle = Handle {
            records: u64::from(relative),
            bytes: batches.iter().map(|batch| batch.len_bytes() as u64).sum(),
        };
        let payload = EntryPayload::Data(batches);
        ((relative > 0).then_some(Gathered { payload, askers, handle }), told)
    }

    /// Gives a numbered batch back where it is to be stored; else what was told of it, if anything
    /// was: one that is under way is answered with it.
    fn judge(
        &mut self,
        pending: Pending,
        facts: BatchFacts,
        sequences: &mut Sequences,
        next: &mut Vec<Asker>,
    ) -> Result<Pending, Option<(Receipt, Answer)>> {
        let judged = sequences.judge(&facts);
        if judged == Judged::New {
            return Ok(pending);
        }
        let BatchFacts { record_count: records, max_timestamp: timestamp, .. } = facts;
        let asker = pending.asked.part(&self.tracing, records, timestamp, Some(facts));
        match judged {
            Judged::Refused(message) => {
                self.metrics.producer_refused.one();
                if let Some(appending) = asker.traced {
                    self.tracing.refused(appending, &message);
                }
                asker.answer.send(Err(ProduceError::Sequence { message }));
                Err(Some((asker.receipt, Answer::Refused)))
            }
            Judged::Stored(base_offset) => {
                self.metrics.producer_duplicates.one();
                if let Some(appending) = asker.traced {
                    self.tracing.committed(appending, base_offset, records);
                }
                let durability = self.options.durability;
                asker.answer.send(Ok(Ack { base_offset, records, timestamp, durability }));
                Err(Some((asker.receipt, Answer::Ok)))
            }
            Judged::New | Judged::UnderWay => {
                self.metrics.producer_duplicates.one();
                let waiting = self.in_flight.iter_mut().map(|entry| &mut entry.askers);
                let is_it =
                    |asker: &Asker| asker.numbered.is_some_and(|other| is_same(&other, &facts));
                let (askers, place) = waiting
                    .chain(std::iter::once(next))
                    .find_map(|askers| askers.iter().position(is_it).map(|place| (askers, place)))
                    .expect("somebody waits for each batch that is under way");
                let Asker { relative, timestamp, .. } = askers[place];
                askers.push(Asker { relative, timestamp, ..asker });
                Err(None)
            }
        }
    }

    /// The entry got this place.
    pub fn proposed(&mut self, index: RaftIndex, askers: Vec<Asker>) {
        self.in_flight.push_back(InFlight { index, askers });
    }

    /// The spans that the next flush lies below.
    pub fn spans(&self) -> Vec<TraceContext> {
        super::traces::of_askers(&self.in_flight)
    }

    /// An entry is committed: those who asked for it are told.
    pub fn committed(&mut self, placed: Placed, durability: Durability) -> Told {
        let Some(entry) = self.in_flight.pop_front_if(|entry| entry.index == placed.index) else {
            return Told::new();
        };
        let Placed { base, .. } = placed;
        let mut told = Told::with_capacity(entry.askers.len());
        for asker in entry.askers {
            if let Some(appending) = asker.traced {
                self.tracing.committed(appending, base, asker.records);
            }
            told.push((asker.receipt, Answer::Ok));
            asker.answer.send(Ok(Ack {
                base_offset: base.plus(u64::from(asker.relative)),
                records: asker.records,
                timestamp: asker.timestamp,
                durability,
            }));
        }
        told
    }

    /// All whose entries are not committed are told this.
    pub fn give_up_in_flight(&mut self, error: &ProduceError) -> Told {
        let answer = if error.is_definite() { Answer::Refused } else { Answer::Unknown };
        let mut told = Told::new();
        for asker in self.in_flight.drain(..).flat_map(|entry| entry.askers) {
            if let Some(appending) = asker.traced {
                self.tracing.refused(appending, &error.to_string());
            }
            told.push((asker.receipt, answer));
            asker.answer.send(Err(error.clone()));
        }
        told
    }

    /// All that wait are told this.
    pub fn refuse_pending(&mut self, error: &ProduceError) -> Told {
        self.pending_bytes = 0;
        let mut told = Told::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            told.push((pending.asked.receipt, Answer::Refused));
            pending.asked.answer.send(Err(error.clone()));
        }
        told
    }

    /// Receipts of all that are not answered.
    pub fn unanswered(&self) -> Told {
        let pending = self.pending.iter().map(|pending| pending.asked.receipt);
        let askers = self.in_flight.iter().flat_map(|entry| &entry.askers);
        let all = pending.chain(askers.map(|asker| asker.receipt));
        all.map(|receipt| (receipt, Answer::Unknown)).collect()
    }
}
