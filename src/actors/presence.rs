//! Who is there, as gossip sees it: a hint, never a verdict. The catalogue says who is a member.

use crate::model::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How gossip sees a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// It answers.
    Alive,
    /// It does not answer lately.
    Suspect,
    /// It was given up.
    Dead,
    /// It said that it leaves.
    Left,
}

/// How new it is what a node tells of itself: a later start wins, then what was told later in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Told {
    /// Grows at each start of the node.
    pub generation: u64,
    /// Grows at each change of what it tells, from 1.
    pub version: u64,
}

impl Told {
    /// Whether what comes in replaces what is known: also when it is as new.
    pub fn yields_to(self, incoming: Self) -> bool {
        incoming >= self
    }
}

/// What a node tells of itself, and how it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The identity of its data directory.
    pub uuid: String,
    /// Its number, where it is a member of a cluster.
    pub node: Option<NodeId>,
    /// Its cluster; empty where it is a member of none yet.
    pub cluster_id: String,
    /// What people call it.
    pub name: String,
    /// Where clients and nodes reach it.
    pub rpc_addr: String,
    /// Where it gossips.
    pub gossip_addr: String,
    /// The newest protocol that it speaks.
    pub protocol_max: u32,
    /// Its labels, as `rack`.
    pub labels: BTreeMap<String, String>,
    /// How new that is.
    pub told: Told,
    /// How it is seen.
    pub seen: Seen,
    /// Since when, on this node's monotonic clock.
    pub since: Duration,
}

/// All nodes that gossip knows, by uuid; this node among them.
pub type Presence = BTreeMap<String, Present>;

/// A number that is the same on two nodes that see the same: who is there, and how new it is what
/// each told. Against chance only, not against malice.
pub fn view(presence: &Presence) -> u32 {
    let mut sum = 0;
    let there = presence.values().filter(|present| present.seen <= Seen::Suspect);
    for Present { uuid, told, .. } in there {
        // The length keeps two names from being one of both.
        let parts = [uuid.len() as u64, told.generation, told.version];
        sum = crc32c::crc32c_append(sum, uuid.as_bytes());
        sum = parts.iter().fold(sum, |sum, part| crc32c::crc32c_append(sum, &part.to_le_bytes()));
    }
    sum
}

/// Where the presence is told, and read.
#[derive(Debug, Clone)]
pub struct PresenceBoard(Arc<watch::Sender<Arc<Presence>>>);

impl Default for PresenceBoard {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Arc::default()).0))
    }
}

impl PresenceBoard {
    /// Tells what gossip knows now; wakes readers only where it differs.
    pub fn tell(&self, presence: Presence) {
        self.0.send_if_modified(|known| {
            let is_news = **known != presence;
            if is_news {
                *known = Arc::new(presence);
            }
            is_news
        });
    }

    /// What is known now.
    pub fn now(&self) -> Arc<Presence> {
        self.0.borrow().clone()
    }

    /// As it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Presence>> {
        self.0.subscribe()
    }

    /// How a member is seen; `None` where gossip does not know it.
    pub fn of(&self, node: NodeId) -> Option<Present> {
        self.0.borrow().values().find(|present| present.node == Some(node)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told() -> impl Strategy<Value = Told> {
        (0..3_u64, 0..3_u64).prop_map(|(generation, version)| Told { generation, version })
    }

    fn present(uuid: &str, told: Told, seen: Seen) -> (String, Present) {
        let present = Present {
            uuid: uuid.into(),
            node: None,
            cluster_id: String::new(),
            name: uuid.into(),
            rpc_addr: "127.0.0.1:8400".into(),
            gossip_addr: "127.0.0.1:8401".into(),
            protocol_max: 1,
            labels: BTreeMap::new(),
            told,
            seen,
            since: Duration::ZERO,
        };
        (uuid.into(), present)
    }

    proptest! {
        #[test]
        fn in_whatever_order_claims_come_the_newest_is_kept(claims in prop::collection::vec(told(), 1..20)) {
            let keep = |known: Told, claim: Told| if known.yields_to(claim) { claim } else { known };
            let kept = claims.iter().copied().reduce(keep);
            prop_assert_eq!(kept, claims.iter().copied().max());
            prop_assert_eq!(claims.iter().rev().copied().reduce(keep), kept);
        }

        #[test]
        fn a_later_start_wins_over_any_number_of_changes_and_a_tie_takes_what_comes_in(a in told(), b in told()) {
            let wanted = b.generation > a.generation
                || b.generation == a.generation && b.version >= a.version;
            prop_assert_eq!(a.yields_to(b), wanted);
            prop_assert!(a.yields_to(a));
        }

        #[test]
        fn two_views_are_one_number_exactly_where_they_show_the_same(
            left in prop::collection::btree_map("[abc]{1,2}", told(), 0..4),
            right in prop::collection::btree_map("[abc]{1,2}", told(), 0..4),
        ) {
            let seen = |view: &BTreeMap<String, Told>| -> Presence {
                view.iter().map(|(uuid, told)| present(uuid, *told, Seen::Alive)).collect()
            };
            prop_assert_eq!(view(&seen(&left)) == view(&seen(&right)), left == right);
        }
    }

    #[test]
    fn who_is_gone_is_in_no_view() {
        let told = Told { generation: 1, version: 1 };
        let both =
            |seen| Presence::from([present("a", told, Seen::Alive), present("b", told, seen)]);
        let alone = Presence::from([present("a", told, Seen::Alive)]);
        assert_ne!(view(&both(Seen::Alive)), view(&alone));
        assert_eq!(view(&both(Seen::Dead)), view(&alone));
        assert_eq!(view(&both(Seen::Left)), view(&alone));
    }
}
