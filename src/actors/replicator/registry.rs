//! The replicators of a node, by the peer that each leads to.

use super::super::peers::{Outgoing, PeerPost};
use super::outbox::Outbox;
use super::{Carry, ReplicatorActor, ReplicatorOptions, spec};
use crate::actors::addresses::{Addresses, LocalIdentity};
use crate::actors::leadership::Leadership;
use crate::guards::tls::ClientTls;
use crate::model::NodeId;
use crate::observe::metrics::Snapshot;
use crate::observe::metrics::catalogue as of;
use crate::supervision::{ActorRef, Place, Supervisor, TreeError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Told when a peer cannot be reached: what was on its way to it may be lost.
pub trait PeerEvents: Send + Sync {
    /// The connection to the node was lost, or none can be made. Told once, until there is one.
    fn unreachable(&self, node: NodeId);

    /// There is a connection to the node, again or for the first time.
    fn reachable(&self, node: NodeId);
}

/// What a replicator is made of beside where it leads, again at each restart: all of a node share it.
#[derive(Clone)]
pub struct PeersParts {
    /// Who this node is.
    pub me: LocalIdentity,
    /// Where the peers are.
    pub addresses: Arc<Addresses>,
    /// What is led here: the peers are told.
    pub leadership: Arc<Leadership>,
    /// Who is told of peers that cannot be reached.
    pub events: Arc<dyn PeerEvents>,
    /// Limits and waits.
    pub options: ReplicatorOptions,
    /// What connections are secured with; `None`: nothing.
    pub tls: Option<ClientTls>,
    /// Decides what is left to chance.
    pub seed: u64,
}

/// See the module. Shared; callable from any thread.
#[derive(Default)]
pub struct Peers {
    ways: RwLock<BTreeMap<NodeId, Way>>,
    /// Nodes that nothing is brought to, as if the network lost it: a test's doing.
    cut: RwLock<BTreeSet<NodeId>>,
}

#[derive(Clone)]
struct Way {
    actor: ActorRef<ReplicatorActor>,
    outbox: Arc<Outbox>,
}

impl Peers {
    fn of(&self, node: NodeId) -> Option<Way> {
        self.ways.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// From now on what is posted to a node is lost on its way, and nobody is told: the fault of a
    /// network, for tests. `false` ends it.
    pub fn cut(&self, node: NodeId, is_cut: bool) {
        let mut cut = self.cut.write().unwrap_or_else(PoisonError::into_inner);
        if is_cut {
            cut.insert(node)
        } else {
            cut.remove(&node)
        };
    }

    /// The nodes that a way leads to.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.ways.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The actor that leads to a node.
    pub fn actor(&self, node: NodeId) -> Option<ActorRef<ReplicatorActor>> {
        self.of(node).map(|way| way.actor)
    }

    /// Plants the replicators that are missing below `above`, and removes those that lead to none
    /// of `nodes`. Returns when the latter have ended.
    ///
    /// # Errors
    /// The tree has ended, or one could not be planted or removed; the others were.
    pub async fn set(
        &self,
        nodes: &BTreeSet<NodeId>,
        above: &Supervisor,
        place: &Place,
        parts: &PeersParts,
    ) -> Result<(), TreeError> {
        let known = self.nodes();
        let mut outcome = Ok(());
        for gone in known.difference(nodes) {
            let way = self.ways.write().unwrap_or_else(PoisonError::into_inner).remove(gone);
            if let Some(way) = way {
                way.outbox.close();
                outcome = outcome.and(above.handle().remove(way.actor.path()).await);
            }
        }
        for node in nodes.difference(&known) {
            let planted = self.plant(*node, above, place, parts);
            outcome = outcome.and(planted);
        }
        outcome
    }

    fn plant(
        &self,
        node: NodeId,
        above: &Supervisor,
        place: &Place,
        parts: &PeersParts,
    ) -> Result<(), TreeError> {
        let (outbox, parts) = (Outbox::new(parts.options.outbox), Arc::new(parts.clone()));
        let spec = spec().named(node.to_string());
        let to_actor = Arc::clone(&outbox);
        let actor = above.try_child(spec, place.clone(), move |_, seat| {
            ReplicatorActor::new(seat, node, Arc::clone(&parts), Arc::clone(&to_actor))
        })?;
        let way = Way { actor, outbox };
        self.ways.write().unwrap_or_else(PoisonError::into_inner).insert(node, way);
        Ok(())
    }

    /// Adds what is counted of each peer to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot) {
        let ways = self.ways.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (node, Way { outbox, .. }) in ways {
            let node = node.to_string();
            let label = [node.as_str()];
            let counters = &outbox.counters;
            let (messages, bytes) = outbox.depth();
            snapshot.counter(&of::PEER_FRAMES, &label, &counters.frames);
            snapshot.counter(&of::PEER_MESSAGES, &label, &counters.messages);
            snapshot.counter(&of::PEER_BYTES, &label, &counters.bytes);
            snapshot.counter(&of::PEER_DROPPED, &label, &counters.dropped);
            snapshot.counter(&of::PEER_CONNECTIONS, &label, &counters.connections);
            snapshot.number(&of::PEER_QUEUE, &label, messages as f64);
            snapshot.number(&of::PEER_QUEUE_BYTES, &label, bytes as f64);
        }
    }
}

impl PeerPost for Peers {
    fn post(&self, to: NodeId, messages: Vec<Outgoing>) -> bool {
        if self.cut.read().unwrap_or_else(PoisonError::into_inner).contains(&to) {
            return true;
        }
        let Some(way) = self.of(to) else { return false };
        let Some(room) = way.outbox.room(&messages) else { return false };
        let count = messages.len() as u64;
        let told = way.actor.tell(Carry { messages, room });
        if told.is_err() {
            way.outbox.counters.dropped.add(count);
        }
        told.is_ok()
    }

    fn reaches(&self, node: NodeId) -> bool {
        self.of(node).is_some_and(|way| way.outbox.is_connected())
    }

    fn misses(&self, node: NodeId) -> bool {
        self.of(node).is_some_and(|way| !way.outbox.is_connected())
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peers").field(&self.nodes()).finish()
    }
}
