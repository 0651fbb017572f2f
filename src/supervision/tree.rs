//! The handle on a running tree: looking at it, acting on it, waiting for its end.

use super::run::{Command, Inbox, Input};
use super::slot::{Vitals, locked};
use super::{
    ActorPath, Environment, Escalation, Event, EventKind, Fault, Kind, Supervisor, Tally,
    TreeError, TreeStatus,
};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Events that a slow reader may be behind before it loses the oldest.
const EVENTS_MAX: usize = 1024;

/// Where the tree stands as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    Starting,
    Up,
    Over(Result<(), Escalation>),
}

/// What handles, references and the running tree share.
pub(super) struct Shared {
    pub(super) environment: Environment,
    pub(super) inbox: Inbox,
    /// Taken by the tree when it starts.
    pub(super) unread: Mutex<Option<mpsc::UnboundedReceiver<Input>>>,
    pub(super) registry: Mutex<Registry>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) tally: Mutex<Tally>,
    pub(super) stage: watch::Sender<Stage>,
    /// What the watchdog's thread holds.
    pub(super) watchdog: Mutex<Weak<AtomicU64>>,
    ids: AtomicU64,
}

/// Who is in the tree. Written by whoever adds, so that a name is taken at once.
#[derive(Default)]
pub(super) struct Registry {
    members: BTreeMap<u64, Member>,
    by_path: HashMap<ActorPath, u64>,
}

pub(super) struct Member {
    parent: Option<u64>,
    kind: Kind,
    /// Whether its children go out of service together.
    is_one_domain: bool,
    vitals: Arc<Vitals>,
}

impl Registry {
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            self.by_path.remove(&member.vitals.path);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Vitals>> {
        self.members.values().map(|member| &member.vitals)
    }
}

impl Shared {
    pub(super) fn new(environment: Environment) -> Arc<Self> {
        // Unbounded, yet bounded by what sends: one exit and one start per life, and the commands
        // of operators.
        let (sender, unread) = mpsc::unbounded_channel();
        Arc::new(Self {
            environment,
            inbox: Inbox::new(sender),
            unread: Mutex::new(Some(unread)),
            registry: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            tally: Mutex::default(),
            stage: watch::channel(Stage::Starting).0,
            watchdog: Mutex::default(),
            ids: AtomicU64::new(1),
        })
    }

