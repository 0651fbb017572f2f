//! A token bucket: bursts up to its capacity, a steady rate behind them. Pure, and exact: tokens
//! are counted in whole billionths, so that no rounding ever lets one too many through.

use std::time::Duration;

/// A token, in the unit that the bucket counts in.
const TOKEN: u128 = 1_000_000_000;

/// How much a bucket lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucketOptions {
    /// What it holds when full: the largest burst. Default: 100.
    pub capacity: u32,
    /// Tokens that come back each second. Default: 10.
    pub refill_per_second: u32,
}

impl Default for TokenBucketOptions {
    fn default() -> Self {
        Self { capacity: 100, refill_per_second: 10 }
    }
}

/// See the module. Times are those of one clock that does not go back.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    options: TokenBucketOptions,
    level: u128,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    ///
    /// # Panics
    /// When it could never give a token: a capacity or a rate of 0.
    pub fn new(options: TokenBucketOptions, now: Duration) -> Self {
        assert!(options.capacity > 0 && options.refill_per_second > 0, "it would give nothing");
        Self { options, level: u128::from(options.capacity) * TOKEN, at: now }
    }

    /// Takes a token, where there is one.
    pub fn allow(&mut self, now: Duration) -> bool {
        self.refill(now);
        let is_there = self.level >= TOKEN;
        if is_there {
            self.level -= TOKEN;
        }
        is_there
    }

    /// How long until there is a token; zero where there is one. Takes none.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.refill(now);
        let missing = TOKEN.saturating_sub(self.level);
        let nanos = missing.div_ceil(u128::from(self.options.refill_per_second));
        Duration::from_nanos(u64::try_from(nanos).expect("at most one token is missing"))
    }

    /// How many tokens there are, with the fraction that has come back so far.
    pub fn tokens(&mut self, now: Duration) -> f64 {
        self.refill(now);
        self.level as f64 / TOKEN as f64
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_nanos();
        let full = u128::from(self.options.capacity) * TOKEN;
        self.level = full.min(self.level + elapsed * u128::from(self.options.refill_per_second));
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_gives_its_capacity_at_once_and_then_its_rate() {
        let mut bucket = TokenBucket::new(TokenBucketOptions::default(), Duration::ZERO);
        assert_eq!((0..150).filter(|_| bucket.allow(Duration::ZERO)).count(), 100);
        assert_eq!(bucket.wait(Duration::ZERO), Duration::from_millis(100));
        assert!((bucket.tokens(Duration::from_millis(50)) - 0.5).abs() < 1e-9);
        assert!(!bucket.allow(Duration::from_millis(99)));
        assert!(bucket.allow(Duration::from_millis(100)));
    }

    proptest! {
        #[test]
        fn never_more_than_capacity_and_what_came_back_and_a_wait_is_never_too_short(
            capacity in 1u32..50,
            refill_per_second in 1u32..1_000,
            steps in proptest::collection::vec(0u64..200_000_000, 1..200),
        ) {
            let options = TokenBucketOptions { capacity, refill_per_second };
            let mut bucket = TokenBucket::new(options, Duration::ZERO);
            let (mut now, mut given) = (Duration::ZERO, 0u128);
            for step in steps {
                now += Duration::from_nanos(step);
                let wait = bucket.wait(now);
                let allowed = bucket.allow(now);
                prop_assert_eq!(allowed, wait.is_zero());
                given += u128::from(allowed);
                let came_back = now.as_nanos() * u128::from(refill_per_second) / TOKEN;
                prop_assert!(given <= u128::from(capacity) + came_back);
                if !allowed {
                    now += wait;
                    prop_assert!(bucket.allow(now), "whoever waited as told gets one");
                    given += 1;
                }
            }
        }

        #[test]
        fn a_clock_that_goes_back_gives_nothing_away(first in 0u64..1 << 40, back in 0u64..1 << 40) {
            let options = TokenBucketOptions { capacity: 1, refill_per_second: 1 };
            let mut bucket = TokenBucket::new(options, Duration::from_nanos(first));
            prop_assert!(bucket.allow(Duration::from_nanos(first)));
            prop_assert!(!bucket.allow(Duration::from_nanos(first.saturating_sub(back))));
            prop_assert!(!bucket.allow(Duration::from_nanos(first)));
        }
    }
}
