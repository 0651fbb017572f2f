//! The replicator: the way to one other node, for all groups that have a replica there. One
//! connection carries their messages; what is lost with it Raft says again.
//!
//! The way of a message: a raft actor posts it → [`Carry`] → the outbox, which is bounded → a frame
//! with all else that waits → the peer's front end → its [`Inbox`] → the raft actor of its group.

mod fill;
mod link;
mod outbox;
mod registry;

pub use outbox::{Outbox, OutboxLimits, PeerCounters, Room};
pub use registry::{PeerEvents, Peers, PeersParts};

use super::groups::{Groups, Undelivered};
use super::peers::Outgoing;
use crate::model::{NodeId, PeerMessage};
use crate::observe::{Mail, MailLoad};
use crate::supervision::{Backoff, ChildSpec, Restart, Seat, mail, receives};
use crate::wire::peer::PeerProof;
use actix::prelude::*;
use link::Link;
use slog::{debug, info, warn};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Messages that a [`Carry`] shows one by one.
const SHOWN_MAX: usize = 16;

/// Restart policy of a replicator: always. It holds nothing that is not said again, so a crash
/// costs a connection.
pub fn spec() -> ChildSpec {
    ChildSpec {
        restart: Restart::Permanent,
        backoff: Backoff {
            min: Duration::from_millis(50),
            max: Duration::from_millis(500),
            jitter: 0.5,
        },
        ..ChildSpec::new("replicator")
    }
}

/// Takes what comes from other nodes.
pub trait Inbox: Send + Sync + fmt::Debug {
    /// Hands a message to the replica that it is for. Never waits.
    ///
    /// # Errors
    /// Why nobody got it: it is lost then, as any message may be.
    fn deliver(&self, message: PeerMessage) -> Result<(), Undelivered>;
}

impl Inbox for Groups {
    fn deliver(&self, message: PeerMessage) -> Result<(), Undelivered> {
        Groups::deliver(self, message)
    }
}

/// Limits and waits of a replicator.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicatorOptions {
    /// How much may wait for the peer.
    pub outbox: OutboxLimits,
    /// What a frame holds, unless one message is larger (unit: bytes).
    pub frame_bytes: u64,
    /// How long a connection may take to be made and accepted.
    pub connect_timeout: Duration,
    /// The peer is given up for this connection when it takes no frame for so long.
    pub silence_max: Duration,
    /// Shows the peer that this is a node.
    pub proof: PeerProof,
    /// Between attempts to connect; at its longest after the peer said that it will not talk.
    pub backoff: Backoff,
}

impl Default for ReplicatorOptions {
    fn default() -> Self {
        Self {
            outbox: OutboxLimits { messages_max: 10_000, bytes_max: 64 << 20 },
            frame_bytes: 4 << 20,
            connect_timeout: Duration::from_secs(1),
            silence_max: Duration::from_secs(5),
            proof: PeerProof::default(),
            backoff: Backoff {
                min: Duration::from_millis(50),
                max: Duration::from_millis(500),
                jitter: 0.5,
            },
        }
    }
}

/// Brings messages to the peer, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Carry {
    /// What is said.
    pub messages: Vec<Outgoing>,
    /// What they take of the outbox.
    pub room: Room,
}

/// To itself: the peer has accepted this node's introduction.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Connected {
    /// Where the peer is.
    pub address: String,
}

/// To itself: there is no connection, or no longer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ConnectionLost {
    /// Where the peer was looked for.
    pub address: String,
    /// Why.
    pub reason: String,
}

receives!(ReplicatorActor: Carry, Connected, ConnectionLost);
mail!(Connected, ConnectionLost);

impl Mail for Carry {
    const NAME: &'static str = "Carry";

    fn load(&self) -> MailLoad {
        let bytes = self.messages.iter().map(|outgoing| outgoing.message.len_bytes());
        MailLoad { items: self.messages.len() as u32, bytes: bytes.sum() }
    }
}

/// Message by message, so that an election can be followed.
impl fmt::Debug for Carry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carry(")?;
        for (number, outgoing) in self.messages.iter().take(SHOWN_MAX).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{:?}", outgoing.message)?;
        }
        match self.messages.len().saturating_sub(SHOWN_MAX) {
            0 => f.write_str(")"),
            more => write!(f, ", and {more} more)"),
        }
    }
}

/// The actor.
pub struct ReplicatorActor {
    seat: Seat<Self>,
    /// Where it leads.
    peer: NodeId,
    parts: Arc<PeersParts>,
    outbox: Arc<Outbox>,
    /// Why there is no connection, once that was told; `None` while there is one, or at the start.
    lost: Option<String>,
}

impl ReplicatorActor {
    /// The factory.
    pub fn new(
        seat: Seat<Self>,
        peer: NodeId,
        parts: Arc<PeersParts>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self { seat, peer, parts, outbox, lost: None }
    }
}

impl Actor for ReplicatorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let link = Link {
            peer: self.peer,
            parts: Arc::clone(&self.parts),
            outbox: Arc::clone(&self.outbox),
            line: self.seat.line(context),
            clock: Arc::clone(self.seat.clock()),
            logger: self.seat.logger().clone(),
        };
        context.spawn(link.run().into_actor(self));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.outbox.close();
    }
}

impl Handler<Carry> for ReplicatorActor {
    type Result = ();

    fn handle(&mut self, message: Carry, _: &mut Self::Context) {
        self.outbox.put(message.messages, message.room);
    }
}

impl Handler<Connected> for ReplicatorActor {
    type Result = ();

    fn handle(&mut self, message: Connected, _: &mut Self::Context) {
        info!(self.seat.logger(), "connected to a peer"; "peer" => %self.peer,
            "address" => message.address);
        self.lost = None;
        self.parts.events.reachable(self.peer);
    }
}

impl Handler<ConnectionLost> for ReplicatorActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionLost, _: &mut Self::Context) {
        let ConnectionLost { address, reason } = message;
        let (logger, peer) = (self.seat.logger(), self.peer);
        if self.lost.as_ref() == Some(&reason) {
            debug!(logger, "no connection to a peer"; "peer" => %peer, "address" => address,
                "reason" => reason);
            return;
        }
        warn!(logger, "no connection to a peer; tried again until there is one";
            "peer" => %peer, "address" => address, "reason" => &reason);
        if self.lost.replace(reason).is_none() {
            self.parts.events.unreachable(peer);
        }
    }
}

impl fmt::Debug for ReplicatorActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicatorActor(to {})", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GroupId, PeerKind, ReplicaId, Term};

    #[test]
    fn an_election_can_be_read_from_what_is_carried() {
        let outbox = Outbox::new(ReplicatorOptions::default().outbox);
        outbox.open();
        let (one, two) = (ReplicaId::new(NodeId(1), 1), ReplicaId::new(NodeId(2), 4));
        let vote = PeerMessage::new(GroupId::LOG, PeerKind::Vote, one, two, Term(5));
        let carry = |count| {
            let outgoing = || Outgoing { message: vote.clone(), log: None };
            let messages: Vec<_> = std::iter::repeat_with(outgoing).take(count).collect();
            let room = outbox.room(&messages).unwrap();
            format!("{:?}", Carry { messages, room })
        };
        assert_eq!(carry(1), "Carry(Vote(1/0 n1#1->n2#4 term 5, last 0/0))");
        assert!(carry(18).ends_with(", and 2 more)"));
    }
}
