//! What waits for one peer: bounded, counted, and emptied at once when the way is lost.

use super::super::peers::Outgoing;
use crate::model::PeerKind;
use crate::observe::metrics::Counter;
use crate::wire::peer::wire_bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How much may wait for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Messages.
    pub messages_max: usize,
    /// Their bytes, as they are on the wire; one message passes alone whatever its size.
    pub bytes_max: u64,
}

/// What is counted of a peer; the catalogue of metrics says what each is.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the catalogue of metrics says what each is")]
pub struct PeerCounters {
    pub frames: Counter,
    pub messages: Counter,
    pub bytes: Counter,
    pub dropped: Counter,
    pub connections: Counter,
}

/// See the module. Shared by whoever posts, the actor, and its connection.
#[derive(Debug)]
pub struct Outbox {
    limits: OutboxLimits,
    state: Mutex<Waiting>,
    filled: Notify,
    /// What is counted.
    pub counters: PeerCounters,
}

#[derive(Debug, Default)]
struct Waiting {
    /// There is a connection, or one is being made. Else a message would be stale before it leaves.
    open: bool,
    /// The peer has accepted the connection.
    connected: bool,
    queue: VecDeque<Outgoing>,
    /// All that is not sent: on its way to the queue, in it, and in the connection's hands.
    load: Load,
    /// Grows when the box is emptied: what was counted before counts no more.
    era: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: u64,
}

impl Load {
    fn of(outgoing: &Outgoing) -> Self {
        Self { messages: 1, bytes: wire_bytes(&outgoing.message) }
    }

    fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Room that is taken in an outbox, until it is dropped.
#[derive(Debug)]
pub struct Room {
    outbox: Arc<Outbox>,
    load: Load,
    era: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut waiting = self.outbox.waiting();
        if waiting.era == self.era {
            waiting.load = waiting.load.minus(self.load);
        }
    }
}

/// What waits is sent again anyway: a heartbeat follows the next.
fn is_heartbeat(outgoing: &Outgoing) -> bool {
    matches!(outgoing.message.kind, PeerKind::Heartbeat | PeerKind::HeartbeatAnswer)
}

