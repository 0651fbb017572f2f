//! The way to exactly one life of an actor, for those whose word must not reach a later one.

use super::seat::Child;
use super::{Envelope, Receives};
use crate::observe::{Mail, Mailbox};
use actix::Addr;
use std::fmt;
use std::sync::Arc;

/// An address that is *not* handed on to an actor's next life: what is sent to a life that is over
/// is dropped. For completions of work that this life started: a flush of a log that has been
/// recovered since says nothing about the new one. Cheap to clone; callable from any thread.
pub struct Line<A: Child> {
    addr: Addr<A>,
    mailbox: Arc<Mailbox>,
}

impl<A: Child> Line<A> {
    pub(super) fn new(addr: Addr<A>, mailbox: Arc<Mailbox>) -> Self {
        Self { addr, mailbox }
    }

    /// Delivers the outcome of work: never refused for load, dropped when that life is over.
    #[allow(
        clippy::disallowed_methods,
        reason = "completions are bounded by the work under way, and losing one would hang it"
    )]
    pub fn complete<M: Mail>(&self, message: M)
    where
        A: Receives<M>,
    {
        self.addr.do_send(Envelope::seal(message, &self.mailbox));
    }
}

impl<A: Child> Clone for Line<A> {
    fn clone(&self) -> Self {
        Self { addr: self.addr.clone(), mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<A: Child> fmt::Debug for Line<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}
