//! Holds syncs back, so that a test decides when a flush ends.

use super::SyncHook;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// While it lives, syncs of its disk wait in the call. Dropping it lets them go, so that a
/// failing test does not hang.
#[derive(Debug)]
pub struct SyncHold {
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// Syncs let through although the gate is shut.
    passes: u64,
    waiting: u64,
    /// Syncs that came to the gate so far.
    arrived: u64,
}

impl SyncHold {
    pub(super) fn new() -> Self {
        Self { gate: Arc::default() }
    }

    pub(super) fn hook(&self) -> SyncHook {
        let gate = self.gate.clone();
        Arc::new(move |_| gate.pass())
    }

    /// Blocks until at least one sync is being held.
    pub fn wait_until_held(&self) {
        let mut state = self.gate.lock();
        while state.waiting == 0 {
            state = self.gate.wait(state);
        }
    }

    /// How many syncs have come so far, held or not.
    pub fn arrived(&self) -> u64 {
        self.gate.lock().arrived
    }

    /// Lets one sync go, now or when it comes.
    pub fn release_one(&self) {
        self.gate.lock().passes += 1;
        self.gate.changed.notify_all();
    }

    /// Lets all go, also those to come.
    pub fn release(&self) {
        self.gate.lock().open = true;
        self.gate.changed.notify_all();
    }
}

impl Drop for SyncHold {
    fn drop(&mut self) {
        self.release();
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn pass(&self) {
        let mut state = self.lock();
        state.arrived += 1;
        state.waiting += 1;
        self.changed.notify_all();
        while !state.open && state.passes == 0 {
            state = self.wait(state);
        }
        state.waiting -= 1;
        if !state.open {
            state.passes -= 1;
        }
    }
}
