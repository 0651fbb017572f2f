//! One life of an actor.

use super::ExitReason;
use super::slot::{Account, locked};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What can be done to an actor from inside, to see what the tree does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Panics with this text.
    Panic(String),
    /// Blocks the actor's thread this long.
    Hang(Duration),
    /// Stops as if by its own will.
    Exit,
}

/// What a life and its watchers write down together.
pub(super) struct Notes {
    pub(super) account: Arc<Account>,
    reason: Mutex<Option<ExitReason>>,
}

impl Notes {
    /// Writes down why the life ends, unless that is known.
    pub(super) fn settle(&self, reason: ExitReason) {
        locked(&self.reason).get_or_insert(reason);
    }
}
