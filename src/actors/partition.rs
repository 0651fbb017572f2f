//! The seam between front ends and a partition: what a protocol may ask, and what it is told.
//!
//! Front ends are written against [`PartitionApi`] and know neither actors, mailboxes nor files.

use super::readers::Reader;
use crate::model::{
    Disposition, Durability, NodeId, Offset, RaftIndex, Record, ReplicaId, Term, Timestamp,
};
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// When to ask again where a group may be choosing its leader.
const NOT_LEADER_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Everything a front end may do with a partition. Cheap to clone, callable from any thread.
pub trait PartitionApi: Clone + Send + Sync + Unpin + 'static {
    /// Checks, admits and queues records; never waits. The answer comes through [`PendingAck`].
    ///
    /// # Errors
    /// What is wrong with the request, or why the partition takes none now: nothing is stored.
    fn propose_records(&self, records: Vec<Record>) -> Result<PendingAck, ProduceError>;

    /// As [`PartitionApi::propose_records`], for whole record batches in Kafka's layout (magic 2),
    /// one after another. CRC, counts and limits are checked before anything is queued.
    ///
    /// # Errors
    /// As above.
    fn propose_batches(&self, raw: Bytes) -> Result<PendingAck, ProduceError>;

    /// Whether the log can be read at all. Until it can, its bounds below are not known, and an
    /// empty log is all that they tell.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`]: why not, and when to ask again.
    fn readable(&self) -> Result<(), ReadError>;

    /// The oldest offset that can be read.
    fn start_offset(&self) -> Offset;

    /// One past the newest committed record.
    fn high_watermark(&self) -> Offset;

    /// The high watermark as it moves. Survives restarts of the partition's actors; closed only
    /// when the partition is gone.
    fn watch(&self) -> watch::Receiver<Offset>;

    /// Reads whole stored batches from the one that holds `from`: at most `max_bytes`, but at
    /// least one batch. Empty at the high watermark. Waits for the device where data is cold.
    fn read_batches(
        &self,
        from: Offset,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Chunk, ReadError>> + Send;

    /// Reads decoded records, exactly from `from`: at most `max_records` and about `max_bytes`,
    /// but at least one record. Empty at the high watermark.
    fn read_records(
        &self,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<(Offset, Record)>, ReadError>> + Send;

    /// The first offset whose record is at or after `at`; the high watermark where there is none.
    fn find_time(&self, at: Timestamp) -> impl Future<Output = Result<Offset, ReadError>> + Send;

    /// Up to where a reader must be served who is to see all that was acknowledged before now:
    /// asks the leader, where that is another replica.
    fn read_index(&self) -> impl Future<Output = Result<Offset, ReadError>> + Send;

    /// The partition's state, for people and probes.
    fn describe(&self) -> PartitionStatus;

    /// Whether another replica takes what is to be appended: asked before each request, so cheap.
    fn is_follower(&self) -> bool {
        false
    }

    /// Puts a reader on the list of those who read, for as long as it lives. `None` where no list
    /// is kept.
    fn reader(&self, _peer: Option<SocketAddr>, _next: Offset) -> Option<Reader> {
        None
    }
}

/// What a producer gets when its records are as safe as `durability` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The offset of the request's first record; the others follow it without a gap.
    pub base_offset: Offset,
    /// How many records the request held.
    pub records: u32,
    /// The largest timestamp among them, as stored.
    pub timestamp: Timestamp,
    /// How safe they are now.
    pub durability: Durability,
}

/// The sending half of a [`PendingAck`]. Dropped unused it tells the caller "outcome unknown".
#[derive(Debug)]
pub struct AckSender(oneshot::Sender<Result<Ack, ProduceError>>);

impl AckSender {
    /// Answers the producer. A producer that has gone is no error.
    pub fn send(self, outcome: Result<Ack, ProduceError>) {
        let _ = self.0.send(outcome);
    }
}

/// An acknowledgement on its way: a future without a task, a timer or a lock of its own.
#[derive(Debug)]
pub struct PendingAck(oneshot::Receiver<Result<Ack, ProduceError>>);

impl PendingAck {
    /// A pending acknowledgement and the half that answers it.
    #[must_use]
    pub fn channel() -> (AckSender, Self) {
        let (sender, receiver) = oneshot::channel();
        (AckSender(sender), Self(receiver))
    }
}

impl Future for PendingAck {
    type Output = Result<Ack, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|received| {
            received.unwrap_or_else(|_| {
                let message = "the partition went down before it answered; the records may or may \
                               not be stored: read the log's end before sending them again";
                Err(ProduceError::Unknown { message: message.into() })
            })
        })
    }
}

/// Stored batches, as they lie on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Whole record batches in Kafka's layout, one after another.
    pub batches: Bytes,
    /// The offset of the first record in `batches`; may lie before the one asked for.
    pub base: Offset,
    /// Where the next read continues.
    pub next: Offset,
    /// How many records `batches` holds.
    pub records: u64,
}

/// What a partition can be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionState {
    /// Takes writes and reads.
    Serving,
    /// Reads its files after a start.
    Recovering,
    /// Its actors are being replaced after a failure.
    Restarting,
    /// Left service for writes until a person acts; committed data can be read.
    Quarantined,
    /// Stopped in order.
    Stopped,
}

