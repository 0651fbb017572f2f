//! Tries again what may pass, with pauses that grow and differ from caller to caller.

use super::{Classify, ErrorClass};
use crate::model::{Chance, Clock};
use std::time::Duration;

/// How often and when to try again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Tries after the first one. Default: 3.
    pub retries_max: u32,
    /// The pause before the first of them. Default: 100 ms.
    pub initial: Duration,
    /// What each pause is multiplied by for the next. Default: 2.
    pub factor: f64,
    /// The longest pause. Default: 30 s.
    pub pause_max: Duration,
    /// By what part of itself a pause is made longer or shorter, at random. Default: 0.2.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries_max: 3,
            initial: Duration::from_millis(100),
            factor: 2.0,
            pause_max: Duration::from_secs(30),
            jitter: 0.2,
        }
    }
}

impl RetryPolicy {
    /// The pause before retry `number` (from 0). `fraction` in `0.0..1.0` is chance.
    pub fn pause(&self, number: u32, fraction: f64) -> Duration {
        let exponent = i32::try_from(number).unwrap_or(i32::MAX);
        let longest = self.pause_max.as_secs_f64();
        let plain = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(longest);
        let shaken = plain * (1.0 + self.jitter * (2.0 * fraction - 1.0));
        Duration::from_secs_f64(shaken.clamp(0.0, longest))
    }
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<T, E> {
    /// What the last try gave.
    pub result: Result<T, E>,
    /// Tries made, the first one included.
    pub attempts: u32,
    /// From the first try to the last answer, pauses included.
    pub elapsed: Duration,
}

/// Tries until it succeeds, fails for good, or was tried often enough. An error that says when to
/// come back is believed where that is longer than the pause. Dropping the future ends it.
pub async fn retry<T, E: Classify>(
    policy: RetryPolicy,
    clock: &dyn Clock,
    chance: &mut Chance,
    mut call: impl AsyncFnMut() -> Result<T, E>,
) -> Outcome<T, E> {
    let began = clock.monotonic();
    let mut attempts = 0;
    loop {
        let result = call().await;
        attempts += 1;
        let again = match &result {
            Err(error) if error.class() == ErrorClass::Retryable => Some(error.retry_after()),
            _ => None,
        };
        let Some(asked) = again.filter(|_| attempts <= policy.retries_max) else {
            let elapsed = clock.monotonic().saturating_sub(began);
            return Outcome { result, attempts, elapsed };
        };
        let pause = policy.pause(attempts - 1, chance.fraction());
        tokio::time::sleep(pause.max(asked.unwrap_or_default())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guards::{permanent, retryable};
    use crate::model::SystemClock;
    use proptest::prelude::*;

    fn quick() -> RetryPolicy {
        RetryPolicy { initial: Duration::from_micros(10), ..RetryPolicy::default() }
    }

    #[test]
    fn pauses_double_to_their_limit() {
        let pauses: Vec<_> =
            (0..10).map(|number| RetryPolicy::default().pause(number, 0.5).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let (clock, mut chance) = (SystemClock::new(), Chance::new(7));
        let mut left = 2;
        let outcome = retry(quick(), &clock, &mut chance, async || {
            left -= 1;
            if left < 0 { Ok("at last") } else { Err(retryable("not yet")) }
        });
        let outcome = outcome.await;
        assert_eq!((outcome.result, outcome.attempts), (Ok("at last"), 3));

        let no = async || Err::<(), _>(retryable("never"));
        assert_eq!(retry(quick(), &clock, &mut chance, no).await.attempts, 4);
        let no = async || Err::<(), _>(permanent("never"));
        let outcome = retry(quick(), &clock, &mut chance, no).await;
        assert_eq!((outcome.result, outcome.attempts), (Err(permanent("never")), 1));
    }

    #[tokio::test]
    async fn dropping_it_ends_the_wait() {
        let (clock, mut chance, mut calls) = (SystemClock::new(), Chance::new(7), 0);
        {
            let policy = RetryPolicy { initial: Duration::from_secs(30), ..RetryPolicy::default() };
            let mut retrying = Box::pin(retry(policy, &clock, &mut chance, async || {
                calls += 1;
                Err::<(), _>(retryable("no"))
            }));
            assert!(futures_util::poll!(retrying.as_mut()).is_pending());
        }
        assert_eq!(calls, 1);
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_jitter_and_never_beyond_the_limit(
            number in 0u32..10_000,
            fraction in 0.0f64..1.0,
        ) {
            let policy = RetryPolicy::default();
            let plain = policy.pause(number, 0.5).as_secs_f64();
            let pause = policy.pause(number, fraction);
            prop_assert!(pause <= policy.pause_max);
            prop_assert!((pause.as_secs_f64() - plain).abs() <= plain * 0.2 + 1e-6);
        }
    }
}
