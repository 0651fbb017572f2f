//! Carrying out decisions, and learning what became of them.

use super::*;
use std::sync::atomic::Ordering;

impl Tree {
    pub(super) fn carry_out(&mut self, supervisor: u64, decision: Decision) {
        match decision {
            Decision::Start { child, generation } => self.start_child(child, generation),
            Decision::Stop { child } => self.stop_child(child),
            Decision::ArmTimer { child, until } => {
                self.timers.push(Reverse((until, Timer::Wake { supervisor })));
                self.emit(child, EventKind::Restarting { until });
            }
            Decision::Quarantine { child, reason } => {
                self.quarantined(child.unwrap_or(supervisor), reason);
            }
            Decision::Up => self.supervisor_up(supervisor),
            Decision::Done => self.supervisor_down(supervisor, ExitReason::Normal),
            Decision::Escalate { child, reason } => self.escalated(supervisor, child, &reason),
            Decision::Removed { child } => self.forget(supervisor, child),
        }
    }

    pub(super) fn emit(&self, id: u64, kind: EventKind) {
        if let Some(node) = self.nodes.get(&id) {
            let generation = node.vitals.facts().generation;
            self.shared.emit(&node.vitals.path, generation, kind);
        }
    }

    fn start_child(&mut self, id: u64, generation: u64) {
        let now = self.now();
        let logger = self.shared.environment.logger.clone();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let is_again = {
            let mut facts = node.vitals.facts();
            let is_again = facts.generation != 0;
            facts.restarts += u64::from(is_again);
            facts.generation = generation;
            facts.started_at = None;
            is_again
        };
        match &mut node.body {
            Body::Supervisor { .. } => self.decide(id, Policy::start),
            Body::Actor { runner, spec, life, .. } => {
                if is_again {
                    locked(&self.shared.tally).restarted(&node.vitals.path);
                }
                let inbox = &self.shared.inbox;
                match contain(|| runner.start(id, generation, inbox, &logger)) {
                    Ok(hold) => {
                        let watch = Watch::new(spec.hang_after, id);
                        let interval = watch.interval();
                        *life = Some((hold, watch));
                        let look = Timer::Look { id, generation };
                        self.timers.push(Reverse((on_grid(now, interval), look)));
                    }
                    // No thread to be had, most likely: a crash like any other, tried again later.
                    Err(reason) => {
                        self.shared.inbox.send(Input::Exited { id, generation, reason });
                    }
                }
            }
        }
    }

    fn stop_child(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Body::Actor { spec, life, .. } = &mut node.body else {
            return self.decide(id, Policy::stop);
        };
        let grace = spec.shutdown_grace;
        if let Some((hold, _)) = life {
            let generation = hold.generation;
            hold.notes.account.close();
            // An actor that is gone has sent its notice.
            drop(hold.orders.unbounded_send(Order::Stop));
            self.arm(grace, Timer::Overdue { id, generation, aborted: false });
        }
    }

    /// A life that was to end has not. First it is aborted, then its thread is given up.
    pub(super) fn overdue(&mut self, id: u64, generation: u64, aborted: bool) {
        let Some(Node { body: Body::Actor { spec, life, .. }, vitals, .. }) =
            self.nodes.get_mut(&id)
        else {
            return;
        };
        let Some((hold, _)) = life.as_mut().filter(|(hold, _)| hold.generation == generation)
        else {
            return;
        };
        let grace = spec.shutdown_grace;
        if !aborted {
            hold.notes.settle(ExitReason::Killed);
            if let Some(kill) = hold.kill.take() {
                // An actor that is gone has sent its notice.
                kill.send(()).ok();
            }
            return self.arm(grace, Timer::Overdue { id, generation, aborted: true });
        }
        match hold.thread.clone() {
            Some(thread) => self.abandon(thread, id, ExitReason::Hung { silent_for: grace * 2 }),
            None => {
                slog::warn!(self.shared.environment.logger,
                    "an actor of the control thread does not end";
                    "actor" => %vitals.path, "generation" => generation);
                self.arm(grace.max(CONTROL_BEAT), Timer::Overdue { id, generation, aborted: true });
            }
        }
    }

    /// Looks whether a life gets on.
    pub(super) fn look(&mut self, id: u64, generation: u64) {
        let now = self.now();
        let Some(Node { body: Body::Actor { life, .. }, .. }) = self.nodes.get_mut(&id) else {
            return;
        };
        let Some((hold, watch)) = life.as_mut().filter(|(hold, _)| hold.generation == generation)
        else {
            return;
        };
        let reading = Reading::take(&hold.pulse, hold.notes.account.finished());
        let interval = watch.interval();
        match watch.look(reading, now) {
            Verdict::Patience => {}
            Verdict::Ask(number) => drop(hold.orders.unbounded_send(Order::GiveSign(number))),
            Verdict::Hung(silent_for) if hold.thread.is_some() => {
                let thread = hold.thread.clone().expect("just seen");
                return self.abandon(thread, id, ExitReason::Hung { silent_for });
            }
            Verdict::Stuck(silent_for) | Verdict::Hung(silent_for) => {
                hold.notes.settle(ExitReason::Hung { silent_for });
                if let Some(kill) = hold.kill.take() {
                    // An actor that is gone has sent its notice.
                    kill.send(()).ok();
                    self.arm(interval, Timer::Overdue { id, generation, aborted: true });
                }
            }
        }
        self.timers.push(Reverse((on_grid(now, interval), Timer::Look { id, generation })));
    }

