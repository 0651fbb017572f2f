//! Who restarts, when, after how long, and when it is given up: one supervisor's decisions.
//!
//! Pure. Facts come in with the time at which they were learned; [`Decision`]s come out and are
//! carried out by the tree. The policy never waits: it asks for a timer and is woken.
//!
//! Invariants: a child is started only when its previous life is known to have ended; an exit of
//! a past life changes nothing; within any window at most `restarts_max` crashes are answered with
//! a restart; `rest_for_one` and `one_for_all` start nothing of a group before all of it is down.

mod child;
mod decision;
#[cfg(test)]
mod story_tests;
#[cfg(test)]
mod tests;

use super::spec::{Backoff, Exhausted, Order, Restart, Strategy, SupervisorSpec};
use super::{ExitReason, Intensity};
use child::{Record, State};
pub use decision::{ChildId, Decision, View};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
enum Goal {
    /// Nothing lives and nothing is to live.
    Down,
    /// Everything that may live is to live.
    Up,
    /// Everything is to end, and then this.
    Stop(After),
}

#[derive(Debug, Clone, PartialEq)]
enum After {
    Done,
    Escalate { child: ChildId, reason: ExitReason },
    Quarantine,
    StartAgain,
}

/// Children from `first` on are to end, and to be started again after `until`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    first: ChildId,
    until: Duration,
}

/// One supervisor's state.
#[derive(Debug)]
pub struct Policy {
    strategy: Strategy,
    order: Order,
    intensity: Intensity,
    exhausted: Exhausted,
    /// Boxed: most supervisors have two or three, and a node of the tree has room for eleven.
    children: BTreeMap<ChildId, Box<Record>>,
    goal: Goal,
    group: Option<Group>,
    quarantine: Option<String>,
    crashes: VecDeque<Duration>,
    up_said: bool,
    out: Vec<Decision>,
}

impl Policy {
    /// A supervisor without children that is not started.
    pub fn new(spec: &SupervisorSpec) -> Self {
        Self {
            strategy: spec.strategy,
            // Children that depend on one another never go together.
            order: if spec.strategy == Strategy::OneForOne { spec.order } else { Order::InTurn },
            intensity: spec.intensity,
            exhausted: spec.exhausted,
            children: BTreeMap::new(),
            goal: Goal::Down,
            group: None,
            quarantine: None,
            crashes: VecDeque::new(),
            up_said: false,
            out: Vec::new(),
        }
    }

    /// A child was added. Its first life will be the one after `generation`.
    pub fn add(
        &mut self,
        child: ChildId,
        restart: Restart,
        backoff: Backoff,
        generation: u64,
        now: Duration,
    ) -> Vec<Decision> {
        self.children.insert(child, Box::new(Record::new(restart, backoff, generation)));
        self.step(now)
    }

    /// The supervisor is to start.
    pub fn start(&mut self, now: Duration) -> Vec<Decision> {
        if self.goal == Goal::Down {
            self.begin();
        }
        self.step(now)
    }

    /// The supervisor is to stop; [`Decision::Done`] follows.
    pub fn stop(&mut self, now: Duration) -> Vec<Decision> {
        self.goal = Goal::Stop(After::Done);
        self.step(now)
    }

    /// A timer went off.
    pub fn wake(&mut self, now: Duration) -> Vec<Decision> {
        self.step(now)
    }

    /// A life has begun: the child's factory has returned.
    pub fn started(&mut self, child: ChildId, generation: u64, now: Duration) -> Vec<Decision> {
        if let Some(record) = self.children.get_mut(&child)
            && record.generation == generation
            && record.state == State::Starting
        {
            record.state = State::Live;
            record.started_at = now;
            record.fresh = false;
        }
        self.step(now)
    }

    /// A life has ended. `chance`, from 0 to 1, decides on the jitter.
    pub fn exited(
        &mut self,
        child: ChildId,
        generation: u64,
        reason: &ExitReason,
        chance: f64,
        now: Duration,
    ) -> Vec<Decision> {
        let going_down = self.is_going_down(child);
        let Some(record) = self.children.get_mut(&child) else { return Vec::new() };
        if record.generation != generation || !record.state.is_active() {
            return Vec::new();
        }
        let asked = record.state == State::Stopping;
        record.state = State::Idle;
        record.fresh = false;
        if record.removing {
            self.children.remove(&child);
            self.out.push(Decision::Removed { child });
        } else if reason.forbids_restart() {
            self.give_up(child, reason);
        } else if record.restart == Restart::Temporary {
            record.state = State::Finished;
        } else if asked || going_down {
            // It ended because something else did: one incident is counted once.
        } else if record.restart == Restart::Transient && !reason.is_crash() {
            record.state = State::Finished;
        } else {
            self.crashed(child, reason, chance, now);
        }
        self.step(now)
    }

