// Gossip by somebody who is no node, who has listened, or who has the key and means harm. It is a hint
// for whom to call, and never makes anybody a member.

use super::forge::{self, Forge, OPEN};
use super::{KEY, standing, with_key};
use crate::harness::binary::http;
use duramen::actors::presence::Seen;
use duramen::model::NodeId;
use duramen::testing::{Cluster, TestNode, until};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WITH_KEY: Forge = Forge { key: Some(KEY), label: "duramen" };
const GHOST: &str = "00000000-dead-4000-8000-000000000000";

fn gossip_addr(node: &TestNode) -> SocketAddr {
    let own = node.node_id().to_owned();
    node.until("it gossips", |node| node.cluster().presence.now().contains_key(&own));
    node.cluster().presence.now()[&own].gossip_addr.parse().unwrap()
}

/// So much was refused of gossip, for this reason.
fn refused(node: &TestNode, reason: &str) -> u64 {
    let (_, text) = http(&node.http_addr().to_string(), "GET", "/metrics", "");
    let name = format!("duramen_gossip_refused_total{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).expect("it is counted");
    line.parse::<f64>().unwrap() as u64
}

fn uuid(cluster: &Cluster, number: usize) -> String {
    cluster.node(number).node_id().to_owned()
}

fn sees(node: &TestNode, uuid: &str) -> Option<Seen> {
    node.cluster().presence.now().get(uuid).map(|present| present.seen)
}

fn all_see_all(cluster: &Cluster) {
    let uuids: Vec<String> = cluster.nodes().map(|(_, node)| node.node_id().to_owned()).collect();
    cluster.until("every node sees every node alive", |cluster| {
        cluster
            .nodes()
            .all(|(_, node)| uuids.iter().all(|uuid| sees(node, uuid) == Some(Seen::Alive)))
    });
}

/// The bad news of one node, and the good news of one that does not exist.
fn rumours(victim: &str, at: SocketAddr) -> Vec<Vec<forge::Said>> {
    let ghost = forge::alive(GHOST, "127.0.0.1:9".parse().unwrap(), 1, &forge::meta("", "ghost"));
    vec![
        vec![forge::dead(victim, "somebody", 1_000)],
        vec![forge::dead(victim, victim, 1_000)],
        vec![forge::suspect(victim, "somebody", 1_000)],
        vec![forge::dead(victim, "somebody", u32::MAX)],
        vec![forge::alive(victim, at, 1_000, &forge::meta("another", "n2"))],
        vec![ghost],
    ]
}

/// Sends a message on a connection and takes what comes back, if anything does.
fn tell(to: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _ = stream.write_all(message).and_then(|()| stream.read_to_end(&mut answer));
    answer
}

#[test]
fn rumours_without_the_key_are_not_heard_and_with_it_they_are_answered() {
    let cluster = Cluster::start_with(3, with_key);
    all_see_all(&cluster);
    let before = standing(&cluster);
    let (one, victim) = (cluster.node(1), uuid(&cluster, 2));
    let (to, at) = (gossip_addr(one), gossip_addr(cluster.node(2)));
    let strangers = [
        OPEN,
        Forge { key: Some([8; 32]), label: "duramen" },
        Forge { key: Some(KEY), label: "another" },
    ];
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = 0;
    for forge in strangers {
        for said in rumours(&victim, at) {
            socket.send_to(&forge.packet(said), to).unwrap();
            sent += 1;
        }
        let ghost = [(GHOST.to_owned(), "127.0.0.1:9".parse().unwrap())];
        let answer = tell(to, &forge.message(forge::join(ghost.into_iter(), &[])));
        assert!(answer.is_empty(), "nothing is said to a stranger: {} bytes", answer.len());
        sent += 1;
    }
    until("each was seen and refused", || refused(one, "unreadable") >= sent);
    let seen = one.cluster().presence.now();
    assert_eq!(seen[&victim].seen, Seen::Alive);
    assert!(!seen.contains_key(GHOST));

    // The control: with the key the same is heard.
    for said in rumours(&victim, at) {
        socket.send_to(&WITH_KEY.packet(said), to).unwrap();
    }
    one.until("the one that does not exist is known", |node| sees(node, GHOST).is_some());
    until("what no node says was refused", || refused(one, "message") >= 1);
    // Whoever is there says so, and is believed; whoever is not is missed.
    all_see_all(&cluster);
    cluster.until("the one that does not exist is dead", |cluster| {
        cluster.nodes().all(|(_, node)| sees(node, GHOST).is_none_or(|seen| seen == Seen::Dead))
    });
    all_see_all(&cluster);
    // Gossip made nobody a member, and took nobody's place.
    assert_eq!(standing(&cluster), before);
    let members: BTreeSet<_> = before.members.iter().map(|(number, ..)| NodeId(*number)).collect();
    assert_eq!(members, (1..=3).map(NodeId).collect());
}

/// Passes packets on to a node, and keeps a copy.
struct Tap {
    addr: SocketAddr,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
}

impl Tap {
    fn start(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let addr = socket.local_addr().unwrap();
        let (kept, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (keep, stopped) = (Arc::clone(&kept), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while !stopped.load(Ordering::Acquire) {
                let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
                let mut keep = keep.lock().unwrap();
                if keep.len() < 2000 {
                    keep.push(buffer[..len].to_vec());
                }
                drop(keep);
                let _ = socket.send_to(&buffer[..len], to);
            }
        });
        Self { addr, kept, stop }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

#[test]
fn gossip_that_was_captured_and_is_sent_again_changes_nothing_for_good() {
    let mut cluster = Cluster::start_with(2, with_key);
    // The third one is reached by way of somebody who listens.
    let own = cluster.builder();
    let mut third = None;
    let own = own.settings(|settings| third = Some(settings.gossip.addr));
    let tap = Tap::start(third.unwrap());
    let advertised = tap.addr;
    let node = own.settings(|settings| settings.gossip.advertise = Some(advertised)).start();
    cluster.admit(node);
    cluster.until_healthy();
    all_see_all(&cluster);
    // The death of one is among what is captured.
    let (victim, kept) = (uuid(&cluster, 2), Arc::clone(&tap.kept));
    cluster.crash(2);
    cluster.until("both miss it", |cluster| {
        cluster.nodes().all(|(_, node)| sees(node, &victim) == Some(Seen::Dead))
    });
    until("enough was captured", || kept.lock().unwrap().len() >= 20);
    cluster.restart(2);
    cluster.until_healthy();
    all_see_all(&cluster);
    let before = standing(&cluster).members;
    let captured = kept.lock().unwrap().clone();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let places = [1, 2, 3].map(|number| gossip_addr(cluster.node(number)));
    let nodes = [places[0], places[1], third.unwrap()];
    for packet in captured.iter().rev().take(100) {
        for to in nodes {
            socket.send_to(packet, to).unwrap();
        }
    }
    // Behind all of it, something that can be seen to have come.
    let ghost = forge::alive(GHOST, "127.0.0.1:9".parse().unwrap(), 1, &forge::meta("", "ghost"));
    for to in nodes {
        socket.send_to(&WITH_KEY.packet(vec![ghost.clone()]), to).unwrap();
    }
    cluster.until("what was sent last has come", |cluster| {
        cluster.nodes().all(|(_, node)| sees(node, GHOST).is_some())
    });
    all_see_all(&cluster);
    cluster.until_healthy();
    assert_eq!(standing(&cluster).members, before);
}

#[test]
fn without_a_key_answers_are_short_and_those_who_are_known_are_counted() {
    let node = TestNode::start();
    let (to, own) = (gossip_addr(&node), node.node_id().to_owned());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let asks = OPEN.packet(vec![forge::ping(&own, socket.local_addr().unwrap(), to)]);
    let (mut answers, mut longest, mut buffer) = (0, 0, [0; 65536]);
    let mut ask = || {
        socket.send_to(&asks, to).unwrap();
        if let Ok((len, _)) = socket.recv_from(&mut buffer) {
            answers += 1;
            longest = longest.max(len);
        }
        (answers, longest)
    };
    until("it answers", || ask().0 > 0);
    // Something to be passed on in answers, which makes them long.
    let far: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let crowd = |from: usize| {
        let nodes = (from..from + 1000).map(move |number| (format!("ghost-{number}"), far));
        OPEN.message(forge::join(nodes, &forge::meta("", "ghost")))
    };
    assert!(!tell(to, &crowd(0)).is_empty(), "without a key whoever comes is answered");
    node.until("they are known", |node| node.cluster().presence.now().len() > 900);
    tell(to, &crowd(5000));
    until("some were too many", || refused(&node, "nodes") > 900);
    assert!(node.cluster().presence.now().len() <= 1024);
    assert!(node.cluster().control.catalogue().nodes.len() <= 1, "none of them is a member");

    until("an answer would have been too long", || ask().0 > 0 && refused(&node, "answer") > 0);
    let (_, longest) = ask();
    assert!(longest <= 3 * asks.len(), "{longest} bytes for {}", asks.len());

    // Asked in the name of somebody else, it says nothing to him.
    let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let his = victim.local_addr().unwrap();
    let before = refused(&node, "answer");
    socket.send_to(&OPEN.packet(vec![forge::ping(&own, his, to)]), to).unwrap();
    socket.send_to(&OPEN.packet(vec![forge::indirect_ping("x", his, his)]), to).unwrap();
    until("nothing was said", || refused(&node, "answer") >= before + 2);
    assert!(victim.recv_from(&mut [0; 65536]).is_err());
}
