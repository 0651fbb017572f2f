//! The raft actor: one replica of a partition's Raft group. Proposals gather in it while a flush
//! is in flight; each step of the state machine becomes messages to the log actor; what is
//! committed is published and answered.
//!
//! The way of a proposal: `Propose` → pending → one entry with all that is pending → `Append` to
//! the log actor → `Persisted` → committed → published → answered. One flush is in flight at a
//! time, so a producer waits for at most the flush in hand and its own.

mod messages;
mod traces;

use messages::Pump;
pub use messages::{
    Body, Carried, Flushed, Kept, LogReady, Persisted, Propose, Refusal, SpaceReturned, WaitOver,
};

use super::gather::{Gather, GatherOptions, Verdict};
use super::log::{Append, Attach, AwaitSpace, LogActor, Tended, WaitAwhile};
use super::partition::{Ack, AckSender, ProduceError};
use super::published::{Phase, Published};
use crate::log::batch::{BatchBuilder, BatchLimits};
use crate::log::{Entry, EntryPayload, Placed};
use crate::model::{Disposition, Durability, RaftIndex, Timestamp};
use crate::observe::{Answer, Instruments, Mail, Receipt, Wait};
use crate::raft::{Effects, Handle, HardState, PartitionRaft, RaftError, Recovered};
use crate::supervision::{ActorRef, Backoff, ChildSpec, Permit, Receives, Restart, Seat, receives};
use actix::prelude::*;
use slog::{Drain, Level, LevelFilter, Logger, debug, info, o, warn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use traces::{Appending, Queued, Tracing};

/// Restart policy of the raft actor: always, and only together with its log (the partition's
/// supervisor is one-for-all): a Raft core never comes back on storage that was not recovered.
pub fn spec() -> ChildSpec {
    ChildSpec {
        restart: Restart::Permanent,
        backoff: Backoff {
            min: Duration::from_millis(10),
            max: Duration::from_secs(5),
            jitter: 0.2,
        },
        ..ChildSpec::new("raft")
    }
}

/// The raft id of the only voter of a group of one.
const LONE_VOTER: u64 = 1;

/// A proposal that waits to become part of an entry.
#[derive(Debug)]
struct Pending {
    body: Body,
    bytes: usize,
    answer: AckSender,
    receipt: Receipt,
    traced: Option<Queued>,
    _permit: Permit,
}

/// A proposal that is part of an entry on its way to disk.
#[derive(Debug)]
struct Asker {
    answer: AckSender,
    receipt: Receipt,
    traced: Option<Appending>,
    /// Offset of its first record within the entry.
    relative: u32,
    records: u32,
    timestamp: Timestamp,
    _permit: Permit,
}

/// An entry on its way.
#[derive(Debug)]
struct InFlight {
    index: RaftIndex,
    askers: Vec<Asker>,
}

/// An entry that is persisted and waits to be committed.
#[derive(Debug)]
struct Landed {
    placed: Placed,
    durability: Durability,
}

/// Settings of the actor.
#[derive(Debug, Clone, Copy)]
pub struct RaftOptions {
    /// When to start a flush.
    pub gather: GatherOptions,
    /// An entry takes no further proposal beyond this many bytes.
    pub entry_bytes_max: usize,
    /// What proposals were checked against.
    pub limits: BatchLimits,
}

/// The actor.
#[derive(Debug)]
pub struct RaftActor {
    seat: Seat<Self>,
    log: ActorRef<LogActor>,
    published: Arc<Published>,
    options: RaftOptions,
    raft: Option<PartitionRaft>,
    /// The newest hard state handed to the log.
    hard_state: Option<HardState>,
    /// Set while the disk is full.
    full: Option<String>,
    /// The newest entry known to be in the log.
    last_kept: RaftIndex,
    gather: Gather,
    builder: BatchBuilder,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Payloads of entries proposed to the engine and not yet handed to the log.
    proposed: VecDeque<(EntryPayload, Vec<Asker>)>,
    in_flight: VecDeque<InFlight>,
    landed: VecDeque<Landed>,
    /// The append in hand, by number.
    appending: Option<u64>,
    pump_queued: bool,
    wait_asked: bool,
    waited: bool,
    tracing: Tracing,
}

impl RaftActor {
    /// The factory. The actor asks the log for its state and takes proposals meanwhile.
    pub fn new(
        seat: Seat<Self>,
        log: ActorRef<LogActor>,
        published: Arc<Published>,
        options: RaftOptions,
        instruments: Instruments,
    ) -> Self {
        // Whatever an earlier life published: this one does not serve yet.
        published.enter(Phase::Recovering { done_bytes: 0, total_bytes: 0 });
        published.raft_wait().set(Wait::Recovery, &**seat.clock());
        seat.recorder().waits_by(published.raft_wait());
        Self {
            seat,
            log,
            published,
            options,
            raft: None,
            hard_state: None,
            full: None,
            last_kept: RaftIndex(0),
            gather: Gather::new(options.gather),
            builder: BatchBuilder::new().with_limits(options.limits),
            pending: VecDeque::new(),
            pending_bytes: 0,
            proposed: VecDeque::new(),
            in_flight: VecDeque::new(),
            landed: VecDeque::new(),
            appending: None,
            pump_queued: false,
            wait_asked: false,
            waited: false,
            tracing: Tracing::new(instruments.tracer),
        }
    }

    /// Asks for a look at what is pending once the mailbox is drained.
    fn queue_pump(&mut self, context: &mut Context<Self>) {
        if !self.pump_queued {
            self.pump_queued = true;
            self.seat.notify(context, Pump);
        }
    }

    /// What the next entry waits for.
    fn waits(&self) -> Wait {
        match () {
            () if self.raft.is_none() && self.full.is_none() => Wait::Recovery,
            () if self.appending.is_some() => Wait::Flush,
            () if self.wait_asked => Wait::Gather,
            () => Wait::Work,
        }
    }

    /// Makes an entry of what is pending, when it is time and nothing is in flight.
    fn pump(&mut self) -> Result<(), RaftError> {
        if self.appending.is_some() || self.pending.is_empty() || self.raft.is_none() {
            return Ok(());
        }
        let unanswered = self.in_flight.iter().map(|entry| entry.askers.len()).sum();
        let pending = self.pending.len();
        match self.gather.decide(pending, self.pending_bytes, unanswered, self.waited) {
            Verdict::Wait => {
                if !self.wait_asked {
                    self.wait_asked = true;
                    self.tell_log(WaitAwhile { wait: self.gather.wait_max() });
                }
                return Ok(());
            }
            // The flush thread forgets a wait that an append overtakes.
            Verdict::Go => (self.wait_asked, self.waited) = (false, false),
        }
        let (payload, askers, handle) = self.gather_entry();
        self.proposed.push_back((payload, askers));
        if let Some(raft) = &mut self.raft {
            raft.propose(handle)?;
        }
        self.drive();
        Ok(())
    }

    /// Takes proposals off the queue, up to the size of an entry: records of several producers
    /// share a batch, whole batches stay as they are.
    fn gather_entry(&mut self) -> (EntryPayload, Vec<Asker>, Handle) {
        let mut batches = Vec::new();
        let mut askers = Vec::with_capacity(self.pending.len());
        let mut bytes = 0;
        let mut relative = 0u32;
        while let Some(next) = self.pending.front() {
            if bytes > 0 && bytes + next.bytes > self.options.entry_bytes_max {
                break;
            }
            let Some(Pending { body, bytes: size, answer, receipt, traced, _permit }) =
                self.pending.pop_front()
            else {
                break;
            };
            bytes += size;
            self.pending_bytes -= size;
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
                Body::Batches(whole) => {
                    batches.extend(self.builder.finish());
                    let facts = (whole.record_count(), whole.max_timestamp());
                    batches.push(whole);
                    facts
                }
            };
            let traced = traced.map(|queued| self.tracing.gathered(queued));
            askers.push(Asker { answer, receipt, traced, relative, records, timestamp, _permit });
            relative += records;
        }
        batches.extend(self.builder.finish());
        let handle = Handle {
            records: u64::from(relative),
            bytes: batches.iter().map(|batch| batch.len_bytes() as u64).sum(),
        };
        (EntryPayload::Data(batches), askers, handle)
    }

    /// Carries out all that the state machine asks for.
    fn drive(&mut self) {
        while let Some(effects) = self.raft.as_mut().and_then(PartitionRaft::step) {
            let Effects { number, hard_state, entries, committed } = effects;
            if hard_state.is_some() || !entries.is_empty() {
                let entries = entries.into_iter().map(|new| self.take_payload(new)).collect();
                let traces = traces::of_askers(&self.in_flight);
                if hard_state.is_some() {
                    self.hard_state.clone_from(&hard_state);
                }
                self.appending = Some(number);
                self.tell_log(Append { number, hard_state, entries, traces });
            }
            if let Some(index) = committed {
                self.commit(index);
            }
        }
    }

    /// Joins an entry of the engine with the payload that was proposed for it.
    fn take_payload(&mut self, new: crate::raft::NewEntry) -> Entry {
        let (payload, askers) = match new.handle {
            Some(_) => self.proposed.pop_front().expect("a payload for each proposal, in order"),
            None => (EntryPayload::Internal(bytes::Bytes::new()), Vec::new()),
        };
        self.in_flight.push_back(InFlight { index: new.index, askers });
        Entry { term: new.term, index: new.index, payload }
    }

    /// Publishes and answers all entries up to `index`, in this order: whoever reads an
    /// acknowledged record finds it.
    fn commit(&mut self, index: RaftIndex) {
        while self.landed.front().is_some_and(|landed| landed.placed.index <= index) {
            let Some(Landed { placed, durability }) = self.landed.pop_front() else { break };
            let Placed { index, base, records } = placed;
            self.published.commit(base.plus(u64::from(records)));
            let entry = self.in_flight.pop_front().expect("an entry lands after it was sent");
            assert_eq!(entry.index, index, "entries land in order");
            self.on_record(Answer::Ok, entry.askers.iter().map(|asker| asker.receipt));
            for asker in entry.askers {
                if let Some(appending) = asker.traced {
                    self.tracing.committed(appending, base, asker.records);
                }
                asker.answer.send(Ok(Ack {
                    base_offset: base.plus(u64::from(asker.relative)),
                    records: asker.records,
                    timestamp: asker.timestamp,
                    durability,
                }));
            }
        }
    }

    fn on_record(&self, answer: Answer, receipts: impl IntoIterator<Item = Receipt>) {
        let now = self.seat.clock().monotonic();
        let answers = receipts.into_iter().map(|receipt| (receipt, answer));
        self.seat.recorder().answered(now, answers);
    }

    /// Nothing of the append in hand was kept: those who asked are told so, and the state machine
    /// is built again from what the log holds. With one voter nobody else has seen the entries.
    fn refuse(&mut self, refusal: Refusal) -> Result<(), RaftError> {
        let Refusal { reason, needed_bytes } = refusal;
        let told = match needed_bytes {
            Some(_) => ProduceError::DiskFull { message: reason.clone() },
            None => ProduceError::TooLarge { message: reason.clone() },
        };
        let lost = self.in_flight.drain(..).flat_map(|entry| entry.askers);
        let proposed = self.proposed.drain(..).flat_map(|(_, askers)| askers);
        let lost: Vec<Asker> = lost.chain(proposed).collect();
        self.on_record(Answer::Refused, lost.iter().map(|asker| asker.receipt));
        for asker in lost {
            if let Some(appending) = asker.traced {
                self.tracing.refused(appending, &reason);
            }
            asker.answer.send(Err(told.clone()));
        }
        self.landed.clear();
        self.appending = None;
        let Some(needed_bytes) = needed_bytes else {
            warn!(self.seat.logger(), "an append was refused"; "reason" => reason);
            return self.rebuild_raft();
        };
        self.refuse_pending(&told);
        warn!(self.seat.logger(), "the partition takes no writes"; "reason" => &reason);
        self.published.enter(Phase::Full { reason: reason.clone() });
        self.full = Some(reason);
        self.tell_log(AwaitSpace { needed_bytes });
        Ok(())
    }

    /// Builds the state machine again from what the log is known to hold.
    fn rebuild_raft(&mut self) -> Result<(), RaftError> {
        let mut terms = self.raft.take().map(|raft| raft.terms()).unwrap_or_default();
        terms.truncate_after(self.last_kept);
        self.start_raft(Recovered { hard_state: self.hard_state.clone(), terms })
    }

    fn refuse_pending(&mut self, error: &ProduceError) {
        self.pending_bytes = 0;
        self.on_record(Answer::Refused, self.pending.iter().map(|pending| pending.receipt));
        for pending in self.pending.drain(..) {
            pending.answer.send(Err(error.clone()));
        }
    }

    fn start_raft(&mut self, recovered: Recovered) -> Result<(), RaftError> {
        self.hard_state.clone_from(&recovered.hard_state);
        let mut raft = PartitionRaft::start(LONE_VOTER, recovered, &quiet(self.seat.logger()))?;
        raft.campaign()?;
        self.published.leads(raft.term());
        debug!(self.seat.logger(), "leads"; "term" => raft.term().0);
        self.raft = Some(raft);
        self.drive();
        Ok(())
    }

    /// The log actor lives and dies with this one: a refusal means that both are on their way out.
    fn tell_log<M: Mail>(&self, message: M)
    where
        LogActor: Receives<M>,
    {
        if let Err(refused) = self.log.complete(message) {
            debug!(self.seat.logger(), "the log actor is not there"; "refused" => %refused);
        }
    }

    fn obey(&mut self, result: Result<(), RaftError>, context: &mut Context<Self>) {
        if let Err(error) = result {
            let disposition = match error.disposition() {
                Disposition::TellCaller => Disposition::RebuildActor,
                other => other,
            };
            self.seat.fail(error.to_string(), disposition);
            context.stop();
        }
    }
}