    /// Takes a name. Returns the new member's id and vitals.
    pub(super) fn register(
        &self,
        path: &ActorPath,
        parent: Option<u64>,
        kind: Kind,
        is_one_domain: bool,
    ) -> Result<(u64, Arc<Vitals>), TreeError> {
        let mut registry = locked(&self.registry);
        if registry.by_path.contains_key(path) {
            return Err(TreeError::Exists { path: path.clone() });
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let vitals = {
            let Environment { clock, hub, .. } = &self.environment;
            Vitals::new(path.clone(), Arc::clone(clock), hub)
        };
        registry.by_path.insert(path.clone(), id);
        let member = Member { parent, kind, is_one_domain, vitals: Arc::clone(&vitals) };
        registry.members.insert(id, member);
        Ok((id, vitals))
    }

    pub(super) fn emit(&self, path: &ActorPath, generation: u64, kind: EventKind) {
        let at = self.environment.clock.monotonic();
        // Nobody listening is the usual case.
        drop(self.events.send(Event { path: path.clone(), generation, at, kind }));
    }

    fn find(&self, path: &ActorPath) -> Result<(u64, Kind), TreeError> {
        let registry = locked(&self.registry);
        let id = registry.by_path.get(path).copied();
        let found = id.and_then(|id| Some((id, registry.members.get(&id)?.kind)));
        found.ok_or_else(|| TreeError::Unknown { path: path.clone() })
    }

    fn status(&self) -> Option<TreeStatus> {
        let now = self.environment.clock.monotonic();
        let registry = locked(&self.registry);
        let mut below: HashMap<u64, Vec<TreeStatus>> = HashMap::new();
        // Children are younger than their parents: from the youngest up, all children of a member
        // are complete when it is reached.
        for (id, member) in registry.members.iter().rev() {
            let facts = member.vitals.facts().clone();
            let mut children = below.remove(id).unwrap_or_default();
            children.reverse();
            let status = TreeStatus {
                path: member.vitals.path.clone(),
                kind: member.kind,
                state: facts.state,
                generation: facts.generation,
                restarts: facts.restarts,
                last_exit: facts.last_exit,
                uptime: facts.started_at.map(|at| now.saturating_sub(at)),
                in_flight: member.vitals.in_flight(),
                refused: member.vitals.refused(),
                children,
            };
            match member.parent {
                Some(parent) => below.entry(parent).or_default().push(status),
                None => return Some(status),
            }
        }
        None
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// Looks at a running tree and acts on it; from any thread. Cheap to clone. Dropping it does not
/// stop the tree.
#[derive(Clone, Debug)]
pub struct TreeHandle {
    pub(super) shared: Arc<Shared>,
}

impl TreeHandle {
    /// The whole tree at this moment. Does not need the control thread to be well.
    pub fn status(&self) -> TreeStatus {
        self.shared.status().expect("a tree has a root, and the root is never removed")
    }

    /// How often actors ended and began again so far. As above.
    pub fn tally(&self) -> Tally {
        locked(&self.shared.tally).clone()
    }

    /// What stops and goes out of service together with what is at this path: for an actor whose
    /// siblings depend on one another all that is below its supervisor, else the place alone.
    pub fn fault_domain(&self, path: &ActorPath) -> ActorPath {
        let registry = locked(&self.shared.registry);
        let member = |id: &u64| registry.members.get(id);
        let above = registry
            .by_path
            .get(path)
            .and_then(member)
            .filter(|member| member.kind == Kind::Actor)
            .and_then(|member| member.parent)
            .and_then(|parent| member(&parent))
            .filter(|parent| parent.is_one_domain);
        above.map_or_else(|| path.clone(), |parent| parent.vitals.path.clone())
    }

    /// What happens from now on. A reader that falls behind loses the oldest events, and is told
    /// how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Finds a supervisor, to add children to it.
    ///
    /// # Errors
    /// When there is none at this path.
    pub fn supervisor(&self, path: &ActorPath) -> Result<Supervisor, TreeError> {
        let (id, kind) = self.shared.find(path)?;
        if kind == Kind::Actor {
            let (path, state) = (path.clone(), "an actor".to_owned());
            return Err(TreeError::NotNow { path, verb: "add a child to", state });
        }
        Ok(Supervisor { shared: Arc::clone(&self.shared), id, path: path.clone() })
    }

    /// Stops what is there, waits until it has ended, and forgets it.
    ///
    /// # Errors
    /// When there is nothing at this path, or it is the root.
    pub async fn remove(&self, path: &ActorPath) -> Result<(), TreeError> {
        self.command(path, |id, done| Command::Remove { id, done }).await
    }

    /// Does something bad to an actor, within its own task.
    ///
    /// # Errors
    /// When there is no live actor at this path.
    pub async fn inject(&self, path: &ActorPath, fault: Fault) -> Result<(), TreeError> {
        self.command(path, |id, done| Command::Inject { id, fault, done }).await
    }

    /// Stops it and starts it again, with those that depend on it. Not counted as a crash. Returns
    /// when that is under way.
    ///
    /// # Errors
    /// When there is nothing at this path, or it is quarantined or not running.
    pub async fn restart(&self, path: &ActorPath) -> Result<(), TreeError> {
        self.command(path, |id, done| Command::Restart { id, done }).await
    }

    /// Takes the fault domain that this belongs to out of service: callers are refused from now
    /// on, and it stops.
    ///
    /// # Errors
    /// When there is nothing at this path.
    pub async fn quarantine(
        &self,
        path: &ActorPath,
        reason: impl Into<String>,
    ) -> Result<(), TreeError> {
        let reason = reason.into();
        self.command(path, |id, done| Command::Quarantine { id, reason, done }).await
    }

    /// Brings the fault domain that this belongs to back into service.
    ///
    /// # Errors
    /// When there is nothing at this path, or it is not quarantined.
    pub async fn release(&self, path: &ActorPath) -> Result<(), TreeError> {
        self.command(path, |id, done| Command::Release { id, done }).await
    }

    /// What is to be gone when the tree has ended and its handles are dropped, by name.
    pub fn traces(&self) -> Vec<(&'static str, Weak<dyn Any + Send + Sync>)> {
        let shared = Arc::downgrade(&self.shared);
        let watchdog = locked(&self.shared.watchdog).clone();
        vec![("the supervision tree", shared), ("the watchdog's thread", watchdog)]
    }

    /// Waits until everything there was at the start has started once (or left service).
    ///
    /// # Errors
    /// When the root gave up before.
    pub async fn ready(&self) -> Result<(), Escalation> {
        match self.stage(|stage| *stage != Stage::Starting).await {
            Stage::Over(outcome) => outcome,
            Stage::Starting | Stage::Up => Ok(()),
        }
    }

    /// Stops the tree and waits for its end: children in reverse order, each gracefully, then
    /// aborted, then abandoned with its thread.
    ///
    /// # Errors
    /// When the root gave up before.
    pub async fn shutdown(&self) -> Result<(), Escalation> {
        self.shared.inbox.send(Input::Command(Command::Shutdown));
        self.outcome().await
    }

    /// Waits for the end of the tree.
    ///
    /// # Errors
    /// When it ended because the root gave up.
    pub async fn outcome(&self) -> Result<(), Escalation> {
        match self.stage(|stage| matches!(stage, Stage::Over(_))).await {
            Stage::Over(outcome) => outcome,
            Stage::Starting | Stage::Up => unreachable!("waited until it was over"),
        }
    }

    async fn stage(&self, is_it: impl FnMut(&Stage) -> bool) -> Stage {
        let mut stages = self.shared.stage.subscribe();
        let stage = stages.wait_for(is_it).await;
        stage.expect("the sender lives in what this handle holds").clone()
    }

    async fn command(
        &self,
        path: &ActorPath,
        make: impl FnOnce(u64, oneshot::Sender<Result<(), TreeError>>) -> Command,
    ) -> Result<(), TreeError> {
        let (id, _) = self.shared.find(path)?;
        let (done, answer) = oneshot::channel();
        self.shared.inbox.send(Input::Command(make(id, done)));
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(TreeError::Ended)),
            _ = self.outcome() => Err(TreeError::Ended),
        }
    }
}
