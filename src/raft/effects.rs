//! What goes into and comes out of a replica's state machine, as plain values.

use super::hard_state::HardState;
use super::membership::{ChangeError, Membership};
use super::messages::PeerFault;
use super::term_runs::TermRuns;
use crate::model::{Disposition, GroupId, PeerMessage, RaftIndex, ReplicaId, Term};
use bytes::Bytes;

/// Who a replica is, and its limits.
#[derive(Debug, Clone, Copy)]
pub struct RaftConfig {
    /// Its group.
    pub group: GroupId,
    /// The replica.
    pub me: ReplicaId,
    /// Ticks without word from a leader before it stands for election: from this up to twice this,
    /// drawn again for each try. More than `heartbeat_ticks`.
    pub election_ticks: usize,
    /// Ticks between heartbeats of a leader, at least 1.
    pub heartbeat_ticks: usize,
    /// Bytes of entries in one message; an entry that is larger goes alone.
    pub message_bytes_max: u64,
    /// Messages with entries on their way to one follower, at least 1.
    pub inflight_max: usize,
    /// What election timeouts and the names of reads are drawn from. Differs between starts.
    pub seed: u64,
}

/// How large entries are, so that messages keep to a byte limit: the engine sees handles only.
pub trait EntrySizes {
    /// How many entries from `low` on, below `high`, fit `bytes_max`; at least one. Asked for
    /// entries that were proposed and may not be written yet.
    fn fit(&self, low: RaftIndex, high: RaftIndex, bytes_max: u64) -> u64;
}

/// What a replica finds on disk when it starts.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The vote file; `None` in a new replica.
    pub hard_state: Option<HardState>,
    /// The terms of the entries in the log.
    pub terms: TermRuns,
}

/// What the engine carries in place of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// Records in the entry; 0 where it came from a peer and was not looked into.
    pub records: u64,
    /// Bytes of the entry's payload.
    pub bytes: u64,
}

impl Handle {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&self.records.to_be_bytes());
        bytes.extend_from_slice(&self.bytes.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { records: word(0)?, bytes: word(8)? })
    }
}

/// What an entry that is to be written holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A payload, known to the caller: by order of proposal at a leader, by index and term at a
    /// follower that got it in a message.
    Data(Handle),
    /// Bytes of this room, empty for the no-op of an election. They are written as they are, and
    /// come back from other replicas.
    Internal(Bytes),
}

/// An entry that the log must write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Its term.
    pub term: Term,
    /// Its place in the Raft log. Where the log has an entry there, it and all behind it go first.
    pub index: RaftIndex,
    /// What it holds.
    pub content: Content,
}

/// Where the log begins from now on: nothing of what it held is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStart {
    /// The entry before the first one that will be there.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// The members that the leader knew of.
    pub membership: Membership,
    /// The log's own state at that place, as the sender's log encoded it.
    pub state: Bytes,
}

/// A read that was asked for may be served once this much is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadReady {
    /// As it was given to `read_index`.
    pub read: u64,
    /// All that was committed when it was asked.
    pub index: RaftIndex,
}

/// What one step of the engine asks for, to be carried out in the order of the fields. Messages may
/// leave at once: those that must wait are kept back until [`super::PartitionRaft::persisted`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Reported back by [`super::PartitionRaft::persisted`] when hard state, start of the log and
    /// entries are durable. A step with none of them need not be reported.
    pub number: u64,
    /// To be made durable before the entries, and before the log is begun anew.
    pub hard_state: Option<HardState>,
    /// The log is to be emptied and begun here.
    pub install: Option<LogStart>,
    /// To be made durable, in this order.
    pub entries: Vec<NewEntry>,
    /// All entries up to here are committed, and durable here: their proposers may be answered. A
    /// replica that starts again may be told of entries that it was told of before.
    pub committed: Option<RaftIndex>,
    /// To be sent. All entries in them are [`crate::model::PeerPayload::Stored`].
    pub messages: Vec<PeerMessage>,
    /// Answers to reads.
    pub reads: Vec<ReadReady>,
    /// The group has other members than before.
    pub membership_changed: bool,
}

/// What a leader knows of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// Which; the leader itself is among them.
    pub replica: ReplicaId,
    /// It does not vote.
    pub is_learner: bool,
    /// The last entry that it is known to hold.
    pub matched: RaftIndex,
    /// It was heard of lately: within two election timeouts.
    pub is_active: bool,
    /// It is behind the log's first entry, and is told where the log begins.
    pub needs_snapshot: bool,
}

/// The part that this replica plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote, or is no member (yet).
    Learner,
}

/// Why a request to the state machine fails. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// Proposals are for the leader.
    #[error("this replica is not the leader of its partition")]
    NotLeader,
    /// The leader takes nothing while it hands over.
    #[error("leadership of the partition is being handed over; try again at the next leader")]
    HandingOver,
    /// A change of the members does not fit.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A message of another replica makes no sense.
    #[error("a message of {from} is refused: {fault}")]
    Peer {
        /// Who claims to have sent it.
        from: ReplicaId,
        /// What is wrong with it.
        fault: PeerFault,
    },
    /// The engine refused; its text says why.
    #[error("raft engine: {0}")]
    Engine(#[from] raft::Error),
}

impl RaftError {
    /// Who must act.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotLeader | Self::HandingOver | Self::Change(_) | Self::Peer { .. } => {
                Disposition::TellCaller
            }
            Self::Engine(_) => Disposition::RebuildActor,
        }
    }
}
