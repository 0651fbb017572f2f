//! The reference to an actor: valid through restarts, from any thread, bounded before the mailbox.

use super::reply::{Pending, Reply};
use super::seat::Child;
use super::slot::{Permit, Slot};
use super::status::State;
use super::{ActorPath, Admission, AskError, Envelope, Load, Receives, Refused};
use crate::observe::Mail;
use actix::prelude::SendError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How everyone reaches an actor. Cheap to clone; callable from any thread and runtime.
///
/// The order of messages from one sender is kept within one life of the actor.
pub struct ActorRef<A: Child> {
    slot: Arc<Slot<A>>,
}

impl<A: Child> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot) }
    }
}

impl<A: Child> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRef({})", self.slot.vitals.path)
    }
}

impl<A: Child> ActorRef<A> {
    pub(super) fn new(slot: Arc<Slot<A>>) -> Self {
        Self { slot }
    }

    pub(super) fn slot(&self) -> &Slot<A> {
        &self.slot
    }

    /// Asks for room for one request of `bytes`. The permit is to travel inside the message (a
    /// [`Reply`] holds one).
    ///
    /// # Errors
    /// When the actor is not there, or has as much under way as it admits.
    pub fn admit(&self, bytes: usize) -> Result<Permit, Refused> {
        self.slot.reach(false, |live| {
            live.account
                .admit(bytes, self.slot.admission)
                .map_err(|what| self.slot.vitals.overloaded(what))
        })
    }

    /// Asks for room, and makes the two ends of an answer: the reply goes into the message.
    ///
    /// # Errors
    /// As [`ActorRef::admit`].
    pub fn open<R>(&self, bytes: usize) -> Result<(Reply<R>, Pending<R>), Refused> {
        Ok(Reply::new(self.admit(bytes)?, self.slot.vitals.path.clone()))
    }

    /// Puts a message into the mailbox, without waiting. Its permit should be inside; without one
    /// only the mailbox bounds it.
    ///
    /// # Errors
    /// When the actor is not there, or its mailbox is full. The message was not delivered.
    pub fn tell<M: Mail>(&self, message: M) -> Result<(), Refused>
    where
        A: Receives<M>,
    {
        self.slot.reach(false, |live| {
            let envelope = Envelope::seal(message, &live.mailbox);
            live.addr.try_send(envelope).map_err(|error| match error {
                SendError::Full(_) => self.slot.vitals.overloaded(Load::Mailbox),
                SendError::Closed(_) => self.slot.vitals.refusal(),
            })
        })
    }

    /// Delivers the outcome of work that the actor started itself: never refused for load, and
    /// delivered also while the actor is stopping.
    ///
    /// # Errors
    /// When there is no live actor.
    #[allow(
        clippy::disallowed_methods,
        reason = "completions are bounded by the work under way, and losing one would hang it"
    )]
    pub fn complete<M: Mail>(&self, message: M) -> Result<(), Refused>
    where
        A: Receives<M>,
    {
        self.slot.reach(true, |live| {
            if live.account.has_ended() || !live.addr.connected() {
                return Err(self.slot.vitals.refusal());
            }
            live.addr.do_send(Envelope::seal(message, &live.mailbox));
            Ok(())
        })
    }

    /// Sends a request of `bytes` and waits for its answer, `deadline` at most. Needs a tokio
    /// timer on the calling thread.
    ///
    /// # Errors
    /// [`AskError::Refused`] when nothing was done; else the outcome is unknown.
    pub async fn ask<M, R>(
        &self,
        bytes: usize,
        deadline: Duration,
        make: impl FnOnce(Reply<R>) -> M,
    ) -> Result<R, AskError>
    where
        M: Mail,
        A: Receives<M>,
    {
        let (reply, pending) = self.open(bytes)?;
        self.tell(make(reply))?;
        match tokio::time::timeout(deadline, pending).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AskError::Deadline { path: self.path().clone(), after: deadline }),
        }
    }

    /// The actor's path.
    pub fn path(&self) -> &ActorPath {
        &self.slot.vitals.path
    }

    /// Which life it is in; 0 before the first, and never less than before.
    pub fn generation(&self) -> u64 {
        self.slot.vitals.facts().generation
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u64 {
        self.slot.vitals.facts().restarts
    }

    /// What it is or does at present.
    pub fn state(&self) -> State {
        self.slot.vitals.facts().state.clone()
    }

    /// How many messages were refused since the beginning.
    pub fn refused(&self) -> u64 {
        self.slot.vitals.refused()
    }

    /// How much may be under way at it.
    pub fn admission(&self) -> Admission {
        self.slot.admission
    }

    /// The bytes of all admitted requests that are not yet answered.
    pub fn in_flight_bytes(&self) -> usize {
        self.slot.vitals.in_flight_bytes()
    }

    /// How many admitted requests are not yet answered.
    pub fn in_flight(&self) -> usize {
        self.slot.vitals.in_flight()
    }
}
