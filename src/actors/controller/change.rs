//! Asking for changes of the catalogue, wherever it is led: one way for everybody on a node.

use super::seams::{GroupActs, PeerCalls};
use crate::actors::control::{
    Answered, Answering, ControlApi, ControlError, JoinAsked, Joined, Joining,
};
use crate::actors::handle::PartitionHandle;
use crate::actors::leadership::Leadership;
use crate::actors::partition::{PartitionApi, PendingAck, ProduceError, ReadError};
use crate::actors::presence::{PresenceBoard, Seen};
use crate::cluster::{
    Answer, Catalogue, CatalogueRecord, Command, NodeState, OnBehalf, Outcome, Rejection,
    RejectionKind, Replay,
};
use crate::model::{Clock, GroupId, NodeId, Offset, Record, with_causes};
use bytes::Bytes;
use slog::{Logger, debug, warn};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Changes under way at a node.
const UNDER_WAY_MAX: usize = 1_000;
/// Outcomes that are kept for those who asked.
const OUTCOMES_MAX: usize = 4_096;
/// The longest that a change may take, elections included.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How often somebody who waits for a leader looks again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When to try again after a change that found nobody to make it.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Hops from node to node in search of the leader.
const HOPS_MAX: usize = 2;

type Applied = Result<Outcome, Rejection>;

/// See the module. Cheap to clone; callable from any thread that has a tokio runtime.
#[derive(Clone)]
pub struct Control(Arc<Desk>);

/// What it is made of.
#[derive(Debug)]
pub struct ControlParts {
    /// Who leads which group.
    pub leadership: Arc<Leadership>,
    /// Who is there.
    pub presence: PresenceBoard,
    /// The way to other nodes.
    pub calls: Arc<dyn PeerCalls>,
    /// The way to the groups of this one.
    pub acts: Arc<dyn GroupActs>,
    /// Stamps records.
    pub clock: Arc<dyn Clock>,
    /// Where it tells what happens.
    pub logger: Logger,
}

struct Desk {
    parts: ControlParts,
    /// This node, and its replica of group 0, from when there is one.
    seat: watch::Sender<Option<(NodeId, PartitionHandle)>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    /// One past the record applied last.
    applied: watch::Sender<Offset>,
    outcomes: Mutex<BTreeMap<Offset, Applied>>,
    /// All is applied that was committed when this life began.
    is_current: AtomicBool,
    /// Whether a member said that this node is none any more.
    is_removed: AtomicBool,
    /// Why nothing is applied any more.
    halted: Mutex<Option<String>>,
    under_way: Semaphore,
    joining: Mutex<Option<Joining>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applied = *self.0.applied.borrow();
        write!(f, "Control(node {:?}, applied {applied})", self.node())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(message: impl Into<String>) -> ControlError {
    ControlError::Unavailable { message: message.into(), retry_after: RETRY_AFTER }
}

impl Control {
    /// Of a node that is no member yet: it knows an empty catalogue.
    pub fn new(parts: ControlParts) -> Self {
        Self(Arc::new(Desk {
            parts,
            seat: watch::channel(None).0,
            catalogue: watch::channel(Arc::default()).0,
            applied: watch::channel(Offset(0)).0,
            outcomes: Mutex::default(),
            is_current: AtomicBool::new(true),
            is_removed: AtomicBool::new(false),
            halted: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
            joining: Mutex::default(),
        }))
    }

    /// The node has a number and a replica of group 0 from now on.
    pub fn open(&self, node: NodeId, group: PartitionHandle) {
        self.outdated();
        self.0.seat.send_replace(Some((node, group)));
    }

    /// How it waits to be let in from now on; `None`: it does not.
    pub(super) fn joins(&self, joining: Option<Joining>) {
        *locked(&self.0.joining) = joining;
    }

    /// There is a catalogue that this node does not know, or not all of.
    pub fn outdated(&self) {
        self.0.is_current.store(false, Ordering::Release);
    }

