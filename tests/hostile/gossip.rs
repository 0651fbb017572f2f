//! Attacks on gossip: by whoever reaches the port, and by whoever has the key too and means harm, or
//! is broken.

use crate::Deadline;
use crate::forge::{self, Forge, OPEN, Said};
use crate::mutate::{mutated, odd, pick, random, varint};
use crate::node::Target;
use crate::wire::Wire;
use bytes::Bytes;
use duramen::testing::Chance;
use std::io::Result;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Packets of one round.
const BURST: u64 = 100;
/// How long an answer is listened to.
const MOMENT: Duration = Duration::from_millis(30);
const HEARD_MAX: usize = 2 << 20;
/// How long what hangs is left hanging.
const HOLD: Duration = Duration::from_millis(700);
/// An answer to a stranger is at most so much longer than what it sent.
const ANSWER_TIMES_MAX: usize = 3;

/// Compressed, checksummed, encrypted, compound, and a label within the label.
const WRAPPINGS: [u8; 5] = [14, 13, 15, 1, 12];

struct Attacker<'t> {
    target: &'t Target,
    /// As the node would have it; others are tried too.
    right: Forge,
}

type Pack = fn(&Attacker<'_>, &mut Chance) -> Vec<u8>;

const PACKETS: [(&str, Pack); 11] = [
    ("mutated packets", mutated_packet),
    ("mutated packets", mutated_packet),
    ("mutated content", mutated_content),
    ("mutated content", mutated_content),
    ("random bytes", random_packet),
    ("oversize packets", oversize_packet),
    ("wrappings", wrapping),
    ("rumours", rumour),
    ("crowds", crowd_packet),
    ("long names", long_names),
    ("forged senders", forged_sender),
];

type Play = fn(&Attacker<'_>, &mut Chance) -> Result<()>;

const CONNECTIONS: [(&str, Play); 10] = [
    ("mutated messages", mutated_message),
    ("mutated messages", mutated_message),
    ("mutated messages", mutated_message),
    ("absurd lengths", absurd_length),
    ("giant messages", giant_message),
    ("crowds", crowd_message),
    ("wrappings", wrapped_message),
    ("slow messages", slow_messages),
    ("unread answers", unread_answer),
    ("connect floods", connect_flood),
];

pub fn packets(target: &Target, chance: &mut Chance, deadline: &Deadline) -> &'static str {
    let right = Forge { key: Some(target.gossip_key), label: "duramen" };
    send_packets(&Attacker { target, right }, chance, deadline)
}

pub fn open_packets(target: &Target, chance: &mut Chance, deadline: &Deadline) -> &'static str {
    let attacker = Attacker { target, right: OPEN };
    if chance.below(8) == 0 {
        return asked_for_more(&attacker, deadline);
    }
    send_packets(&attacker, chance, deadline)
}

pub fn connections(target: &Target, chance: &mut Chance, _: &Deadline) -> &'static str {
    let right = Forge { key: Some(target.gossip_key), label: "duramen" };
    play(&Attacker { target, right }, chance)
}

pub fn open_connections(target: &Target, chance: &mut Chance, _: &Deadline) -> &'static str {
    play(&Attacker { target, right: OPEN }, chance)
}

fn send_packets(attacker: &Attacker<'_>, chance: &mut Chance, deadline: &Deadline) -> &'static str {
    let (name, pack) = crate::one_of(&PACKETS, 1, chance);
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return "no socket" };
    for _ in 0..BURST {
        if deadline.is_over() {
            break;
        }
        let bytes = pack(attacker, chance);
        // What the system does not take is no attack.
        let _ = socket.send_to(&bytes[..bytes.len().min(65_000)], attacker.target.gossip);
    }
    name
}

