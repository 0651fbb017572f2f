//! The raft actor: one replica of a group. Proposals gather in it while a flush is in flight; each
//! step of the state machine becomes messages to the log actor and to the replica's peers; what is
//! committed is published and answered.
//!
//! The way of a proposal: `Propose` → pending → one entry with all that is pending → `Append` to
//! the log actor, and to the peers → `Persisted`, and the peers' answers → committed → published →
//! answered. One flush is in flight at a time, so a producer waits for at most the flush in hand
//! and its own.

mod commit_news;
mod handlers;
mod messages;
mod plan;
mod proposals;
mod reads;
mod replica;
mod sequences;
mod tail;
mod traces;
mod writes;

use messages::Pump;
pub use messages::{
    Body, Carried, Desire, Flushed, Kept, LogReady, PeerFound, PeerLost, Persisted, Propose,
    ReadIndex, Refusal, SpaceReturned, TendDue, Transfer, WaitOver,
};
pub use plan::{RaftOptions, RaftPlan};
pub use sequences::ProducersFound;

use super::gather::Verdict;
use super::leadership::Standing;
use super::log::{Append, Attach, AwaitSpace, Install, LogActor, WaitAwhile};
use super::partition::ProduceError;
use super::published::Phase;
use crate::log::batch::{self};
use crate::log::producers::read_snapshot_state;
use crate::log::{Entry, EntryPayload, LogView, Placed, ResetTo};
use crate::model::{
    Disposition, Durability, PeerKind, PeerMessage, PeerPayload, RaftIndex, ReplicaId, Term,
};
use crate::observe::{Mail, Wait};
use crate::raft::{
    Content, Effects, HardState, LogStart, NewEntry, PartitionRaft, RaftConfig, RaftError,
    Recovered, Role,
};
use crate::supervision::{ActorRef, ChildSpec, Receives, Seat};
use actix::prelude::*;
use commit_news::CommitNews;
use proposals::{Gathered, Proposals, Told};
use reads::Reads;
use replica::Shown;
use sequences::Sequences;
use slog::{Drain, Level, LevelFilter, Logger, debug, info, o, warn};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tail::{Sizes, Tail};
use tokio::time::Instant;
use writes::Writes;

/// Restart policy of the raft actor: always, and only together with its log (the partition's
/// supervisor is one-for-all): a Raft core never comes back on storage that was not recovered.
pub fn spec() -> ChildSpec {
    super::log::spec().named("raft")
}

/// An entry that is persisted and waits to be committed.
#[derive(Debug)]
struct Landed {
    placed: Placed,
    durability: Durability,
}

/// The append in hand.
#[derive(Debug)]
struct Appending {
    number: u64,
    hard_state: Option<HardState>,
    /// Where the log begins anew by it.
    installed: Option<RaftIndex>,
}

/// The actor.
#[derive(Debug)]
pub struct RaftActor {
    seat: Seat<Self>,
    log: ActorRef<LogActor>,
    plan: Arc<RaftPlan>,
    raft: Option<PartitionRaft>,
    view: Option<Arc<LogView>>,
    tail: Rc<RefCell<Tail>>,
    /// What entries hold that the state machine was given and has not given back yet.
    staged: BTreeMap<(RaftIndex, Term), EntryPayload>,
    proposals: Proposals,
    landed: VecDeque<Landed>,
    /// What idempotent producers sent last.
    sequences: Sequences,
    /// The newest entry committed and in the log.
    applied: RaftIndex,
    reads: Reads,
    writes: Writes,
    appending: Option<Appending>,
    /// The newest hard state known to be on disk.
    hard_state: Option<HardState>,
    /// The newest entry known to be in the log.
    last_kept: RaftIndex,
    /// Set while the disk is full.
    full: Option<String>,
    /// What was told last of the part that this replica plays.
    shown: Shown,
    ticking: Option<SpawnHandle>,
    /// When it ticked last.
    ticked: Option<Instant>,
    ticks: u64,
    /// As the leader: who is to lead instead, and the tick at which it was fit to for the first time.
    heir: Option<(ReplicaId, u64)>,
    /// Ticks since something happened, and the newest entry then.
    idle_ticks: usize,
    idle_at: RaftIndex,
    /// Held while it stands for election, and from which tick on.
    standing: Option<(Standing, u64)>,
    /// Nothing is going on in the group: it does not tick.
    is_quiet: bool,
    commit_news: CommitNews,
    pump_queued: bool,
    wait_asked: bool,
    waited: bool,
}

