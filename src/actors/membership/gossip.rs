//! memberlist, as this program uses it: what is set and why, and the few things asked of it.
//!
//! Three settings are work-arounds. Entries of the dead are kept for a day, as purging them leaves
//! memberlist with a wrong index, on which it panics. A name may be taken over at once from an
//! address that is dead, as a node that comes back on another port were refused for half a minute
//! otherwise. And its tasks panic unseen: [`super::panics`] counts.

use super::MembershipOptions;
use super::gate::{Gate, Id, TooMany, label};
use super::meta::Meta;
use super::transport::{Gated, GatedOptions};
use futures_util::FutureExt;
use memberlist::Memberlist;
use memberlist::delegate::{
    AliveDelegate, CompositeDelegate, EventDelegate, MergeDelegate, NodeDelegate, VoidDelegate,
};
use memberlist::proto::{MaybeResolvedAddress, Meta as MetaBytes, NodeState, SecretKey};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const KEEP_THE_DEAD: Duration = Duration::from_secs(24 * 3600);
const RECLAIM_AFTER: Duration = Duration::from_millis(1);
/// Everything is exchanged with somebody every so many probes: what went wrong lasts no longer.
const EXCHANGE_EVERY: u32 = 10;
/// How long a change may take to reach anybody.
const TELL_WITHIN: Duration = Duration::from_secs(2);
const REACH_WITHIN: Duration = Duration::from_secs(3);
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// How fast a node gossips, and how soon it misses somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two probes of others, one at a time.
    pub probe: Duration,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// Between two rounds of news.
    pub gossip: Duration,
    /// Between two looks at who is missing; also the first pause between attempts to reach them.
    pub look: Duration,
}

impl Pace {
    /// For a network, or for one machine where nothing is far.
    pub fn of(addr: SocketAddr) -> Self {
        let ms = Duration::from_millis;
        let (probe, look) = if addr.ip().is_loopback() { (500, 500) } else { (1000, 1000) };
        Self { probe: ms(probe), probe_timeout: ms(probe / 2), gossip: ms(200), look: ms(look) }
    }
}

type Node = NodeState<Id, SocketAddr>;
type Void = VoidDelegate<Id, SocketAddr>;
type Delegates = CompositeDelegate<Id, SocketAddr, Ears, Void, Ears, Ears, Ears, Void>;
type List = Memberlist<Gated, Delegates>;

/// What memberlist calls, on its own tasks.
#[derive(Clone)]
struct Ears(Arc<Shared>);

struct Shared {
    uuid: String,
    gate: Arc<Gate>,
    /// What is told of this node.
    meta: Mutex<Vec<u8>>,
    /// The newest generation that others know of this node: one before this start, perhaps.
    generation_heard: AtomicU64,
    /// Called, without more, when anything changed.
    noticed: Box<dyn Fn() + Send + Sync>,
}

impl AliveDelegate for Ears {
    type Error = TooMany;
    type Id = Id;
    type Address = SocketAddr;

    async fn notify_alive(&self, peer: Arc<Node>) -> Result<(), TooMany> {
        self.0.gate.admit(peer.id(), *peer.address())
    }
}

impl EventDelegate for Ears {
    type Id = Id;
    type Address = SocketAddr;

    async fn notify_join(&self, _: Arc<Node>) {
        (self.0.noticed)();
    }

    async fn notify_leave(&self, _: Arc<Node>) {
        (self.0.noticed)();
    }

    async fn notify_update(&self, _: Arc<Node>) {
        (self.0.noticed)();
    }
}

impl NodeDelegate for Ears {
    async fn node_meta(&self, _: usize) -> MetaBytes {
        let meta = self.0.meta.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MetaBytes::try_from(meta).expect("it was bounded when it was made")
    }
}

impl MergeDelegate for Ears {
    type Error = Infallible;
    type Id = Id;
    type Address = SocketAddr;

