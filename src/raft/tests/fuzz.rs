//! Whatever a peer says, a replica says no or goes on: nothing ends it.

use super::*;
use crate::model::{PeerEntry, PeerPayload, PeerSnapshot};
use ::bytes::Bytes;
use proptest::prelude::*;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..8u64, 1 => any::<u64>()]
}

fn internal() -> impl Strategy<Value = Bytes> {
    let change = (0..3u8, 1..6u32).prop_map(|(kind, node)| {
        let replica = replica(node);
        let step = match kind {
            0 => MemberStep::AddVoter(replica),
            1 => MemberStep::AddLearner(replica),
            _ => MemberStep::Remove(replica),
        };
        MembershipChange::one(step).encode()
    });
    prop_oneof![
        Just(Bytes::new()),
        change,
        proptest::collection::vec(0..4u8, 0..20).prop_map(Bytes::from),
    ]
}

fn entry(index: u64) -> impl Strategy<Value = PeerEntry> {
    let payload = prop_oneof![
        4 => Just(PeerPayload::Data(vec![Bytes::from_static(b"12345678")])),
        2 => internal().prop_map(PeerPayload::Internal),
    ];
    let index = prop_oneof![30 => Just(index), 1 => number()];
    (number(), index, payload).prop_map(|(term, index, payload)| PeerEntry {
        term: Term(term),
        index: RaftIndex(index),
        payload,
    })
}

fn snapshot() -> impl Strategy<Value = PeerSnapshot> {
    let members = proptest::collection::btree_set((1..6u32).prop_map(replica), 0..4);
    let sets = (members.clone(), members.clone(), members.clone(), members, any::<bool>());
    let membership = sets.prop_map(|(voters, outgoing, learners, learners_next, auto_leave)| {
        Membership { voters, outgoing, learners, learners_next, auto_leave }
    });
    (number(), number(), number(), membership).prop_map(|(index, term, at, members)| PeerSnapshot {
        index: RaftIndex(index),
        term: Term(term),
        membership: super::super::membership::encode_with_index(&members, RaftIndex(at)),
        state: Bytes::new(),
    })
}

fn any_message() -> impl Strategy<Value = PeerMessage> {
    let kind = proptest::sample::select(vec![
        PeerKind::Append,
        PeerKind::Append,
        PeerKind::Append,
        PeerKind::AppendAnswer,
        PeerKind::Heartbeat,
        PeerKind::HeartbeatAnswer,
        PeerKind::PreVote,
        PeerKind::PreVoteAnswer,
        PeerKind::Vote,
        PeerKind::VoteAnswer,
        PeerKind::Snapshot,
        PeerKind::TimeoutNow,
        PeerKind::TransferLeader,
        PeerKind::ReadIndex,
        PeerKind::ReadIndexAnswer,
    ]);
    let numbers = [number(), number(), number(), number(), number(), number()];
    (kind, 2..5u32, numbers, any::<bool>(), proptest::collection::vec(entry(0), 0..4), snapshot())
        .prop_flat_map(|(kind, from, numbers, reject, entries, snapshot)| {
            let skewed = prop_oneof![9 => Just(0u64), 1 => number()];
            let request = prop_oneof![20 => Just(0u64), 1 => number()];
            (skewed, request, internal()).prop_map(move |(skew, request, context)| {
                let timeless = matches!(kind, PeerKind::TransferLeader | PeerKind::ReadIndex);
                let mut made = message(kind, from, 1, if timeless { 0 } else { numbers[0] });
                (made.log_term, made.index) = (Term(numbers[1]), RaftIndex(numbers[2]));
                (made.commit, made.commit_term) = (RaftIndex(numbers[3]), Term(numbers[4]));
                let answers = matches!(
                    kind,
                    PeerKind::AppendAnswer | PeerKind::PreVoteAnswer | PeerKind::VoteAnswer
                );
                (made.reject, made.reject_hint) = (reject && answers, RaftIndex(numbers[5]));
                made.request_snapshot = RaftIndex(request);
                made.context = context.clone();
                if kind == PeerKind::Append {
                    let mut terms: Vec<Term> = entries.iter().map(|entry| entry.term).collect();
                    terms.sort();
                    made.entries.clone_from(&entries);
                    let first = numbers[2].wrapping_add(skew);
                    for (at, entry) in (1..).zip(&mut made.entries) {
                        entry.index = RaftIndex(first.wrapping_add(at));
                        entry.term = terms[at as usize - 1];
                    }
                }
                if kind == PeerKind::Snapshot {
                    made.snapshot = Some(snapshot.clone());
                }
                made
            })
        })
}

#[derive(Debug, Clone)]
enum Event {
    Message(Box<PeerMessage>),
    Tick(u8),
    Steps,
    Persisted,
    Campaign,
    Propose,
    Change(u32),
    Compact(u64),
    Read,
    Unreachable(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => any_message().prop_map(|message| Event::Message(Box::new(message))),
        2 => (0..25u8).prop_map(Event::Tick),
        6 => Just(Event::Steps),
        4 => Just(Event::Persisted),
        1 => Just(Event::Campaign),
        1 => Just(Event::Propose),
        1 => (1..5u32).prop_map(Event::Change),
        1 => (1..9u64).prop_map(Event::Compact),
        1 => Just(Event::Read),
        1 => (1..5u32).prop_map(Event::Unreachable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_that_a_peer_says_ends_a_replica(
        begun_with in 0..4u32,
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let founders: Vec<ReplicaId> = (1..=begun_with).map(replica).collect();
        let mut raft = start(1, &founders, None, TermRuns::default());
        let mut number = 0;
        for event in events {
            match event {
                Event::Message(message) => drop(raft.receive(&message)),
                Event::Tick(count) => (0..count).for_each(|_| raft.tick()),
                Event::Steps => number = steps(&mut raft).last().map_or(number, |e| e.number),
                Event::Persisted => raft.persisted(number),
                Event::Campaign => raft.campaign().expect("the engine takes it"),
                Event::Propose => drop(raft.propose(Handle { records: 1, bytes: 8 })),
                Event::Change(node) => {
                    let step = MemberStep::AddVoter(replica(node));
                    drop(raft.change(&MembershipChange::one(step)));
                }
                Event::Compact(first) => raft.compact(RaftIndex(first)),
                Event::Read => raft.read_index(1),
                Event::Unreachable(node) => raft.unreachable(replica(node)),
            }
            raft.progress();
            raft.is_idle();
        }
        settle(&mut raft);
    }
}
