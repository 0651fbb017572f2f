//! Ends connections that nobody calls on: each has a place that another may need.

use crate::frontends::seats::Seat;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// Watches one connection. See the module.
#[derive(Debug)]
pub struct Idle {
    seat: Seat,
    max: Duration,
    grace: Duration,
    next_look: Pin<Box<Sleep>>,
    /// Calls that had begun at the last look.
    begun: u64,
    is_told: bool,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nobody has called for long: its client is to be told to go.
    Tell,
    /// It was told, and has not gone.
    Close,
}

impl Idle {
    /// Of this connection. Over when there was no call on it for `max`, and
    /// before there was none for twice as long; `grace` is for its client to go.
    pub fn new(seat: Seat, max: Duration, grace: Duration) -> Self {
        let next_look = Box::pin(sleep(max));
        Self { seat, max, grace, next_look, begun: 0, is_told: false }
    }

    /// Ready when something is to be done; then it is to be polled again.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            ready!(self.next_look.as_mut().poll(cx));
            let begun = self.seat.begun();
            let is_used = begun != self.begun || self.seat.is_in_use();
            self.begun = begun;
            // Whoever called before he heard that he is to go may finish.
            if !is_used && self.is_told {
                return Poll::Ready(Over::Close);
            }
            let tells = !is_used;
            self.is_told |= tells;
            self.next_look.set(sleep(if self.is_told { self.grace } else { self.max }));
            if tells {
                return Poll::Ready(Over::Tell);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3_600);

    fn idle(max: Duration, grace: Duration) -> (Idle, Seat) {
        let seat = Seat::default();
        (Idle::new(seat.clone(), max, grace), seat)
    }

    async fn over(idle: &mut Idle) -> Over {
        poll_fn(|cx| idle.poll_over(cx)).await
    }

    #[tokio::test]
    async fn where_nobody_calls_a_client_is_told_to_go_and_then_closed() {
        let (mut idle, _seat) = idle(SHORT, SHORT);
        assert_eq!(over(&mut idle).await, Over::Tell);
        assert_eq!(over(&mut idle).await, Over::Close);
    }

    #[tokio::test]
    async fn a_connection_with_a_call_that_is_open_or_was_is_not_idle() {
        let (mut idle, seat) = idle(SHORT, LONG);
        for _ in 0..3 {
            let open = seat.call();
            assert!(tokio::time::timeout(5 * SHORT, over(&mut idle)).await.is_err());
            drop(open);
        }
        // One that began and ended since the last look counts until the next.
        drop(seat.call());
        idle.next_look.set(sleep(Duration::ZERO));
        assert!(tokio::time::timeout(SHORT / 2, over(&mut idle)).await.is_err());
        assert_eq!(over(&mut idle).await, Over::Tell);
    }

    #[tokio::test]
    async fn who_called_before_he_was_told_is_not_closed_meanwhile() {
        let (mut idle, seat) = idle(SHORT, SHORT);
        let mut open = None;
        assert_eq!(over(&mut idle).await, Over::Tell);
        open.replace(seat.call());
        assert!(tokio::time::timeout(5 * SHORT, over(&mut idle)).await.is_err());
        drop(open);
        assert_eq!(over(&mut idle).await, Over::Close);
    }
}
