//! What would be told too often, told now and then: diagnostics of one cause do not become a flood.

use std::time::Duration;

/// When something was told last (monotonic time).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seldom(Option<Duration>);

impl Seldom {
    /// Whether it was not told for so long, or never.
    pub fn is_due(&self, now: Duration, every: Duration) -> bool {
        self.0.is_none_or(|told| now.saturating_sub(told) >= every)
    }

    /// It is told now.
    pub fn tell(&mut self, now: Duration) {
        self.0 = Some(now);
    }

    /// Whether it is due; then it counts as told.
    pub fn take(&mut self, now: Duration, every: Duration) -> bool {
        let is_due = self.is_due(now, every);
        if is_due {
            self.tell(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_next_when_the_time_has_passed() {
        let at = Duration::from_millis;
        let (mut seldom, every) = (Seldom::default(), at(1000));
        assert!(seldom.take(at(0), every));
        assert!(!seldom.take(at(999), every));
        assert!(seldom.is_due(at(1000), every) && seldom.take(at(1000), every));
        assert!(!seldom.is_due(at(1500), every), "counted from when it was told");
    }
}
