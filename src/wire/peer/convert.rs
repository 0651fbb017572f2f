//! Messages between replicas, to protobuf and back. Whatever arrives is checked here, so that
//! nobody behind sees a number that is nobody's or entries that do not join.

use crate::model::{
    Disposition, GroupId, PeerEntry, PeerKind, PeerMessage, PeerPayload, PeerSnapshot, RaftIndex,
    ReplicaId, Term,
};
use crate::wire::pb::duramen::v1 as pb;

/// Payload of one message at most (unit: bytes).
pub const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// A frame at most, as gRPC counts it: one message and what is around it (unit: bytes).
pub const FRAME_BYTES_MAX: usize = (64 << 20) + (4 << 20);
/// Entries of one message at most.
pub const ENTRIES_MAX: usize = 65_536;
/// What names a read or a transfer, at most (unit: bytes).
const CONTEXT_BYTES_MAX: usize = 4096;
/// What a message takes on the wire beside its payload, at most.
const FRAMING_BYTES: u64 = 192;
/// What an entry takes on the wire beside its payload, at most.
const ENTRY_FRAMING_BYTES: u64 = 40;

/// A message that cannot be carried, or must not be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerWireError {
    /// The kind is none that this program knows.
    #[error("a message of kind {kind}, which this version does not know: upgrade the older node")]
    Kind {
        /// Its number.
        kind: i32,
    },
    /// The number is no group's.
    #[error("{raw} is the number of no group")]
    Group {
        /// The number.
        raw: u64,
    },
    /// The number is no replica's.
    #[error("{raw} is the number of no replica")]
    Replica {
        /// The number.
        raw: u64,
    },
    /// There are more entries than one message may hold.
    #[error("a message of {entries} entries; at most {ENTRIES_MAX} are carried")]
    Entries {
        /// How many.
        entries: usize,
    },
    /// The entries do not follow one another.
    #[error("an entry at index {found} where {expected} was due")]
    Gap {
        /// What was due.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Its payload is larger than what is carried.
    #[error("a message of {bytes} bytes of payload; at most {MESSAGE_BYTES_MAX} are carried")]
    TooLarge {
        /// How large.
        bytes: u64,
    },
    /// Its context is larger than what is carried.
    #[error("a context of {bytes} bytes; at most {CONTEXT_BYTES_MAX} are carried")]
    Context {
        /// How large.
        bytes: usize,
    },
    /// It brings what its kind does not have, or lacks what it has.
    #[error("a message of kind {kind:?} {what}")]
    Shape {
        /// Its kind.
        kind: PeerKind,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry was not looked up in the log.
    #[error("the entry at index {index} was not read from the log")]
    Unread {
        /// Which.
        index: u64,
    },
}

impl PeerWireError {
    /// Who must act: whoever made the message. Nothing else changes.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// About how many bytes a message takes on the wire: never less than it does.
pub fn wire_bytes(message: &PeerMessage) -> u64 {
    let around = |snapshot: &PeerSnapshot| snapshot.membership.len() + snapshot.state.len();
    let groups = message.entries.iter().map(|entry| match &entry.payload {
        PeerPayload::Data(groups) => groups.len() as u64 * 6,
        PeerPayload::Internal(_) | PeerPayload::Stored => 0,
    });
    FRAMING_BYTES
        + groups.sum::<u64>()
        + message.entries.len() as u64 * ENTRY_FRAMING_BYTES
        + message.len_bytes()
        + message.context.len() as u64
        + message.snapshot.as_ref().map_or(0, around) as u64
}

/// A message as it is sent.
///
/// # Errors
/// It cannot be carried: an entry was not read, or it is over a limit.
pub fn message_to_pb(message: PeerMessage) -> Result<pb::GroupMessage, PeerWireError> {
    check_size(&message)?;
    let entries = message.entries.into_iter().map(entry_to_pb).collect::<Result<_, _>>()?;
    Ok(pb::GroupMessage {
        group: message.group.raw(),
        kind: kind_to_pb(message.kind) as i32,
        from: message.from.raw(),
        to: message.to.raw(),
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        request_snapshot: message.request_snapshot.0,
        priority: message.priority,
        context: message.context,
        entries,
        snapshot: message.snapshot.map(|snapshot| pb::GroupSnapshot {
            index: snapshot.index.0,
            term: snapshot.term.0,
            membership: snapshot.membership,
            state: snapshot.state,
        }),
    })
}

/// A message as it arrived.
///
/// # Errors
/// What is wrong with it: its sender does not keep to the protocol, or speaks a newer one.
pub fn message_from_pb(message: pb::GroupMessage) -> Result<PeerMessage, PeerWireError> {
    let kind = kind_from_pb(message.kind)?;
    let group =
        GroupId::from_raw(message.group).ok_or(PeerWireError::Group { raw: message.group })?;
    let replica = |raw| ReplicaId::from_raw(raw).ok_or(PeerWireError::Replica { raw });
    if message.entries.len() > ENTRIES_MAX {
        return Err(PeerWireError::Entries { entries: message.entries.len() });
    }
    if kind != PeerKind::Append && !message.entries.is_empty() {
        return Err(PeerWireError::Shape { kind, what: "has entries" });
    }
    if (kind == PeerKind::Snapshot) != message.snapshot.is_some() {
        let what = if message.snapshot.is_some() { "has a snapshot" } else { "has no snapshot" };
        return Err(PeerWireError::Shape { kind, what });
    }
    let mut previous = message.index;
    for entry in &message.entries {
        let expected = previous.checked_add(1);
        if expected != Some(entry.index) {
            let expected = expected.unwrap_or(u64::MAX);
            return Err(PeerWireError::Gap { expected, found: entry.index });
        }
        previous = entry.index;
    }
    let entries = message.entries.into_iter().map(|entry| entry_from_pb(entry, kind));
    let message = PeerMessage {
        group,
        kind,
        from: replica(message.from)?,
        to: replica(message.to)?,
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: RaftIndex(message.index),
        commit: RaftIndex(message.commit),
        commit_term: Term(message.commit_term),
        reject: message.reject,
        reject_hint: RaftIndex(message.reject_hint),
        request_snapshot: RaftIndex(message.request_snapshot),
        priority: message.priority,
        context: message.context,
        entries: entries.collect::<Result<_, _>>()?,
        snapshot: message.snapshot.map(|snapshot| PeerSnapshot {
            index: RaftIndex(snapshot.index),
            term: Term(snapshot.term),
            membership: snapshot.membership,
            state: snapshot.state,
        }),
    };
    check_size(&message)?;
    Ok(message)
}

fn check_size(message: &PeerMessage) -> Result<(), PeerWireError> {
    if message.entries.len() > ENTRIES_MAX {
        return Err(PeerWireError::Entries { entries: message.entries.len() });
    }
    if message.context.len() > CONTEXT_BYTES_MAX {
        return Err(PeerWireError::Context { bytes: message.context.len() });
    }
    let around = |snapshot: &PeerSnapshot| snapshot.membership.len() + snapshot.state.len();
    let bytes = message.len_bytes() + message.snapshot.as_ref().map_or(0, around) as u64;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(PeerWireError::TooLarge { bytes });
    }
    Ok(())
}

fn entry_to_pb(entry: PeerEntry) -> Result<pb::GroupEntry, PeerWireError> {
    let PeerEntry { term: Term(term), index: RaftIndex(index), payload } = entry;
    let bare = pb::GroupEntry { term, index, ..Default::default() };
    match payload {
        PeerPayload::Data(data) => Ok(pb::GroupEntry { data, ..bare }),
        PeerPayload::Internal(internal) => {
            Ok(pb::GroupEntry { is_internal: true, internal, ..bare })
        }
        PeerPayload::Stored => Err(PeerWireError::Unread { index }),
    }
}

fn entry_from_pb(entry: pb::GroupEntry, kind: PeerKind) -> Result<PeerEntry, PeerWireError> {
    let payload = match (entry.is_internal, entry.data, entry.internal) {
        (false, data, internal) if internal.is_empty() => PeerPayload::Data(data),
        (true, data, internal) if data.is_empty() => PeerPayload::Internal(internal),
        _ => return Err(PeerWireError::Shape { kind, what: "has an entry of two kinds" }),
    };
    Ok(PeerEntry { term: Term(entry.term), index: RaftIndex(entry.index), payload })
}

macro_rules! kinds {
    ($($kind:ident),+ $(,)?) => {
        fn kind_to_pb(kind: PeerKind) -> pb::PeerKind {
            match kind {
                $(PeerKind::$kind => pb::PeerKind::$kind),+
            }
        }

        fn kind_from_pb(kind: i32) -> Result<PeerKind, PeerWireError> {
            match pb::PeerKind::try_from(kind) {
                $(Ok(pb::PeerKind::$kind) => Ok(PeerKind::$kind),)+
                Ok(pb::PeerKind::Unspecified) | Err(_) => Err(PeerWireError::Kind { kind }),
            }
        }

        #[cfg(test)]
        const KINDS: &[PeerKind] = &[$(PeerKind::$kind),+];
    };
}

kinds!(
    Append,
    AppendAnswer,
    Heartbeat,
    HeartbeatAnswer,
    PreVote,
    PreVoteAnswer,
    Vote,
    VoteAnswer,
    Snapshot,
    TimeoutNow,
    TransferLeader,
    ReadIndex,
    ReadIndexAnswer,
    Quiesce,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message as _;

    fn some_bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn replica() -> impl Strategy<Value = ReplicaId> {
        (1..u32::MAX, 1..u32::MAX).prop_map(|(node, number)| ReplicaId::new(NodeId(node), number))
    }

    fn payload() -> impl Strategy<Value = PeerPayload> {
        prop_oneof![
            vec(some_bytes(), 0..3).prop_map(PeerPayload::Data),
            some_bytes().prop_map(PeerPayload::Internal),
        ]
    }

    fn message() -> impl Strategy<Value = PeerMessage> {
        let kind = proptest::sample::select(KINDS);
        let numbers = (any::<u32>(), any::<[u32; 7]>(), any::<i64>(), any::<bool>());
        let entries = vec((1..9u64, payload()), 0..6);
        let snapshot = (any::<u64>(), some_bytes(), some_bytes());
        (kind, replica(), replica(), numbers, some_bytes(), entries, snapshot).prop_map(
            |(kind, from, to, (group, n, priority, reject), context, entries, snapshot)| {
                let group = GroupId::from_raw(u64::from(group) << 32).unwrap();
                let mut message = PeerMessage::new(group, kind, from, to, Term(n[0].into()));
                (message.log_term, message.index) = (Term(n[1].into()), RaftIndex(n[2].into()));
                (message.commit, message.commit_term) = (RaftIndex(n[3].into()), Term(n[4].into()));
                (message.reject, message.priority) = (reject, priority);
                message.reject_hint = RaftIndex(n[5].into());
                message.request_snapshot = RaftIndex(n[6].into());
                message.context = context;
                if kind == PeerKind::Append {
                    let at = message.index;
                    let numbered = (1..).zip(entries).map(|(step, (term, payload))| PeerEntry {
                        term: Term(term),
                        index: at.plus(step),
                        payload,
                    });
                    message.entries = numbered.collect();
                }
                if kind == PeerKind::Snapshot {
                    let (index, membership, state) = snapshot;
                    let (index, term) = (RaftIndex(index), Term(3));
                    message.snapshot = Some(PeerSnapshot { index, term, membership, state });
                }
                message
            },
        )
    }

    proptest! {
        #[test]
        fn a_message_arrives_as_it_was_sent(message in message()) {
            let sent = message_to_pb(message.clone()).unwrap();
            let frame = pb::PeerFrame { messages: vec![sent], ..Default::default() };
            let bytes = frame.encode_to_vec();
            prop_assert!(bytes.len() as u64 <= wire_bytes(&message), "its size is foreseen");
            let mut read = pb::PeerFrame::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(message_from_pb(read.messages.remove(0)), Ok(message));
        }

        #[test]
        fn damaged_bytes_become_messages_that_keep_to_the_rules_or_errors(
            message in message(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = message_to_pb(message).unwrap().encode_to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = pb::GroupMessage::decode(bytes.as_slice())
                && let Ok(message) = message_from_pb(read)
            {
                prop_assert!(message.len_bytes() <= bytes.len() as u64, "no byte is made up");
                let indexes = message.entries.iter().map(|entry| entry.index.0);
                prop_assert!(indexes.eq((message.index.0 + 1..).take(message.entries.len())));
                prop_assert!(message_to_pb(message).is_ok());
            }
        }
    }

    fn append() -> pb::GroupMessage {
        let entry = |index| pb::GroupEntry { term: 2, index, ..Default::default() };
        pb::GroupMessage {
            kind: pb::PeerKind::Append as i32,
            from: ReplicaId::FIRST.raw(),
            to: ReplicaId::new(NodeId(2), 1).raw(),
            index: 7,
            entries: vec![entry(8), entry(9)],
            ..Default::default()
        }
    }

    #[test]
    fn what_must_not_be_believed_is_refused_with_what_is_wrong() {
        assert!(message_from_pb(append()).is_ok());
        let refusal = |spoil: fn(&mut pb::GroupMessage)| {
            let mut message = append();
            spoil(&mut message);
            message_from_pb(message).unwrap_err()
        };
        assert_eq!(refusal(|m| m.kind = 99), PeerWireError::Kind { kind: 99 });
        assert_eq!(refusal(|m| m.kind = 0), PeerWireError::Kind { kind: 0 });
        assert_eq!(refusal(|m| m.group = 5), PeerWireError::Group { raw: 5 });
        assert_eq!(refusal(|m| m.from = 1), PeerWireError::Replica { raw: 1 });
        assert_eq!(refusal(|m| m.to = 7 << 32), PeerWireError::Replica { raw: 7 << 32 });
        let gap = PeerWireError::Gap { expected: 9, found: 10 };
        assert_eq!(refusal(|m| m.entries[1].index = 10), gap);
        let wrapped = |m: &mut pb::GroupMessage| (m.index, m.entries[0].index) = (u64::MAX, 0);
        assert_eq!(refusal(wrapped), PeerWireError::Gap { expected: u64::MAX, found: 0 });
        let vote = |m: &mut pb::GroupMessage| m.kind = pb::PeerKind::Vote as i32;
        let what = "has entries";
        assert_eq!(refusal(vote), PeerWireError::Shape { kind: PeerKind::Vote, what });
        let (kind, what) = (PeerKind::Append, "has an entry of two kinds");
        let both = |m: &mut pb::GroupMessage| m.entries[0].internal = Bytes::from_static(b"x");
        assert_eq!(refusal(both), PeerWireError::Shape { kind, what });
        let many = |m: &mut pb::GroupMessage| {
            m.entries = vec![pb::GroupEntry::default(); ENTRIES_MAX + 1];
        };
        assert_eq!(refusal(many), PeerWireError::Entries { entries: ENTRIES_MAX + 1 });
        let context = |m: &mut pb::GroupMessage| m.context = vec![0; 4097].into();
        assert_eq!(refusal(context), PeerWireError::Context { bytes: 4097 });
        let huge = |m: &mut pb::GroupMessage| {
            m.entries[0].data = vec![vec![0; 1 << 20].into(); 65];
        };
        assert_eq!(refusal(huge), PeerWireError::TooLarge { bytes: 65 << 20 });
    }

    #[test]
    fn an_entry_that_was_not_read_never_leaves() {
        let mut message = message_from_pb(append()).unwrap();
        message.entries[1].payload = PeerPayload::Stored;
        assert_eq!(message_to_pb(message).unwrap_err(), PeerWireError::Unread { index: 9 });
    }
}
