//! What somebody waits for, from a closed list, and since when: set by the code where it waits.

use crate::model::Clock;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the workers of a partition can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// For something to do.
    #[default]
    Work,
    /// For a thread of an earlier life to leave the disk alone.
    Fence,
    /// For the log to be read after a start.
    Recovery,
    /// For the disk to take what is written.
    Write,
    /// For the disk to say that it is on stable storage.
    Sync,
    /// For free space: so many bytes.
    Space {
        /// What must be free before writes are taken again.
        free_bytes: u64,
    },
    /// For blocks to be prepared for later writes.
    Prepare,
    /// For old segments to be removed and a checkpoint to be written.
    Tend,
    /// For the flush in hand, before the next entry is made.
    Flush,
    /// For other producers to send what they will send anyway, a millisecond at most.
    Gather,
}

impl Wait {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Fence => "fence",
            Self::Recovery => "recovery",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Space { .. } => "space",
            Self::Prepare => "prepare",
            Self::Tend => "tend",
            Self::Flush => "flush",
            Self::Gather => "gather",
        }
    }
}

/// Where one worker says what it waits for. Shared with whoever explains.
#[derive(Default)]
pub struct WaitCell(Mutex<(Wait, Duration)>);

impl WaitCell {
    /// Says what is waited for from now on; the time goes on where that is the same as before.
    pub fn set(&self, wait: Wait, clock: &dyn Clock) {
        if !super::IS_ON {
            return;
        }
        let mut cell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cell.0 != wait {
            *cell = (wait, clock.monotonic());
        }
    }

    /// What is waited for, and since when (monotonic time).
    pub fn get(&self) -> (Wait, Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a wait goes on that began then (monotonic time).
    pub fn resume(&self, wait: Wait, since: Duration) {
        if super::IS_ON {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (wait, since);
        }
    }
}

impl fmt::Debug for WaitCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wait, since) = self.get();
        write!(f, "{} since {since:?}", wait.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManualClock, Timestamp};

    #[test]
    fn a_wait_lasts_until_another_begins_and_one_that_is_resumed_keeps_its_beginning() {
        let clock = ManualClock::at(Timestamp(0));
        let cell = WaitCell::default();
        clock.advance(Duration::from_millis(5));
        cell.set(Wait::Work, &clock);
        assert_eq!(cell.get(), (Wait::Work, Duration::ZERO), "the same goes on");
        cell.set(Wait::Sync, &clock);
        assert_eq!(cell.get(), (Wait::Sync, Duration::from_millis(5)));
        cell.resume(Wait::Space { free_bytes: 1 }, Duration::from_millis(2));
        assert_eq!(cell.get().1, Duration::from_millis(2));
    }
}
