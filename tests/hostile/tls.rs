//! Attacks on the TLS layer of both ports: by whoever has no certificate, and behind the handshake of
//! whoever has one.

use crate::Deadline;
use crate::mutate::{mutated, odd, pick, random};
use crate::node::{Target, speaking};
use crate::wire::Wire;
use duramen::testing::Chance;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{Error, Result, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// How long an answer is listened to.
const MOMENT: Duration = Duration::from_millis(30);
/// How long what hangs is left hanging.
const HOLD: Duration = Duration::from_millis(700);
const HEARD_MAX: usize = 64 << 10;
/// Bytes of a record before what it holds, and the most that it may hold.
const HEADER: usize = 5;
const RECORD_MAX: usize = 1 << 14;

type Attack = fn(&Target, SocketAddr, &mut Chance) -> Result<()>;

/// The last two hold many connections, and are played less often.
const ATTACKS: [(&str, Attack); 11] = [
    ("random bytes", random_bytes),
    ("mutated hello", mutated_hello),
    ("mutated hello", mutated_hello),
    ("mutated hello", mutated_hello),
    ("truncated hello", truncated_hello),
    ("records that lie", records_that_lie),
    ("fragments", fragments),
    ("early data", early_data),
    ("garbage behind the handshake", garbage_behind),
    ("byte by byte", byte_by_byte),
    ("half-open handshakes", half_open),
];
const HEAVY: usize = 2;

pub fn attack(target: &Target, chance: &mut Chance, _deadline: &Deadline) -> &'static str {
    let (name, attack) = crate::one_of(&ATTACKS, HEAVY, chance);
    let port = if chance.coin() { target.rpc } else { target.http };
    match attack(target, port, chance) {
        Ok(()) => name,
        Err(_) => "turned away",
    }
}

/// The first bytes of a client: one record with one handshake message.
fn hello(target: &Target) -> Result<Vec<u8>> {
    let config = target.as_client.as_ref().ok_or_else(|| Error::other("a listener within TLS"))?;
    let name = ServerName::from(target.rpc.ip());
    let config = speaking(config, b"h2");
    let mut connection = ClientConnection::new(config, name).map_err(Error::other)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}

fn random_bytes(_: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let mut wire = Wire::connect(port, None)?;
    let count = chance.below(8 << 10) as usize;
    let mut bytes = random(chance, count);
    if chance.coin() {
        // Looks like a handshake at first.
        bytes.splice(0..0, [22, 3, 1]);
    }
    wire.send(&bytes);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn mutated_hello(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let hello = hello(target)?;
    let mut bytes = match chance.coin() {
        true => mutated(&hello, chance),
        // The lengths of record and message stay right, so that what is in them is looked at.
        false => {
            let inner = mutated(&hello[HEADER + 4..], chance);
            let length = inner.len() as u32;
            let message = [&[1], &length.to_be_bytes()[1..], &inner].concat();
            [&hello[..3], &(message.len() as u16).to_be_bytes(), &message].concat()
        }
    };
    if chance.below(4) == 0 {
        bytes.extend(hello);
    }
    let mut wire = Wire::connect(port, None)?;
    wire.send(&bytes);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn truncated_hello(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let hello = hello(target)?;
    let mut wire = Wire::connect(port, None)?;
    wire.send(&hello[..chance.below(hello.len() as u64) as usize]);
    wire.finish();
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Records of any kind and version, and of lengths that they do not have or may not have.
fn records_that_lie(_: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let mut wire = Wire::connect(port, None)?;
    for _ in 0..10 {
        let length = *pick(chance, &[0, 1, 4, 0x3fff, 0x4000, 0x4001, 0x4801, 0xffff]);
        let there = if chance.coin() { u64::from(length) } else { chance.below(64) };
        let kind = if chance.below(4) > 0 { 22 } else { 20 + chance.below(5) as u8 };
        let payload = random(chance, there as usize);
        let record = [&[kind, 3, odd(chance) as u8], &u16::to_be_bytes(length)[..], &payload];
        if !wire.send(&record.concat()) {
            break;
        }
    }
    // Empty ones without end.
    wire.send(&[22, 3, 1, 0, 0].repeat(2_000));
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// A hello in records of one byte each; also one that says it is as long as can be.
fn fragments(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let mut message = hello(target)?.split_off(HEADER);
    if chance.coin() {
        message = [&[1, 0xff, 0xff, 0xff][..], &vec![0; 64 << 10]].concat();
    }
    let size = if chance.coin() { 1 } else { 1 + chance.below(RECORD_MAX as u64) as usize };
    let mut wire = Wire::connect(port, None)?;
    let records = message
        .chunks(size)
        .take(8 << 10)
        .flat_map(|piece| [&[22, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat());
    wire.send(&records.collect::<Vec<u8>>());
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Data before anybody said who they are.
fn early_data(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let mut wire = Wire::connect(port, None)?;
    wire.send(&hello(target)?);
    for _ in 0..chance.below(100) {
        let payload = random(chance, RECORD_MAX);
        let record = [&[23, 3, 3], &(RECORD_MAX as u16).to_be_bytes()[..], &payload].concat();
        if !wire.send(&record) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// A client that is let in, and then sends what nobody has encrypted.
fn garbage_behind(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let protocol: &[u8] = if port == target.rpc { b"h2" } else { b"http/1.1" };
    let tls = target.as_client.as_ref().map(|config| speaking(config, protocol));
    let wire = Wire::connect(port, tls.as_ref())?;
    let count = 1 + chance.below(4 << 10) as usize;
    let mut bytes = random(chance, count);
    if chance.coin() {
        bytes.splice(0..0, [23, 3, 3, 0, 64]);
    }
    // It may have hung up already.
    let _ = (&mut wire.tcp()).write_all(&bytes);
    Wire::Plain(wire.tcp().try_clone()?).hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn byte_by_byte(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let hello = hello(target)?;
    let mut wires = Vec::new();
    for _ in 0..50 {
        wires.push((Wire::connect(port, None)?, chance.below(hello.len() as u64) as usize));
    }
    for (wire, at) in &mut wires {
        wire.send(&hello[..*at]);
    }
    for step in 0..20 {
        std::thread::sleep(HOLD / 20);
        for (wire, at) in &mut wires {
            let at = *at + step;
            wire.send(&hello[at.min(hello.len())..(at + 1).min(hello.len())]);
        }
    }
    Ok(())
}

/// More handshakes than may be under way, each as far as it goes without a certificate.
fn half_open(target: &Target, port: SocketAddr, chance: &mut Chance) -> Result<()> {
    let hello = hello(target)?;
    let mut wires = Vec::new();
    for _ in 0..300 {
        let mut wire = Wire::connect(port, None)?;
        match chance.below(3) {
            0 => {}
            1 => drop(wire.send(&hello[..100])),
            _ => drop(wire.send(&hello)),
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}
