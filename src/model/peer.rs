//! What replicas of a Raft group say to each other: plain data, between the engine's seam, which
//! makes and takes it, and the connections between nodes, which carry it.

use super::{GroupId, RaftIndex, ReplicaId, Term};
use bytes::Bytes;
use std::fmt;

/// What a message between replicas is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// Entries, or none: what precedes them must agree.
    Append,
    /// The answer to [`PeerKind::Append`] and [`PeerKind::Snapshot`].
    AppendAnswer,
    /// The leader is there; answered, so that it knows who is.
    Heartbeat,
    /// The answer to it.
    HeartbeatAnswer,
    /// Would you vote for me?
    PreVote,
    /// The answer to it.
    PreVoteAnswer,
    /// Vote for me.
    Vote,
    /// The answer to it.
    VoteAnswer,
    /// What an append can no longer bring: where the log begins now.
    Snapshot,
    /// Stand for election at once: leadership is handed over.
    TimeoutNow,
    /// Hand leadership over: a follower that was asked to passes the wish on.
    TransferLeader,
    /// Up to where must I have applied to read what is current?
    ReadIndex,
    /// The answer to it.
    ReadIndexAnswer,
    /// Nothing is going on and you have everything: no more heartbeats until something happens.
    /// Between replicas, not known to the engine.
    Quiesce,
}

/// One message of one group.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerMessage {
    /// Whose replicas talk.
    pub group: GroupId,
    /// What for.
    pub kind: PeerKind,
    /// Who says it.
    pub from: ReplicaId,
    /// To whom.
    pub to: ReplicaId,
    /// The sender's term; 0 where the protocol leaves it open (read index, transfer).
    pub term: Term,
    /// The term of the entry at `index`.
    pub log_term: Term,
    /// Depends on the kind: the entry before those sent, the last one known, the one agreed on.
    pub index: RaftIndex,
    /// What the sender knows to be committed.
    pub commit: RaftIndex,
    /// The term of the entry at `commit`; 0 where it is not told.
    pub commit_term: Term,
    /// The answer is no.
    pub reject: bool,
    /// Where to try again after a no.
    pub reject_hint: RaftIndex,
    /// The receiver's wish for a snapshot at this index; 0: none.
    pub request_snapshot: RaftIndex,
    /// Weight in an election.
    pub priority: i64,
    /// Given back in the answer: names a read, or a transfer.
    pub context: Bytes,
    /// Entries, contiguous, behind `index`.
    pub entries: Vec<PeerEntry>,
    /// With [`PeerKind::Snapshot`]: where the log begins now.
    pub snapshot: Option<PeerSnapshot>,
}

/// One entry on its way to a follower.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerEntry {
    /// Its term.
    pub term: Term,
    /// Its place in the Raft log.
    pub index: RaftIndex,
    /// What it holds.
    pub payload: PeerPayload,
}

/// What an entry holds.
#[derive(Clone, PartialEq, Eq)]
pub enum PeerPayload {
    /// Record batches in Kafka's layout, one group after another.
    Data(Vec<Bytes>),
    /// Bytes of the consensus room; empty for the no-op of an election.
    Internal(Bytes),
    /// Not looked up yet: it lies in the sender's log. Never leaves a node.
    Stored,
}

/// Where a log begins, for a follower that is behind it: the log is the data, so the entries from
/// there on follow as entries.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// The last entry that is no longer there.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// The group's members as of there, as the consensus room encodes them.
    pub membership: Bytes,
    /// The offset of the first record that is left, and the state of producers, as the log encodes
    /// them. Filled in by the sender's log; empty until then.
    pub state: Bytes,
}

impl PeerPayload {
    /// Bytes of what it holds; 0 where it is not looked up.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Data(groups) => groups.iter().map(|group| group.len() as u64).sum(),
            Self::Internal(bytes) => bytes.len() as u64,
            Self::Stored => 0,
        }
    }
}

