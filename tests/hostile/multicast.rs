//! Attacks on the search for nodes by multicast: whoever is on the network may say anything, and names
//! places where nobody is, or where somebody is who never answers.

use crate::Deadline;
use crate::mutate::{mutated, random};
use crate::node::Target;
use duramen::testing::Chance;
use socket2::{Domain, Socket, Type};
use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Packets of one round.
const BURST: u64 = 200;
/// How long the node is told to come somewhere, while nobody else says a word …
const CALLED: Duration = Duration::from_secs(20);
/// … and waits there for an answer: longer than it likes.
const HOLD: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);
/// How long what is said once may take to be heard.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Held by whoever must be heard.
static QUIET: RwLock<()> = RwLock::new(());

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
    let sent = match chance.below(400) {
        0 => hang(group, from, chance, deadline),
        _ => burst(target, group, from, chance, deadline),
    };
    sent.expect("what was heard before the flood can be sent")
}

/// Whether anything is heard on this machine that is said to the group.
pub fn is_heard(group: SocketAddr, log: &Path) -> bool {
    let nobody = b"duramen/1 127.0.0.1:9 nobody";
    let until = Instant::now() + HEARD_WITHIN;
    while Instant::now() < until {
        let said = speaking(Ipv4Addr::LOCALHOST).and_then(|socket| socket.send_to(nobody, group));
        std::thread::sleep(PAUSE);
        let told = std::fs::read_to_string(log).unwrap_or_default();
        if said.is_ok() && told.contains("a node looks for others") {
            return true;
        }
    }
    false
}

fn burst(
    target: &Target,
    group: SocketAddr,
    from: Ipv4Addr,
    chance: &mut Chance,
    deadline: &Deadline,
) -> Result<&'static str> {
    let _loud = QUIET.read().unwrap_or_else(PoisonError::into_inner);
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
fn hang(
    group: SocketAddr,
    from: Ipv4Addr,
    chance: &mut Chance,
    deadline: &Deadline,
) -> Result<&'static str> {
    let _quiet = QUIET.write().unwrap_or_else(PoisonError::into_inner);
    let silent = TcpListener::bind((from, 0))?;
    silent.set_nonblocking(true)?;
    let (socket, begun) = (speaking(from)?, Instant::now());
    while begun.elapsed() < CALLED && !deadline.is_over() {
        socket.send_to(&told(from, silent.local_addr()?.port(), chance), group)?;
        std::thread::sleep(PAUSE);
        if let Ok((_visitor, _)) = silent.accept() {
            std::thread::sleep(HOLD);
            return Ok("nodes that say nothing");
        }
    }
    Ok("nodes that nobody visits")
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
