//! The way to exactly one life of an actor, for those whose word must not reach a later one.

use super::seat::Child;
use actix::{Addr, Handler, Message};
use std::fmt;

/// An address that is *not* handed on to an actor's next life: what is sent to a life that is over
/// is dropped. For completions of work that this life started: a flush of a log that has been
/// recovered since says nothing about the new one. Cheap to clone; callable from any thread.
pub struct Line<A: Child>(Addr<A>);

impl<A: Child> Line<A> {
    /// The line to the actor of this address.
    pub fn new(addr: Addr<A>) -> Self {
        Self(addr)
    }

    /// Delivers the outcome of work: never refused for load, dropped when that life is over.
    #[allow(
        clippy::disallowed_methods,
        reason = "completions are bounded by the work under way, and losing one would hang it"
    )]
    pub fn complete<M>(&self, message: M)
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.0.do_send(message);
    }
}

impl<A: Child> Clone for Line<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Child> fmt::Debug for Line<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}
