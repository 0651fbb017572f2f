//! What the raft actor receives, and what is in it.

use super::super::partition::{AckSender, ReadError};
use super::sequences::ProducersFound;
use crate::log::batch::ValidBatches;
use crate::log::{LogView, Placed};
use crate::model::{Durability, NodeId, Offset, PeerMessage, Record, ReplicaId};
use crate::observe::{Mail, MailLoad};
use crate::raft::{HardState, TermRuns};
use crate::supervision::{Permit, mail};
use actix::Message;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a producer wants appended, already checked.
pub enum Body {
    /// Records that share a batch with those of other producers.
    Records(Vec<Record>),
    /// Whole batches, kept as they are.
    Batches(ValidBatches),
    /// Whole batches of another cluster, which has judged what idempotent producers sent it.
    Copied(ValidBatches),
}

/// A request to append.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Propose {
    /// What to append.
    pub body: Body,
    /// About how many bytes it holds.
    pub bytes: usize,
    /// Where the answer goes.
    pub answer: AckSender,
    /// Held until the answer is sent.
    pub permit: Permit,
}

/// From a peer's replica of the same group.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Carried(pub PeerMessage);

/// A node cannot be reached: what was on its way to it is lost.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PeerLost {
    /// Which.
    pub node: NodeId,
}

/// A node can be reached, again or for the first time.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PeerFound {
    /// Which.
    pub node: NodeId,
}

/// The group is to consist of other replicas from now on; its leader sees to it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Desire;

/// Asks the leader to hand over; ignored elsewhere.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Transfer {
    /// To whom; `None`: to any replica that has everything.
    pub to: Option<ReplicaId>,
}

/// Asks up to which offset a read sees all that was acknowledged by now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReadIndex {
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Offset, ReadError>>,
}

/// From the log actor: the log is recovered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct LogReady {
    /// The vote file.
    pub hard_state: Option<HardState>,
    /// Terms of the entries in the log.
    pub terms: TermRuns,
    /// Where the next record goes.
    pub next_offset: Offset,
    /// What idempotent producers sent.
    pub producers: ProducersFound,
    /// The log as readers see it.
    pub view: Arc<LogView>,
}

/// From the log actor: an [`super::super::log::Append`] is done, or was refused.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Persisted(pub Flushed);

/// The outcome of one [`super::super::log::Append`].
#[derive(Debug)]
pub struct Flushed {
    /// The number of the append.
    pub number: u64,
    /// Where its entries are, or why nothing of them was kept.
    pub outcome: Result<Kept, Refusal>,
}

/// Why nothing of an append was kept.
#[derive(Debug)]
pub struct Refusal {
    /// The reason, for people.
    pub reason: String,
    /// Set where the disk was full: the room that was missing.
    pub needed_bytes: Option<u64>,
}

/// What a done append tells.
#[derive(Debug)]
pub struct Kept {
    /// How safe the entries are. Only a synced log can say [`Durability::Fsync`].
    pub durability: Durability,
    /// Where each entry's records are.
    pub entries: Vec<Placed>,
}

/// From the log actor: the wait asked for is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct WaitOver;

/// From the log actor: the disk has room again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SpaceReturned;

/// From the log actor: housekeeping is due. Answered by [`super::super::log::TendWith`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TendDue;

/// To itself: the mailbox is drained, see what is pending.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Pump;

mail!(
    PeerLost,
    PeerFound,
    Desire,
    Transfer,
    ReadIndex,
    LogReady,
    WaitOver,
    SpaceReturned,
    TendDue,
    Pump
);

impl Mail for Propose {
    const NAME: &'static str = "Propose";

    fn load(&self) -> MailLoad {
        MailLoad { items: self.body.records(), bytes: self.bytes as u64 }
    }
}

impl Mail for Carried {
    const NAME: &'static str = "Carried";

    fn load(&self) -> MailLoad {
        MailLoad { items: self.0.entries.len() as u32, bytes: self.0.len_bytes() }
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Mail for Persisted {
    const NAME: &'static str = "Persisted";

    fn load(&self) -> MailLoad {
        let entries = self.0.outcome.as_ref().map_or(0, |kept| kept.entries.len());
        MailLoad { items: entries as u32, bytes: 0 }
    }
}

impl Body {
    fn records(&self) -> u32 {
        match self {
            Self::Records(records) => records.len() as u32,
            Self::Batches(whole) | Self::Copied(whole) => whole.record_count(),
        }
    }
}

/// Payloads by count, length and checksum: user bytes are never printed.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut bytes, mut crc) = (0, 0);
        let mut take = |part: &[u8]| {
            bytes += part.len();
            crc = crc32c::crc32c_append(crc, part);
        };
        let kind = match self {
            Self::Records(records) => {
                for payload in records.iter().flat_map(|r| [&r.key, &r.value]).flatten() {
                    take(payload);
                }
                "records"
            }
            Self::Batches(whole) | Self::Copied(whole) => {
                take(whole.bytes());
                "batched records"
            }
        };
        write!(f, "{} {kind}, {bytes}B, crc32c {crc:08x}", self.records())
    }
}

impl fmt::Debug for Propose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Propose({:?})", self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_payload_is_shown_by_count_length_and_checksum_only() {
        let record = Record::of_value(b"a secret".to_vec(), Timestamp(1));
        let shown = format!("{:?}", Body::Records(vec![record.clone(), record]));
        assert_eq!(shown, "2 records, 16B, crc32c d7d767e6");
    }
}
