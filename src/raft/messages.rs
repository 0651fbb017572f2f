//! Messages between replicas, from our words to the engine's and back. The engine trusts what it is
//! given and panics on some nonsense, so whatever comes from a peer is checked here before: no peer
//! can end a replica.

use super::effects::{Content, Handle};
use super::membership::{Membership, MembershipChange, decode_with_index, encode_with_index};
use crate::model::{
    GroupId, PeerEntry, PeerKind, PeerMessage, PeerPayload, PeerSnapshot, RaftIndex, ReplicaId,
    Term,
};
use bytes::Bytes;
use protobuf::Message as _;
use raft::prelude::{ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot};

/// Entries of one message.
pub(super) const ENTRIES_MAX: usize = 1 << 16;
/// Terms and indexes stay far below where one more would wrap.
const NUMBER_MAX: u64 = 1 << 60;
const CONTEXT_BYTES_MAX: usize = 64;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// It is for somebody else.
    #[error("it is for another replica or group")]
    Address,
    /// An answer of one that is no member.
    #[error("it answers, and is no member of the group here")]
    Stranger,
    /// Fields that this kind does not have, or that are out of their bounds.
    #[error("a field is out of its bounds for this kind of message")]
    Field,
    /// Entries with gaps, or with terms that fall or are later than the message.
    #[error("its entries do not follow each other")]
    Entries,
    /// Bytes of this room that it never wrote.
    #[error("an internal entry, or the members in a snapshot, cannot be read")]
    Unreadable,
    /// It claims that more is committed, or stored here, than ever was.
    #[error("it contradicts the log here")]
    Log,
    /// An answer to what was not asked.
    #[error("it answers what was not asked")]
    Unasked,
}

/// What a message is checked against.
pub(super) struct View<'v> {
    pub group: GroupId,
    pub me: ReplicaId,
    pub term: u64,
    pub is_leader: bool,
    pub commit: u64,
    pub last: u64,
    /// The members, and the change that led to them.
    pub membership: (&'v Membership, RaftIndex),
    /// The term of an entry here.
    pub term_of: &'v dyn Fn(u64) -> Option<u64>,
}

const KINDS: [(PeerKind, MessageType); 13] = [
    (PeerKind::Append, MessageType::MsgAppend),
    (PeerKind::AppendAnswer, MessageType::MsgAppendResponse),
    (PeerKind::Heartbeat, MessageType::MsgHeartbeat),
    (PeerKind::HeartbeatAnswer, MessageType::MsgHeartbeatResponse),
    (PeerKind::PreVote, MessageType::MsgRequestPreVote),
    (PeerKind::PreVoteAnswer, MessageType::MsgRequestPreVoteResponse),
    (PeerKind::Vote, MessageType::MsgRequestVote),
    (PeerKind::VoteAnswer, MessageType::MsgRequestVoteResponse),
    (PeerKind::Snapshot, MessageType::MsgSnapshot),
    (PeerKind::TimeoutNow, MessageType::MsgTimeoutNow),
    (PeerKind::TransferLeader, MessageType::MsgTransferLeader),
    (PeerKind::ReadIndex, MessageType::MsgReadIndex),
    (PeerKind::ReadIndexAnswer, MessageType::MsgReadIndexResp),
];

/// Whether it goes without a term.
fn is_timeless(kind: PeerKind) -> bool {
    matches!(kind, PeerKind::TransferLeader | PeerKind::ReadIndex)
}

/// The engine's message, when there is nothing to say against this one.
pub(super) fn checked(message: &PeerMessage, view: &View<'_>) -> Result<Message, PeerFault> {
    if message.group != view.group || message.to != view.me || message.from == view.me {
        return Err(PeerFault::Address);
    }
    check_fields(message)?;
    let mut made = Message::default();
    let kind = KINDS.iter().find(|(kind, _)| *kind == message.kind).expect("all kinds are listed");
    made.set_msg_type(kind.1);
    (made.from, made.to) = (message.from.raw(), message.to.raw());
    (made.term, made.log_term) = (message.term.0, message.log_term.0);
    (made.index, made.commit) = (message.index.0, message.commit.0);
    (made.commit_term, made.reject) = (message.commit_term.0, message.reject);
    made.reject_hint = message.reject_hint.0;
    if matches!(message.kind, PeerKind::ReadIndex | PeerKind::ReadIndexAnswer) {
        let named = Entry { data: message.context.to_vec().into(), ..Entry::default() };
        made.set_entries(vec![named].into());
    } else {
        made.context = message.context.to_vec().into();
        made.set_entries(entries(message)?.into());
    }
    if let Some(snapshot) = &message.snapshot {
        made.set_snapshot(begin(snapshot, message.term, view)?);
    }
    if message.term.0 >= view.term {
        check_against_log(message, view)?;
    }
    Ok(made)
}

