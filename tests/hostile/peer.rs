//! Attacks on what nodes send each other, by somebody who knows the secret, or has the certificate, of a
//! node, and even has joined the cluster. The group of the healthy client's topic is left alone: of a
//! member that lies about terms nobody is safe, and nobody claims to be.

use crate::Deadline;
use crate::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, call_with, frame, greeted_as, message, settled,
};
use crate::mutate::{mutated, odd, pick, random};
use crate::node::Target;
use crate::wire::Wire;
use bytes::Bytes;
use duramen::model::{GroupId, NodeId, ReplicaId, TopicId};
use duramen::testing::Chance;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::peer::PeerProof;
use prost::Message;
use std::io::Result;
use std::time::Duration;

const EXCHANGE: &str = "/duramen.v1.Peer/Exchange";
const JOIN: &str = "/duramen.v1.Peer/Join";
const CHANGE: &str = "/duramen.v1.Peer/Change";
/// The node that the attacker poses as; the first that joins gets this number.
const ME: u32 = 2;
const UUID: &str = "00000000-0000-4000-8000-000000000002";
const KINDS: i32 = 14;
/// How long an answer is listened to.
const MOMENT: Duration = Duration::from_millis(30);
const HEARD_MAX: usize = 64 << 10;
/// How long what hangs is left hanging.
const HOLD: Duration = Duration::from_millis(700);

type Attack = fn(&Target, &mut Chance) -> Result<()>;

const ATTACKS: [(&str, Attack); 11] = [
    ("absurd messages", absurd_messages),
    ("absurd messages", absurd_messages),
    ("mutated frames", mutated_frames),
    ("mutated frames", mutated_frames),
    ("replayed frames", replayed_frames),
    ("odd introductions", odd_introductions),
    ("odd joins", odd_joins),
    ("odd commands", odd_commands),
    ("giant frames", giant_frames),
    ("false leaders", false_leaders),
    ("silent exchanges", silent_exchanges),
];
const HEAVY: usize = 1;

pub fn attack(target: &Target, chance: &mut Chance, _deadline: &Deadline) -> &'static str {
    let (name, attack) = crate::one_of(&ATTACKS, HEAVY, chance);
    match attack(target, chance) {
        Ok(()) => name,
        Err(_) => "turned away",
    }
}

/// A call on stream 1, with the proof or, now and then, without.
fn opened(target: &Target, path: &str, chance: &mut Chance) -> Result<Wire> {
    let mut wire = greeted_as(target, target.as_node.as_ref(), &[])?;
    settled(&mut wire);
    let mut request = tonic::Request::new(());
    PeerProof::of(&target.gossip_key).show(&mut request);
    let headers = request.into_parts().0.into_headers();
    let proof = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let proof: Vec<_> = proof.filter(|_| chance.below(8) > 0).collect();
    wire.send(&frame(HEADERS, END_HEADERS, 1, &call_with(path, &proof)));
    Ok(wire)
}

fn say(wire: &mut Wire, said: &[u8]) -> bool {
    message(0, said).chunks(16 << 10).all(|piece| wire.send(&frame(DATA, 0, 1, piece)))
}

fn introduction(target: &Target) -> pb::Introduction {
    pb::Introduction {
        cluster_id: target.cluster_id.clone(),
        node: ME,
        uuid: UUID.into(),
        to: 1,
        to_uuid: target.uuid.clone(),
        protocol_min: 1,
        protocol_max: 2,
        version: "0.1.0".into(),
    }
}

fn join(target: &Target) -> pb::JoinRequest {
    pb::JoinRequest {
        uuid: UUID.into(),
        name: "n2".into(),
        rpc_addr: "127.0.0.1:1".into(),
        gossip_addr: "127.0.0.1:1".into(),
        version: "0.1.0".into(),
        protocol_min: 1,
        protocol_max: 2,
        labels: [("rack".to_owned(), "a".to_owned())].into(),
        cluster_id: target.cluster_id.clone(),
    }
}