impl RaftActor {
    /// The factory. The actor asks the log for its state and takes proposals meanwhile.
    pub fn new(seat: Seat<Self>, log: ActorRef<LogActor>, plan: Arc<RaftPlan>) -> Self {
        let published = &plan.published;
        // Whatever an earlier life published: this one does not serve yet.
        published.enter(Phase::Recovering { done_bytes: 0, total_bytes: 0 });
        published.raft_wait().set(Wait::Recovery, &**seat.clock());
        seat.recorder().waits_by(published.raft_wait());
        let tail = Tail::new(plan.options.tail_bytes_max, RaftIndex(0));
        Self {
            proposals: Proposals::new(&plan),
            seat,
            log,
            plan,
            raft: None,
            view: None,
            tail: Rc::new(RefCell::new(tail)),
            staged: BTreeMap::new(),
            landed: VecDeque::new(),
            sequences: Sequences::default(),
            applied: RaftIndex(0),
            reads: Reads::default(),
            writes: Writes::default(),
            appending: None,
            hard_state: None,
            last_kept: RaftIndex(0),
            full: None,
            shown: Shown::default(),
            ticking: None,
            ticked: None,
            ticks: 0,
            heir: None,
            idle_ticks: 0,
            idle_at: RaftIndex(0),
            standing: None,
            is_quiet: false,
            commit_news: CommitNews::default(),
            pump_queued: false,
            wait_asked: false,
            waited: false,
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
        let Some(raft) = &mut self.raft else { return Ok(()) };
        if self.appending.is_some() || self.proposals.is_empty() {
            return Ok(());
        }
        if raft.role() != Role::Leader {
            let told = self.proposals.refuse_pending(&self.not_leader());
            self.on_record(told);
            return Ok(());
        }
        if raft.is_handing_over() {
            return Ok(()); // the next leader is told of soon, or this one goes on
        }
        if self.proposals.begins_numbered() && !self.sequences.is_complete() {
            return Ok(()); // until an entry of its own term is committed
        }
        match self.proposals.decide(self.waited) {
            Verdict::Wait => {
                if !self.wait_asked {
                    self.wait_asked = true;
                    self.tell_log(WaitAwhile { wait: self.proposals.wait_max() });
                }
                return Ok(());
            }
            // The flush thread forgets a wait that an append overtakes.
            Verdict::Go => (self.wait_asked, self.waited) = (false, false),
        }
        self.wake();
        let (gathered, told) = self.proposals.gather(&mut self.sequences);
        self.on_record(told);
        let Some(Gathered { payload, askers, handle }) = gathered else { return Ok(()) };
        let Some(raft) = &mut self.raft else { return Ok(()) };
        let term = raft.term();
        let index = raft.propose(handle)?;
        self.staged.insert((index, term), payload);
        self.proposals.proposed(index, askers);
        self.drive();
        Ok(())
    }

    /// Carries out all that the state machine asks for.
    fn drive(&mut self) {
        while let Some(effects) = self.raft.as_mut().and_then(PartitionRaft::step) {
            self.carry_out(effects);
        }
        if let Some(dropped) = self.raft.as_mut().map(PartitionRaft::take_dropped) {
            self.plan.metrics.raft_dropped.add(dropped);
        }
        // What the state machine did not take by now it never will.
        self.staged.clear();
        self.flush();
        self.tell_role();
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { number, hard_state, install, entries, committed, messages, reads, .. } =
            effects;
        let install = install.map(|start| self.begin_anew(start));
        if let Some(first) = entries.first() {
            self.forget_from(first.index);
        }
        let entries: Vec<Entry> = entries.into_iter().map(|new| self.payload_of(new)).collect();
        self.writes.add(number, hard_state, install, entries);
        self.send(messages);
        if let Some(index) = committed {
            self.commit(index);
        }
        for ready in reads {
            self.reads.confirmed(ready);
        }
        self.answer_reads();
        // A step that writes nothing is persisted as soon as those before it are.
        if self.appending.is_none()
            && self.writes.is_empty()
            && let Some(raft) = &mut self.raft
        {
            raft.persisted(number);
        }
    }

    /// The log is to begin behind what the leader has left.
    fn begin_anew(&mut self, start: LogStart) -> Install {
        let LogStart { index, term, state, .. } = start;
        self.forget_from(RaftIndex(0));
        self.tail.borrow_mut().clear();
        let (offset, producers) =
            read_snapshot_state(state).expect("checked when the message arrived");
        self.sequences.begin_anew(index, producers.clone());
        info!(self.seat.logger(), "the log begins anew, behind what the leader has left";
            "index" => index.0, "term" => term.0, "offset" => offset.0);
        Install { start: ResetTo { index, term, offset }, producers }
    }

    /// Joins an entry of the state machine with what was staged for it.
    fn payload_of(&mut self, new: NewEntry) -> Entry {
        let NewEntry { term, index, content } = new;
        let payload = match content {
            Content::Internal(bytes) => EntryPayload::Internal(bytes),
            Content::Data(_) => self
                .staged
                .remove(&(index, term))
                .expect("an entry comes out of the step that follows the one it went in by"),
        };
        self.tail.borrow_mut().push(index, term, payload.clone());
        self.sequences.append(index, &payload);
        Entry { term, index, payload }
    }

    /// Entries from `index` on have others in their place from now on. Whoever asked for them is
    /// told as this replica steps down.
    fn forget_from(&mut self, index: RaftIndex) {
        while self.landed.back().is_some_and(|landed| landed.placed.index >= index) {
            self.landed.pop_back();
        }
        self.sequences.forget_from(index);
    }

    /// Starts the next flush, when none is in flight.
    fn flush(&mut self) {
        if self.appending.is_some() || self.writes.is_empty() {
            return;
        }
        let Writes { number, hard_state, install, entries } = std::mem::take(&mut self.writes);
        if let Some(first) = entries.first() {
            // The log is cut there before anything else can go wrong.
            self.last_kept = self.last_kept.min(RaftIndex(first.index.0 - 1));
        }
        let installed = install.as_ref().map(|install| install.start.index);
        self.appending = Some(Appending { number, hard_state: hard_state.clone(), installed });
        let traces = self.proposals.spans();
        self.tell_log(Append { number, hard_state, install, entries, traces });
    }

    /// Publishes and answers all entries up to `index`, in this order: whoever reads an
    /// acknowledged record finds it.
    fn commit(&mut self, index: RaftIndex) {
        self.applied = index;
        self.sequences.commit(index);
        let mut reached = None;
        while self.landed.front().is_some_and(|landed| landed.placed.index <= index) {
            let Some(Landed { placed, durability }) = self.landed.pop_front() else { break };
            self.plan.published.commit(placed.base.plus(u64::from(placed.records)));
            let told = self.proposals.committed(placed, durability);
            self.on_record(told);
            reached = Some(placed.index);
        }
        // What was in the log when this life began has not landed in it.
        if reached != Some(index)
            && let Some(end) = self.view.as_ref().and_then(|view| view.end_of(index))
        {
            self.plan.published.commit(end);
        }
    }

    fn on_record(&self, told: Told) {
        self.seat.recorder().answered(self.seat.clock().monotonic(), told);
    }

    /// An append is done.
    fn persisted(&mut self, number: u64, kept: Kept) {
        let Kept { durability, entries } = kept;
        self.proposals.tracing.persisted();
        // A later step may have put others in the place of some, or of all.
        let replaced = self.writes.first().unwrap_or(RaftIndex(u64::MAX));
        let Some(appending) = self.appending.take() else { return };
        let Appending { number: appended, hard_state, installed } = appending;
        assert_eq!(number, appended, "one append is in flight at a time");
        if let Some(last) = entries.last().map(|placed| placed.index).or(installed) {
            self.last_kept = last;
        }
        let staying = entries.into_iter().filter(|placed| placed.index < replaced);
        let staying = staying.inspect(|placed| self.sequences.placed(placed));
        self.landed.extend(staying.map(|placed| Landed { placed, durability }));
        self.hard_state = hard_state.or(self.hard_state.take());
        let Some(raft) = &mut self.raft else { return };
        // Steps behind it that had nothing to write are as durable as it is.
        let number = if self.writes.is_empty() { self.writes.number.max(number) } else { number };
        raft.persisted(number);
        self.settle();
        self.drive();
    }

    /// Nothing of the append in hand was kept. Alone, nobody else has seen its entries: those who
    /// asked are told that they are not stored. In company their fate is open.
    fn refuse(&mut self, refusal: Refusal) -> Result<(), RaftError> {
        let Refusal { reason, needed_bytes } = refusal;
        let refused = match needed_bytes {
            Some(_) => ProduceError::DiskFull { message: reason.clone() },
            None => ProduceError::TooLarge { message: reason.clone() },
        };
        let in_flight = match self.is_alone() {
            true => refused.clone(),
            false => ProduceError::Unknown {
                message: format!(
                    "the leader could not write its own copy ({reason}); the records \
                    may be stored by the others: send them again with the same producer id, or \
                    read the log's end before"
                ),
            },
        };
        let told = self.proposals.give_up_in_flight(&in_flight);
        self.on_record(told);
        self.landed.clear();
        self.sequences.forget_under_way();
        self.sequences.forget_from(self.last_kept.next());
        self.appending = None;
        let Some(needed_bytes) = needed_bytes else {
            warn!(self.seat.logger(), "an append was refused"; "reason" => reason);
            return self.rebuild_raft();
        };
        let told = self.proposals.refuse_pending(&refused);
        self.on_record(told);
        warn!(self.seat.logger(), "the partition takes no writes"; "reason" => &reason);
        self.plan.published.enter(Phase::Full { reason: reason.clone() });
        self.full = Some(reason);
        self.tell_log(AwaitSpace { needed_bytes });
        // In company another replica leads: this one is a follower that has not written yet.
        if self.is_alone() { Ok(()) } else { self.rebuild_raft() }
    }

    /// Builds the state machine again from what is known to be on disk, as a start would.
    fn rebuild_raft(&mut self) -> Result<(), RaftError> {
        let mut terms = self.raft.take().map(|raft| raft.terms()).unwrap_or_default();
        terms.truncate_after(self.last_kept);
        self.writes = Writes::default();
        self.staged.clear();
        *self.tail.borrow_mut() = Tail::new(self.plan.options.tail_bytes_max, self.last_kept);
        self.start_raft(Recovered { hard_state: self.hard_state.clone(), terms })
    }

    fn start_raft(&mut self, recovered: Recovered) -> Result<(), RaftError> {
        let RaftPlan { group, me, founders, options, .. } = &*self.plan;
        let view = self.view.clone().expect("the log is recovered before its replica starts");
        let config = RaftConfig {
            group: *group,
            me: *me,
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            message_bytes_max: options.message_bytes_max,
            inflight_max: options.inflight_max,
            seed: options.seed ^ group.raw() ^ me.raw().rotate_left(17) ^ self.seat.generation(),
        };
        let sizes = Rc::new(Sizes::new(Rc::clone(&self.tail), view));
        let logger = quiet(self.seat.logger());
        // Of those that begin a group together one asks first: waiting would cost each new group
        // an election timeout.
        let is_new = recovered.hard_state.is_none() && recovered.terms.last() == RaftIndex(0);
        let begins = is_new && founders.first() == Some(me);
        let mut raft = PartitionRaft::start(config, founders, recovered, sizes, &logger)?;
        if raft.membership().is_alone(*me) {
            raft.campaign()?;
        } else if begins {
            raft.stand_at_next_tick();
        }
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
        self.keep_time(context);
        self.tell_commit_soon(context);
        if let Err(error) = result {
            let disposition = match error.disposition() {
                Disposition::TellCaller => Disposition::RebuildActor,
                other => other,
            };
            self.seat.fail(error.to_string(), disposition);
            context.stop();
        }
    }

    /// A message of a peer. What is wrong with it changes nothing here.
    fn receive(&mut self, message: PeerMessage) {
        if message.kind == PeerKind::Quiesce {
            return self.quiesce(&message);
        }
        // An answer to the last heartbeat of a leader that has grown quiet since asks for nothing.
        if message.kind != PeerKind::HeartbeatAnswer {
            self.wake();
        }
        if self.full.is_some() && !message.entries.is_empty() {
            return; // the leader tries again; there is no room for them now
        }
        if let Err(reason) = self.stage(&message) {
            return self.complain_of(&message, &reason);
        }
        let Some(raft) = &mut self.raft else { return };
        match raft.receive(&message) {
            Ok(()) => self.drive(),
            Err(error) => self.complain_of(&message, &error.to_string()),
        }
        self.staged.clear();
    }

    fn complain_of(&self, message: &PeerMessage, reason: &str) {
        warn!(self.seat.logger(), "a peer's message is of no use"; "message" => ?message,
            "reason" => reason);
    }

    /// Keeps what the entries of a message hold, checked, until the state machine gives them back.
    fn stage(&mut self, message: &PeerMessage) -> Result<(), String> {
        if let Some(snapshot) = &message.snapshot {
            read_snapshot_state(snapshot.state.clone()).map_err(|error| error.to_string())?;
        }
        for entry in &message.entries {
            let PeerPayload::Data(groups) = &entry.payload else { continue };
            let checked =
                groups.iter().map(|g| batch::receive(g.clone(), &self.plan.options.limits));
            let groups = checked.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
            self.staged.insert((entry.index, entry.term), EntryPayload::Data(groups));
        }
        Ok(())
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
        self.on_record(self.proposals.unanswered());
        self.plan.leadership.leads_no_more(self.plan.group, self.plan.me);
    }
}

impl Actor for RaftActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tell_log(Attach { to: self.seat.line(context) });
    }
}
