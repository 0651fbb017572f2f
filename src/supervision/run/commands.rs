//! What operators and builders tell the running tree.

use super::*;
use crate::supervision::{Backoff, Restart};

impl Tree {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::AddSupervisor { id, parent, spec, vitals } => {
                self.add_supervisor(id, parent, &spec, vitals);
            }
            Command::AddActor { id, parent, spec, vitals, runner } => {
                let (restart, backoff) = (spec.restart, spec.backoff);
                let body = Body::Actor { runner, spec, life: None, ended: 0 };
                self.add(id, parent, vitals, body, restart, backoff);
            }
            Command::Remove { id, done } => self.remove(id, done),
            Command::Inject { id, fault, done } => {
                let sent = self.inject(id, fault);
                drop(done.send(sent));
            }
            Command::Restart { id, done } => {
                let outcome = self.restart(id);
                drop(done.send(outcome));
            }
            Command::Quarantine { id, reason, done } => {
                let outcome = self.quarantine(id, &reason);
                drop(done.send(outcome));
            }
            Command::Release { id, done } => {
                let outcome = self.release(id);
                drop(done.send(outcome));
            }
            Command::Shutdown => {
                if let Some(root) = self.nodes.get(&self.root) {
                    root.vitals.facts().state = State::Stopping;
                }
                self.decide(self.root, Policy::stop);
            }
        }
    }

    fn add_supervisor(
        &mut self,
        id: u64,
        parent: Option<u64>,
        spec: &SupervisorSpec,
        vitals: Arc<Vitals>,
    ) {
        let policy = Policy::new(spec);
        let body = Body::Supervisor { policy, children: BTreeSet::new(), blame: None };
        match parent {
            Some(parent) => {
                self.add(id, parent, vitals, body, Restart::Permanent, spec.backoff);
            }
            None => {
                self.root = id;
                let quarantined_at = Timestamp::default();
                let exits = VecDeque::new();
                self.nodes.insert(id, Node { parent, vitals, quarantined_at, exits, body });
            }
        }
    }

    fn add(
        &mut self,
        id: u64,
        parent: u64,
        vitals: Arc<Vitals>,
        body: Body,
        restart: Restart,
        backoff: Backoff,
    ) {
        let Some(Node { body: Body::Supervisor { children, .. }, .. }) =
            self.nodes.get_mut(&parent)
        else {
            // Its supervisor was removed meanwhile.
            vitals.facts().state = State::Stopped;
            return locked(&self.shared.registry).remove(id);
        };
        children.insert(id);
        let floor = self.generation_floor;
        let (parent_id, quarantined_at, exits) =
            (Some(parent), Timestamp::default(), VecDeque::new());
        let node = Node { parent: parent_id, vitals, quarantined_at, exits, body };
        self.nodes.insert(id, node);
        self.decide(parent, |policy, now| policy.add(id, restart, backoff, floor, now));
    }

    fn refuse(&self, id: u64, verb: &'static str) -> TreeError {
        match self.nodes.get(&id) {
            None => TreeError::Ended,
            Some(node) => {
                let (path, facts) = (node.vitals.path.clone(), node.vitals.facts());
                TreeError::NotNow { path, verb, state: facts.state.to_string() }
            }
        }
    }

    fn remove(&mut self, id: u64, done: Done) {
        let parent = self.nodes.get(&id).and_then(|node| node.parent);
        let Some(parent) = parent else {
            let refusal = self.refuse(id, "remove");
            return drop(done.send(Err(refusal)));
        };
        self.removals.entry(id).or_default().push(done);
        self.decide(parent, |policy, now| policy.remove(id, now));
    }

    fn inject(&mut self, id: u64, fault: Fault) -> Result<(), TreeError> {
        let refusal = self.refuse(id, "inject a fault into");
        let Some(Node { body: Body::Actor { life: Some((hold, _)), .. }, .. }) =
            self.nodes.get(&id)
        else {
            return Err(refusal);
        };
        hold.orders.unbounded_send(Order::Suffer(fault)).map_err(|_| refusal)
    }

    fn restart(&mut self, id: u64) -> Result<(), TreeError> {
        let Some(node) = self.nodes.get(&id) else { return Err(TreeError::Ended) };
        if matches!(node.vitals.facts().state, State::Quarantined { .. } | State::Stopping) {
            return Err(self.refuse(id, "restart"));
        }
        match (&node.body, node.parent) {
            (Body::Actor { .. }, Some(parent)) => {
                self.decide(parent, |policy, now| policy.restart(Some(id), now));
            }
            _ => self.decide(id, |policy, now| policy.restart(None, now)),
        }
        Ok(())
    }

    fn quarantine(&mut self, id: u64, reason: &str) -> Result<(), TreeError> {
        let (supervisor, child) = self.domain_of(id).ok_or(TreeError::Ended)?;
        self.decide(supervisor, |policy, now| policy.quarantine(child, reason, now));
        Ok(())
    }

    /// The supervisor that decides on a place, and which of its children it is; `None` is all.
    fn domain_of(&self, id: u64) -> Option<(u64, Option<u64>)> {
        let node = self.nodes.get(&id)?;
        match (&node.body, node.parent) {
            (Body::Actor { .. }, Some(parent)) => {
                let Body::Supervisor { policy, .. } = &self.nodes.get(&parent)?.body else {
                    return None;
                };
                Some((parent, if policy.is_one_domain() { None } else { Some(id) }))
            }
            _ => Some((id, None)),
        }
    }

    fn release(&mut self, id: u64) -> Result<(), TreeError> {
        let (supervisor, child) = self.domain_of(id).ok_or(TreeError::Ended)?;
        let above = self.nodes.get(&supervisor).and_then(|node| node.parent);
        let mut released = self.try_release(supervisor, child);
        if !released && child.is_none() {
            // A supervisor may have been quarantined by its parent, as one of many.
            released = above.is_some_and(|above| self.try_release(above, Some(supervisor)));
        }
        if !released {
            return Err(self.refuse(id, "release"));
        }
        // A root's own state is shown by nobody above it.
        if supervisor == self.root && child.is_none() {
            self.nodes[&self.root].vitals.facts().state = State::Running;
        }
        self.stale.extend(above);
        self.emit(id, EventKind::Released);
        Ok(())
    }

    fn try_release(&mut self, supervisor: u64, child: Option<u64>) -> bool {
        let mut known = false;
        self.decide(supervisor, |policy, now| {
            let released = policy.release(child, now);
            known = released.is_some();
            released.unwrap_or_default()
        });
        known
    }
}