    /// Who sits inside a call on a thread: when it stands still, that one holds it up, whoever was
    /// noticed first.
    fn sits_on(&self, (shard, thread): &(Arc<Shard>, u64)) -> Option<u64> {
        let sits = |node: &Node| {
            let Body::Actor { life: Some((hold, _)), .. } = &node.body else { return false };
            let on_it = hold.thread.as_ref();
            on_it.is_some_and(|(other, at)| Arc::ptr_eq(other, shard) && at == thread)
                && hold.pulse.in_poll.load(Ordering::Acquire)
        };
        self.nodes.iter().find(|(_, node)| sits(node)).map(|(id, _)| *id)
    }

    /// Gives up a thread and with it all that lives there.
    fn abandon(&mut self, (shard, thread): (Arc<Shard>, u64), noticed: u64, reason: ExitReason) {
        shard.abandon(thread);
        let place = (shard, thread);
        let culprit = self.sits_on(&place).unwrap_or(noticed);
        let (shard, thread) = place;
        let mut there: Vec<(u64, u64)> = Vec::new();
        for (&id, node) in &mut self.nodes {
            let Body::Actor { runner, life: Some((hold, _)), .. } = &mut node.body else {
                continue;
            };
            let on_it = hold.thread.as_ref();
            if !on_it.is_some_and(|(other, at)| Arc::ptr_eq(other, &shard) && *at == thread) {
                continue;
            }
            // From here on it can reach nobody, nobody waits for it, and nobody reaches it.
            let why = if id == culprit { reason.clone() } else { ExitReason::Abandoned };
            hold.notes.settle(why);
            hold.notes.witness(&node.vitals.recorder);
            hold.notes.account.end();
            runner.retract(hold.generation);
            if let Some(kill) = hold.kill.take() {
                kill.send(()).ok();
            }
            there.push((id, hold.generation));
        }
        slog::error!(self.shared.environment.logger, "a hung thread is given up and replaced";
            "shard" => shard.name(), "actors" => there.len(), "because" => %reason);
        // Elders first: within a group the exits of those after them are then not counted again.
        there.sort_unstable();
        for (id, generation) in there {
            self.emit(id, EventKind::Abandoned);
            let why = if id == culprit { reason.clone() } else { ExitReason::Abandoned };
            self.actor_exited(id, generation, why);
        }
    }

    pub(super) fn actor_started(&mut self, id: u64, generation: u64) {
        let now = self.now();
        let Some(Node { parent: Some(parent), vitals, body: Body::Actor { life, .. }, .. }) =
            self.nodes.get(&id)
        else {
            return;
        };
        if life.as_ref().is_none_or(|(hold, _)| hold.generation != generation) {
            return;
        }
        vitals.facts().started_at = Some(now);
        slog::debug!(self.shared.environment.logger, "actor started";
            "actor" => %vitals.path, "generation" => generation);
        let parent = *parent;
        self.emit(id, EventKind::Started);
        self.decide(parent, |policy, now| policy.started(id, generation, now));
    }

    pub(super) fn actor_exited(&mut self, id: u64, generation: u64, reason: ExitReason) {
        let chance = self.chance.fraction();
        let Some(Node { parent: Some(parent), vitals, body, .. }) = self.nodes.get_mut(&id) else {
            return;
        };
        let Body::Actor { life, ended, .. } = body else { return };
        // A life that was given up with its thread may send its own notice much later.
        if generation <= *ended || generation != vitals.facts().generation {
            return;
        }
        *ended = generation;
        let last = life.take().and_then(|(hold, _)| hold.notes.last());
        {
            let mut facts = vitals.facts();
            facts.started_at = None;
            facts.last_exit = Some(reason.clone());
        }
        vitals.set_account(None);
        log_exit(&self.shared.environment.logger, &vitals.path, generation, &reason);
        locked(&self.shared.tally).exited(&vitals.path, &reason);
        let parent = *parent;
        self.remember_exit(id, generation, &reason);
        self.report_exit(id, generation, &reason, last);
        self.emit(id, EventKind::Exited { reason: reason.clone() });
        self.decide(parent, |policy, now| policy.exited(id, generation, &reason, chance, now));
    }

    fn quarantined(&mut self, id: u64, reason: String) {
        let since = self.shared.environment.clock.wall();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.quarantined_at = since;
        slog::error!(self.shared.environment.logger, "quarantined";
            "actor" => %node.vitals.path, "because" => %reason);
        match node.parent {
            Some(parent) => drop(self.stale.insert(parent)),
            // Nobody above shows the root's state.
            None => {
                let reason = reason.clone();
                node.vitals.facts().state = State::Quarantined { reason, since };
            }
        }
        self.report_quarantine(id, &reason);
        self.emit(id, EventKind::Quarantined { reason });
    }