impl PeerMessage {
    /// An empty message.
    pub fn new(group: GroupId, kind: PeerKind, from: ReplicaId, to: ReplicaId, term: Term) -> Self {
        Self {
            group,
            kind,
            from,
            to,
            term,
            log_term: Term(0),
            index: RaftIndex(0),
            commit: RaftIndex(0),
            commit_term: Term(0),
            reject: false,
            reject_hint: RaftIndex(0),
            request_snapshot: RaftIndex(0),
            priority: 0,
            context: Bytes::new(),
            entries: Vec::new(),
            snapshot: None,
        }
    }

    /// Bytes of its entries.
    pub fn len_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.payload.len_bytes()).sum()
    }
}

/// What somebody who follows an election wants to read; payloads by their length.
impl fmt::Debug for PeerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, kind, from, to, term, log_term, index, commit, .. } = self;
        write!(f, "{kind:?}({group} {from}->{to} term {term}")?;
        match kind {
            PeerKind::Append => {
                write!(f, ", after {index}/{log_term}, {} entries", self.entries.len())?;
                write!(f, " {}B, commit {commit}", self.len_bytes())?;
            }
            PeerKind::Vote | PeerKind::PreVote => write!(f, ", last {index}/{log_term}")?,
            PeerKind::AppendAnswer if self.reject => {
                write!(f, ", no at {index}, try {}", self.reject_hint)?;
            }
            PeerKind::AppendAnswer => write!(f, ", has {index}")?,
            PeerKind::VoteAnswer | PeerKind::PreVoteAnswer => {
                f.write_str(if self.reject { ", no" } else { ", yes" })?;
            }
            PeerKind::Heartbeat => write!(f, ", commit {commit}")?,
            PeerKind::Snapshot => {
                if let Some(snapshot) = &self.snapshot {
                    write!(f, ", up to {}/{}", snapshot.index, snapshot.term)?;
                }
            }
            PeerKind::ReadIndexAnswer => write!(f, ", read at {index}")?,
            PeerKind::Quiesce => write!(f, ", at {index}")?,
            PeerKind::HeartbeatAnswer
            | PeerKind::TimeoutNow
            | PeerKind::TransferLeader
            | PeerKind::ReadIndex => {}
        }
        f.write_str(")")
    }
}

impl fmt::Debug for PeerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {:?}", self.index, self.term, self.payload)
    }
}

/// Lengths only: user bytes never reach a message or a crash report.
impl fmt::Debug for PeerPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(groups) => write!(f, "Data({} groups, {}B)", groups.len(), self.len_bytes()),
            Self::Internal(bytes) => write!(f, "Internal({}B)", bytes.len()),
            Self::Stored => f.write_str("Stored"),
        }
    }
}

impl fmt::Debug for PeerSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, term, membership, state } = self;
        write!(f, "up to {index}/{term}, {}B + {}B", membership.len(), state.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn a_message_is_shown_by_what_matters_and_never_by_its_payload() {
        let (from, to) = (ReplicaId::new(NodeId(1), 1), ReplicaId::new(NodeId(2), 4));
        let mut message = PeerMessage::new(GroupId::LOG, PeerKind::Append, from, to, Term(5));
        message.entries = vec![PeerEntry {
            term: Term(5),
            index: RaftIndex(8),
            payload: PeerPayload::Data(vec![Bytes::from_static(b"a secret")]),
        }];
        (message.index, message.log_term, message.commit) = (RaftIndex(7), Term(4), RaftIndex(6));
        let shown = "Append(1/0 n1#1->n2#4 term 5, after 7/4, 1 entries 8B, commit 6)";
        assert_eq!(format!("{message:?}"), shown);
        let vote = PeerMessage::new(GroupId::CONTROLLER, PeerKind::VoteAnswer, to, from, Term(6));
        assert_eq!(format!("{vote:?}"), "VoteAnswer(controller n2#4->n1#1 term 6, yes)");
    }
}
