//! Time as a value that is passed in: a wall clock for record timestamps and retention, a
//! monotonic one for every decision about waiting.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC; may be negative, as Kafka's record timestamps may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// As RFC 3339 in UTC with milliseconds; the bare number where no calendar reaches.
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            Err(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where time comes from. Injected everywhere, so that a core can run under simulated time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Time since an arbitrary moment before the first call; never goes back.
    fn monotonic(&self) -> Duration;
    /// The wall clock. May jump: never used to decide on waiting, leases or acknowledgements.
    fn wall(&self) -> Timestamp;
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(match since {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        })
    }
}

/// A clock that moves only when told to: for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    monotonic_us: AtomicU64,
    wall_ms: AtomicI64,
}

impl ManualClock {
    /// A clock at monotonic zero and the given wall time.
    pub fn at(wall: Timestamp) -> Self {
        Self { monotonic_us: AtomicU64::new(0), wall_ms: AtomicI64::new(wall.0) }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.monotonic_us.fetch_add(micros, Ordering::SeqCst);
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic_us.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp(1_000));
        assert_eq!((clock.monotonic(), clock.wall()), (Duration::ZERO, Timestamp(1_000)));
        clock.advance(Duration::from_millis(7));
        assert_eq!((clock.monotonic(), clock.wall()), (Duration::from_millis(7), Timestamp(1_007)));
    }

    #[test]
    fn the_system_clock_does_not_go_back_and_is_past_2020() {
        let clock = SystemClock::new();
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
        assert!(clock.wall() > Timestamp(1_577_836_800_000));
    }
}
