//! Building the tree: supervisors that are told about their children.

use super::exit::install_hook;
use super::life::Typed;
use super::run::{Command, Input, Tree};
use super::slot::{Slot, locked};
use super::tree::Shared;
use super::{
    ActorPath, ActorRef, Child, ChildSpec, Kind, Place, Seat, SupervisorSpec, TreeError, TreeHandle,
};
use crate::model::Clock;
use crate::observe::{CrashSink, Hub};
use actix::Context;
use slog::Logger;
use std::sync::Arc;

/// What the tree needs from outside.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Decides on waits and windows.
    pub clock: Arc<dyn Clock>,
    /// Seeds the jitter of backoffs.
    pub seed: u64,
    /// Where exits and what follows are logged, once each.
    pub logger: Logger,
    /// Where every actor's messages are recorded.
    pub hub: Arc<Hub>,
    /// Who is told all that is known of a crash.
    pub crashes: Option<Arc<dyn CrashSink>>,
}

/// A supervisor, before and after the tree was started: children can be added at any time, and
/// start at once when their supervisor runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) path: ActorPath,
}

impl Supervisor {
    /// The root of a tree that is not started.
    pub fn new(spec: SupervisorSpec, environment: Environment) -> Self {
        let shared = Shared::new(environment);
        let path = ActorPath::root(&spec.name);
        let (id, vitals) = shared
            .register(&path, None, Kind::Supervisor, spec.is_one_domain())
            .expect("the first name is free");
        let (parent, spec) = (None, Box::new(spec));
        shared.inbox.send(Input::Command(Command::AddSupervisor { id, parent, spec, vitals }));
        Self { shared, id, path }
    }

    /// Adds a supervisor below this one.
    ///
    /// # Panics
    /// When the name is taken. See [`Supervisor::try_supervisor`].
    pub fn supervisor(&self, spec: SupervisorSpec) -> Self {
        self.try_supervisor(spec).expect("names below one supervisor differ")
    }

    /// Adds a supervisor below this one.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn try_supervisor(&self, spec: SupervisorSpec) -> Result<Self, TreeError> {
        let path = self.path.child(&spec.name);
        let parent = Some(self.id);
        let (id, vitals) =
            self.shared.register(&path, parent, Kind::Supervisor, spec.is_one_domain())?;
        let spec = Box::new(spec);
        self.shared.inbox.send(Input::Command(Command::AddSupervisor { id, parent, spec, vitals }));
        Ok(Self { shared: Arc::clone(&self.shared), id, path })
    }

    /// Adds an actor. `factory` is called on the thread of `place` at each start; a panic in it
    /// counts as a crash. It must not block longer than the child's `hang_after`.
    ///
    /// # Panics
    /// When the name is taken. See [`Supervisor::try_child`].
    pub fn child<A: Child>(
        &self,
        spec: ChildSpec,
        place: Place,
        factory: impl Fn(&mut Context<A>, Seat<A>) -> A + Send + Sync + 'static,
    ) -> ActorRef<A> {
        self.try_child(spec, place, factory).expect("names below one supervisor differ")
    }

    /// Adds an actor, as [`Supervisor::child`].
    ///
    /// # Errors
    /// When the name is taken.
    pub fn try_child<A: Child>(
        &self,
        spec: ChildSpec,
        place: Place,
        factory: impl Fn(&mut Context<A>, Seat<A>) -> A + Send + Sync + 'static,
    ) -> Result<ActorRef<A>, TreeError> {
        let path = self.path.child(&spec.name);
        let parent = self.id;
        let (id, vitals) = self.shared.register(&path, Some(parent), Kind::Actor, false)?;
        let slot = Slot::<A>::new(Arc::clone(&vitals), spec.admission);
        let actor = ActorRef::new(Arc::clone(&slot));
        let runner = Typed { slot, spec: spec.clone(), place, factory: Arc::new(factory) };
        let (spec, runner) = (Box::new(spec), Box::new(runner));
        let command = Command::AddActor { id, parent, spec, vitals, runner };
        self.shared.inbox.send(Input::Command(command));
        Ok(actor)
    }

    /// Its path.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    /// The handle on the tree, also before it is started.
    pub fn handle(&self) -> TreeHandle {
        TreeHandle { shared: Arc::clone(&self.shared) }
    }

    /// Starts the whole tree on the current thread's actix system: this is the control thread.
    ///
    /// # Panics
    /// When the tree was started before, or there is no actix system on this thread.
    pub fn start(&self) -> TreeHandle {
        install_hook();
        let unread = locked(&self.shared.unread).take().expect("a tree is started once");
        actix_rt::spawn(Tree::new(Arc::clone(&self.shared), unread).run());
        self.handle()
    }
}
