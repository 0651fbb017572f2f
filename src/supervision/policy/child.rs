//! What the policy remembers of one child.

use crate::supervision::spec::{Backoff, Restart};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Down, and to be started when its turn comes.
    Idle,
    Starting,
    Live,
    Stopping,
    /// Down after a crash.
    Waiting {
        until: Duration,
    },
    /// Down, and not to be started again.
    Finished,
}

impl State {
    /// Whether there is, or may be, a life.
    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Live | Self::Stopping)
    }
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) restart: Restart,
    backoff: Backoff,
    pub(super) generation: u64,
    pub(super) state: State,
    /// Not started yet since the supervisor was.
    pub(super) fresh: bool,
    pub(super) removing: bool,
    pub(super) quarantine: Option<String>,
    pub(super) started_at: Duration,
    /// Crashes in the window; used where children are counted one by one.
    pub(super) crashes: VecDeque<Duration>,
    /// Waits since the last calm window.
    waits: u32,
}

impl Record {
    pub(super) fn new(restart: Restart, backoff: Backoff, generation: u64) -> Self {
        Self {
            restart,
            backoff,
            generation,
            state: State::Idle,
            fresh: true,
            removing: false,
            quarantine: None,
            started_at: Duration::ZERO,
            crashes: VecDeque::new(),
            waits: 0,
        }
    }

    /// Forgets past crashes; what is down may start again.
    pub(super) fn forgive(&mut self) {
        self.crashes.clear();
        self.waits = 0;
        if !self.state.is_active() {
            self.state = State::Idle;
            self.fresh = true;
        }
    }

    /// How long to stay down now: doubled each time, from the start again after a calm window.
    pub(super) fn next_wait(&mut self, chance: f64, calm: Duration, now: Duration) -> Duration {
        if now.saturating_sub(self.started_at) >= calm {
            self.waits = 0;
        }
        let doubled =
            self.backoff.min.saturating_mul(1u32.checked_shl(self.waits).unwrap_or(u32::MAX));
        self.waits = self.waits.saturating_add(1);
        let share = self.backoff.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0);
        doubled.min(self.backoff.max).mul_f64(1.0 - share)
    }
}