/// An exchange of a node that is known: it has joined, at the latest now, and says who it is.
fn introduced(target: &Target, chance: &mut Chance) -> Result<Wire> {
    if chance.below(16) == 0 {
        let mut wire = opened(target, JOIN, chance)?;
        say(&mut wire, &join(target).encode_to_vec());
        wire.send(&frame(DATA, END_STREAM, 1, &[]));
        wire.hear(MOMENT, HEARD_MAX);
    }
    let mut wire = opened(target, EXCHANGE, chance)?;
    let introduction = Some(introduction(target));
    let first = pb::PeerFrame { introduction, ..Default::default() };
    say(&mut wire, &first.encode_to_vec());
    Ok(wire)
}

/// A group that may be attacked: the controller's, the hostile topic's, or none that is there.
fn group(target: &Target, chance: &mut Chance) -> u64 {
    let hostile = GroupId::partition_of(TopicId(target.hostile_topic), 0).raw();
    let healthy = GroupId::partition_of(TopicId(target.healthy_topic), 0).raw();
    let any = chance.next_u64();
    let group = *pick(chance, &[0, hostile, hostile, hostile + 1, 1, any, u64::MAX]);
    if group == healthy { hostile } else { group }
}

fn number(chance: &mut Chance) -> u64 {
    match chance.below(3) {
        0 => odd(chance),
        1 => chance.below(100),
        _ => chance.next_u64(),
    }
}

fn group_message(target: &Target, chance: &mut Chance) -> pb::GroupMessage {
    let replica = |node, incarnation| ReplicaId::new(NodeId(node), incarnation).raw();
    let batch = Bytes::from(crate::messages::mutated_batch(chance));
    let entry = pb::GroupEntry {
        term: number(chance),
        index: number(chance),
        data: if chance.coin() { vec![batch] } else { Vec::new() },
        is_internal: chance.coin(),
        internal: Bytes::from(random(chance, 40)),
    };
    let snapshot = pb::GroupSnapshot {
        index: number(chance),
        term: number(chance),
        membership: random(chance, 30).into(),
        state: random(chance, 30).into(),
    };
    let own = 1 + chance.below(6) as u32;
    let its = 1 + chance.below(6) as u32;
    pb::GroupMessage {
        group: group(target, chance),
        kind: 1 + chance.below(KINDS as u64) as i32,
        from: if chance.below(8) > 0 { replica(ME, own) } else { odd(chance) },
        to: if chance.below(8) > 0 { replica(1, its) } else { odd(chance) },
        term: number(chance),
        log_term: number(chance),
        index: number(chance),
        commit: number(chance),
        commit_term: if chance.coin() { 0 } else { number(chance) },
        reject: chance.coin(),
        reject_hint: if chance.coin() { 0 } else { number(chance) },
        request_snapshot: if chance.coin() { 0 } else { number(chance) },
        priority: if chance.coin() { 0 } else { odd(chance) as i64 },
        context: if chance.coin() { Bytes::new() } else { random(chance, 24).into() },
        entries: if chance.coin() { vec![entry; 1 + chance.below(3) as usize] } else { Vec::new() },
        snapshot: (chance.below(4) == 0).then_some(snapshot),
    }
}

fn frame_of(messages: Vec<pb::GroupMessage>) -> Vec<u8> {
    pb::PeerFrame { messages, ..Default::default() }.encode_to_vec()
}

