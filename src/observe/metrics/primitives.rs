//! Counters and histograms: plain atomics, so that observing neither locks nor allocates. What goes
//! up and down is read where it is known, when somebody asks. Built without the feature `observe`
//! they stay at 0.

use crate::observe::IS_ON;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up from the start of the node.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts so many.
    pub fn add(&self, count: u64) {
        if IS_ON {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram, without the one for everything larger.
pub const BUCKETS: usize = 16;

/// How values are distributed: each bucket's bound is twice the one before it.
#[derive(Debug)]
pub struct Histogram {
    /// The smallest bound, in the unit of what is observed.
    first: u64,
    /// What one of that unit is in the unit that is shown.
    scale: f64,
    counts: [AtomicU64; BUCKETS + 1],
    sum: AtomicU64,
}

/// What a histogram held at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds of all buckets but the last, inclusive.
    pub bounds: Vec<f64>,
    /// How many values fell into each bucket; one more than there are bounds.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Distribution {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both together, where they have the same bounds.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        self
    }
}

impl Histogram {
    /// Of durations from 50 µs to 1.6 s and longer.
    pub const fn of_durations() -> Self {
        Self::new(50_000, 1e-9)
    }

    /// Of sizes from 256 bytes to 8 MiB and larger.
    pub const fn of_bytes() -> Self {
        Self::new(256, 1.0)
    }

    /// Of counts from 1 to 32,768 and more.
    pub const fn of_counts() -> Self {
        Self::new(1, 1.0)
    }

    const fn new(first: u64, scale: f64) -> Self {
        Self {
            first,
            scale,
            counts: [const { AtomicU64::new(0) }; BUCKETS + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Notes a value: nanoseconds, bytes or a count.
    pub fn observe(&self, value: u64) {
        if !IS_ON {
            return;
        }
        let doublings = 64 - (value.saturating_sub(1) / self.first).leading_zeros();
        let bucket = (doublings as usize).min(BUCKETS);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Notes a duration.
    pub fn observe_for(&self, duration: std::time::Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What it holds. Values that are noted meanwhile may be in the counts and not yet in the sum.
    pub fn read(&self) -> Distribution {
        let bound = |power| (self.first << power) as f64 * self.scale;
        Distribution {
            bounds: (0..BUCKETS).map(bound).collect(),
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 * self.scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_whose_bound_holds_it() {
        let histogram = Histogram::of_counts();
        for value in [0, 1, 2, 3, 4, 5, 1 << 15, (1 << 15) + 1, u64::MAX >> 8] {
            histogram.observe(value);
            let read = histogram.read();
            let wanted = read.bounds.iter().position(|bound| value as f64 <= *bound);
            let wanted = wanted.unwrap_or(BUCKETS);
            assert_eq!(read.counts.iter().rposition(|count| *count > 0), Some(wanted), "{value}");
        }
        assert_eq!(histogram.read().count(), 9);
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let histogram = Histogram::of_durations();
        histogram.observe_for(std::time::Duration::from_millis(250));
        let read = histogram.read();
        assert!((read.sum - 0.25).abs() < 1e-9 && (read.bounds[0] - 0.000_05).abs() < 1e-12);
    }
}
