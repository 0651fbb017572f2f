//! How often actors of each kind ended and began again: counted where it happens, read by anyone.

use super::{ActorPath, ExitReason};
use std::collections::BTreeMap;

/// See the module. A kind is the last step of an actor's path; there are as many as the program
/// gives names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    exits: BTreeMap<String, [u64; ExitReason::KINDS.len()]>,
    restarts: BTreeMap<String, u64>,
}

impl Tally {
    /// Lives of actors of this kind that ended so ([`ExitReason::kind`]).
    pub fn exits(&self, actor: &str, reason: &str) -> u64 {
        let at = ExitReason::KINDS.iter().position(|known| *known == reason);
        at.and_then(|at| Some(self.exits.get(actor)?[at])).unwrap_or(0)
    }

    /// How often actors of this kind were started again.
    pub fn restarts(&self, actor: &str) -> u64 {
        self.restarts.get(actor).copied().unwrap_or(0)
    }

    pub(super) fn exited(&mut self, path: &ActorPath, reason: &ExitReason) {
        let counts = self.exits.entry(path.name().to_owned()).or_default();
        let at = ExitReason::KINDS.iter().position(|known| *known == reason.kind());
        counts[at.expect("every kind is in the list")] += 1;
    }

    pub(super) fn restarted(&mut self, path: &ActorPath) {
        *self.restarts.entry(path.name().to_owned()).or_default() += 1;
    }
}