/// The engine tells each step of an election at level info: of interest when something is wrong.
fn quiet(logger: &Logger) -> Logger {
    let wanted = if logger.is_debug_enabled() { Level::Debug } else { Level::Warning };
    Logger::root(LevelFilter::new(logger.clone(), wanted).ignore_res(), o!())
}

impl Drop for RaftActor {
    /// Whoever is not answered by now never will be.
    fn drop(&mut self) {
        let pending = self.pending.iter().map(|pending| pending.receipt);
        let proposed = self.proposed.iter().flat_map(|(_, askers)| askers);
        let in_flight = self.in_flight.iter().flat_map(|entry| &entry.askers);
        let askers = proposed.chain(in_flight).map(|asker| asker.receipt);
        let unanswered: Vec<Receipt> = pending.chain(askers).collect();
        self.on_record(Answer::Unknown, unanswered);
    }
}

impl Actor for RaftActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tell_log(Attach { to: self.seat.line(context) });
    }
}

receives!(RaftActor: Propose, Carried, Pump, LogReady, Persisted, WaitOver, SpaceReturned, Tended);

impl actix::Handler<Propose> for RaftActor {
    type Result = ();

    fn handle(&mut self, message: Propose, context: &mut Self::Context) {
        let Propose { body, bytes, answer, permit } = message;
        if let Some(reason) = &self.full {
            self.on_record(Answer::Refused, [Receipt::of_current()]);
            answer.send(Err(ProduceError::DiskFull { message: reason.clone() }));
            return;
        }
        self.pending_bytes += bytes;
        self.pending.push_back(Pending {
            body,
            bytes,
            answer,
            receipt: Receipt::of_current(),
            traced: self.tracing.queued(),
            _permit: permit,
        });
        self.queue_pump(context);
    }
}

