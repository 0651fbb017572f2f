//! What other nodes send: looked through, then decoded, then taken for a message; and what in it is
//! bytes of other rooms.

use crate::log::producers::{ProducerTable, read_snapshot_state, snapshot_state};
use crate::model::{
    GroupId, NodeId, Offset, PeerEntry, PeerKind, PeerMessage, PeerPayload, PeerSnapshot,
    RaftIndex, ReplicaId, Term,
};
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::peer::{Bounded, Unbounded, message_from_pb, message_to_pb, wire_bytes};
use bytes::Bytes;
use prost::Message;

const KINDS: u8 = 7;

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = super::choice(bytes, KINDS) else { return };
    match kind {
        0 => frame(bytes, false),
        1 => frame(bytes, true),
        2 => looked_at::<pb::JoinRequest>(bytes),
        3 => looked_at::<pb::ChangeRequest>(bytes),
        4 => looked_at::<pb::PeerNotice>(bytes),
        5 => looked_at::<pb::JoinResponse>(bytes),
        _ => snapshot(bytes),
    }
}

fn looked_at<M: Bounded + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    drop(decoded::<M>(bytes, false));
}

/// What passes the look is decoded without more ado, and what can be decoded is never unreadable.
fn decoded<M: Bounded + PartialEq + std::fmt::Debug>(bytes: &[u8], first: bool) -> Option<M> {
    let look = M::check(bytes, first);
    let decoded = M::decode(bytes);
    if let Ok(message) = &decoded {
        assert_ne!(look, Err(Unbounded::Unreadable), "the two read alike");
        let again = M::decode(message.encode_to_vec().as_slice());
        assert_eq!(again.as_ref(), Ok(message), "written and read again");
    }
    decoded.ok().filter(|_| look.is_ok())
}

fn frame(bytes: &[u8], first: bool) {
    let Some(frame) = decoded::<pb::PeerFrame>(bytes, first) else { return };
    for sent in frame.messages {
        let Ok(message) = message_from_pb(sent) else { continue };
        assert!(message.len_bytes() <= bytes.len() as u64, "no byte is made up");
        let indexes = message.entries.iter().map(|entry| entry.index.0);
        assert!(indexes.eq((message.index.0..).skip(1).take(message.entries.len())), "they join");
        let foreseen = wire_bytes(&message);
        let sent = message_to_pb(message.clone()).expect("what arrived can be sent on");
        let frame = pb::PeerFrame { messages: vec![sent.clone()], ..Default::default() };
        assert!(frame.encoded_len() as u64 <= foreseen, "its size is foreseen");
        assert_eq!(message_from_pb(sent), Ok(message), "sent on as it came");
    }
}

/// What a snapshot carries beside its place.
fn snapshot(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok((offset, table)) = read_snapshot_state(bytes.clone()) {
        assert_eq!(snapshot_state(offset, &table), bytes, "there is one way to write it");
    }
    if let Ok(table) = ProducerTable::decode(&bytes) {
        assert_eq!(table.encode(), bytes, "there is one way to write it");
        let state = snapshot_state(Offset(3), &table);
        let (offset, again) = read_snapshot_state(state).expect("written by us");
        assert_eq!((offset, again.encode()), (Offset(3), bytes), "written and read again");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let replica = |node| ReplicaId::new(NodeId(node), 7);
    let message = |kind| PeerMessage::new(GroupId::LOG, kind, replica(1), replica(2), Term(4));
    let entry = |index, payload| PeerEntry { term: Term(4), index: RaftIndex(index), payload };
    let mut append = message(PeerKind::Append);
    append.index = RaftIndex(8);
    append.entries = vec![
        entry(9, PeerPayload::Internal(Bytes::new())),
        entry(10, PeerPayload::Data(vec![Bytes::from(vec![7; 61])])),
    ];
    let mut begin = message(PeerKind::Snapshot);
    let table = ProducerTable::new(100);
    begin.snapshot = Some(PeerSnapshot {
        index: RaftIndex(12),
        term: Term(3),
        membership: Bytes::from_static(b"members"),
        state: snapshot_state(Offset(40), &table),
    });
    let mut read = message(PeerKind::ReadIndex);
    read.context = Bytes::from_static(b"r1");
    let all = [append, begin, read, message(PeerKind::Vote), message(PeerKind::Quiesce)];
    let sent = all.map(|message| message_to_pb(message).expect("small"));
    let frame = |messages| pb::PeerFrame { messages, ..Default::default() }.encode_to_vec();
    let mut seeds: Vec<Vec<u8>> =
        sent.iter().map(|one| super::of_kind(0, frame(vec![one.clone()]))).collect();
    let mut whole = pb::PeerFrame { messages: sent.to_vec(), ..Default::default() };
    whole.leads = vec![pb::Leads { group: 1 << 32, term: 2, replica: replica(1).raw() }; 3];
    seeds.push(super::of_kind(0, whole.encode_to_vec()));
    let introduction = pb::Introduction { uuid: "uuid-1".into(), ..Default::default() };
    let first = pb::PeerFrame { introduction: Some(introduction), ..Default::default() };
    seeds.push(super::of_kind(1, first.encode_to_vec()));
    let join = pb::JoinRequest { name: "n2".into(), ..Default::default() };
    seeds.push(super::of_kind(2, join.encode_to_vec()));
    let command = Bytes::from_static(br#"{"v":1}"#);
    let change = pb::ChangeRequest { command, ..Default::default() };
    seeds.push(super::of_kind(3, change.encode_to_vec()));
    // Parts without content: two bytes each, and a message in memory.
    seeds.push(super::of_kind(0, [18, 0].repeat(600)));
    seeds.push(super::of_kind(6, snapshot_state(Offset(40), &table)));
    seeds.push(super::of_kind(6, of_one_producer()));
    seeds
}

/// A table of one producer, as `log/producers/codec.rs` writes it.
fn of_one_producer() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(8u32.to_be_bytes());
    bytes.extend(9u64.to_be_bytes());
    bytes.extend(1u32.to_be_bytes());
    bytes.extend(5i64.to_be_bytes());
    bytes.extend(0i16.to_be_bytes());
    bytes.push(1);
    bytes.extend(0i32.to_be_bytes());
    bytes.extend(2i32.to_be_bytes());
    bytes.extend(4u64.to_be_bytes());
    bytes.extend(1i64.to_be_bytes());
    bytes
}