    fn supervisor_up(&mut self, id: u64) {
        let now = self.now();
        let Some(node) = self.nodes.get(&id) else { return };
        let (parent, generation) = (node.parent, node.vitals.facts().generation);
        node.vitals.facts().started_at = Some(now);
        self.emit(id, EventKind::Started);
        match parent {
            Some(parent) => {
                self.decide(parent, |policy, now| policy.started(id, generation, now));
            }
            None => {
                let mut facts = self.nodes[&id].vitals.facts();
                if !matches!(facts.state, State::Quarantined { .. }) {
                    facts.state = State::Running;
                }
                drop(facts);
                self.shared.stage.send_replace(Stage::Up);
            }
        }
    }

    fn supervisor_down(&mut self, id: u64, reason: ExitReason) {
        let chance = self.chance.fraction();
        let Some(node) = self.nodes.get(&id) else { return };
        let (parent, generation) = (node.parent, node.vitals.facts().generation);
        {
            let mut facts = node.vitals.facts();
            facts.started_at = None;
            facts.last_exit = Some(reason.clone());
        }
        self.remember_exit(id, generation, &reason);
        self.emit(id, EventKind::Exited { reason: reason.clone() });
        match parent {
            Some(parent) => {
                self.decide(parent, |policy, now| {
                    policy.exited(id, generation, &reason, chance, now)
                });
            }
            None => drop(self.outcome.get_or_insert(Ok(()))),
        }
    }

    fn escalated(&mut self, id: u64, child: u64, reason: &ExitReason) {
        let culprit = self.nodes.get(&child).map(|node| match &node.body {
            Body::Supervisor { blame: Some(blame), .. } => blame.clone(),
            Body::Supervisor { .. } | Body::Actor { .. } => node.vitals.path.clone(),
        });
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let path = culprit.unwrap_or_else(|| node.vitals.path.clone());
        if let Body::Supervisor { blame, .. } = &mut node.body {
            *blame = Some(path.clone());
        }
        slog::error!(self.shared.environment.logger, "supervisor gives up";
            "actor" => %node.vitals.path, "culprit" => %path, "because" => %reason);
        let text = reason.to_string();
        self.emit(id, EventKind::Escalated { reason: text.clone() });
        if id == self.root {
            self.outcome = Some(Err(Escalation { path: path.clone(), reason: text.clone() }));
        }
        let disposition = if reason.forbids_restart() {
            crate::model::Disposition::Quarantine
        } else {
            crate::model::Disposition::RebuildActor
        };
        // An escalation of an escalation says the same once.
        let reason = match reason {
            ExitReason::Failed { reason, .. } if path.as_str() != self.path_of(child) => {
                reason.clone()
            }
            _ => format!("{path} {text}"),
        };
        self.supervisor_down(id, ExitReason::Failed { reason, disposition });
    }

    fn path_of(&self, id: u64) -> &str {
        self.nodes.get(&id).map_or("", |node| node.vitals.path.as_str())
    }

    fn forget(&mut self, supervisor: u64, id: u64) {
        if let Some(Node { body: Body::Supervisor { children, .. }, .. }) =
            self.nodes.get_mut(&supervisor)
        {
            children.remove(&id);
        }
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            let Some(node) = self.nodes.remove(&id) else { continue };
            if let Body::Supervisor { children, .. } = &node.body {
                gone.extend(children);
            }
            let generation = {
                let mut facts = node.vitals.facts();
                facts.state = State::Stopped;
                facts.generation
            };
            self.generation_floor = self.generation_floor.max(generation);
            locked(&self.shared.registry).remove(id);
            self.stale.remove(&id);
        }
        for done in self.removals.remove(&id).into_iter().flatten() {
            // Who asked may have left.
            drop(done.send(Ok(())));
        }
    }
}

/// The next look, at a moment that looks of the same interval share: one wake-up serves them all.
fn on_grid(now: Duration, interval: Duration) -> Duration {
    let step = interval.as_nanos().max(1);
    let next = (now.as_nanos() / step + 1) * step;
    Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX))
}

/// Logs an exit, once. A backtrace is resolved elsewhere: that takes long, and this is the control
/// thread.
fn log_exit(logger: &slog::Logger, path: &ActorPath, generation: u64, reason: &ExitReason) {
    if !reason.is_crash() {
        slog::debug!(logger, "actor ended"; "actor" => %path, "generation" => generation);
        return;
    }
    slog::error!(logger, "actor died";
        "actor" => %path, "generation" => generation, "because" => %reason);
    if let ExitReason::Panic { backtrace: Some(trace), .. } = reason
        && slog::Drain::is_debug_enabled(logger)
    {
        let (logger, path, trace) = (logger.clone(), path.clone(), trace.clone());
        actix_rt::task::spawn_blocking(move || {
            slog::debug!(logger, "backtrace of a panic";
                "actor" => %path, "generation" => generation, "backtrace" => %trace);
        });
    }
}