    /// Resolves once all is applied that was committed when it was called, as far as the leader of
    /// group 0 knows; asks until there is one.
    pub(super) async fn catch_up(self) {
        loop {
            match self.caught_up().await {
                Ok(()) => break self.0.is_current.store(true, Ordering::Release),
                Err(ControlError::Unavailable { .. }) => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => break,
            }
        }
    }

    /// The same once: [`ControlError::Unavailable`] where there is no leader.
    async fn caught_up(&self) -> Result<(), ControlError> {
        let end = self.group().await.read_index().await;
        let end = end.map_err(|error| unavailable(with_causes(&error)))?;
        self.applied_to(end).await
    }

    /// What it is made of.
    pub fn parts(&self) -> &ControlParts {
        &self.0.parts
    }

    /// Waits for this node's replica of group 0.
    pub(super) async fn group(&self) -> PartitionHandle {
        let mut seat = self.0.seat.subscribe();
        // The sender lives in `self`.
        let known = seat.wait_for(Option::is_some).await;
        let known = known.ok().and_then(|known| known.clone());
        known.expect("waited for it").1
    }

    /// Whether this node leads group 0.
    pub fn leads(&self) -> bool {
        let known = self.0.parts.leadership.of(GroupId::CONTROLLER);
        known.is_some_and(|known| known.led_here.is_some())
    }

    /// One past the record that was applied last.
    pub fn applied(&self) -> watch::Receiver<Offset> {
        self.0.applied.subscribe()
    }

    /// Takes what was applied: the outcomes first, as whoever waits looks for them next.
    pub(super) fn publish(&self, replay: &Replay, outcomes: Vec<(Offset, Applied)>) {
        let mut kept = locked(&self.0.outcomes);
        kept.extend(outcomes);
        while kept.len() > OUTCOMES_MAX {
            kept.pop_first();
        }
        drop(kept);
        // A new life of the actor begins at the beginning; nobody sees the past again.
        if replay.next() < *self.0.applied.borrow() {
            return;
        }
        if let Some(catalogue) = replay.catalogue() {
            let catalogue = self.as_told(catalogue);
            self.0.catalogue.send_if_modified(|known| {
                let is_news = **known != *catalogue;
                if is_news {
                    *known = Arc::new(catalogue.into_owned());
                }
                is_news
            });
        }
        *locked(&self.0.halted) = None;
        self.0.applied.send_replace(replay.next());
    }