fn play(attacker: &Attacker<'_>, chance: &mut Chance) -> &'static str {
    let (name, play) = crate::one_of(&CONNECTIONS, 3, chance);
    match play(attacker, chance) {
        Ok(()) => name,
        Err(_) => "turned away",
    }
}

/// Asks from a fresh address, again and again; what comes back is weighed.
fn asked_for_more(attacker: &Attacker<'_>, deadline: &Deadline) -> &'static str {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return "no socket" };
    let Ok(own) = socket.local_addr() else { return "no socket" };
    let ping = forge::ping(&attacker.target.uuid, own, attacker.target.gossip);
    let asks = OPEN.packet(vec![ping]);
    let (mut sent, mut heard, mut buffer) = (0, 0, [0; 65536]);
    let timed = socket.set_read_timeout(Some(Duration::from_millis(5)));
    for _ in 0..20 {
        if timed.is_err() || deadline.is_over() {
            break;
        }
        sent += socket.send_to(&asks, attacker.target.gossip).unwrap_or_default();
        while let Ok((len, _)) = socket.recv_from(&mut buffer) {
            heard += len;
        }
    }
    assert!(heard <= ANSWER_TIMES_MAX * sent, "{heard} bytes came back for {sent}");
    "weighed answers"
}

impl Attacker<'_> {
    /// Mostly as the node would have it.
    fn forge(&self, chance: &mut Chance) -> Forge {
        match chance.below(8) {
            0 => OPEN,
            1 => Forge { key: Some([9; 32]), label: "duramen" },
            2 => Forge { label: "another", ..self.right },
            _ => self.right,
        }
    }

    fn anywhere(&self, chance: &mut Chance) -> SocketAddr {
        match chance.below(3) {
            0 => self.target.gossip,
            // Discard, where nobody is.
            _ => ([127, 0, 0, chance.next_u64() as u8], 9).into(),
        }
    }

    fn name(&self, chance: &mut Chance) -> String {
        match chance.below(4) {
            0 => self.target.uuid.clone(),
            1 => "x".repeat(1 + chance.below(255) as usize),
            _ => format!("ghost-{}", chance.below(5_000)),
        }
    }

    fn meta(&self, chance: &mut Chance) -> Vec<u8> {
        let sound = forge::meta(&self.target.cluster_id, "ghost");
        match chance.below(3) {
            0 => mutated(&sound, chance).into_iter().take(512).collect(),
            1 => {
                let count = chance.below(512) as usize;
                random(chance, count)
            }
            _ => sound,
        }
    }

    fn said(&self, chance: &mut Chance) -> Said {
        let (name, other) = (self.name(chance), self.name(chance));
        let (at, by) = (self.anywhere(chance), self.anywhere(chance));
        let incarnation = odd(chance) as u32;
        match chance.below(7) {
            0 => forge::ping(&name, by, at),
            1 => forge::indirect_ping(&name, by, at),
            2 => forge::dead(&name, &other, incarnation),
            3 => forge::suspect(&name, &other, incarnation),
            4 => forge::alive(&name, at, incarnation, &self.meta(chance)),
            5 => Said::user_data(Bytes::from(random(chance, 300))),
            _ => forge::join([(name, at), (other, by)].into_iter(), &self.meta(chance)),
        }
    }

    fn many(&self, chance: &mut Chance) -> Vec<Said> {
        (0..=chance.below(6)).map(|_| self.said(chance)).collect()
    }

    /// A sound message without what is around it.
    fn plain(&self, chance: &mut Chance) -> Vec<u8> {
        let around = 2 + OPEN.label.len();
        let is_stream = chance.below(2) == 0;
        let whole = match is_stream {
            true => OPEN.message(self.said(chance)),
            false => OPEN.packet(self.many(chance)),
        };
        whole[around..].to_vec()
    }

    fn crowd(&self, chance: &mut Chance, count: u64) -> Said {
        let first = chance.below(100_000);
        let at = self.anywhere(chance);
        let nodes = (first..first + count).map(|number| (format!("crowd-{number}"), at));
        forge::join(nodes, &self.meta(chance))
    }
}

// -- packets

fn mutated_packet(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let sound = attacker.forge(chance).packet(attacker.many(chance));
    mutated(&sound, chance)
}

/// Changed first, and then made ready as a node would.
fn mutated_content(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let plain = attacker.plain(chance);
    let changed = mutated(&plain, chance);
    attacker.forge(chance).sealed(&changed)
}

fn random_packet(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let count = chance.below(1500) as usize;
    let bytes = random(chance, count);
    match chance.below(2) {
        0 => bytes,
        _ => attacker.forge(chance).sealed(&bytes),
    }
}

fn oversize_packet(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let count = chance.below(64_000) as usize;
    let mut plain = attacker.plain(chance);
    plain.resize(plain.len() + count, 0);
    attacker.forge(chance).sealed(&plain)
}

/// What says that something else is within, of any length, within itself again and again.
fn wrapped(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let mut plain = attacker.plain(chance);
    for _ in 0..=chance.below(20) {
        let mut around = vec![*pick(chance, &WRAPPINGS), chance.next_u64() as u8];
        let len = match chance.below(2) {
            0 => plain.len() as u32,
            _ => odd(chance) as u32,
        };
        around.extend_from_slice(&len.to_be_bytes());
        around.extend_from_slice(&plain);
        plain = around;
    }
    attacker.forge(chance).sealed(&plain)
}

fn wrapping(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    wrapped(attacker, chance)
}

/// Of the node itself: dead, suspected, elsewhere, in any life.
fn rumour(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let (own, at) = (attacker.target.uuid.as_str(), attacker.anywhere(chance));
    let incarnation = match chance.below(2) {
        0 => odd(chance) as u32,
        _ => chance.below(1 << 30) as u32,
    };
    let said = match chance.below(4) {
        0 => forge::dead(own, own, incarnation),
        1 => forge::dead(own, "ghost-1", incarnation),
        2 => forge::suspect(own, "ghost-1", incarnation),
        _ => forge::alive(own, at, incarnation, &attacker.meta(chance)),
    };
    attacker.forge(chance).packet(vec![said]).to_vec()
}

