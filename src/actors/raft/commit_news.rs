//! Whether followers know of what is committed: the next entry tells them, or else a heartbeat, after
//! a moment in which none came.

use crate::model::RaftIndex;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CommitNews {
    /// The newest commit that followers were told of.
    told: RaftIndex,
    is_look_due: bool,
}

impl CommitNews {
    /// An entry that tells of this commit has left.
    pub fn told(&mut self, commit: RaftIndex) {
        self.told = self.told.max(commit);
    }

    /// Whether to look in a moment; at most one look is due at a time. Not while proposals wait, be
    /// it for long: their entries tell, and whatever ends their wait leads here again.
    pub fn wants_look(&mut self, committed: RaftIndex, nothing_waits: bool) -> bool {
        let wants = !self.is_look_due && nothing_waits && self.told < committed;
        self.is_look_due |= wants;
        wants
    }

    /// The look: whether a heartbeat is to tell now.
    pub fn look(&mut self, committed: RaftIndex, nothing_waits: bool) -> bool {
        self.is_look_due = false;
        let tells = nothing_waits && self.told < committed;
        if tells {
            self.told = committed;
        }
        tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RaftIndex = RaftIndex(1);
    const TWO: RaftIndex = RaftIndex(2);

    #[test]
    fn what_no_entry_told_a_heartbeat_does_once() {
        let mut news = CommitNews::default();
        assert!(news.wants_look(ONE, true));
        assert!(!news.wants_look(ONE, true), "one look is due at a time");
        assert!(news.look(ONE, true));
        assert!(!news.wants_look(ONE, true), "it is told");
        assert!(news.wants_look(TWO, true));
        news.told(TWO);
        assert!(!news.look(TWO, true), "an entry was faster");
    }

    #[test]
    fn while_proposals_wait_for_a_full_disk_nobody_looks_again_and_again() {
        let mut news = CommitNews::default();
        assert!(news.wants_look(ONE, true));
        assert!(!news.look(ONE, false), "an entry is on its way and tells");
        assert!(!news.wants_look(ONE, false), "it is stuck: there is nothing to look for");
        assert!(news.wants_look(TWO, true), "nothing waits any more");
        assert!(news.look(TWO, true));
    }
}