impl PartitionState {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Recovering => "recovering",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
            Self::Stopped => "stopped",
        }
    }
}

/// A partition's state, for people and probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// What it is doing.
    pub state: PartitionState,
    /// Why, where it is not serving; else empty.
    pub reason: String,
    /// The oldest offset that can be read.
    pub start: Offset,
    /// One past the newest committed record.
    pub high_watermark: Offset,
    /// Bytes of frames in all segments.
    pub size_bytes: u64,
    /// Number of segments.
    pub segments: u32,
    /// The current Raft term.
    pub term: Term,
    /// How safe a record is when it is acknowledged.
    pub durability: Durability,
    /// Flushes to disk since the node started.
    pub flushes: u64,
    /// Requests refused since the node started.
    pub refused: u64,
    /// Restarts of the partition since the node started.
    pub restarts: u32,
    /// The part that this replica plays.
    pub role: ReplicaRole,
    /// Who leads, as this replica knows.
    pub leader: Option<ReplicaId>,
    /// How far each replica is; empty where another one leads.
    pub replicas: Vec<ReplicaProgress>,
    /// Of a mirror's copy: one past the newest record of its source, as heard last.
    pub source_end: Option<Offset>,
}

impl PartitionStatus {
    /// Records that a copy lacks of its source.
    pub fn lag(&self) -> Option<u64> {
        self.source_end.map(|end| end.0.saturating_sub(self.high_watermark.0))
    }
}

/// The part that a replica plays in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplicaRole {
    /// None yet: it is being recovered.
    #[default]
    Starting,
    /// Takes what is appended.
    Leader,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows a leader and does not vote.
    Learner,
}

impl ReplicaRole {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        }
    }
}

/// How far a replica is, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// Which.
    pub replica: ReplicaId,
    /// Whether it does not vote.
    pub is_learner: bool,
    /// The last entry that it is known to have.
    pub matched: RaftIndex,
    /// How many entries it lacks.
    pub lag: u64,
    /// Whether it answers.
    pub is_active: bool,
}

/// Who takes what is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader's node.
    pub node: NodeId,
    /// Where it is reached; empty where that is not known.
    pub rpc_addr: String,
    /// In which term it leads.
    pub term: Term,
}

/// Why a request to append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The request is malformed; nothing was stored.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The request is over a limit; nothing was stored.
    #[error("{message}")]
    TooLarge {
        /// Which limit.
        message: String,
    },
    /// Too much is outstanding; nothing was stored.
    #[error("{message}")]
    Overloaded {
        /// Which queue is full.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The partition is being rebuilt; nothing was stored.
    #[error("{message}")]
    Restarting {
        /// What happened.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The partition has left service for writes; nothing was stored.
    #[error("{message}")]
    Quarantined {
        /// Why.
        message: String,
    },
    /// The disk has no room; nothing was stored.
    #[error("{message}")]
    DiskFull {
        /// What is needed.
        message: String,
    },
    /// Another replica leads, or none does at present; nothing was stored.
    #[error("{message}")]
    NotLeader {
        /// Who takes it, as far as that is known.
        message: String,
        /// The same for programs.
        leader: Option<LeaderHint>,
    },
    /// The partition is a copy of one elsewhere; nothing was stored.
    #[error("{message}")]
    ReadOnly {
        /// Where to append.
        message: String,
    },
    /// The caller may not append to it; nothing was stored.
    #[error("{message}")]
    Denied {
        /// Who may not do what.
        message: String,
    },
    /// A batch of an idempotent producer is not its next one; nothing was stored by this request.
    #[error("{message}")]
    Sequence {
        /// What was expected, and what to do.
        message: String,
    },
    /// The node is stopping; nothing was stored.
    #[error("{message}")]
    Stopped {
        /// What is stopping.
        message: String,
    },
    /// It is not known whether the records are or will be stored.
    #[error("{message}")]
    Unknown {
        /// What happened.
        message: String,
    },
    /// The caller's time ran out; it is not known whether the records are or will be stored.
    #[error("the deadline passed before the records were acknowledged; they may be stored")]
    Deadline,
}

impl ProduceError {
    /// True when nothing of the request was or will be stored.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown { .. } | Self::Deadline)
    }

    /// When the same request may succeed, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } | Self::Restarting { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::NotLeader { .. } => Some(NOT_LEADER_RETRY_AFTER),
            _ => None,
        }
    }

    /// Who must act: always the caller, since whatever broke has already been dealt with below.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such offset.
    #[error("offset {offset} is outside the log [{start}, {end})")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log's oldest offset.
        start: Offset,
        /// The log's high watermark.
        end: Offset,
    },
    /// Stored bytes fail their checksum.
    #[error("{message}")]
    Corrupt {
        /// Which bytes.
        message: String,
    },
    /// The partition cannot be read now.
    #[error("{message}")]
    Unavailable {
        /// Why.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// This node has no replica.
    #[error("{message}")]
    Elsewhere {
        /// Which nodes have one.
        message: String,
    },
    /// The disk refused.
    #[error("{message}")]
    Io {
        /// What it said.
        message: String,
    },
}

impl ReadError {
    /// Who must act: always the caller, since whatever broke has already been dealt with below.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}