fn crowd_packet(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let at = attacker.anywhere(chance);
    let meta = attacker.meta(chance);
    let said =
        (0..8).map(|_| forge::alive(&format!("crowd-{}", chance.below(1_000_000)), at, 1, &meta));
    let said = said.take((1_200 / (meta.len() + 40)).max(1)).collect();
    attacker.right.packet(said).to_vec()
}

/// A question about somebody whose name alone fills the answer.
fn long_names(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let name = vec![b'x'; 200 + chance.below(1200) as usize];
    let field = |tag: u8, bytes: &[u8]| {
        let mut field = vec![tag];
        field.extend(varint(bytes.len() as u64));
        field.extend_from_slice(bytes);
        field
    };
    let sound = attacker.plain(chance);
    // A node: a name of any length, and an address as memberlist writes it.
    let node = [field(0x0a, &name), field(0x12, &[4, 127, 0, 0, 1, 0, 9])].concat();
    let ping = [vec![0x08, 7], field(0x12, &node), field(0x1a, &node)].concat();
    let mut plain = vec![3];
    plain.extend(varint(ping.len() as u64));
    plain.extend(ping);
    let plain = if chance.below(4) == 0 { [plain, sound].concat() } else { plain };
    attacker.right.sealed(&plain)
}

fn forged_sender(attacker: &Attacker<'_>, chance: &mut Chance) -> Vec<u8> {
    let (by, at) = (attacker.anywhere(chance), attacker.anywhere(chance));
    let said = match chance.below(2) {
        0 => forge::ping(&attacker.target.uuid, by, attacker.target.gossip),
        _ => forge::indirect_ping("ghost-1", by, at),
    };
    attacker.right.packet(vec![said]).to_vec()
}

// -- connections

fn opened(attacker: &Attacker<'_>) -> Result<Wire> {
    Wire::connect(attacker.target.gossip, None)
}

fn mutated_message(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wire = opened(attacker)?;
    let said = attacker.said(chance);
    let bytes = match chance.below(3) {
        0 => mutated(&attacker.forge(chance).message(said), chance),
        1 => mutated_content(attacker, chance),
        _ => attacker.forge(chance).message(said).to_vec(),
    };
    wire.send(&bytes);
    if chance.below(2) == 0 {
        wire.finish();
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Says that much comes, and sends little of it.
fn absurd_length(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wire = opened(attacker)?;
    let forge = attacker.forge(chance);
    let mut bytes = vec![12, forge.label.len() as u8];
    bytes.extend_from_slice(forge.label.as_bytes());
    match chance.below(3) {
        0 => {
            bytes.extend_from_slice(&[15, chance.below(4) as u8]);
            bytes.extend_from_slice(&(odd(chance) as u32).to_be_bytes());
        }
        1 => {
            bytes.push(1 + chance.below(15) as u8);
            bytes.extend(varint(odd(chance)));
        }
        _ => {
            bytes.push(1 + chance.below(15) as u8);
            bytes.extend_from_slice(&[chance.next_u64() as u8; 1]);
            bytes.extend_from_slice(&(odd(chance) as u32).to_be_bytes());
        }
    }
    let more = chance.below(3000) as usize;
    bytes.extend(random(chance, more));
    wire.send(&bytes);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn giant_message(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wire = opened(attacker)?;
    let len = (1 << 20) - 100 + chance.below(2 << 20) as usize;
    let mut plain = vec![8];
    plain.extend(varint(len as u64));
    plain.resize(plain.len() + len, chance.next_u64() as u8);
    let bytes = attacker.forge(chance).sealed(&plain);
    for piece in bytes.chunks(64 << 10) {
        if !wire.send(piece) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn crowd_message(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wire = opened(attacker)?;
    let count = 1 + chance.below(2_500);
    let said = attacker.crowd(chance, count);
    wire.send(&attacker.right.message(said));
    wire.hear(MOMENT * 4, HEARD_MAX);
    Ok(())
}

/// Many that begin and do not go on.
fn slow_messages(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let sound = attacker.forge(chance).message(attacker.said(chance));
    let mut wires = Vec::new();
    for _ in 0..40 {
        wires.push(opened(attacker)?);
    }
    let until = Instant::now() + HOLD;
    for byte in sound.iter().take(20) {
        wires.retain_mut(|wire| wire.send(&[*byte]));
        std::thread::sleep(until.saturating_duration_since(Instant::now()) / 10);
    }
    Ok(())
}

fn unread_answer(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    for _ in 0..8 {
        let mut wire = opened(attacker)?;
        let said = attacker.crowd(chance, 1);
        wire.send(&attacker.right.message(said));
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

fn connect_flood(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    for _ in 0..100 {
        let wire = opened(attacker)?;
        if chance.below(2) == 0 {
            wires.push(wire);
        }
    }
    Ok(())
}

fn wrapped_message(attacker: &Attacker<'_>, chance: &mut Chance) -> Result<()> {
    let mut wire = opened(attacker)?;
    wire.send(&wrapped(attacker, chance));
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}
