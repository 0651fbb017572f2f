//! Who leads which group, as far as this node knows: of its own replicas first hand, of others by
//! what their leaders' nodes tell.

use crate::model::{GroupId, ReplicaId, Term};
use crate::raft::Membership;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Replicas of this node that stand for election at a time. A thousand at once would be so slow
/// together that each is too late, and begins again.
const STANDING_MAX: usize = 32;

/// See the module. Shared; callable from any thread.
#[derive(Debug)]
pub struct Leadership {
    known: Mutex<BTreeMap<GroupId, Known>>,
    /// Counts changes.
    changes: watch::Sender<u64>,
    standing: Arc<AtomicUsize>,
}

/// The right to stand for election, until it is dropped.
#[derive(Debug)]
pub struct Standing(Arc<AtomicUsize>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is known of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The newest term heard of.
    pub term: Term,
    /// Who leads in it; `None` while nobody is known to.
    pub leader: Option<ReplicaId>,
    /// Set where the leader is a replica of this node: the group's members as it has applied them.
    pub led_here: Option<Arc<Membership>>,
}

impl Default for Leadership {
    fn default() -> Self {
        let (known, standing) = Default::default();
        Self { known, changes: watch::channel(0).0, standing }
    }
}

impl Leadership {
    fn known(&self) -> MutexGuard<'_, BTreeMap<GroupId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right of a replica of this node to stand for election; `None` while too many do. That of
    /// the controller, which all others need, waits for nobody.
    pub fn stand(&self, group: GroupId) -> Option<Standing> {
        let before = self.standing.fetch_add(1, Ordering::AcqRel);
        let standing = Standing(Arc::clone(&self.standing));
        (before < STANDING_MAX || group == GroupId::CONTROLLER).then_some(standing)
    }

    /// Learns who leads a group; what is older than what is known is ignored, and so is that nobody
    /// leads in a term whose leader is known.
    pub fn learn(&self, group: GroupId, term: Term, leader: Option<ReplicaId>) {
        self.put(group, Known { term, leader, led_here: None });
    }

    /// A replica of this node leads the group, with these members.
    pub fn leads_here(&self, group: GroupId, term: Term, me: ReplicaId, members: Arc<Membership>) {
        self.put(group, Known { term, leader: Some(me), led_here: Some(members) });
    }

    fn put(&self, group: GroupId, new: Known) {
        let mut known = self.known();
        let is_news = known.get(&group).is_none_or(|old| {
            let says_more = new.leader.is_some() || old.leader.is_none();
            new.term > old.term || new.term == old.term && says_more && new != *old
        });
        if is_news {
            known.insert(group, new);
            drop(known);
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// The replica of this node steps down, or stops: if it was thought to lead, nobody is.
    pub fn leads_no_more(&self, group: GroupId, me: ReplicaId) {
        let mut known = self.known();
        let Some(entry) = known.get_mut(&group).filter(|known| known.leader == Some(me)) else {
            return;
        };
        (entry.leader, entry.led_here) = (None, None);
        drop(known);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Forgets a group that is gone.
    pub fn forget(&self, group: GroupId) {
        self.known().remove(&group);
    }

    /// What is known of a group.
    pub fn of(&self, group: GroupId) -> Option<Known> {
        self.known().get(&group).cloned()
    }

    /// All groups that replicas of this node lead.
    pub fn led_here(&self) -> Vec<(GroupId, Known)> {
        let known = self.known();
        let here = known.iter().filter(|(_, known)| known.led_here.is_some());
        here.map(|(group, known)| (*group, known.clone())).collect()
    }

    /// Tells, by a number that grows, that something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn so_many_stand_for_election_at_a_time_and_the_controller_always_may() {
        let table = Leadership::default();
        let mut standing: Vec<_> = (0..STANDING_MAX).map(|_| table.stand(GroupId::LOG)).collect();
        assert!(standing.iter().all(Option::is_some));
        assert!(table.stand(GroupId::LOG).is_none());
        assert!(table.stand(GroupId::CONTROLLER).is_some());
        standing.pop();
        assert!(table.stand(GroupId::LOG).is_some(), "a refused one takes no place");
    }

    #[test]
    fn the_newest_term_wins_and_a_known_leader_is_not_forgotten_within_it() {
        let table = Leadership::default();
        let changes = table.changes();
        let (one, two) = (ReplicaId::new(NodeId(1), 1), ReplicaId::new(NodeId(2), 2));
        table.learn(GroupId::LOG, Term(3), Some(one));
        table.learn(GroupId::LOG, Term(2), Some(two));
        table.learn(GroupId::LOG, Term(3), None);
        assert_eq!(table.of(GroupId::LOG).and_then(|known| known.leader), Some(one));
        assert_eq!(*changes.borrow(), 1, "old news wakes nobody");
        table.leads_here(GroupId::LOG, Term(4), two, Arc::new(Membership::lone(two)));
        assert_eq!(table.led_here().len(), 1);
        table.leads_no_more(GroupId::LOG, two);
        assert_eq!(table.of(GroupId::LOG).and_then(|known| known.leader), None);
        assert!(table.led_here().is_empty());
    }
}