    /// Stops and starts a child, and those that depend on it. Not counted as a crash. With `None`,
    /// all children. Does nothing to what is quarantined or stopped.
    pub fn restart(&mut self, child: Option<ChildId>, now: Duration) -> Vec<Decision> {
        if self.goal == Goal::Up {
            match child {
                Some(child) if self.strategy == Strategy::OneForOne => self.stop_one(child),
                _ => self.drain_from(child.map_or(0, |child| self.first_of(child)), now),
            }
        }
        self.step(now)
    }

    /// Takes a child, or all, out of service.
    pub fn quarantine(
        &mut self,
        child: Option<ChildId>,
        reason: &str,
        now: Duration,
    ) -> Vec<Decision> {
        match child {
            Some(child) if self.strategy == Strategy::OneForOne => {
                self.stop_one(child);
                if let Some(record) = self.children.get_mut(&child) {
                    record.quarantine = Some(reason.to_owned());
                    let (child, reason) = (Some(child), reason.to_owned());
                    self.out.push(Decision::Quarantine { child, reason });
                }
            }
            _ => self.quarantine_all(reason.to_owned()),
        }
        self.step(now)
    }

    /// Brings a child, or all, back into service, with a clean record. Returns `None` when the
    /// child (or this supervisor) is not in quarantine.
    pub fn release(&mut self, child: Option<ChildId>, now: Duration) -> Option<Vec<Decision>> {
        if self.quarantine.take().is_some() {
            match self.goal {
                Goal::Up => self.begin(),
                Goal::Stop(After::Quarantine) => self.goal = Goal::Stop(After::StartAgain),
                Goal::Stop(_) | Goal::Down => {}
            }
        } else {
            let record = self.children.get_mut(&child?)?;
            record.quarantine.take()?;
            record.forgive();
        }
        Some(self.step(now))
    }

    /// Ends a child for good; [`Decision::Removed`] follows.
    pub fn remove(&mut self, child: ChildId, now: Duration) -> Vec<Decision> {
        if self.children.get(&child).is_some_and(|record| record.state.is_active()) {
            self.stop_one(child);
            if let Some(record) = self.children.get_mut(&child) {
                record.removing = true;
            }
        } else if self.children.remove(&child).is_some() {
            self.out.push(Decision::Removed { child });
        }
        self.step(now)
    }

    /// Why the whole supervisor is out of service, if it is.
    pub fn quarantined(&self) -> Option<&str> {
        self.quarantine.as_deref()
    }

    /// Whether children that fail depend on one another, so that they leave service together.
    pub fn is_one_domain(&self) -> bool {
        self.strategy != Strategy::OneForOne
    }

    /// Whether nothing lives here and nothing is to live.
    pub fn is_down(&self) -> bool {
        self.goal == Goal::Down
    }

    /// What a child is or does, as callers should see it.
    pub fn view(&self, child: ChildId) -> View {
        let Some(record) = self.children.get(&child) else { return View::Stopped };
        if let Some(reason) = self.quarantine.as_ref().or(record.quarantine.as_ref()) {
            return View::Quarantined { reason: reason.clone() };
        }
        let until = match (&self.goal, record.state) {
            (Goal::Down, _) | (Goal::Up, State::Finished) => return View::Stopped,
            (Goal::Stop(After::Done), state) if state.is_active() => return View::Stopping,
            (Goal::Stop(After::Done), _) => return View::Stopped,
            (Goal::Stop(_), _) => Duration::ZERO,
            (Goal::Up, State::Stopping) if record.removing => return View::Stopping,
            (Goal::Up, State::Live) if !self.is_going_down(child) => return View::Running,
            (Goal::Up, State::Waiting { until }) => until,
            (Goal::Up, _) => self.group.map_or(Duration::ZERO, |group| group.until),
        };
        if record.fresh && self.group.is_none() {
            return View::Starting;
        }
        View::Restarting { until }
    }

    fn begin(&mut self) {
        self.goal = Goal::Up;
        self.group = None;
        self.up_said = false;
        self.crashes.clear();
        self.children.values_mut().for_each(|record| record.forgive());
    }

    fn crashed(&mut self, child: ChildId, reason: &ExitReason, chance: f64, now: Duration) {
        let window = self.intensity.window;
        let Some(record) = self.children.get_mut(&child) else { return };
        let alone = self.strategy == Strategy::OneForOne && self.exhausted == Exhausted::Quarantine;
        let crashes = if alone { &mut record.crashes } else { &mut self.crashes };
        crashes.retain(|at| now.saturating_sub(*at) <= window);
        crashes.push_back(now);
        if crashes.len() > self.intensity.restarts_max as usize {
            return self.give_up(child, reason);
        }
        let until = now + record.next_wait(chance, window, now);
        if self.strategy == Strategy::OneForOne {
            record.state = State::Waiting { until };
        } else {
            self.drain_from(self.first_of(child), until);
        }
        self.out.push(Decision::ArmTimer { child, until });
    }

