//! What the door turned away, counted: by port and reason, and what was asked for without the right.

use crate::access::{Action, Denied};
use crate::observe::metrics::catalogue as of;
use crate::observe::metrics::{Counter, Protocol, Snapshot};

const REASONS: [&str; 6] =
    ["unauthenticated", "forbidden", "only_node", "not_node", "too_often", "not_known_yet"];

/// See the module.
#[derive(Debug, Default)]
pub struct Denials {
    by_reason: [[Counter; REASONS.len()]; Protocol::ALL.len()],
    by_action: [[Counter; Action::ALL.len()]; Protocol::ALL.len()],
    failed_tokens: [Counter; Protocol::ALL.len()],
    /// Files of policies and keys that were read and could not be used.
    pub unusable_files: Counter,
}

/// The place in [`REASONS`].
fn reason(denied: &Denied) -> usize {
    match denied {
        Denied::Unauthenticated(_) => 0,
        Denied::Forbidden { .. } => 1,
        Denied::OnlyNode => 2,
        Denied::NotNode { .. } => 3,
        Denied::TooOften { .. } => 4,
        Denied::NotKnownYet { .. } => 5,
    }
}

impl Denials {
    /// A request was not let pass.
    pub fn denied(&self, protocol: Protocol, denied: &Denied) {
        self.by_reason[protocol as usize][reason(denied)].one();
        if let Denied::Forbidden { action, .. } = denied {
            self.by_action[protocol as usize][*action as usize].one();
        }
    }

    /// A token proved nothing.
    pub fn failed_token(&self, protocol: Protocol) {
        self.failed_tokens[protocol as usize].one();
    }

    /// Adds what is counted here to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot) {
        for protocol in Protocol::ALL {
            let (port, at) = (protocol.name(), protocol as usize);
            for (reason, counter) in REASONS.iter().zip(&self.by_reason[at]) {
                snapshot.counter(&of::DENIED, &[port, reason], counter);
            }
            for (action, counter) in Action::ALL.iter().zip(&self.by_action[at]) {
                snapshot.counter(&of::FORBIDDEN, &[port, action.name()], counter);
            }
            snapshot.counter(&of::FAILED_TOKENS, &[port], &self.failed_tokens[at]);
        }
        snapshot.counter(&of::UNUSABLE_FILES, &[], &self.unusable_files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_has_its_own_place() {
        for (at, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, at);
        }
    }
}
