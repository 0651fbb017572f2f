//! Handing over what is led here before the node stops: nobody has to miss a leader first, so a
//! rolling restart costs no election timeout.

use crate::actors::groups::Groups;
use crate::actors::leadership::Leadership;
use crate::actors::raft::Transfer;
use crate::model::GroupId;
use slog::{Logger, info, warn};
use std::sync::Arc;
use std::time::Duration;

/// How long the others may take to lead, before the node stops all the same.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// When whoever still leads is asked again: the one chosen first may not have answered.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug)]
pub(super) struct HandOver {
    pub groups: Arc<Groups>,
    pub leadership: Arc<Leadership>,
    pub logger: Logger,
}

impl HandOver {
    /// Groups that are led here and could be led elsewhere.
    fn led(&self) -> Vec<GroupId> {
        let has_others = |known: &crate::actors::leadership::Known| {
            known.led_here.as_ref().is_some_and(|members| members.voters.len() > 1)
        };
        let led = self.leadership.led_here().into_iter();
        led.filter(|(_, known)| has_others(known)).map(|(group, _)| group).collect()
    }

    /// Returns when nothing is led here that could be led elsewhere, or when that takes too long.
    pub async fn run(&self) {
        let count = self.led().len();
        if count == 0 {
            return;
        }
        info!(self.logger, "hands over what it leads"; "groups" => count);
        if tokio::time::timeout(HAND_OVER_MAX, self.until_nothing_is_led()).await.is_err() {
            warn!(self.logger, "others do not lead yet what this node leads: they will miss it and \
                hold an election"; "groups" => self.led().len());
        }
    }

    /// For the time in which the node drains: whatever is handed back goes on to somebody else.
    pub async fn keep_on(&self) {
        let mut changes = self.leadership.changes();
        // The table of leaders outlives this.
        while changes.changed().await.is_ok() {
            self.until_nothing_is_led().await;
        }
    }

    async fn until_nothing_is_led(&self) {
        let mut changes = self.leadership.changes();
        loop {
            let led = self.led();
            if led.is_empty() {
                return;
            }
            for here in led.into_iter().filter_map(|group| self.groups.get(group)) {
                // One that takes no message does not lead for much longer.
                let _ = here.raft.tell(Transfer { to: None });
            }
            let gone = changes.wait_for(|_| self.led().is_empty());
            if let Ok(seen) = tokio::time::timeout(AGAIN_AFTER, gone).await {
                drop(seen);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeId, ReplicaId, Term};
    use crate::raft::Membership;
    use slog::o;
    use std::collections::BTreeSet;

    fn replica(node: u32) -> ReplicaId {
        ReplicaId::new(NodeId(node), node)
    }

    #[test]
    fn it_waits_for_what_others_can_lead_and_for_nothing_else() {
        actix_rt::System::new().block_on(waits_for_what_others_can_lead());
    }

    async fn waits_for_what_others_can_lead() {
        let leadership = Arc::<Leadership>::default();
        let logger = Logger::root(slog::Discard, o!());
        let hand_over =
            HandOver { groups: Arc::default(), leadership: Arc::clone(&leadership), logger };
        let lone = Arc::new(Membership::lone(replica(1)));
        leadership.leads_here(GroupId::CONTROLLER, Term(1), replica(1), lone);
        hand_over.until_nothing_is_led().await;
        let pair = Membership {
            voters: BTreeSet::from([replica(1), replica(2)]),
            ..Membership::lone(replica(1))
        };
        leadership.leads_here(GroupId::LOG, Term(1), replica(1), Arc::new(pair));
        let mut waiting = std::pin::pin!(hand_over.until_nothing_is_led());
        assert!(futures_util::poll!(&mut waiting).is_pending(), "another one could lead");
        leadership.learn(GroupId::LOG, Term(2), Some(replica(2)));
        waiting.await;
    }
}