impl actix::Handler<Carried> for RaftActor {
    type Result = ();

    fn handle(&mut self, Carried(message): Carried, _: &mut Self::Context) {
        debug!(self.seat.logger(), "a group of one has no peers"; "message" => ?message);
    }
}

impl actix::Handler<Pump> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: Pump, context: &mut Self::Context) {
        self.pump_queued = false;
        let result = self.pump();
        self.published.raft_wait().set(self.waits(), &**self.seat.clock());
        self.obey(result, context);
    }
}

impl actix::Handler<LogReady> for RaftActor {
    type Result = ();

    fn handle(&mut self, ready: LogReady, context: &mut Self::Context) {
        self.published.commit(ready.next_offset);
        self.last_kept = ready.terms.last();
        let result =
            self.start_raft(Recovered { hard_state: ready.hard_state, terms: ready.terms });
        self.obey(result, context);
    }
}

impl actix::Handler<Persisted> for RaftActor {
    type Result = ();

    fn handle(&mut self, Persisted(flushed): Persisted, context: &mut Self::Context) {
        let Kept { durability, entries } = match flushed.outcome {
            Ok(kept) => kept,
            Err(refusal) => {
                let result = self.refuse(refusal);
                self.obey(result, context);
                self.queue_pump(context);
                return;
            }
        };
        self.tracing.persisted();
        if let Some(placed) = entries.last() {
            self.last_kept = placed.index;
        }
        let landed = entries.into_iter().map(|placed| Landed { placed, durability });
        self.landed.extend(landed);
        if self.appending == Some(flushed.number) {
            self.appending = None;
        }
        if let Some(raft) = &mut self.raft {
            raft.persisted(flushed.number);
        }
        self.drive();
        self.queue_pump(context);
    }
}

impl actix::Handler<WaitOver> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: WaitOver, context: &mut Self::Context) {
        // A wait that a flush overtook says nothing about what is pending now.
        self.waited = self.appending.is_none();
        self.wait_asked = false;
        self.queue_pump(context);
    }
}

impl actix::Handler<SpaceReturned> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: SpaceReturned, context: &mut Self::Context) {
        let Some(reason) = self.full.take() else { return };
        info!(self.seat.logger(), "the disk has room again"; "was" => reason);
        let result = self.rebuild_raft();
        self.obey(result, context);
    }
}

impl actix::Handler<Tended> for RaftActor {
    type Result = ();

    fn handle(&mut self, tended: Tended, _: &mut Self::Context) {
        if let Some(raft) = &mut self.raft {
            raft.compact(tended.first_index);
        }
    }
}