    /// A clock that was set back must not make this start look older than the last one.
    async fn notify_merge(&self, peers: Arc<[Node]>) -> Result<(), Infallible> {
        for peer in peers.iter().filter(|peer| peer.id().as_str() == self.0.uuid) {
            if let Ok(meta) = Meta::decode_checked(peer.meta().as_bytes()) {
                self.0.generation_heard.fetch_max(meta.generation, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// A node as gossip knows it.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Its identity: that of its directory.
    pub uuid: String,
    /// Where it gossips.
    pub gossip_addr: SocketAddr,
    /// What it tells of itself.
    pub meta: Vec<u8>,
    /// Whether it answers.
    pub is_alive: bool,
}

/// Gossip at work; ends when it is dropped.
pub struct Gossip {
    list: List,
    shared: Arc<Shared>,
}

impl Gossip {
    /// Begins: opens the ports. `noticed` is called whenever anything changed.
    pub async fn start(
        options: &MembershipOptions,
        uuid: String,
        gate: Gate,
        meta: Vec<u8>,
        noticed: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, String> {
        let id = Id::new(&uuid).map_err(|error| error.to_string())?;
        let gate = Arc::new(gate);
        let shared = Arc::new(Shared {
            uuid,
            gate: Arc::clone(&gate),
            meta: Mutex::new(meta),
            generation_heard: AtomicU64::new(0),
            noticed,
        });
        let ears = Ears(Arc::clone(&shared));
        let delegates = CompositeDelegate::<Id, SocketAddr>::new()
            .with_alive_delegate(ears.clone())
            .with_event_delegate(ears.clone())
            .with_merge_delegate(ears.clone())
            .with_node_delegate(ears);
        let transport = GatedOptions::new(id, options.addr, options.advertise, gate);
        let list = List::with_delegate(delegates, transport, settings(options)).await;
        list.map(|list| Self { list, shared }).map_err(|error| error.to_string())
    }

    /// Where other nodes are told to gossip with this one.
    pub fn addr(&self) -> SocketAddr {
        *self.list.advertise_address()
    }

    /// The newest generation of this node that others have told of; 0: none.
    pub fn generation_heard(&self) -> u64 {
        self.shared.generation_heard.load(Ordering::Relaxed)
    }

    /// Everybody who is known, this node included.
    pub async fn survey(&self) -> Vec<Sighting> {
        // memberlist shows who is online, and who is known, but not the difference of one entry.
        let online: BTreeSet<Id> =
            self.list.online_members().await.iter().map(|node| node.id().clone()).collect();
        let of = |node: &Arc<Node>| Sighting {
            uuid: node.id().to_string(),
            gossip_addr: *node.address(),
            meta: node.meta().as_bytes().to_vec(),
            is_alive: online.contains(node.id()),
        };
        self.list.members().await.iter().map(of).collect()
    }

    /// Exchanges all that is known with whoever gossips at an address; names are looked up.
    pub async fn reach(&self, address: &str) -> Result<(), String> {
        let reached = async {
            let found = tokio::net::lookup_host(address).await.map_err(|e| e.to_string())?;
            let mut error = "the name has no address".to_owned();
            for address in found.take(4) {
                match self.list.join(MaybeResolvedAddress::resolved(address)).await {
                    Ok(_) => return Ok(()),
                    Err(refused) => error = refused.to_string(),
                }
            }
            Err(error)
        };
        let late = Err(format!("no answer within {REACH_WITHIN:?}"));
        tokio::time::timeout(REACH_WITHIN, reached).await.unwrap_or(late)
    }

    /// Tells others what this node says of itself from now on.
    pub async fn tell(&self, meta: Vec<u8>) -> Result<(), String> {
        *self.shared.meta.lock().unwrap_or_else(PoisonError::into_inner) = meta;
        self.list.update_node(TELL_WITHIN).await.map_err(|error| error.to_string())
    }

    /// Says farewell, with what this node says of itself last, within a second.
    pub async fn leave(&self, last: Vec<u8>) -> Result<(), String> {
        // Nobody hears it where nobody is there; that is no failure of the farewell.
        let told = tokio::time::timeout(LEAVE_WITHIN, self.tell(last)).await;
        let left = self.list.leave(LEAVE_WITHIN).await.map_err(|error| error.to_string());
        left.and(told.unwrap_or_else(|late| Err(late.to_string())))
    }

    /// Closes the ports.
    pub async fn end(&self) -> Result<(), String> {
        self.list.shutdown().await.map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gossip({})", self.addr())
    }
}

/// memberlist is held by its own tasks and, while it suspects somebody, by itself: only when it is
/// told does it let go of the port. Its runtime may be ending, so that nobody would be there to wait
/// for the rest; to tell it takes no waiting.
impl Drop for Gossip {
    fn drop(&mut self) {
        // Whoever is dropped in the middle of things has nobody left to tell of a failure.
        drop(self.list.shutdown().now_or_never());
    }
}

fn settings(options: &MembershipOptions) -> memberlist::Options {
    let Pace { probe, probe_timeout, gossip, .. } = options.pace;
    let settings = memberlist::Options::lan()
        .with_probe_interval(probe)
        .with_probe_timeout(probe_timeout)
        .with_gossip_interval(gossip)
        .with_push_pull_interval(probe * EXCHANGE_EVERY)
        .with_suspicion_max_timeout_mult(2)
        .with_gossip_to_the_dead_time(KEEP_THE_DEAD)
        .with_dead_node_reclaim_time(RECLAIM_AFTER)
        .with_timeout(options.message_timeout)
        .with_label(label());
    match options.key {
        None => settings,
        Some(key) => settings
            .with_primary_key(SecretKey::from(key))
            .with_encryption_algo(Default::default())
            .with_gossip_verify_incoming(true)
            .with_gossip_verify_outgoing(true),
    }
}