fn check_fields(message: &PeerMessage) -> Result<(), PeerFault> {
    let PeerMessage { kind, term, log_term, index, commit, reject_hint, commit_term, .. } = message;
    let numbers = [
        term.0,
        log_term.0,
        index.0,
        commit.0,
        reject_hint.0,
        commit_term.0,
        message.context.len() as u64,
    ];
    let bounded = numbers.iter().all(|number| *number <= NUMBER_MAX)
        && message.context.len() <= CONTEXT_BYTES_MAX
        && message.entries.len() <= ENTRIES_MAX;
    // We never ask for a snapshot and weigh all replicas the same: the engine panics on either
    // in corners that we thus never enter.
    let unused = message.request_snapshot == RaftIndex(0) && message.priority == 0;
    let shape = (*term == Term(0)) == is_timeless(*kind)
        && (message.entries.is_empty() || *kind == PeerKind::Append)
        && message.snapshot.is_some() == (*kind == PeerKind::Snapshot)
        && (!message.reject || is_answer(*kind));
    let in_the_past = match kind {
        PeerKind::PreVote | PeerKind::Vote => log_term <= term,
        // Term 0 is of no entry; the engine takes what is beyond its log to be of that.
        PeerKind::Append => log_term <= term && (*log_term == Term(0)) == (index.0 == 0),
        _ => true,
    };
    if bounded && unused && shape && in_the_past { Ok(()) } else { Err(PeerFault::Field) }
}

fn is_answer(kind: PeerKind) -> bool {
    let answers = [PeerKind::AppendAnswer, PeerKind::PreVoteAnswer, PeerKind::VoteAnswer];
    answers.contains(&kind)
}

fn entries(message: &PeerMessage) -> Result<Vec<Entry>, PeerFault> {
    let (mut index, mut term) = (message.index, message.log_term);
    let mut made = Vec::with_capacity(message.entries.len());
    for entry in &message.entries {
        if entry.index != index.next()
            || entry.term == Term(0)
            || entry.term < term
            || entry.term > message.term
        {
            return Err(PeerFault::Entries);
        }
        (index, term) = (entry.index, entry.term);
        let mut one = Entry { index: index.0, term: term.0, ..Entry::default() };
        match &entry.payload {
            PeerPayload::Data(_) => {
                let handle = Handle { records: 0, bytes: entry.payload.len_bytes() };
                one.data = handle.encode().into();
            }
            PeerPayload::Internal(bytes) if bytes.is_empty() => {}
            PeerPayload::Internal(bytes) => {
                let change = MembershipChange::decode(bytes).ok_or(PeerFault::Unreadable)?;
                one.set_entry_type(EntryType::EntryConfChangeV2);
                let encoded = change.to_engine().write_to_bytes();
                one.data = encoded.map_err(|_| PeerFault::Unreadable)?.into();
            }
            PeerPayload::Stored => return Err(PeerFault::Entries),
        }
        made.push(one);
    }
    Ok(made)
}

/// The engine's snapshot: the members are the newer ones of those told and those known here.
fn begin(snapshot: &PeerSnapshot, term: Term, view: &View<'_>) -> Result<Snapshot, PeerFault> {
    let bounded = snapshot.index.0 <= NUMBER_MAX && snapshot.term <= term;
    if !bounded || snapshot.index == RaftIndex(0) || snapshot.term == Term(0) {
        return Err(PeerFault::Field);
    }
    let told = decode_with_index(&snapshot.membership).ok_or(PeerFault::Unreadable)?;
    let known = view.membership;
    let (members, at) = if known.1 > told.1 { known } else { (&told.0, told.1) };
    if !members.contains(view.me) || !members.is_sound() {
        return Err(PeerFault::Stranger);
    }
    let mut made = Snapshot::default();
    let meta = made.mut_metadata();
    (meta.index, meta.term) = (snapshot.index.0, snapshot.term.0);
    meta.set_conf_state(members.to_engine());
    let mut data = encode_with_index(members, at).to_vec();
    // Behind the members lies what the sender's log says of itself.
    let membership_len = data.len() as u64;
    data.extend_from_slice(&snapshot.state);
    data.extend_from_slice(&membership_len.to_be_bytes());
    made.data = data.into();
    Ok(made)
}

