//! A strict limit: never more than so many in any stretch of time of a given length. A bucket lets
//! nearly twice its capacity through in an unlucky stretch; this remembers when each one went.

use std::collections::VecDeque;
use std::time::Duration;

/// See the module. Costs 16 bytes for each call that it lets through within a window.
#[derive(Debug, Clone)]
pub struct SlidingWindow {
    calls_max: usize,
    window: Duration,
    /// When the calls of the last window went, oldest first.
    calls: VecDeque<Duration>,
}

impl SlidingWindow {
    /// At most `calls_max` in any `[t, t + window)`.
    ///
    /// # Panics
    /// When it would let nothing through.
    pub fn new(calls_max: usize, window: Duration) -> Self {
        assert!(calls_max > 0, "it would let nothing through");
        Self { calls_max, window, calls: VecDeque::new() }
    }

    /// Lets a call through, or not.
    pub fn allow(&mut self, now: Duration) -> bool {
        if !self.wait(now).is_zero() {
            return false;
        }
        // A clock that goes back must not put a call before one that is already counted.
        let now = self.calls.back().map_or(now, |last| now.max(*last));
        self.calls.push_back(now);
        true
    }

    /// How long until the next call may go; zero where it may at once.
    pub fn wait(&mut self, now: Duration) -> Duration {
        while self.calls.front().is_some_and(|oldest| *oldest + self.window <= now) {
            self.calls.pop_front();
        }
        match self.calls.front() {
            Some(oldest) if self.calls.len() >= self.calls_max => {
                (*oldest + self.window).saturating_sub(now)
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_window_wherever_it_begins_holds_more_than_the_limit(
            calls_max in 1usize..8,
            window in 1u64..100,
            steps in proptest::collection::vec(0u64..40, 1..200),
        ) {
            let window = Duration::from_nanos(window);
            let mut limiter = SlidingWindow::new(calls_max, window);
            let (mut now, mut let_through, mut refused) = (Duration::ZERO, Vec::new(), 0);
            for step in steps {
                now += Duration::from_nanos(step);
                if limiter.allow(now) {
                    let_through.push(now);
                } else {
                    refused += 1;
                    let recent = let_through.iter().filter(|at| **at + window > now).count();
                    prop_assert_eq!(recent, calls_max, "refused only when it is full");
                    now += limiter.wait(now);
                    prop_assert!(limiter.allow(now), "whoever waited as told may go");
                    let_through.push(now);
                }
            }
            for first in &let_through {
                let inside = let_through.iter().filter(|at| *first <= **at && **at < *first + window);
                prop_assert!(inside.count() <= calls_max, "{refused} refused");
            }
        }
    }
}
