//! What of gossip is let through to memberlist, which decodes whatever it is given, keeps whomever it
//! hears of, and answers whoever asks.
//!
//! Everything is decoded here first, and looked through. Two streams of it are paced apart, so that
//! strangers cannot use up what nodes that are known may send. Where there is no key, an answer to a
//! stranger is at most three times as long as what came from its address: a forged sender gains
//! little by it.

use super::MembershipOptions;
use super::frame::{self, FrameError};
use crate::cluster::{Catalogue, NodeState};
use crate::guards::{TokenBucket, TokenBucketOptions};
use crate::model::Clock;
use crate::observe::metrics::{GossipRefused, Metrics};
use memberlist::agnostic::tokio::TokioRuntime;
use memberlist::bytes::{Bytes, BytesMut};
use memberlist::proto::{
    Label, MessageRef, MessagesDecoder, NodeId, ProtoDecoder, PushNodeState, SecretKey,
};
use slog::{Logger, warn};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Keeps other programs that gossip apart, also where no key is set.
pub const LABEL: &str = "duramen";
/// A node's identity: longer ones are nobody's, and memberlist would make packets of them that do not
/// hold them.
pub type Id = NodeId<64>;

/// Nodes known to gossip; further ones are let in only where the catalogue has them.
const NODES_MAX: usize = 1024;
/// memberlist fills packets up to 1400 bytes; label, checksum and encryption come on top.
const PACKET_BYTES_MAX: usize = 2048;
/// A node says this of itself with each refutation; who says more of another wants it to overflow.
const ACCUSED_MAX: u32 = 1 << 30;
/// So that the answer to the highest accusation is believed.
const ALIVE_MAX: u32 = 1 << 31;
/// Of strangers and of nodes that are known, each: a node hears some twenty packets a second, however
/// large its cluster is.
const PACKETS: TokenBucketOptions = TokenBucketOptions { capacity: 500, refill_per_second: 500 };
const CONNECTIONS: TokenBucketOptions = TokenBucketOptions { capacity: 100, refill_per_second: 50 };
const LINES: TokenBucketOptions = TokenBucketOptions { capacity: 5, refill_per_second: 1 };
/// How much longer an answer to a stranger may be than what it sent.
const ANSWER_TIMES_MAX: usize = 3;
/// Strangers whose bytes are counted for it.
const ASKERS_MAX: usize = 1024;

/// How something came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By UDP.
    Packet,
    /// By TCP.
    Stream,
}

/// See the module.
pub struct Gate {
    /// Largest message on a connection.
    pub message_bytes_max: usize,
    /// How long it may take.
    pub message_timeout: Duration,
    /// Connections that are read at once, and as many that are answered.
    pub connections_max: usize,
    is_open: bool,
    decoder: ProtoDecoder,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    logger: Logger,
    state: Mutex<State>,
}

struct State {
    packets: [TokenBucket; 2],
    connections: [TokenBucket; 2],
    lines: TokenBucket,
    untold: u64,
    nodes: BTreeMap<Id, SocketAddr>,
    askers: BTreeMap<SocketAddr, usize>,
}

/// Somebody is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{NODES_MAX} nodes are known, and the catalogue does not have this one")]
pub struct TooMany;

impl Gate {
    /// For one life of gossip.
    pub fn new(
        options: &MembershipOptions,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        clock: Arc<dyn Clock>,
        logger: Logger,
    ) -> Self {
        let mut decoder = ProtoDecoder::new();
        decoder.with_label(label()).with_offload_size(usize::MAX);
        if let Some(key) = options.key {
            decoder.with_encryption(vec![SecretKey::from(key)]).with_verify_incoming(true);
        }
        let now = clock.monotonic();
        let pair = |options| [TokenBucket::new(options, now), TokenBucket::new(options, now)];
        let state = State {
            packets: pair(PACKETS),
            connections: pair(CONNECTIONS),
            lines: TokenBucket::new(LINES, now),
            untold: 0,
            nodes: BTreeMap::new(),
            askers: BTreeMap::new(),
        };
        Self {
            message_bytes_max: options.message_bytes_max,
            message_timeout: options.message_timeout,
            connections_max: options.connections_max,
            is_open: options.key.is_none(),
            decoder,
            catalogue,
            clock,
            metrics: Arc::clone(&options.metrics),
            logger,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what was refused, and tells of it, of a flood once a second.
    pub fn refuse(&self, why: GossipRefused, from: impl fmt::Display) {
        self.metrics.gossip_refused(why).one();
        let now = self.clock.monotonic();
        let mut state = self.state();
        if !state.lines.allow(now) {
            state.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut state.untold);
        drop(state);
        warn!(self.logger, "gossip was refused"; "reason" => why.name(), "from" => %from,
            "untold_before" => untold,
            "advice" => "another program, or a node without the gossip.key of this cluster?");
    }

    /// Whether a packet goes on. What does not is counted.
    pub async fn takes_packet(&self, from: SocketAddr, payload: &Bytes) -> bool {
        let checked = if payload.len() > PACKET_BYTES_MAX {
            Err(GossipRefused::Size)
        } else if !self.has_turn(from) {
            Err(GossipRefused::Rate)
        } else {
            self.look_through(payload, Way::Packet).await
        };
        match checked {
            Ok(()) => self.has_asked(from, payload.len()),
            Err(why) => self.refuse(why, from),
        }
        checked.is_ok()
    }

    fn has_turn(&self, from: SocketAddr) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let is_known = state.nodes.values().any(|known| *known == from);
        state.packets[usize::from(is_known)].allow(now)
    }

    /// Whether a connection from there has its turn.
    pub fn takes_connection(&self, from: IpAddr) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let is_known = state.nodes.values().any(|known| known.ip() == from);
        state.connections[usize::from(is_known)].allow(now)
    }