fn absurd_messages(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = introduced(target, chance)?;
    for _ in 0..10 {
        let messages = (0..1 + chance.below(8)).map(|_| group_message(target, chance)).collect();
        if !say(&mut wire, &frame_of(messages)) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Frames of another group than the healthy one's, changed in their bytes, which may name any.
fn mutated_frames(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = introduced(target, chance)?;
    for _ in 0..10 {
        let said = frame_of(vec![group_message(target, chance)]);
        if !say(&mut wire, &mutated(&said, chance)) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn replayed_frames(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = introduced(target, chance)?;
    let messages = (0..4).map(|_| group_message(target, chance)).collect();
    let said = frame_of(messages);
    for _ in 0..200 {
        if !say(&mut wire, &said) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn odd_introductions(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut said = introduction(target);
    match chance.below(8) {
        0 => said.cluster_id = "another".into(),
        1 => said.node = odd(chance) as u32,
        2 => said.uuid = "x".repeat(chance.below(20_000) as usize),
        3 => said.to = odd(chance) as u32,
        4 => said.to_uuid.clear(),
        5 => (said.protocol_min, said.protocol_max) = (odd(chance) as u32, odd(chance) as u32),
        6 => said.version = "\u{7}\u{1b}[2J\n".repeat(50),
        _ => said.node = 1,
    }
    let mut wire = opened(target, EXCHANGE, chance)?;
    let first = pb::PeerFrame { introduction: Some(said), ..Default::default() };
    let first = first.encode_to_vec();
    let first = if chance.coin() { mutated(&first, chance) } else { first };
    say(&mut wire, &first);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn odd_joins(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut said = join(target);
    match chance.below(6) {
        0 => said.cluster_id = "another".into(),
        1 => said.uuid = String::new(),
        2 => said.name = "..\0/\n".repeat(300),
        3 => said.labels = (0..5_000).map(|at| (format!("{at}"), String::new())).collect(),
        4 => said.rpc_addr = "a".repeat(2_000),
        _ => (said.protocol_min, said.protocol_max) = (odd(chance) as u32, odd(chance) as u32),
    }
    let mut wire = opened(target, JOIN, chance)?;
    let said = said.encode_to_vec();
    say(&mut wire, &said[..said.len() - chance.below(3) as usize]);
    wire.send(&frame(DATA, END_STREAM, 1, &[]));
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Commands for the catalogue that are none.
fn odd_commands(target: &Target, chance: &mut Chance) -> Result<()> {
    let count = chance.below(400) as usize;
    let command = match chance.below(5) {
        0 => random(chance, count),
        1 => b"[".repeat(1 << 20),
        2 => br#"{"a":"#.repeat(100_000),
        3 => format!(r#"{{"{}":{}}}"#, "x".repeat(count), "9".repeat(count)).into_bytes(),
        _ => vec![b' '; (1 << 20) + 1],
    };
    let cluster_id = target.cluster_id.clone();
    let said = pb::ChangeRequest { cluster_id, from: ME, command: command.into() };
    let mut wire = opened(target, CHANGE, chance)?;
    say(&mut wire, &said.encode_to_vec());
    wire.send(&frame(DATA, END_STREAM, 1, &[]));
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Frames of few bytes that would be much in memory, and of many.
fn giant_frames(target: &Target, chance: &mut Chance) -> Result<()> {
    let said: Vec<u8> = match chance.below(4) {
        // A hundred thousand empty messages, or leaders; two bytes each.
        0 => [0x12, 0].repeat(100_000),
        1 => [0x1a, 0].repeat(100_000),
        // One message with as many empty entries.
        2 => {
            let entries = [0x7a, 0].repeat(100_000);
            let length = crate::mutate::varint(entries.len() as u64);
            [&[0x12][..], &length, &entries].concat()
        }
        _ => {
            let mut large = group_message(target, chance);
            large.context = vec![0; 2 << 20].into();
            frame_of(vec![large])
        }
    };
    let is_first = chance.coin();
    let mut wire =
        if is_first { opened(target, EXCHANGE, chance)? } else { introduced(target, chance)? };
    say(&mut wire, &said);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn false_leaders(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = introduced(target, chance)?;
    let leads = (0..100).map(|_| pb::Leads {
        group: group(target, chance),
        term: number(chance),
        replica: ReplicaId::new(NodeId(ME), 1 + chance.below(3) as u32).raw(),
    });
    let said = pb::PeerFrame { leads: leads.collect(), ..Default::default() };
    say(&mut wire, &said.encode_to_vec());
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Exchanges in which nobody says a word, or says half of one.
fn silent_exchanges(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    for _ in 0..30 {
        let mut wire = opened(target, EXCHANGE, chance)?;
        if chance.coin() {
            wire.send(&frame(DATA, 0, 1, &[0, 0, 0x10, 0, 0]));
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}