    /// The catalogue with what a member told of this node.
    fn as_told<'a>(&self, catalogue: &'a Catalogue) -> Cow<'a, Catalogue> {
        let mut told = Cow::Borrowed(catalogue);
        if self.0.is_removed.load(Ordering::Acquire)
            && let Some(me) = self.node()
            && catalogue.nodes.get(&me).is_some_and(|node| node.state != NodeState::Removed)
            && let Some(node) = told.to_mut().nodes.get_mut(&me)
        {
            node.state = NodeState::Removed;
        }
        told
    }

    /// Nothing is applied from now on, for this reason.
    pub(super) fn halt(&self, reason: String) {
        *locked(&self.0.halted) = Some(reason);
        self.0.applied.send_modify(|_| {});
    }

    pub(super) fn read_failed(&self, error: &ReadError) {
        debug!(self.0.parts.logger, "the catalogue's log cannot be read"; "error" => %error);
    }

    /// Proposes the record that holds the whole catalogue. Nobody waits for it: one that is lost, or
    /// does not come to lie in its place, is followed by another.
    pub(super) fn write_down(&self, record: Bytes) {
        let Some((_, handle)) = self.0.seat.borrow().clone() else { return };
        let bytes = record.len();
        let record = Record::of_value(record, self.0.parts.clock.wall());
        match handle.propose_compressed(&record) {
            Ok(_) => {}
            Err(error @ ProduceError::TooLarge { .. }) => {
                warn!(self.0.parts.logger, "the catalogue is too large to be written down, so the \
                    controller's log is not shortened: raise log.record_bytes_max, and \
                    log.batch_bytes_max with it, on all nodes"; "bytes" => bytes, "error" => %error);
            }
            Err(error) => {
                debug!(self.0.parts.logger, "the catalogue was not written down";
                    "error" => %error);
            }
        }
    }

    fn propose(&self, records: Vec<Bytes>) -> Result<PendingAck, ControlError> {
        let Some((_, handle)) = self.0.seat.borrow().clone() else {
            return Err(unavailable("this node has no replica of the controller's group yet"));
        };
        let now = self.0.parts.clock.wall();
        let records = records.into_iter().map(|bytes| Record::of_value(bytes, now)).collect();
        handle.propose_records(records).map_err(not_proposed)
    }

    /// Proposes commands in this order, and waits until they are applied here.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`]: nothing was changed; else it is not known.
    pub(super) async fn change_all(
        &self,
        by: Option<OnBehalf>,
        commands: Vec<Command>,
    ) -> Result<Vec<Answer>, ControlError> {
        let protocol = self.catalogue().protocol;
        let absent = self.absent();
        let count = commands.len() as u64;
        let records = commands.into_iter().map(|command| {
            CatalogueRecord::command(command, absent.clone(), by.clone(), protocol).encode()
        });
        let ack = self.propose(records.collect())?.await.map_err(not_proposed)?;
        self.applied_to(ack.base_offset.plus(count)).await?;
        let outcomes = locked(&self.0.outcomes);
        (0..count)
            .map(|place| {
                let offset = ack.base_offset.plus(place);
                let outcome =
                    outcomes.get(&offset).cloned().ok_or_else(|| ControlError::Unknown {
                        message:
                            "the change is stored, what it did was not kept: look at `duramen \
                              cluster status`"
                                .into(),
                    })?;
                Ok(Answer { offset, outcome })
            })
            .collect()
    }

    /// Members that gossip gave up.
    fn absent(&self) -> Vec<NodeId> {
        let presence = self.0.parts.presence.now();
        let gone = presence.values().filter(|p| matches!(p.seen, Seen::Dead | Seen::Left));
        let there: Vec<_> = presence
            .values()
            .filter(|p| matches!(p.seen, Seen::Alive | Seen::Suspect))
            .filter_map(|present| present.node)
            .collect();
        let gone = gone.filter_map(|present| present.node);
        gone.filter(|node| !there.contains(node)).take(UNDER_WAY_MAX).collect()
    }

    async fn applied_to(&self, end: Offset) -> Result<(), ControlError> {
        let mut applied = self.0.applied.subscribe();
        let is_over = |applied: &Offset| *applied >= end || locked(&self.0.halted).is_some();
        let applied = applied.wait_for(is_over).await.map(|applied| *applied);
        if applied.is_ok_and(|applied| applied >= end) {
            return Ok(());
        }
        let reason = locked(&self.0.halted).clone().unwrap_or_default();
        Err(ControlError::Unknown {
            message: format!("the change is stored and not applied on this node: {reason}"),
        })
    }

    fn admit(&self) -> Result<SemaphorePermit<'_>, ControlError> {
        if let Some(reason) = locked(&self.0.halted).clone() {
            return Err(unavailable(reason));
        }
        self.0.under_way.try_acquire().map_err(|_| {
            unavailable(format!("{UNDER_WAY_MAX} changes are under way at this node already"))
        })
    }

    async fn change_anywhere(
        &self,
        by: Option<OnBehalf>,
        command: Command,
    ) -> Result<Outcome, ControlError> {
        let _permit = self.admit()?;
        let mut leaders = self.0.parts.leadership.changes();
        let mut left = CHANGE_MAX;
        let begun = self.0.parts.clock.monotonic();
        let mut reason = "nobody is known to lead the controller".to_owned();
        while !left.is_zero() {
            leaders.mark_unchanged();
            let sent = tokio::time::timeout(left, self.change_once(&by, &command)).await;
            match sent {
                // What was refused changes nothing here either.
                Ok(Ok(Answer { outcome: Err(no), .. })) => return Err(no.into()),
                Ok(Ok(answer)) => {
                    let applied = self.applied_to(answer.offset.next());
                    if !matches!(tokio::time::timeout(CHANGE_MAX, applied).await, Ok(Ok(()))) {
                        debug!(self.0.parts.logger, "a change is made and not known here yet");
                    }
                    return Ok(answer.outcome?);
                }
                Ok(Err(ControlError::Unavailable { message, .. })) => reason = message,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(ControlError::Unknown {
                        message: format!(
                            "the controller did not answer within {CHANGE_MAX:?}: the change may \
                             be made; look at `duramen cluster status` before asking again"
                        ),
                    });
                }
            }
            // A new leader is told of, or found by looking again.
            let _ = tokio::time::timeout(LOOK_EVERY.min(left), leaders.changed()).await;
            let now = self.0.parts.clock.monotonic();
            left = CHANGE_MAX.saturating_sub(now.saturating_sub(begun));
        }
        Err(unavailable(format!("{reason}; nothing was changed: look at `duramen cluster status`")))
    }

    /// Where the controller is led, here or elsewhere.
    async fn change_once(
        &self,
        by: &Option<OnBehalf>,
        command: &Command,
    ) -> Result<Answer, ControlError> {
        let (by, command) = (by.clone(), command.clone());
        let is_founded = self.catalogue().is_founded();
        if !is_founded && !matches!(command, Command::Found { .. }) {
            return Err(unavailable("this node does not know its cluster's catalogue yet"));
        }
        if self.leads() {
            let answers = self.change_all(by, vec![command]).await?;
            return answers.into_iter().next().ok_or_else(|| unavailable("nothing was proposed"));
        }
        let me = self.node().ok_or_else(|| {
            unavailable("this node is not a member of a cluster yet: it is still joining")
        })?;
        let mut addr = self.leader_addr()?;
        let (cluster_id, protocol) = {
            let catalogue = self.catalogue();
            (catalogue.cluster_id.clone(), catalogue.protocol)
        };
        let record = CatalogueRecord::command(command, Vec::new(), by, protocol).encode();
        for _ in 0..HOPS_MAX {
            let calls = &self.0.parts.calls;
            match calls.change(addr, cluster_id.clone(), me, record.clone()).await? {
                Answered::AskAt(elsewhere) => addr = elsewhere,
                Answered::Here(bytes) => {
                    return Answer::decode(&bytes).ok_or_else(|| ControlError::Unknown {
                        message: "the controller's answer cannot be read: the change may be made; \
                                  look at `duramen cluster status`"
                            .into(),
                    });
                }
            }
        }
        Err(unavailable("the controller's leader changes at present"))
    }

    /// The address of the node that leads the controller, where it is another one.
    fn leader_addr(&self) -> Result<String, ControlError> {
        let leader = self.leader().filter(|leader| Some(*leader) != self.node());
        let leader = leader.ok_or_else(|| unavailable("nobody is known to lead the controller"))?;
        // Gossip knows a new address before the catalogue does.
        let present = self.0.parts.presence.of(leader).map(|present| present.rpc_addr);
        let known = || self.catalogue().nodes.get(&leader).map(|node| node.rpc_addr.clone());
        present.filter(|addr| !addr.is_empty()).or_else(known).ok_or_else(|| {
            unavailable(format!(
                "the address of node {leader}, which leads the controller, is not known"
            ))
        })
    }

    async fn change_as_leader(&self, command: Bytes) -> Result<Answered<Bytes>, ControlError> {
        let invalid = |message: String| ControlError::Invalid { message };
        let (command, by) = match CatalogueRecord::decode(&command) {
            Ok(CatalogueRecord::Command { command, by, .. }) => (command, by),
            Ok(CatalogueRecord::Snapshot { .. }) => {
                return Err(invalid("a command is expected, not a snapshot".into()));
            }
            Err(error) => return Err(invalid(error.to_string())),
        };
        if !self.leads() {
            return self.leader_addr().map(Answered::AskAt);
        }
        let _permit = self.admit()?;
        let answers = tokio::time::timeout(CHANGE_MAX, self.change_all(by, vec![command])).await;
        let answers = answers.unwrap_or_else(|_| {
            let message = format!("the change was not acknowledged within {CHANGE_MAX:?}");
            Err(ControlError::Unknown { message })
        })?;
        let answer = answers.into_iter().next();
        answer.map(|answer| Answered::Here(answer.encode())).ok_or_else(|| unavailable("no answer"))
    }

    async fn join_as_leader(&self, asked: JoinAsked) -> Result<Answered<Joined>, ControlError> {
        if !self.leads() {
            return self.leader_addr().map(Answered::AskAt);
        }
        let catalogue = self.catalogue();
        if !asked.cluster_id.is_empty() && asked.cluster_id != catalogue.cluster_id {
            return Err(ControlError::Rejected(Rejection {
                kind: RejectionKind::Foreign,
                message: format!(
                    "the node's directory is of another cluster ({}), this one is {}: give it the \
                     --join addresses of its own cluster, or an empty --data-dir",
                    asked.cluster_id, catalogue.cluster_id
                ),
            }));
        }
        let _permit = self.admit()?;
        let register = vec![Command::Register(asked.node)];
        let answers = tokio::time::timeout(CHANGE_MAX, self.change_all(None, register)).await;
        let answers = answers.unwrap_or_else(|_| Err(unavailable("the controller is slow")))?;
        let outcome = answers.into_iter().next().map(|answer| answer.outcome);
        match outcome.transpose()? {
            Some(Outcome::Node(node)) => Ok(Answered::Here(self.joined(node))),
            _ => Err(unavailable("the node was given no number")),
        }
    }

    fn joined(&self, node: NodeId) -> Joined {
        let catalogue = self.catalogue();
        let members = catalogue.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        let members =
            members.map(|(id, node)| (*id, node.uuid.clone(), node.rpc_addr.clone())).collect();
        Joined { cluster_id: catalogue.cluster_id.clone(), node, members }
    }
}

