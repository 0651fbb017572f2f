//! An answer that is owed, and the wait for it.

use super::place::thread_is_abandoned;
use super::slot::{Account, Permit};
use super::{ActorPath, Admission, AskError};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The answer that an actor owes. Holds the request's place in the actor's admission: dropped
/// unanswered, it frees that place and the asker sees [`AskError::Died`].
#[must_use = "a reply that is dropped tells the asker that the outcome is unknown"]
pub struct Reply<R> {
    answer: oneshot::Sender<R>,
    permit: Permit,
}

impl<R> Reply<R> {
    pub(super) fn new(permit: Permit, path: ActorPath) -> (Self, Pending<R>) {
        let account = Arc::clone(permit.account());
        let (answer, answered) = oneshot::channel();
        (Self { answer, permit }, Pending { path, account, answered, key: None })
    }

    /// A pair that no actor's admission counts: for tests and for calls inside one actor.
    pub fn detached(path: ActorPath) -> (Self, Pending<R>) {
        let unlimited = Admission { messages_max: usize::MAX, bytes_max: usize::MAX };
        let permit = Account::open().admit(0, unlimited).expect("an unlimited account has room");
        Self::new(permit, path)
    }

    /// Answers. An asker that has left is no error.
    pub fn send(self, answer: R) {
        if !thread_is_abandoned() {
            // The asker may have gone; the work was done all the same.
            drop(self.answer.send(answer));
        }
    }

    /// Whether somebody still waits. Work for nobody may be skipped.
    pub fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }

    /// The bytes that the request was admitted with.
    pub fn bytes(&self) -> usize {
        self.permit.bytes()
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The wait for an answer. Has no deadline of its own; ends with [`AskError::Died`] when the
/// actor dies, or its thread is given up, before it answered.
#[must_use = "an answer that nobody awaits is lost"]
pub struct Pending<R> {
    path: ActorPath,
    account: Arc<Account>,
    answered: oneshot::Receiver<R>,
    key: Option<usize>,
}

impl<R> Pending<R> {
    /// Who owes the answer.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }
}

impl<R> Future for Pending<R> {
    type Output = Result<R, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answered).poll(cx) {
            return Poll::Ready(answer.map_err(|_| AskError::Died { path: self.path.clone() }));
        }
        // First registered, then looked at: `Account::end` does it in the opposite order.
        self.key = Some(self.account.wait(self.key, cx.waker()));
        if self.account.has_ended() {
            return Poll::Ready(Err(AskError::Died { path: self.path.clone() }));
        }
        Poll::Pending
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.account.forget(key);
        }
    }
}

impl<R> fmt::Debug for Pending<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({})", self.path)
    }
}