    /// The restarts granted are spent, or a restart would not help.
    fn give_up(&mut self, child: ChildId, reason: &ExitReason) {
        if self.goal == Goal::Stop(After::Done) || self.goal == Goal::Stop(After::Quarantine) {
            return;
        }
        match (self.exhausted, self.strategy) {
            (Exhausted::Quarantine, Strategy::OneForOne) => {
                let why = reason.to_string();
                if let Some(record) = self.children.get_mut(&child) {
                    record.quarantine = Some(why.clone());
                }
                self.out.push(Decision::Quarantine { child: Some(child), reason: why });
            }
            (Exhausted::Quarantine, _) => self.quarantine_all(reason.to_string()),
            (Exhausted::Escalate, _) => {
                self.goal = Goal::Stop(After::Escalate { child, reason: reason.clone() });
            }
        }
    }

    fn quarantine_all(&mut self, reason: String) {
        if self.quarantine.is_none() {
            self.quarantine = Some(reason.clone());
            self.out.push(Decision::Quarantine { child: None, reason });
        }
        if self.goal == Goal::Up {
            self.goal = Goal::Stop(After::Quarantine);
        }
    }

    fn stop_one(&mut self, child: ChildId) {
        let Some(record) = self.children.get_mut(&child) else { return };
        match record.state {
            State::Starting | State::Live => {
                record.state = State::Stopping;
                self.out.push(Decision::Stop { child });
            }
            State::Waiting { .. } | State::Finished => record.state = State::Idle,
            State::Idle | State::Stopping => {}
        }
    }

    fn drain_from(&mut self, first: ChildId, until: Duration) {
        let known = self.group.unwrap_or(Group { first, until });
        let (first, until) = (first.min(known.first), until.max(known.until));
        self.group = Some(Group { first, until });
    }

    fn first_of(&self, child: ChildId) -> ChildId {
        if self.strategy == Strategy::OneForAll { 0 } else { child }
    }

    fn is_going_down(&self, child: ChildId) -> bool {
        matches!(self.goal, Goal::Stop(_)) || self.group.is_some_and(|group| child >= group.first)
    }

    /// Does whatever can be done now towards the goal, and hands over what was decided.
    fn step(&mut self, now: Duration) -> Vec<Decision> {
        match self.goal.clone() {
            Goal::Down => {}
            Goal::Stop(after) => {
                if self.drain(0) {
                    self.conclude(after, now);
                }
            }
            Goal::Up => self.rise(now),
        }
        std::mem::take(&mut self.out)
    }

    fn conclude(&mut self, after: After, now: Duration) {
        self.goal = Goal::Down;
        self.group = None;
        match after {
            After::Done => self.out.push(Decision::Done),
            After::Escalate { child, reason } => {
                self.out.push(Decision::Escalate { child, reason });
            }
            // To its parent a quarantined supervisor is up: it answers, with a refusal. Said at once: there
            // may be no further event to say it at, and the parent waits.
            After::Quarantine => {
                self.goal = Goal::Up;
                self.rise(now);
            }
            After::StartAgain => {
                self.begin();
                self.rise(now);
            }
        }
    }

    fn rise(&mut self, now: Duration) {
        if self.quarantine.is_none() {
            if let Some(group) = self.group {
                if !self.drain(group.first) || now < group.until {
                    return;
                }
                self.group = None;
            }
            self.start_what_may(now);
            if !self.is_settled() {
                return;
            }
        }
        if !self.up_said {
            self.up_said = true;
            self.out.push(Decision::Up);
        }
    }

    /// Ends the children from `first` on. Returns whether all have ended.
    fn drain(&mut self, first: ChildId) -> bool {
        let in_turn = self.order == Order::InTurn;
        let mut down = true;
        for (&child, record) in self.children.range_mut(first..).rev() {
            match record.state {
                State::Starting | State::Live => {
                    record.state = State::Stopping;
                    self.out.push(Decision::Stop { child });
                    down = false;
                }
                State::Stopping => down = false,
                State::Waiting { .. } => record.state = State::Idle,
                State::Idle | State::Finished => {}
            }
            if in_turn && !down {
                return false;
            }
        }
        down
    }

    fn start_what_may(&mut self, now: Duration) {
        let dependent = self.is_one_domain();
        let in_turn = self.order == Order::InTurn;
        for (&child, record) in &mut self.children {
            let ripe = match record.state {
                State::Idle => true,
                State::Waiting { until } => until <= now,
                State::Starting | State::Live | State::Stopping | State::Finished => false,
            };
            if ripe && record.quarantine.is_none() {
                record.generation += 1;
                record.state = State::Starting;
                let generation = record.generation;
                self.out.push(Decision::Start { child, generation });
            }
            // An independent child waits for its elder only at its first start: later, a slow
            // one must not keep the others down.
            if record.state == State::Starting && (dependent || (in_turn && record.fresh)) {
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let dependent = self.is_one_domain();
        self.children.values().all(|record| match record.state {
            State::Idle => record.quarantine.is_some(),
            State::Starting => !dependent && !record.fresh,
            State::Live | State::Stopping | State::Waiting { .. } | State::Finished => true,
        })
    }
}