impl Outbox {
    /// An empty one that takes nothing yet.
    pub fn new(limits: OutboxLimits) -> Arc<Self> {
        let (state, filled, counters) = Default::default();
        Arc::new(Self { limits, state, filled, counters })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for messages that are about to be put in. Where there is too little the oldest
    /// heartbeats make room; what does not fit even so is refused as a whole.
    pub fn room(self: &Arc<Self>, messages: &[Outgoing]) -> Option<Room> {
        let wanted = messages.iter().map(Load::of).fold(Load::default(), Load::plus);
        let OutboxLimits { messages_max, bytes_max } = self.limits;
        let mut waiting = self.waiting();
        let fits = |load: Load| {
            load.messages + wanted.messages <= messages_max
                && (load.messages == 0 || load.bytes + wanted.bytes <= bytes_max)
        };
        if waiting.open && !fits(waiting.load) {
            let Waiting { queue, load, .. } = &mut *waiting;
            queue.retain(|outgoing| {
                let goes = is_heartbeat(outgoing) && !fits(*load);
                if goes {
                    *load = load.minus(Load::of(outgoing));
                    self.counters.dropped.one();
                }
                !goes
            });
        }
        if !waiting.open || !fits(waiting.load) {
            drop(waiting);
            self.counters.dropped.add(messages.len() as u64);
            return None;
        }
        waiting.load = waiting.load.plus(wanted);
        let era = waiting.era;
        drop(waiting);
        Some(Room { outbox: Arc::clone(self), load: wanted, era })
    }

    /// Puts in what room was taken for.
    pub fn put(&self, messages: Vec<Outgoing>, room: Room) {
        let mut waiting = self.waiting();
        if room.era == waiting.era {
            let load = messages.iter().map(Load::of).fold(Load::default(), Load::plus);
            // The room that is given back below is what these take now.
            waiting.load = waiting.load.plus(load);
            waiting.queue.extend(messages);
        } else {
            self.counters.dropped.add(messages.len() as u64);
        }
        drop(waiting);
        drop(room);
        self.filled.notify_one();
    }

    /// Takes all that is in the queue. It counts as waiting until [`Outbox::gone`].
    pub fn take(&self) -> VecDeque<Outgoing> {
        std::mem::take(&mut self.waiting().queue)
    }

    /// What was taken is sent, or dropped: so many messages, so many bytes as they came.
    pub fn gone(&self, messages: usize, bytes: u64) {
        let mut waiting = self.waiting();
        waiting.load = waiting.load.minus(Load { messages, bytes });
    }

    /// Waits until something is in the queue.
    pub async fn filled(&self) {
        while self.waiting().queue.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes messages from now on.
    pub fn open(&self) {
        self.waiting().open = true;
    }

    /// Takes none from now on, and drops what waits.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        let dropped = waiting.load.messages as u64;
        let era = waiting.era + 1;
        let before = std::mem::replace(&mut *waiting, Waiting { era, ..Waiting::default() });
        drop(waiting);
        self.counters.dropped.add(dropped);
        drop(before);
    }

    /// The peer has accepted the connection.
    pub fn connected(&self) {
        self.waiting().connected = true;
    }

    /// Whether the peer has accepted a connection, and it is there still.
    pub fn is_connected(&self) -> bool {
        self.waiting().connected
    }

    /// Whether it takes messages.
    pub fn is_open(&self) -> bool {
        self.waiting().open
    }

    /// Messages that wait, and their bytes.
    pub fn depth(&self) -> (usize, u64) {
        let waiting = self.waiting();
        (waiting.load.messages, waiting.load.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GroupId, NodeId, PeerEntry, PeerMessage, PeerPayload};
    use crate::model::{RaftIndex, ReplicaId, Term};

    fn message(kind: PeerKind, bytes: usize) -> Outgoing {
        let (from, to) = (ReplicaId::FIRST, ReplicaId::new(NodeId(2), 2));
        let mut message = PeerMessage::new(GroupId::LOG, kind, from, to, Term(1));
        if bytes > 0 {
            let payload = PeerPayload::Data(vec![vec![7; bytes].into()]);
            message.entries = vec![PeerEntry { term: Term(1), index: RaftIndex(1), payload }];
        }
        Outgoing { message, log: None }
    }

    fn open(messages_max: usize, bytes_max: u64) -> Arc<Outbox> {
        let outbox = Outbox::new(OutboxLimits { messages_max, bytes_max });
        outbox.open();
        outbox
    }

    fn put(outbox: &Arc<Outbox>, messages: Vec<Outgoing>) -> bool {
        let room = outbox.room(&messages);
        room.map(|room| outbox.put(messages, room)).is_some()
    }

    fn kinds(outbox: &Outbox) -> Vec<PeerKind> {
        outbox.take().iter().map(|outgoing| outgoing.message.kind).collect()
    }

    #[test]
    fn when_it_is_full_the_oldest_heartbeats_go_and_then_nothing_more_is_taken() {
        let outbox = open(3, 1 << 20);
        let beat = || message(PeerKind::Heartbeat, 0);
        assert!(put(&outbox, vec![beat(), message(PeerKind::Vote, 0), beat()]));
        assert!(put(&outbox, vec![message(PeerKind::Append, 10)]), "a heartbeat makes room");
        assert!(put(&outbox, vec![message(PeerKind::Append, 10)]));
        assert!(!put(&outbox, vec![message(PeerKind::Append, 10)]), "no heartbeat is left");
        assert_eq!(outbox.counters.dropped.get(), 3);
        assert_eq!(kinds(&outbox), [PeerKind::Vote, PeerKind::Append, PeerKind::Append]);
        assert!(!put(&outbox, vec![beat()]), "what was taken counts until it is gone");
        outbox.gone(3, u64::MAX);
        assert!(put(&outbox, vec![beat()]));
    }

    #[test]
    fn bytes_are_bounded_and_one_large_message_passes_alone() {
        let outbox = open(100, 4000);
        assert!(put(&outbox, vec![message(PeerKind::Append, 9000)]));
        assert!(!put(&outbox, vec![message(PeerKind::Append, 1)]));
        let bytes: u64 = outbox.take().iter().map(|o| Load::of(o).bytes).sum();
        outbox.gone(1, bytes);
        assert_eq!(outbox.depth(), (0, 0));
        assert!(put(&outbox, vec![message(PeerKind::Append, 1)]));
    }

    #[test]
    fn what_was_posted_before_the_way_was_lost_is_not_sent_after_it() {
        let outbox = open(10, 1 << 20);
        assert!(put(&outbox, vec![message(PeerKind::Vote, 0)]));
        let late = vec![message(PeerKind::Vote, 0)];
        let room = outbox.room(&late).unwrap();
        outbox.close();
        assert!(!put(&outbox, vec![message(PeerKind::Vote, 0)]), "no way, no queue");
        outbox.open();
        outbox.put(late, room);
        assert_eq!(outbox.depth(), (0, 0));
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn room_that_was_not_used_is_given_back() {
        let outbox = open(1, 1 << 20);
        drop(outbox.room(&[message(PeerKind::Vote, 0)]));
        assert_eq!(outbox.depth(), (0, 0));
        assert!(put(&outbox, vec![message(PeerKind::Vote, 0)]));
    }
}
