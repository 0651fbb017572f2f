//! A node under test: started, looked at, hurt, stopped, started again.

use super::builder::{Kept, TestNodeBuilder};
use super::control::{ControlThread, Handles};
use super::history::{Line, Mark, What};
use super::leaks::Remains;
use super::load::{Aim, Load, LoadPlan};
use super::machine::Machine;
use super::stopped::Stopped;
use super::story;
use super::wait::{block_on, until_or};
use crate::actors::handle::PartitionHandle;
use crate::actors::partition::{Ack, PartitionApi, PartitionState, ProduceError, ReadError};
use crate::actors::replicator::Peers;
use crate::log::disk::SimDisk;
use crate::log::disk::sim::CrashMode;
use crate::model::{Offset, Record, Timestamp};
use crate::node::{ClusterView, Partitions};
use crate::observe::{Entry, Hub, Mishap, Outcome, Recorder};
use crate::ops::settings::Settings;
use crate::supervision::{
    ActorPath, Event, ExitReason, Fault, Kind, State, TreeError, TreeHandle, TreeStatus,
};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Events that a failure shows.
const EVENTS_SHOWN: usize = 40;

/// One life of a node.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) thread: ControlThread,
    pub(super) handles: Handles,
    pub(super) machine: Machine,
}

/// A running node. Dropped, it is stopped without further checks; while the test panics its
/// messages are printed.
pub struct TestNode {
    /// `None` only while it is being stopped.
    pub(super) live: Option<Life>,
    pub(super) kept: Option<Kept>,
}

impl TestNode {
    /// A node with default settings, on free ports of the loopback and a temporary directory.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A node to be described.
    pub fn builder() -> TestNodeBuilder {
        TestNodeBuilder::new()
    }