fn not_proposed(error: ProduceError) -> ControlError {
    let message = with_causes(&error);
    if error.is_definite() {
        let retry_after = error.retry_after().unwrap_or(RETRY_AFTER);
        ControlError::Unavailable { message, retry_after }
    } else {
        ControlError::Unknown { message }
    }
}

impl ControlApi for Control {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.0.catalogue.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.catalogue.subscribe()
    }

    fn node(&self) -> Option<NodeId> {
        self.0.seat.borrow().as_ref().map(|(node, _)| *node)
    }

    fn joining(&self) -> Option<Joining> {
        locked(&self.0.joining).clone()
    }

    fn is_current(&self) -> bool {
        self.0.is_current.load(Ordering::Acquire)
    }

    fn leader(&self) -> Option<NodeId> {
        let known = self.0.parts.leadership.of(GroupId::CONTROLLER);
        known.and_then(|known| known.leader).map(|leader| leader.node())
    }

    fn change_for(&self, by: Option<OnBehalf>, command: Command) -> Answering<Outcome> {
        let control = self.clone();
        Box::pin(async move { control.change_anywhere(by, command).await })
    }

    fn confirm(&self) -> Answering<()> {
        let control = self.clone();
        Box::pin(async move { control.caught_up().await })
    }

    fn change_here(&self, command: Bytes) -> Answering<Answered<Bytes>> {
        let control = self.clone();
        Box::pin(async move { control.change_as_leader(command).await })
    }

    fn join_here(&self, asked: JoinAsked) -> Answering<Answered<Joined>> {
        let control = self.clone();
        Box::pin(async move { control.join_as_leader(asked).await })
    }

    fn told_of_removal(&self) {
        self.0.is_removed.store(true, Ordering::Release);
        self.0.catalogue.send_if_modified(|known| match self.as_told(known) {
            Cow::Borrowed(_) => false,
            Cow::Owned(told) => {
                *known = Arc::new(told);
                true
            }
        });
    }
}
