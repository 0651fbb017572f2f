//! What an actor is given to live with: who it is, which life this is, how to say that it failed.

use super::life::Notes;
use super::{ActorPath, ActorRef, Envelope, ExitReason, Line, Receives};
use crate::model::{Clock, Disposition};
use crate::observe::{Mail, Mailbox, Recorder};
use actix::{Actor, AsyncContext, Context};
use slog::Logger;
use std::fmt;
use std::sync::Arc;

/// What the tree can supervise: any actor on actix's own context.
pub trait Child: Actor<Context = Context<Self>> {}

impl<A: Actor<Context = Context<A>>> Child for A {}

/// Given to the factory at each start, and kept by the actor.
pub struct Seat<A: Child> {
    pub(super) me: ActorRef<A>,
    pub(super) generation: u64,
    pub(super) notes: Arc<Notes>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) logger: Logger,
}

impl<A: Child> Clone for Seat<A> {
    fn clone(&self) -> Self {
        Self {
            me: self.me.clone(),
            generation: self.generation,
            notes: Arc::clone(&self.notes),
            mailbox: Arc::clone(&self.mailbox),
            clock: Arc::clone(&self.clock),
            logger: self.logger.clone(),
        }
    }
}

impl<A: Child> fmt::Debug for Seat<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({} generation {})", self.path(), self.generation)
    }
}

impl<A: Child> Seat<A> {
    /// Which life this is, from 1. Fences the writers that this life starts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where the actor is in the tree.
    pub fn path(&self) -> &ActorPath {
        self.me.path()
    }

    /// A reference to the actor itself, for completions.
    pub fn me(&self) -> &ActorRef<A> {
        &self.me
    }

    /// The tree's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// A logger that names the actor and its generation.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// What records the actor's messages.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.me.slot().vitals.recorder
    }

    /// The way to exactly this life of the actor.
    pub fn line(&self, context: &Context<A>) -> Line<A> {
        Line::new(context.address(), Arc::clone(&self.mailbox))
    }

    /// Sends the actor a message of its own, which comes after all that is in the mailbox.
    pub fn notify<M: Mail>(&self, context: &mut Context<A>, message: M)
    where
        A: Receives<M>,
    {
        context.notify(Envelope::seal(message, &self.mailbox));
    }

    /// Says why this life ends; the caller then stops its context. The first reason counts.
    /// [`Disposition::Quarantine`] takes the fault domain out of service at once; anything else
    /// counts as a crash.
    pub fn fail(&self, reason: impl Into<String>, disposition: Disposition) {
        self.notes.settle(ExitReason::Failed { reason: reason.into(), disposition });
    }

    /// Says that a worker of this life, a thread of its own, has died: the life cannot go on, and
    /// ends as if it had panicked itself. The caller then sees to it that the context is stopped.
    pub fn worker_died(&self, worker: &str, exit: ExitReason) {
        self.notes.settle(match exit {
            ExitReason::Panic { message, location, backtrace } => {
                let message = format!("{worker}: {message}");
                ExitReason::Panic { message, location, backtrace }
            }
            other => other,
        });
    }

    /// Says that the actor gets on, from within long work that answers nobody. Answering requests
    /// says so by itself.
    pub fn progress(&self) {
        self.notes.account.note_progress();
    }
}
