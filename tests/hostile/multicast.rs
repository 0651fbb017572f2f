//! Attacks on the search for nodes by multicast: whoever is on the network may say anything, and names
//! places where nobody is, or where somebody is who never answers.

use crate::Deadline;
use crate::mutate::{mutated, random};
use crate::node::Target;
use duramen::testing::Chance;
use socket2::{Domain, Socket, Type};
use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// Packets of one round.
const BURST: u64 = 200;
/// How long those are left waiting who were told to come.
const HOLD: Duration = Duration::from_millis(300);

/// What is said, from where it is said.
type Say = fn(&Target, Ipv4Addr, &mut Chance) -> Vec<u8>;

const SAID: [(&str, Say); 5] = [
    ("mutated announcements", |_, from, chance| mutated(&announcement(from, chance), chance)),
    ("nodes that are not there", |_, from, chance| announcement(from, chance)),
    ("its own ports", |target, from, chance| {
        let ports = [target.gossip.port(), target.rpc.port(), target.http.port()];
        told(from, ports[chance.below(3) as usize], chance)
    }),
    ("random bytes", |_, _, chance| {
        let count = chance.below(400) as usize;
        random(chance, count)
    }),
    ("oversize packets", |_, _, chance| {
        let count = 160 + chance.below(60_000) as usize;
        random(chance, count)
    }),
];

pub fn announcements(target: &Target, chance: &mut Chance, deadline: &Deadline) -> &'static str {
    let Some(group) = target.multicast else { return "no group" };
    let from = Ipv4Addr::new(127, 0, 0, 1 + chance.below(200) as u8);
    let sent = match chance.below(8) {
        0 => hang(group, from, chance),
        _ => burst(target, group, from, chance, deadline),
    };
    sent.unwrap_or("not sent")
}

fn burst(
    target: &Target,
    group: SocketAddr,
    from: Ipv4Addr,
    chance: &mut Chance,
    deadline: &Deadline,
) -> Result<&'static str> {
    let (name, say) = crate::one_of(&SAID, 1, chance);
    let socket = speaking(from)?;
    for _ in 0..BURST {
        if deadline.is_over() {
            break;
        }
        socket.send_to(&say(target, from, chance), group)?;
    }
    Ok(name)
}

/// Tells the node to come, and does not say a word to it.
fn hang(group: SocketAddr, from: Ipv4Addr, chance: &mut Chance) -> Result<&'static str> {
    let silent = TcpListener::bind((from, 0))?;
    let socket = speaking(from)?;
    for _ in 0..4 {
        socket.send_to(&told(from, silent.local_addr()?.port(), chance), group)?;
    }
    std::thread::sleep(HOLD);
    Ok("nodes that say nothing")
}

fn speaking(from: Ipv4Addr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    Ok(socket.into())
}

fn announcement(from: Ipv4Addr, chance: &mut Chance) -> Vec<u8> {
    let port = chance.next_u64() as u16;
    told(from, port, chance)
}

fn told(from: Ipv4Addr, port: u16, chance: &mut Chance) -> Vec<u8> {
    format!("duramen/1 {from}:{port} {:016x}", chance.next_u64()).into_bytes()
}
