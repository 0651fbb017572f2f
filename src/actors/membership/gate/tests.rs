//! What the gate lets through and what it does not, by messages as memberlist makes them.

use super::*;
use crate::cluster::Node as Member;
use crate::model::{NodeId as Number, SystemClock, Timestamp};
use memberlist::proto::{
    Ack, Alive, ChecksumAlgorithm, Dead, EncryptionAlgorithm, Message, Node, Ping, ProtoEncoder,
    PushPull, State as Condition, Suspect,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

const KEY: [u8; 32] = [7; 32];
type Said = Message<Id, SocketAddr>;

/// A clock that goes only when it is told to.
#[derive(Debug, Default)]
struct Stopped(AtomicU64);

impl Clock for Stopped {
    fn wall(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn gate(key: Option<[u8; 32]>, clock: Arc<dyn Clock>, catalogue: Catalogue) -> Gate {
    let options = MembershipOptions {
        addr: at(1),
        advertise: None,
        join: Vec::new(),
        key,
        multicast: None,
        pace: super::super::Pace::of(at(1)),
        connections_max: 4,
        message_bytes_max: 1 << 20,
        message_timeout: Duration::from_secs(1),
        metrics: Arc::default(),
        panics: || 0,
    };
    // The sender may go: what it said last stays.
    let (_, catalogue) = watch::channel(Arc::new(catalogue));
    Gate::new(&options, catalogue, clock, Logger::root(slog::Discard, slog::o!()))
}

fn plain_gate(key: Option<[u8; 32]>) -> Gate {
    gate(key, Arc::new(SystemClock::new()), Catalogue::default())
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

fn node(text: &str, port: u16) -> Node<Id, SocketAddr> {
    Node::new(id(text), at(port))
}

fn ping() -> Said {
    Ping::new(1, node("a", 1), node("b", 2)).into()
}

fn encoded(said: Vec<Said>, key: Option<[u8; 32]>, label: &str) -> Bytes {
    let label = Label::try_from(label).unwrap();
    let mut encoder = ProtoEncoder::new(1400).with_messages(said).with_label(label);
    encoder.maybe_checksum(Some(ChecksumAlgorithm::default()));
    if let Some(key) = key {
        encoder.set_encryption(EncryptionAlgorithm::default(), SecretKey::from(key));
    }
    encoder.encode().next().unwrap().unwrap().into_bytes()
}

async fn judged(gate: &Gate, said: Said, way: Way) -> Result<(), GossipRefused> {
    gate.look_through(&encoded(vec![said], None, LABEL), way).await
}

#[tokio::test]
async fn only_what_is_encrypted_with_the_key_and_bears_our_label_goes_on() {
    let (closed, open) = (plain_gate(Some(KEY)), plain_gate(None));
    let good = encoded(vec![ping()], Some(KEY), LABEL);
    assert_eq!(closed.look_through(&good, Way::Packet).await, Ok(()));
    let clear = encoded(vec![ping(), ping()], None, LABEL);
    assert_eq!(open.look_through(&clear, Way::Packet).await, Ok(()));
    let unreadable = Err(GossipRefused::Unreadable);
    for wrong in [
        encoded(vec![ping()], Some([8; 32]), LABEL),
        encoded(vec![ping()], Some(KEY), "proglog"),
        clear.clone(),
        good.slice(..good.len() - 1),
        good.slice(..12),
        Bytes::from_static(b"GET / HTTP/1.1"),
    ] {
        assert_eq!(closed.look_through(&wrong, Way::Packet).await, unreadable);
    }
    let mut flipped = clear.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(open.look_through(&flipped, Way::Packet).await, unreadable, "the checksum");
    assert_eq!(open.look_through(&good, Way::Packet).await, unreadable, "there is no key");
}

#[tokio::test]
async fn what_no_node_says_stays_outside() {
    let gate = plain_gate(None);
    let refused = Err(GossipRefused::Message);
    let suspect = |age| -> Said { Suspect::new(age, id("b"), id("a")).into() };
    let dead = |age| -> Said { Dead::new(age, id("b"), id("a")).into() };
    let alive = |age| -> Said { Alive::new(age, node("b", 2)).into() };
    for of in [suspect, dead, alive] as [fn(u32) -> Said; 3] {
        assert_eq!(judged(&gate, of(7), Way::Packet).await, Ok(()));
        assert_eq!(judged(&gate, of(u32::MAX), Way::Packet).await, refused);
        assert_eq!(judged(&gate, of(7), Way::Stream).await, refused, "it comes in packets");
    }
    let everything = |age| -> Said {
        let state = memberlist::proto::PushNodeState::new(age, id("b"), at(2), Condition::Alive);
        PushPull::new(true, std::iter::once(state)).into()
    };
    assert_eq!(judged(&gate, everything(7), Way::Stream).await, Ok(()));
    assert_eq!(judged(&gate, everything(u32::MAX), Way::Stream).await, refused);
    assert_eq!(judged(&gate, everything(7), Way::Packet).await, refused);
    let user = Said::user_data(Bytes::from_static(b"x"));
    assert_eq!(judged(&gate, user, Way::Packet).await, refused);
    // Accused of the most that is believed, a node answers with one more, and is believed.
    assert_eq!(judged(&gate, dead(ACCUSED_MAX), Way::Packet).await, Ok(()));
    assert_eq!(judged(&gate, alive(ACCUSED_MAX + 1), Way::Packet).await, Ok(()));
}

#[tokio::test]
async fn nothing_is_decompressed() {
    let gate = plain_gate(None);
    // Compressed, by LZ4, four gigabytes when it is unpacked.
    let mut bomb = vec![12, 7];
    bomb.extend_from_slice(LABEL.as_bytes());
    bomb.extend_from_slice(&[14, 0, 0x1a, 255, 255, 255, 255, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(gate.look_through(&bomb, Way::Packet).await, Err(GossipRefused::Unreadable));
    assert_eq!(gate.frame_len(&bomb), Err(GossipRefused::Unreadable));
}

#[tokio::test]
async fn strangers_cannot_use_up_what_a_node_that_is_known_may_send() {
    let clock = Arc::new(Stopped::default());
    let gate = gate(Some(KEY), clock.clone(), Catalogue::default());
    gate.admit(&id("b"), at(2)).unwrap();
    let good = encoded(vec![ping()], Some(KEY), LABEL);
    for _ in 0..PACKETS.capacity {
        gate.takes_packet(at(9), &Bytes::from_static(b"x")).await;
    }
    assert!(!gate.takes_packet(at(9), &good).await, "too many in a moment");
    assert!(gate.takes_packet(at(2), &good).await);
    assert_eq!(gate.metrics.gossip_refused(GossipRefused::Rate).get(), 1);
    clock.0.store(1000, Ordering::Relaxed);
    assert!(gate.takes_packet(at(9), &good).await, "a second later it has its turn");
    let long = Bytes::from(vec![0; PACKET_BYTES_MAX + 1]);
    assert!(!gate.takes_packet(at(2), &long).await);
    assert_eq!(gate.metrics.gossip_refused(GossipRefused::Size).get(), 1);
}

#[tokio::test]
async fn without_a_key_an_answer_to_a_stranger_is_three_times_its_question_at_most() {
    let gate = plain_gate(None);
    let question = encoded(vec![ping()], None, LABEL);
    let most = 3 * question.len();
    assert!(!gate.may_answer(at(9), 1), "it has not asked");
    assert!(gate.takes_packet(at(9), &question).await);
    assert!(!gate.may_answer(at(8), 1), "somebody else has asked");
    assert!(!gate.may_answer(at(9), most + 1));
    assert!(gate.may_answer(at(9), most));
    assert!(!gate.may_answer(at(9), 1), "it has been answered");
    gate.admit(&id("b"), at(9)).unwrap();
    assert!(gate.may_answer(at(9), 1400), "it is a node now");
    assert!(plain_gate(Some(KEY)).may_answer(at(9), 1400), "who has the key is no stranger");
}

#[test]
fn gossip_knows_a_thousand_nodes_and_those_of_the_catalogue() {
    let member = Member {
        uuid: "member".into(),
        name: "n1".into(),
        rpc_addr: "127.0.0.1:8400".into(),
        gossip_addr: String::new(),
        version: String::new(),
        protocol_max: 1,
        labels: BTreeMap::new(),
        state: NodeState::Active,
    };
    let catalogue =
        Catalogue { nodes: BTreeMap::from([(Number(1), member)]), ..Catalogue::default() };
    let gate = gate(None, Arc::new(SystemClock::new()), catalogue);
    for number in 0..NODES_MAX {
        gate.admit(&id(&format!("stranger-{number}")), at(9)).unwrap();
    }
    assert_eq!(gate.admit(&id("one-more"), at(9)), Err(TooMany));
    assert_eq!(gate.admit(&id("stranger-7"), at(8)), Ok(()), "it is known");
    assert_eq!(gate.admit(&id("member"), at(7)), Ok(()));
    assert_eq!(gate.metrics.gossip_refused(GossipRefused::Nodes).get(), 1);
}

fn sound() -> Vec<Vec<u8>> {
    let state = memberlist::proto::PushNodeState::new(3, id("b"), at(2), Condition::Dead);
    let said: [Vec<Said>; 6] = [
        vec![ping()],
        vec![Ack::new(7).into()],
        vec![Alive::new(3, node("b", 2)).into()],
        vec![Suspect::new(3, id("b"), id("a")).into(), Dead::new(3, id("b"), id("a")).into()],
        vec![PushPull::new(true, std::iter::repeat_n(state, 4)).into()],
        vec![ping(), Ack::new(7).into(), ping()],
    ];
    said.into_iter().map(|said| encoded(said, None, LABEL).to_vec()).collect()
}

/// The checksum of a packet, made right again after its payload was changed.
fn checked_again(packet: &mut [u8]) {
    let start = 2 + LABEL.len();
    if packet.len() > start + 6 + 4 && packet[start] == 13 && packet[start + 1] == 1 {
        let (payload, sum) = (start + 6, packet.len() - 4);
        let right = ChecksumAlgorithm::default().checksum(&packet[payload..sum]).unwrap();
        packet[sum..].copy_from_slice(&(right as u32).to_be_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_change_to_a_message_makes_its_reader_panic(
        which in 0..6_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut packet = sound().swap_remove(which);
        let start = 2 + LABEL.len();
        for (at, byte) in changes {
            let at = start + at.index(packet.len() - start);
            packet[at] = byte;
        }
        if is_cut {
            packet.truncate(cut.index(packet.len()).max(1));
        }
        checked_again(&mut packet);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let gate = plain_gate(None);
        for way in [Way::Packet, Way::Stream] {
            let _ = runtime.block_on(gate.look_through(&packet, way));
        }
    }
}
