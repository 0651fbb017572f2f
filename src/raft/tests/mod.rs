mod fuzz;
mod group;
mod lone;
mod reconciling;
mod simulation;
mod suspicion;
mod world;

use super::*;
use crate::model::{GroupId, NodeId, PeerKind, PeerMessage, RaftIndex, ReplicaId, Term};
use slog::Logger;
use std::rc::Rc;

pub fn silent() -> Logger {
    Logger::root(slog::Discard, slog::o!())
}

pub fn replica(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), node + 100)
}

/// Each entry is as large as a message may be, times three over: so many fit one.
pub struct Three;

impl EntrySizes for Three {
    fn fit(&self, low: RaftIndex, high: RaftIndex, _: u64) -> u64 {
        (high.0 - low.0).clamp(1, 3)
    }
}

pub fn config(node: u32) -> RaftConfig {
    RaftConfig {
        group: GroupId::LOG,
        me: replica(node),
        election_ticks: 10,
        heartbeat_ticks: 2,
        message_bytes_max: 1 << 20,
        inflight_max: 16,
        seed: u64::from(node) * 7919,
    }
}

pub fn start(
    node: u32,
    founders: &[ReplicaId],
    hard_state: Option<HardState>,
    terms: TermRuns,
) -> PartitionRaft {
    let recovered = Recovered { hard_state, terms };
    PartitionRaft::start(config(node), founders, recovered, Rc::new(Three), &silent())
        .expect("starts")
}

pub fn steps(raft: &mut PartitionRaft) -> Vec<Effects> {
    std::iter::from_fn(|| raft.step()).collect()
}

/// All that is asked for is made durable at once; what is sent meanwhile.
pub fn settle(raft: &mut PartitionRaft) -> Vec<PeerMessage> {
    let mut sent = Vec::new();
    while let Some(effects) = raft.step() {
        sent.extend(effects.messages);
        raft.persisted(effects.number);
    }
    sent
}

pub fn kinds(messages: &[PeerMessage]) -> Vec<PeerKind> {
    messages.iter().map(|message| message.kind).collect()
}

pub fn message(kind: PeerKind, from: u32, to: u32, term: u64) -> PeerMessage {
    PeerMessage::new(GroupId::LOG, kind, replica(from), replica(to), Term(term))
}
