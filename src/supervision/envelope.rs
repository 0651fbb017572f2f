//! What every message between actors travels in: the one place where it is stamped when it is sent,
//! and recorded when it is handled.

use super::seat::Child;
use crate::observe::{Mail, Mailbox, Mishap, Posted, Stamp};
use actix::Handler;
use std::fmt;
use std::sync::Arc;

/// A message on its way to one actor. Made only by what sends: [`super::ActorRef`],
/// [`super::Line`], [`super::Seat::notify`]. Opened by what `receives!` writes.
pub struct Envelope<M> {
    stamp: Stamp,
    /// Where it lies.
    posted: Posted,
    message: M,
}

impl<M: Mail> actix::Message for Envelope<M> {
    type Result = ();
}

impl<M: Mail> Envelope<M> {
    /// Stamps a message that the calling thread sends now.
    pub(super) fn seal(message: M, mailbox: &Arc<Mailbox>) -> Self {
        let stamp = Stamp::now(&**mailbox.recorder().clock());
        Self { stamp, posted: mailbox.post(), message }
    }

    /// Lets the actor handle what is inside, on record.
    pub fn open<A>(self, actor: &mut A, context: &mut A::Context)
    where
        A: Child + Handler<M, Result = ()>,
        M: actix::Message<Result = ()>,
    {
        let Self { stamp, posted, message } = self;
        let Some(mailbox) = posted.leave() else { return actor.handle(message, context) };
        let recorder = mailbox.recorder();
        let show = || format!("{message:?}");
        let handled = recorder.begin(&stamp, M::NAME, message.load(), show);
        match recorder.mishap(M::NAME) {
            None => {}
            Some(Mishap::Panic(text)) => panic!("{text}"),
            Some(Mishap::Delay(time)) => std::thread::sleep(time),
            Some(Mishap::Drop) => return handled.dropped(),
        }
        actor.handle(message, context);
    }
}

impl<M: fmt::Debug> fmt::Debug for Envelope<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({:?}, {:?})", self.stamp.id, self.message)
    }
}

/// An actor that takes messages `M`, in their envelope.
pub trait Receives<M: Mail>: Child + Handler<Envelope<M>> {}

impl<A: Child + Handler<Envelope<M>>, M: Mail> Receives<M> for A {}

/// Names the messages, by type, that an actor receives; it handles each as an
/// [`actix::Handler`] of the bare message.
macro_rules! receives {
    ($actor:ty: $($message:ty),+ $(,)?) => {$(
        impl ::actix::Handler<$crate::supervision::Envelope<$message>> for $actor {
            type Result = ();

            fn handle(
                &mut self,
                envelope: $crate::supervision::Envelope<$message>,
                context: &mut Self::Context,
            ) {
                envelope.open(self, context);
            }
        }
    )+};
}

/// Gives messages that carry no payload their names: those of their types.
macro_rules! mail {
    ($($message:ident),+ $(,)?) => {$(
        impl $crate::observe::Mail for $message {
            const NAME: &'static str = stringify!($message);
        }
    )+};
}

pub(crate) use {mail, receives};
