//! The running tree: one task on the control thread that learns what happens, asks each
//! supervisor's policy, and carries out what it decides.

mod carry;
mod commands;
mod crash;

use super::exit::contain;
use super::life::{Hold, Order, Runner};
use super::place::Shard;
use super::policy::{ChildId, Decision, Policy, View};
use super::slot::{Vitals, locked};
use super::tree::{Shared, Stage};
use super::watchdog::{CONTROL_BEAT, ControlWatch, Reading, Verdict, Watch};
use super::{
    ActorPath, ChildSpec, Escalation, EventKind, ExitReason, Fault, State, SupervisorSpec,
    TreeError,
};
use crate::model::{Chance, Timestamp};
use crate::observe::PastExit;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

type Done = oneshot::Sender<Result<(), TreeError>>;

/// The way to the tree.
#[derive(Clone)]
pub(super) struct Inbox(mpsc::UnboundedSender<Input>);

impl Inbox {
    pub(super) fn new(sender: mpsc::UnboundedSender<Input>) -> Self {
        Self(sender)
    }

    pub(super) fn send(&self, input: Input) {
        // A tree that has ended needs no news; who waits for an answer watches for its end.
        drop(self.0.send(input));
    }
}

/// What the tree learns.
pub(super) enum Input {
    Command(Command),
    Started { id: u64, generation: u64 },
    Exited { id: u64, generation: u64, reason: ExitReason },
}

/// What the tree is told to do.
pub(super) enum Command {
    AddSupervisor {
        id: u64,
        parent: Option<u64>,
        spec: Box<SupervisorSpec>,
        vitals: Arc<Vitals>,
    },
    AddActor {
        id: u64,
        parent: u64,
        spec: Box<ChildSpec>,
        vitals: Arc<Vitals>,
        runner: Box<dyn Runner>,
    },
    Remove {
        id: u64,
        done: Done,
    },
    Inject {
        id: u64,
        fault: Fault,
        done: Done,
    },
    Restart {
        id: u64,
        done: Done,
    },
    Quarantine {
        id: u64,
        reason: String,
        done: Done,
    },
    Release {
        id: u64,
        done: Done,
    },
    Shutdown,
}

struct Node {
    parent: Option<u64>,
    vitals: Arc<Vitals>,
    /// Since when it is quarantined by its own policy or its parent's.
    quarantined_at: Timestamp,
    /// Its last exits, the oldest first.
    exits: VecDeque<PastExit>,
    body: Body,
}

enum Body {
    Supervisor {
        policy: Policy,
        children: BTreeSet<ChildId>,
        /// Who was to blame when it gave up.
        blame: Option<ActorPath>,
    },
    Actor {
        runner: Box<dyn Runner>,
        spec: Box<ChildSpec>,
        life: Option<(Hold, Watch)>,
        /// The last life whose exit was seen.
        ended: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A supervisor's crashed child may start again.
    Wake { supervisor: u64 },
    /// A life was to end by now.
    Overdue { id: u64, generation: u64, aborted: bool },
    /// Time to look whether a life gets on.
    Look { id: u64, generation: u64 },
    /// Time for the control thread's own sign.
    Beat,
}

/// The tree while it runs.
pub(super) struct Tree {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Input>,
    nodes: HashMap<u64, Node>,
    root: u64,
    timers: BinaryHeap<Reverse<(Duration, Timer)>>,
    chance: Chance,
    /// No life of a removed child had a generation above this: a child that is added again under
    /// the same path goes on counting, as fences must never see a generation twice.
    generation_floor: u64,
    removals: HashMap<u64, Vec<Done>>,
    todo: VecDeque<(u64, Decision)>,
    stale: BTreeSet<u64>,
    outcome: Option<Result<(), Escalation>>,
    watch: ControlWatch,
}

/// Says that the tree is over, in whatever way its task ends.
struct LastWord {
    shared: Arc<Shared>,
    outcome: Result<(), Escalation>,
}

impl LastWord {
    fn new(shared: Arc<Shared>) -> Self {
        let path = ActorPath::root("tree");
        let reason = "the task that runs the tree ended".to_owned();
        Self { shared, outcome: Err(Escalation { path, reason }) }
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        for vitals in locked(&self.shared.registry).all() {
            let mut facts = vitals.facts();
            if !matches!(facts.state, State::Quarantined { .. }) {
                facts.state = State::Stopped;
            }
        }
        self.shared.stage.send_replace(Stage::Over(self.outcome.clone()));
    }
}

impl Tree {
    pub(super) fn new(shared: Arc<Shared>, inbox: mpsc::UnboundedReceiver<Input>) -> Self {
        let watch = ControlWatch::start(shared.environment.logger.clone());
        *locked(&shared.watchdog) = watch.trace();
        Self {
            chance: Chance::new(shared.environment.seed),
            shared,
            inbox,
            nodes: HashMap::new(),
            root: 0,
            timers: BinaryHeap::new(),
            generation_floor: 0,
            removals: HashMap::new(),
            todo: VecDeque::new(),
            stale: BTreeSet::new(),
            outcome: None,
            watch,
        }
    }