    fn has_asked(&self, from: SocketAddr, len: usize) {
        if !self.is_open {
            return;
        }
        let mut state = self.state();
        if state.askers.len() >= ASKERS_MAX && !state.askers.contains_key(&from) {
            state.askers.clear();
        }
        // Once, not for ever: what was not answered is no credit for later.
        state.askers.insert(from, len * ANSWER_TIMES_MAX);
    }

    /// Whether so many bytes may be sent there.
    pub fn may_answer(&self, to: SocketAddr, len: usize) -> bool {
        if !self.is_open {
            return true;
        }
        let mut state = self.state();
        if state.nodes.values().any(|known| *known == to) {
            return true;
        }
        let left = state.askers.get_mut(&to).map(|left| (left.checked_sub(len), left));
        if let Some((Some(less), left)) = left {
            *left = less;
            return true;
        }
        drop(state);
        self.refuse(GossipRefused::Answer, to);
        false
    }

    /// Whether gossip may know one more node, or this one at another address.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn admit(&self, id: &Id, address: SocketAddr) -> Result<(), TooMany> {
        let mut state = self.state();
        if let Some(known) = state.nodes.get_mut(id) {
            *known = address;
            return Ok(());
        }
        let is_member = || {
            let catalogue = self.catalogue.borrow();
            catalogue
                .nodes
                .values()
                .any(|node| node.uuid == id.as_str() && node.state != NodeState::Removed)
        };
        if state.nodes.len() >= NODES_MAX && !is_member() {
            drop(state);
            self.refuse(GossipRefused::Nodes, address);
            return Err(TooMany);
        }
        state.nodes.insert(id.clone(), address);
        Ok(())
    }

    /// Looks through a message as it came.
    ///
    /// # Errors
    /// Why it does not go on.
    pub async fn look_through(&self, bytes: &[u8], way: Way) -> Result<(), GossipRefused> {
        let plain = self.decoder.decode::<TokioRuntime>(BytesMut::from(bytes)).await;
        let plain = plain.map_err(|_| GossipRefused::Unreadable)?;
        let messages = MessagesDecoder::<Id, SocketAddr, Bytes>::new(plain);
        let messages = messages.map_err(|_| GossipRefused::Unreadable)?;
        if messages.num_msgs() == 0 {
            return Err(GossipRefused::Unreadable);
        }
        for message in messages.iter() {
            look_at(&message.map_err(|_| GossipRefused::Unreadable)?, way)?;
        }
        Ok(())
    }
}

type Seen<'a> = MessageRef<
    'a,
    <Id as memberlist::proto::Data>::Ref<'a>,
    <SocketAddr as memberlist::proto::Data>::Ref<'a>,
>;

/// Whether a node of ours would say this, this way.
fn look_at(message: &Seen<'_>, way: Way) -> Result<(), GossipRefused> {
    let is_sound = match (message, way) {
        (MessageRef::Ping(_) | MessageRef::Ack(_), _)
        | (MessageRef::IndirectPing(_) | MessageRef::Nack(_), Way::Packet)
        | (MessageRef::ErrorResponse(_), Way::Stream) => true,
        (MessageRef::Suspect(said), Way::Packet) => said.incarnation() <= ACCUSED_MAX,
        (MessageRef::Dead(said), Way::Packet) => said.incarnation() <= ACCUSED_MAX,
        (MessageRef::Alive(said), Way::Packet) => said.incarnation() <= ALIVE_MAX,
        (MessageRef::PushPull(said), Way::Stream) => {
            said.states().len() <= 2 * NODES_MAX
                && said
                    .states()
                    .iter::<PushNodeState<Id, SocketAddr>>()
                    .all(|state| state.is_ok_and(|state| state.incarnation() <= ALIVE_MAX))
        }
        _ => false,
    };
    if is_sound { Ok(()) } else { Err(GossipRefused::Message) }
}

/// The label of all that is said.
pub fn label() -> Label {
    LABEL.try_into().expect("the label is short")
}

impl From<FrameError> for GossipRefused {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Foreign => Self::Unreadable,
            FrameError::TooLong => Self::Size,
        }
    }
}

impl Gate {
    /// As [`frame::len`], for what is taken here.
    ///
    /// # Errors
    /// As there.
    pub fn frame_len(&self, bytes: &[u8]) -> Result<Option<usize>, GossipRefused> {
        Ok(frame::len(bytes, self.message_bytes_max)?)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
