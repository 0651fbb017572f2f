//! One object for a caller of something that may be away: limiter, breaker, retry and deadline in
//! the order in which they belong.

use super::{
    Breaker, BreakerOpen, Classify, ErrorClass, Limiter, Outcome, RetryPolicy, chance_of_machine,
    retry,
};
use crate::model::Clock;
use std::sync::Arc;
use std::time::Duration;

/// Why a guarded call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardedError<E> {
    /// The breaker let it not through; nothing was sent.
    #[error(transparent)]
    Open(#[from] BreakerOpen),
    /// Its time ran out; what was under way was given up.
    #[error("no success within {after:?}")]
    Deadline {
        /// The time it had.
        after: Duration,
    },
    /// It failed, for good or too often.
    #[error("{0}")]
    Failed(E),
}

impl<E: Classify> Classify for GuardedError<E> {
    fn class(&self) -> ErrorClass {
        match self {
            // Nobody waits for an open breaker: the point of one is to fail at once.
            Self::Open(_) | Self::Deadline { .. } => ErrorClass::Permanent,
            Self::Failed(error) => error.class(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open(open) => Some(open.retry_after),
            Self::Deadline { .. } => None,
            Self::Failed(error) => error.retry_after(),
        }
    }
}

/// See the module. Each try takes a token and passes the breaker; the deadline covers all tries.
#[derive(Debug)]
pub struct Guarded {
    /// What paces calls, where something does.
    pub limiter: Option<Limiter>,
    /// What stops them while the other side is away.
    pub breaker: Breaker,
    /// How often and when to try again.
    pub retry: RetryPolicy,
    /// How long all tries together may take.
    pub deadline: Duration,
    /// For how long it took.
    pub clock: Arc<dyn Clock>,
}

impl Guarded {
    /// Makes a call. An error that will not pass is an answer: it does not count against the other
    /// side. Dropping the future ends it.
    pub async fn execute<T, E: Classify>(
        &self,
        mut call: impl AsyncFnMut() -> Result<T, E>,
    ) -> Outcome<T, GuardedError<E>> {
        let began = self.clock.monotonic();
        let mut chance = chance_of_machine();
        let mut attempts = 0;
        let tries = retry(self.retry, &*self.clock, &mut chance, async || {
            if let Some(limiter) = &self.limiter {
                limiter.wait().await;
            }
            let permit = self.breaker.enter()?;
            attempts += 1;
            let result = call().await;
            match &result {
                Err(error) if error.class() == ErrorClass::Retryable => permit.failed(),
                _ => permit.succeeded(),
            }
            result.map_err(GuardedError::Failed)
        });
        let result = match tokio::time::timeout(self.deadline, tries).await {
            Ok(outcome) => outcome.result,
            Err(_) => Err(GuardedError::Deadline { after: self.deadline }),
        };
        Outcome { result, attempts, elapsed: self.clock.monotonic().saturating_sub(began) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guards::{BreakerOptions, BreakerState, TokenBucketOptions, permanent, retryable};
    use crate::model::{ManualClock, SystemClock, Timestamp};

    fn guarded(limiter: Option<Limiter>) -> Guarded {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Guarded {
            limiter,
            breaker: Breaker::new(BreakerOptions::default(), clock.clone()),
            retry: RetryPolicy { initial: Duration::from_micros(10), ..RetryPolicy::default() },
            deadline: Duration::from_secs(60),
            clock,
        }
    }

    #[tokio::test]
    async fn failures_that_may_pass_open_the_breaker_and_then_nothing_is_called() {
        let guarded = guarded(None);
        let mut calls = 0;
        for _ in 0..2 {
            let outcome = guarded.execute(async || {
                calls += 1;
                Err::<(), _>(retryable("away"))
            });
            outcome.await.result.unwrap_err();
        }
        assert_eq!((calls, guarded.breaker.state()), (5, BreakerState::Open));
        let outcome = guarded.execute(async || Ok::<_, crate::guards::Marked<&str>>(())).await;
        assert!(matches!(outcome.result, Err(GuardedError::Open(_))) && outcome.attempts == 0);
    }

    #[tokio::test]
    async fn an_error_for_good_is_an_answer_and_no_reason_to_open() {
        let guarded = guarded(None);
        for _ in 0..20 {
            let outcome = guarded.execute(async || Err::<(), _>(permanent("wrong"))).await;
            assert_eq!(outcome.result, Err(GuardedError::Failed(permanent("wrong"))));
            assert_eq!(outcome.attempts, 1);
        }
        assert_eq!(guarded.breaker.state(), BreakerState::Closed);
    }

    #[tokio::test]
    async fn each_try_takes_a_token_and_the_deadline_covers_the_wait_for_one() {
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let options = TokenBucketOptions { capacity: 2, refill_per_second: 1 };
        let limiter = Limiter::new(options, clock);
        let guarded = Guarded { deadline: Duration::from_millis(20), ..guarded(Some(limiter)) };
        let outcome = guarded.execute(async || Err::<(), _>(retryable("away"))).await;
        assert!(matches!(outcome.result, Err(GuardedError::Deadline { .. })), "{outcome:?}");
        assert_eq!(outcome.attempts, 2, "a third token never comes");
        assert_eq!(guarded.breaker.state(), BreakerState::Closed);
    }
}