    /// Runs until the root is done or gives up.
    pub(super) async fn run(mut self) {
        let mut last_word = LastWord::new(Arc::clone(&self.shared));
        // What was added before the start is in the inbox already; the root comes first.
        while let Ok(input) = self.inbox.try_recv() {
            self.learn(input);
        }
        self.arm(CONTROL_BEAT, Timer::Beat);
        let now = self.now();
        self.nodes[&self.root].vitals.facts().generation = 1;
        self.decide(self.root, |policy, _| policy.start(now));
        loop {
            self.settle();
            if let Some(outcome) = self.outcome.take() {
                last_word.outcome = outcome;
                return;
            }
            let now = self.now();
            let wait = self
                .timers
                .peek()
                .map_or(CONTROL_BEAT, |Reverse((at, _))| at.saturating_sub(now).min(CONTROL_BEAT));
            tokio::select! {
                biased;
                input = self.inbox.recv() => {
                    if let Some(input) = input {
                        self.learn(input);
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            self.fire_timers();
        }
    }

    fn now(&self) -> Duration {
        self.shared.environment.clock.monotonic()
    }

    fn arm(&mut self, after: Duration, timer: Timer) {
        let at = self.now() + after;
        self.timers.push(Reverse((at, timer)));
    }

    fn learn(&mut self, input: Input) {
        match input {
            Input::Command(command) => self.obey(command),
            Input::Started { id, generation } => self.actor_started(id, generation),
            Input::Exited { id, generation, reason } => self.actor_exited(id, generation, reason),
        }
        self.settle();
    }

    /// Lets a supervisor's policy decide; what it decides is carried out by [`Tree::settle`].
    fn decide(
        &mut self,
        supervisor: u64,
        event: impl FnOnce(&mut Policy, Duration) -> Vec<Decision>,
    ) {
        let now = self.now();
        if let Some(Node { body: Body::Supervisor { policy, .. }, .. }) =
            self.nodes.get_mut(&supervisor)
        {
            let decisions = event(policy, now);
            self.todo.extend(decisions.into_iter().map(|decision| (supervisor, decision)));
            self.stale.insert(supervisor);
        }
    }

    /// Carries out decisions, and those that follow from them, until there are none; then lets
    /// everybody see the result.
    fn settle(&mut self) {
        while let Some((supervisor, decision)) = self.todo.pop_front() {
            self.carry_out(supervisor, decision);
        }
        for supervisor in std::mem::take(&mut self.stale) {
            self.publish(supervisor);
        }
    }

    fn fire_timers(&mut self) {
        let now = self.now();
        while self.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, timer))) = self.timers.pop() else { return };
            match timer {
                Timer::Wake { supervisor } => self.decide(supervisor, Policy::wake),
                Timer::Overdue { id, generation, aborted } => {
                    self.overdue(id, generation, aborted);
                }
                Timer::Look { id, generation } => self.look(id, generation),
                Timer::Beat => {
                    self.watch.beat();
                    self.arm(CONTROL_BEAT, Timer::Beat);
                }
            }
            self.settle();
        }
    }

    /// Makes the states that callers see those that the policy has decided on.
    fn publish(&self, supervisor: u64) {
        let Some(node) = self.nodes.get(&supervisor) else { return };
        let Body::Supervisor { policy, children, .. } = &node.body else { return };
        let mine = node.vitals.facts().state.clone();
        for id in children {
            let Some(child) = self.nodes.get(id) else { continue };
            let since = match &mine {
                State::Quarantined { since, .. } => *since,
                _ => child.quarantined_at,
            };
            let mut state = match policy.view(*id) {
                View::Starting => State::Starting,
                View::Running => State::Running,
                View::Stopping => State::Stopping,
                View::Restarting { until } => State::Restarting { until },
                View::Quarantined { reason } => State::Quarantined { reason, since },
                View::Stopped if policy.is_down() => match &mine {
                    // One that is starting and down has not begun: its children's turn is to come.
                    State::Running => State::Stopped,
                    other => other.clone(),
                },
                View::Stopped => State::Stopped,
            };
            if let Body::Supervisor { policy, .. } = &child.body
                && let Some(reason) = policy.quarantined()
                && !matches!(state, State::Quarantined { .. })
            {
                let (reason, since) = (reason.to_owned(), child.quarantined_at);
                state = State::Quarantined { reason, since };
            }
            let changed = {
                let mut facts = child.vitals.facts();
                let changed = facts.state != state;
                facts.state = state;
                changed
            };
            if changed {
                self.publish(*id);
            }
        }
    }
}
