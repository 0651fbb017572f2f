//! A request of one message whose caller is judged once more when it is whole: between its head and its
//! end lies as much time as the client likes, and rights may have gone meanwhile. What is about a
//! topic its handler judges, which has the message.

use super::refusal::Refusal;
use crate::frontends::access::{Asker, Needed};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// See the module.
#[derive(Debug)]
pub struct Whole<B> {
    body: B,
    again: Option<(Asker, Needed)>,
}

impl<B> Whole<B> {
    /// Nobody is judged again.
    pub fn new(body: B) -> Self {
        Self { body, again: None }
    }

    /// At its end `asker` must still have what is `needed`.
    pub fn judge_again(&mut self, asker: Asker, needed: Needed) {
        self.again = Some((asker, needed));
    }
}

impl<B: Body<Error = Status> + Unpin> Body for Whole<B> {
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let come = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_end = match &come {
            None => true,
            Some(Ok(frame)) => frame.is_trailers(),
            Some(Err(_)) => false,
        };
        if is_end
            && let Some((asker, needed)) = self.again.take()
            && let Err(denied) = asker.has(needed)
        {
            return Poll::Ready(Some(Err(Refusal::from(denied).into())));
        }
        Poll::Ready(come)
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