    /// Where gRPC is served.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.handles().rpc_addr
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.handles().http_addr
    }

    /// The identity kept in its data directory.
    pub fn node_id(&self) -> &str {
        &self.handles().node_id
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.kept().settings.data_dir
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.kept().settings
    }

    /// What decides on chance.
    pub fn seed(&self) -> u64 {
        self.kept().seed
    }

    /// The topic `log`, partition 0, without a network.
    ///
    /// # Panics
    /// When it has no replica of it.
    pub fn log(&self) -> &PartitionHandle {
        self.handles().log().expect("this node has no replica of log/0")
    }

    /// What it knows of its cluster.
    pub fn cluster(&self) -> &ClusterView {
        &self.handles().view
    }

    /// Another partition that it has a replica of, without a network.
    ///
    /// # Panics
    /// When it has none.
    pub fn partition(&self, topic: &str, partition: u32) -> PartitionHandle {
        let found = self.partitions().get(topic, partition);
        found.unwrap_or_else(|| panic!("no replica of {topic}/{partition} is here"))
    }

    /// The partitions that it has replicas of.
    pub fn partitions(&self) -> &Partitions {
        &self.handles().partitions
    }

    /// The ways to the other nodes of its cluster, which can be cut.
    pub fn peers(&self) -> &Peers {
        &self.handles().peers
    }

    /// Its supervision tree.
    pub fn tree(&self) -> &TreeHandle {
        &self.handles().tree
    }

    /// The flight recorders of its actors.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.handles().hub
    }

    // -- waiting

    /// Waits until a condition holds. Blocks.
    ///
    /// # Panics
    /// When it does not in time; the text tells the state of everything and what happened lately.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        self.until_some(what, |node| holds(node).then_some(()));
    }

    /// As [`TestNode::until`], for a value.
    ///
    /// # Panics
    /// As there.
    pub fn until_some<T>(&self, what: &str, mut find: impl FnMut(&Self) -> Option<T>) -> T {
        let patience = self.kept().patience;
        until_or(patience, || find(self), || format!("{what}\n{}", self.sight()))
    }

    /// Waits until the partition takes writes and reads.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn ready(&self) {
        self.until("the partition serves", |node| {
            let status = node.log().describe();
            status.state == PartitionState::Serving && status.reason.is_empty()
        });
    }

    /// Waits for an event of this life of the node, past or to come.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn await_event(&self, path: &str, what: What) -> Event {
        self.await_event_after(Mark::START, path, what)
    }

    /// Waits for an event after a mark.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn await_event_after(&self, mark: Mark, path: &str, what: What) -> Event {
        let path = self.path(path);
        let wanted = format!("an event {what:?} of {path}");
        self.until_some(&wanted, |node| node.handles().history.find(mark, &path, what))
    }

    /// Waits until an actor or supervisor is in service, in a life after this one.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn await_life_after(&self, path: &str, generation: u64) {
        self.until(&format!("{path} runs in a life after {generation}"), |node| {
            let place = node.place(path);
            place.generation > generation && place.state == State::Running
        });
    }

    // -- looking

    /// The present moment in the history of its supervision tree.
    pub fn mark(&self) -> Mark {
        self.handles().history.mark()
    }

    /// All that happened in its supervision tree after a mark.
    ///
    /// # Panics
    /// When events were missed: what is not there may have happened.
    pub fn events_after(&self, mark: Mark) -> Vec<Event> {
        self.handles().history.since(mark)
    }

    /// Checks that these events came after the mark, in this order; others may lie between them.
    ///
    /// # Panics
    /// When they did not.
    pub fn assert_order(&self, mark: Mark, wanted: &[(&str, What)]) {
        let events = self.events_after(mark);
        let mut rest = events.iter();
        for (number, (path, what)) in wanted.iter().enumerate() {
            let path = self.path(path);
            let found = rest.any(|event| event.path == path && What::of(&event.kind) == *what);
            assert!(
                found,
                "event {} of {}, {what:?} of {path}, does not come where it should:\n{}",
                number + 1,
                wanted.len(),
                show(&events)
            );
        }
    }

    /// How often a place was started again after a mark, whatever for.
    ///
    /// # Panics
    /// As [`TestNode::events_after`].
    pub fn restarts_after(&self, mark: Mark, path: &str) -> usize {
        let path = self.path(path);
        let starts = |event: &&Event| event.path == path && What::of(&event.kind) == What::Started;
        self.events_after(mark).iter().filter(starts).count()
    }

    /// The paths of all its actors.
    pub fn actors(&self) -> Vec<ActorPath> {
        let status = self.tree().status();
        places(&status)
            .into_iter()
            .filter(|place| place.kind == Kind::Actor)
            .map(|place| place.path.clone())
            .collect()
    }

    /// The full path of a place, from the whole of it or from its end (`log/0/raft`).
    ///
    /// # Panics
    /// When there is no such place, or more than one.
    pub fn path(&self, path: &str) -> ActorPath {
        self.place(path).path
    }

    /// The state of a place in its tree.
    ///
    /// # Panics
    /// As [`TestNode::path`].
    pub fn place(&self, path: &str) -> TreeStatus {
        let status = self.tree().status();
        let all = places(&status);
        let ends = |place: &&&TreeStatus| {
            let rest = place.path.as_str().strip_suffix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        match all.iter().filter(ends).collect::<Vec<_>>()[..] {
            [place] => (*place).clone(),
            ref found => panic!(
                "{} places are called {path}; there are:\n{}",
                found.len(),
                all.iter().map(|place| format!("  {}\n", place.path)).collect::<String>()
            ),
        }
    }

    /// Which life a place is in.
    ///
    /// # Panics
    /// As [`TestNode::path`].
    pub fn generation(&self, path: &str) -> u64 {
        self.place(path).generation
    }

    /// How the last life of a place ended.
    ///
    /// # Panics
    /// As [`TestNode::path`].
    pub fn last_exit(&self, path: &str) -> Option<ExitReason> {
        self.place(path).last_exit
    }

    /// The flight recorder of an actor, or of a worker below one (`log/0/log/flush`).
    ///
    /// # Panics
    /// When there is none of this path or path's end, or more than one.
    pub fn recorder(&self, path: &str) -> Arc<Recorder> {
        let all = self.hub().recorders();
        let ends = |recorder: &&Arc<Recorder>| {
            let rest = recorder.path_text().strip_suffix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        match all.iter().filter(ends).collect::<Vec<_>>()[..] {
            [recorder] => Arc::clone(recorder),
            ref found => panic!(
                "{} recorders are called {path}; there are:\n{}",
                found.len(),
                all.iter().map(|one| format!("  {}\n", one.path_text())).collect::<String>()
            ),
        }
    }

    /// Waits until an actor's recorder holds a message of this name with this outcome.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn await_message(&self, path: &str, message: &str, outcome: Outcome) -> Entry {
        let recorder = self.recorder(path);
        let wanted = format!("{path} has {message} on record as {}", outcome.name());
        self.until_some(&wanted, |_| {
            let ring = recorder.ring();
            ring.into_iter().find(|entry| entry.message == message && entry.outcome == outcome)
        })
    }

    /// The state of everything and what happened lately, for people.
    pub fn sight(&self) -> String {
        let mut text = format!("seed {}\n", self.seed());
        if let Some(status) = self.handles().log().map(PartitionApi::describe) {
            text += &format!("log/0: {} {}\n", status.state.name(), status.reason);
        }
        for trouble in self.cluster().status().troubles {
            text += &format!("  {trouble}\n");
        }
        for place in places(&self.tree().status()) {
            let TreeStatus { path, state, generation, in_flight, refused, .. } = place;
            text += &format!(
                "  {path}: {state}, life {generation}, {in_flight} in flight, {refused} refused\n"
            );
        }
        let (events, missed) = self.handles().history.lately(EVENTS_SHOWN);
        text += &show(&events);
        match missed {
            0 => text,
            missed => format!("{text}({missed} events were missed)\n"),
        }
    }

    // -- hurting

    /// Does something bad to an actor, within its own task. Returns the moment before.
    ///
    /// # Panics
    /// When there is no such actor, or no life of it in time to do it to.
    pub fn inject(&self, path: &str, fault: Fault) -> Mark {
        let full = self.path(path);
        let mark = self.mark();
        self.until_some(&format!("{full} has a life"), |node| {
            match block_on(node.tree().inject(&full, fault.clone())) {
                Ok(()) => Some(()),
                Err(TreeError::NotNow { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        });
        mark
    }

    /// Lets something happen to the `n`-th message of this name that the actor takes from now on.
    ///
    /// # Panics
    /// When there is no such actor.
    pub fn on_message(&self, path: &str, message: &str, n: u32, mishap: Mishap) {
        self.recorder(path).plan_nth(Some(message), mishap, n);
    }

    /// The simulated disk that its log is on.
    ///
    /// # Panics
    /// When it was started without one: see [`TestNodeBuilder::sim_disk`].
    pub fn sim_disk(&self) -> &SimDisk {
        let disk = self.kept().sim_disk.as_ref();
        disk.expect("the node was built with sim_disk(…), to be able to fail it")
    }

    // -- using

    /// Appends one record and waits for the answer.
    ///
    /// # Errors
    /// As a producer would be told.
    pub fn append(&self, value: impl Into<Vec<u8>>) -> Result<Ack, ProduceError> {
        let record = Record::of_value(value.into(), Timestamp(0));
        block_on(self.log().propose_records(vec![record])?)
    }

    /// The values of all records that are committed.
    ///
    /// # Errors
    /// As a reader would be told.
    ///
    /// # Panics
    /// When offsets are not dense.
    pub fn values(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        let log = self.log();
        // A partition that has begun to serve hears a moment later how much of it is committed.
        self.until_some("it is known how much is committed", |_| {
            let read = block_on(log.read_records(log.start_offset(), 1, 1));
            let serves = log.describe().state == PartitionState::Serving;
            match read {
                Err(ReadError::Unavailable { .. }) if serves => None,
                Ok(_) | Err(_) => Some(()),
            }
        });
        let (mut from, end) = (log.start_offset(), log.high_watermark());
        let mut values = Vec::new();
        while from < end {
            for (offset, record) in block_on(log.read_records(from, 10_000, 1 << 20))? {
                assert_eq!(offset, from, "offsets are dense");
                values.push(record.value.map(|value| value.to_vec()).unwrap_or_default());
                from = Offset(offset.0 + 1);
            }
        }
        Ok(values)
    }

    /// Begins to produce and consume through gRPC clients.
    pub fn load(&self, plan: LoadPlan) -> Load {
        Load::start(Aim::at(self.rpc_addr()), plan, self.kept().patience)
    }

    // -- ending

    /// Stops it in order.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) -> Stopped {
        let grace = self.settings().shutdown.grace;
        self.end(Some(grace))
    }

    /// Ends it as if its process were killed: nothing it still does reaches a file, and no thread
    /// of it is left.
    ///
    /// # Panics
    /// When its threads do not end in time.
    pub fn crash(mut self) -> Stopped {
        self.life().machine.switch_off();
        let stopped = self.end(None);
        stopped.await_threads();
        stopped
    }

    /// Ends it as if the power were cut: what was not synced is kept, lost or torn by the seed.
    ///
    /// # Panics
    /// When its log is not on a simulated disk, or its threads do not end in time.
    pub fn power_cut(mut self, mode: CrashMode) -> Stopped {
        let after = self.sim_disk().crash(self.seed(), mode);
        let mut stopped = self.end(None);
        stopped.await_threads();
        stopped.sim_disk(after);
        stopped
    }

    /// What would count as left behind, were it there after the end.
    pub(super) fn remains(&self) -> Remains {
        let Kept { settings, sim_disk, .. } = self.kept();
        Remains::of(self.handles(), &settings.data_dir, sim_disk.clone())
    }

    fn end(&mut self, grace: Option<Duration>) -> Stopped {
        let remains = self.remains();
        let life = self.live.take().expect("a node ends once");
        let kept = self.kept.take().expect("taken together");
        let Life { thread, handles, machine: _ } = life;
        let patience = kept.patience + 2 * grace.unwrap_or_default();
        let is_over = thread.end(grace, patience);
        kept.story.ends();
        drop(handles);
        let stopped = Stopped { kept: Some(kept), remains };
        assert!(is_over, "the node did not end within {patience:?}");
        stopped
    }

    pub(super) fn log_if_here(&self) -> Option<&PartitionHandle> {
        self.handles().log()
    }

    fn life(&self) -> &Life {
        self.live.as_ref().expect("a node that is stopped is consumed")
    }

    fn handles(&self) -> &Handles {
        &self.life().handles
    }

    fn kept(&self) -> &Kept {
        self.kept.as_ref().expect("a node that is stopped is consumed")
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        story::tell_if_panicking();
        if let Some(Life { thread, .. }) = self.live.take() {
            // Whether it ends is for those to judge who stop it.
            thread.end(Some(Duration::ZERO), Duration::from_secs(10));
        }
    }
}

impl fmt::Debug for TestNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestNode({})", self.rpc_addr())
    }
}

fn places(status: &TreeStatus) -> Vec<&TreeStatus> {
    let mut all = vec![status];
    let mut next = 0;
    while let Some(place) = all.get(next).copied() {
        all.extend(&place.children);
        next += 1;
    }
    all
}

fn show(events: &[Event]) -> String {
    events.iter().map(|event| format!("{}\n", Line(event))).collect()
}
