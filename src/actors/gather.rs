//! When to start the next flush: the policy that turns many small proposals into one entry.
//! Pure: counts in, a verdict out.
//!
//! While a flush is in flight proposals pile up by themselves. Before a *small* flush it pays to
//! wait a moment for the other producers that were outstanding lately: it halves the flushes and is
//! the only lever that raised throughput at 64 producers when it was measured. A lone producer
//! never waits, and neither does bulk.

use std::time::Duration;

/// Settings of the policy.
#[derive(Debug, Clone, Copy)]
pub struct GatherOptions {
    /// Go once this share of the recent peak of outstanding proposals is there (0 to 1; 0: never wait).
    pub fraction: f32,
    /// Wait no longer than this.
    pub wait_max: Duration,
    /// With so many bytes pending a flush is not small: never wait (unit: bytes).
    pub bytes_enough: usize,
}

impl Default for GatherOptions {
    fn default() -> Self {
        Self { fraction: 0.9, wait_max: Duration::from_millis(1), bytes_enough: 32 << 10 }
    }
}

/// What to do with the proposals that are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Make an entry of them.
    Go,
    /// Ask again when another arrives, or after `wait_max`.
    Wait,
}

/// Remembers how many proposals were outstanding of late.
#[derive(Debug)]
pub struct Gather {
    options: GatherOptions,
    /// A decaying peak. A float: a whole number below 32 would never decay by a 32nd.
    peak: f32,
}

impl Gather {
    /// A policy that has seen nothing yet.
    pub fn new(options: GatherOptions) -> Self {
        Self { options, peak: 0.0 }
    }

    /// The longest wait.
    pub fn wait_max(&self) -> Duration {
        self.options.wait_max
    }

    /// Decides on `pending` proposals of `bytes` in all, while `unanswered` earlier ones are on
    /// their way; `waited` says that `wait_max` has passed since the first `Wait`.
    pub fn decide(
        &mut self,
        pending: usize,
        bytes: usize,
        unanswered: usize,
        waited: bool,
    ) -> Verdict {
        const DECAY: f32 = 31.0 / 32.0;
        let outstanding = (pending + unanswered) as f32;
        self.peak = (self.peak * DECAY).max(outstanding);
        let alone = self.peak <= 1.0;
        let enough = pending as f32 >= self.peak * self.options.fraction;
        if waited || alone || enough || bytes >= self.options.bytes_enough {
            Verdict::Go
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather() -> Gather {
        Gather::new(GatherOptions::default())
    }

    #[test]
    fn a_lone_producer_never_waits() {
        let mut gather = gather();
        for _ in 0..100 {
            assert_eq!(gather.decide(1, 100, 0, false), Verdict::Go);
        }
    }

    #[test]
    fn with_64_in_lock_step_it_waits_for_nine_tenths_of_them() {
        let mut gather = gather();
        assert_eq!(gather.decide(64, 6_400, 0, false), Verdict::Go);
        assert_eq!(gather.decide(10, 1_000, 0, false), Verdict::Wait);
        assert_eq!(gather.decide(50, 5_000, 0, false), Verdict::Wait);
        assert_eq!(gather.decide(60, 6_000, 0, false), Verdict::Go);
    }

    #[test]
    fn the_deadline_and_bulk_end_the_wait() {
        let mut gather = gather();
        gather.decide(64, 6_400, 0, false);
        assert_eq!(gather.decide(2, 200, 0, true), Verdict::Go);
        assert_eq!(gather.decide(2, 40 << 10, 0, false), Verdict::Go);
    }

    #[test]
    fn producers_that_left_are_forgotten() {
        let mut gather = gather();
        gather.decide(64, 6_400, 0, false);
        let waits = (0..1_000).take_while(|_| gather.decide(2, 200, 0, false) == Verdict::Wait);
        let waits = waits.count();
        assert!((30..200).contains(&waits), "a peak of 64 decays to 2 in {waits} decisions");
    }

    #[test]
    fn a_fraction_of_zero_turns_waiting_off() {
        let mut gather = Gather::new(GatherOptions { fraction: 0.0, ..GatherOptions::default() });
        gather.decide(64, 6_400, 0, false);
        assert_eq!(gather.decide(1, 100, 0, false), Verdict::Go);
    }
}
