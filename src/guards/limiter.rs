//! A token bucket that many share, and that can be waited for.

use super::{TokenBucket, TokenBucketOptions};
use crate::model::Clock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A token bucket with a clock. Clones share it.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bucket: Mutex<TokenBucket>,
    clock: Arc<dyn Clock>,
    /// Who waits first is served first, however fast others come.
    turn: tokio::sync::Mutex<()>,
}

impl Limiter {
    /// A full bucket.
    ///
    /// # Panics
    /// As [`TokenBucket::new`].
    pub fn new(options: TokenBucketOptions, clock: Arc<dyn Clock>) -> Self {
        let bucket = Mutex::new(TokenBucket::new(options, clock.monotonic()));
        Self(Arc::new(Shared { bucket, clock, turn: tokio::sync::Mutex::new(()) }))
    }

    /// Takes a token where there is one; does not wait.
    pub fn allow(&self) -> bool {
        let now = self.0.clock.monotonic();
        self.bucket().allow(now)
    }

    /// Waits for a token and takes it. Dropping the future ends the wait and takes nothing.
    pub async fn wait(&self) {
        let _turn = self.0.turn.lock().await;
        while !self.allow() {
            let now = self.0.clock.monotonic();
            let wait = self.bucket().wait(now);
            tokio::time::sleep(wait).await;
        }
    }

    /// How many tokens there are, with the fraction that has come back so far.
    pub fn tokens(&self) -> f64 {
        let now = self.0.clock.monotonic();
        self.bucket().tokens(now)
    }

    fn bucket(&self) -> MutexGuard<'_, TokenBucket> {
        self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManualClock, SystemClock, Timestamp};

    #[tokio::test]
    async fn a_wait_ends_with_a_token_and_a_cancelled_one_takes_none() {
        let options = TokenBucketOptions { capacity: 1, refill_per_second: 1_000 };
        let limiter = Limiter::new(options, Arc::new(SystemClock::new()));
        for _ in 0..5 {
            limiter.wait().await;
        }

        let stopped = Limiter::new(options, Arc::new(ManualClock::at(Timestamp(0))));
        assert!(stopped.allow() && !stopped.allow());
        let mut waiting = Box::pin(stopped.wait());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        assert_eq!(stopped.tokens(), 0.0);
        assert!(!stopped.allow());
    }
}