/// The members, the change that led to them, and the state of the log in what [`begin`] made.
pub(super) fn begun(snapshot: &Snapshot) -> Option<(Membership, RaftIndex, Bytes)> {
    let (rest, len) = snapshot.data.split_last_chunk::<8>()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    let (membership, state) = rest.split_at_checked(len)?;
    let (membership, at) = decode_with_index(membership)?;
    Some((membership, at, Bytes::copy_from_slice(state)))
}

/// What would make the engine panic, or believe in entries that are not there.
fn check_against_log(message: &PeerMessage, view: &View<'_>) -> Result<(), PeerFault> {
    let fits = match message.kind {
        PeerKind::Heartbeat => message.commit.0 <= view.last,
        PeerKind::Snapshot => message.snapshot.as_ref().is_none_or(|snapshot| {
            // Up to where it is committed here, there is nothing that could differ.
            let known = (view.term_of)(snapshot.index.0);
            snapshot.index.0 != view.commit || known.is_none_or(|term| term == snapshot.term.0)
        }),
        PeerKind::AppendAnswer if view.is_leader && message.term.0 == view.term => {
            message.reject || message.index.0 <= view.last
        }
        _ => true,
    };
    if fits { Ok(()) } else { Err(PeerFault::Log) }
}

/// Our message of an engine's; `None` for one to nobody.
pub(super) fn told(group: GroupId, me: ReplicaId, made: Message) -> Option<PeerMessage> {
    let to = ReplicaId::from_raw(made.to)?;
    let (kind, _) = *KINDS.iter().find(|(_, kind)| *kind == made.get_msg_type())?;
    let from = ReplicaId::from_raw(made.from).unwrap_or(me);
    let mut message = PeerMessage::new(group, kind, from, to, Term(made.term));
    message.log_term = Term(made.log_term);
    (message.index, message.commit) = (RaftIndex(made.index), RaftIndex(made.commit));
    (message.commit_term, message.reject) = (Term(made.commit_term), made.reject);
    message.reject_hint = RaftIndex(made.reject_hint);
    message.context = made.context.to_vec().into();
    match kind {
        PeerKind::ReadIndex | PeerKind::ReadIndexAnswer => {
            let named = made.entries.first()?;
            message.context = named.data.to_vec().into();
        }
        PeerKind::Append => {
            let stored = |entry: &Entry| PeerEntry {
                term: Term(entry.term),
                index: RaftIndex(entry.index),
                payload: PeerPayload::Stored,
            };
            message.entries = made.entries.iter().map(stored).collect();
        }
        PeerKind::Snapshot => {
            let (meta, data) = (made.get_snapshot().get_metadata(), &made.get_snapshot().data);
            message.snapshot = Some(PeerSnapshot {
                index: RaftIndex(meta.index),
                term: Term(meta.term),
                membership: data.to_vec().into(),
                state: Bytes::new(),
            });
        }
        _ => {}
    }
    Some(message)
}

/// The change in an entry that the engine made here, or that [`checked`] made for it.
fn change_of(entry: &Entry) -> Option<MembershipChange> {
    let mut change = ConfChangeV2::default();
    change.merge_from_bytes(&entry.data).ok()?;
    Some(MembershipChange::of_engine(&change))
}

/// What an entry of the engine holds, in our words.
pub(super) fn content_of(entry: &Entry) -> Content {
    match entry.get_entry_type() {
        EntryType::EntryNormal => {
            Handle::decode(&entry.data).map_or(Content::Internal(Bytes::new()), Content::Data)
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            let change = change_of(entry).expect("made by the engine in this process");
            Content::Internal(change.encode())
        }
    }
}
