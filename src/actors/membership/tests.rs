//! What gossip promises, with real sockets on the loopback interface: each node is a tree of its
//! own on a thread of its own, so that it can be killed without a farewell.

use super::*;
use crate::cluster::Node;
use crate::model::{Clock, SystemClock, Timestamp};
use crate::observe::{Hub, HubLimits};
use crate::supervision::{
    Environment, Exhausted, Intensity, Place, Strategy, Supervisor, SupervisorSpec,
};
use slog::{Drain, Logger, OwnedKVList, Record, o};
use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Generous: the machine may be busy with much else.
const DEADLINE: Duration = Duration::from_secs(90);

/// The lines of a node, as far as they are asked for.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        self.0.lock().unwrap().push(record.msg().to_string());
        Ok(())
    }
}

impl Lines {
    async fn told(&self, line: &str) {
        until(&format!("the line {line:?}"), || self.0.lock().unwrap().iter().any(|l| l == line))
            .await;
    }
}

/// The machine's clock, with its wall set back to long ago.
#[derive(Debug)]
struct SetBack(SystemClock);

impl Clock for SetBack {
    fn wall(&self) -> Timestamp {
        Timestamp(1_000)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[derive(Clone)]
struct Plan {
    known: Option<(String, NodeId)>,
    uuid: &'static str,
    options: MembershipOptions,
    clock: fn() -> Arc<dyn Clock>,
}

fn plan(uuid: &'static str, join: &[String]) -> Plan {
    let ms = Duration::from_millis;
    let options = MembershipOptions {
        addr: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        join: join.to_vec(),
        key: None,
        multicast: None,
        pace: Pace { probe: ms(100), probe_timeout: ms(50), gossip: ms(20), look: ms(50) },
        connections_max: 32,
        message_bytes_max: 1 << 20,
        message_timeout: Duration::from_secs(5),
        metrics: Arc::default(),
        panics: || 0,
    };
    Plan { known: None, uuid, options, clock: || Arc::new(SystemClock::new()) }
}

struct Running {
    uuid: &'static str,
    board: PresenceBoard,
    catalogue: watch::Sender<Arc<Catalogue>>,
    lines: Lines,
    /// True: with a farewell. Dropped: without.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn start(plan: Plan) -> Running {
    let (board, lines) = (PresenceBoard::default(), Lines::default());
    let (catalogue, watched) = watch::channel(Arc::default());
    let (end, ended) = oneshot::channel();
    let (board_inside, lines_inside) = (board.clone(), lines.clone());
    let uuid = plan.uuid;
    let life = async move {
        let clock = (plan.clock)();
        let logger = Logger::root(lines_inside, o!());
        let hub = Hub::new(logger.clone(), None, HubLimits::default());
        let intensity = Intensity { restarts_max: 1000, window: Duration::from_secs(60) };
        let spec = SupervisorSpec {
            intensity,
            ..SupervisorSpec::new("node", Strategy::OneForOne, Exhausted::Escalate)
        };
        let root =
            Supervisor::new(spec, Environment { clock, seed: 7, logger, hub, crashes: None });
        let options = Arc::new(plan.options);
        let me = Me {
            uuid: uuid.into(),
            name: uuid.into(),
            rpc_addr: "127.0.0.1:8400".into(),
            protocol_max: 1,
            labels: BTreeMap::from([("rack".into(), "a".into())]),
            known: plan.known,
        };
        root.child(super::spec(), Place::Control, move |_, seat| {
            let options = Arc::clone(&options);
            MembershipActor::new(seat, options, me.clone(), board_inside.clone(), watched.clone())
        });
        let tree = root.start();
        if ended.await.is_ok() {
            tree.shutdown().await.unwrap();
        }
    };
    let thread = std::thread::spawn(move || actix_rt::System::new().block_on(life));
    Running { uuid, board, catalogue, lines, end: Some(end), thread: Some(thread) }
}

impl Running {
    async fn addr(&self) -> String {
        until(&format!("{} gossips", self.uuid), || self.board.now().contains_key(self.uuid)).await;
        self.board.now()[self.uuid].gossip_addr.clone()
    }

    fn seen(&self, seen: Seen) -> Vec<String> {
        let presence = self.board.now();
        presence.values().filter(|p| p.seen == seen).map(|p| p.uuid.clone()).collect()
    }

    async fn sees_alive(&self, wanted: &[&str]) {
        let what = format!("{} sees {wanted:?}", self.uuid);
        until(&what, || self.seen(Seen::Alive) == wanted).await;
    }

    fn kill(mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }

    fn stop(mut self) {
        self.end.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "not in {DEADLINE:?}: {what}");
}

#[tokio::test]
async fn six_nodes_learn_of_each_other_from_one_miss_two_and_see_them_come_back() {
    const ALL: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let seed = start(plan("a", &[]));
    let join = [seed.addr().await];
    let mut nodes = vec![seed];
    nodes.extend(ALL[1..].iter().map(|uuid| start(plan(uuid, &join))));
    for node in &nodes {
        node.sees_alive(&ALL).await;
    }
    let before = nodes[0].board.now();
    for lost in nodes.split_off(4) {
        lost.kill();
    }
    for node in &nodes {
        node.sees_alive(&ALL[..4]).await;
        assert_eq!(node.seen(Seen::Dead), ALL[4..], "they were lost, and did not leave");
    }
    nodes.extend(ALL[4..].iter().map(|uuid| start(plan(uuid, &join))));
    for node in &nodes {
        node.sees_alive(&ALL).await;
    }
    let views = || nodes.iter().map(|node| view(&node.board.now())).collect::<BTreeSet<u32>>();
    until("all have the same view", || views().len() == 1).await;
    let after = nodes[0].board.now();
    for uuid in &ALL[4..] {
        assert!(after[*uuid].told.generation > before[*uuid].told.generation, "{uuid}");
        assert_ne!(after[*uuid].gossip_addr, before[*uuid].gossip_addr, "{uuid}");
    }
    assert_ne!(view(&before), view(&after), "a restart shows in the view");
    nodes.into_iter().for_each(Running::kill);
}

#[tokio::test]
async fn a_member_without_its_catalogue_is_found_by_what_its_directory_says_of_it() {
    let other = start(plan("a", &[]));
    let known = Some(("c0ffee".to_owned(), NodeId(7)));
    let member = start(Plan { known, ..plan("b", &[other.addr().await]) });
    let told = || other.board.now().get("b").map(|b| (b.cluster_id.clone(), b.node));
    until("it is found", || told() == Some(("c0ffee".into(), Some(NodeId(7))))).await;
    // The catalogue knows better: of a node that was removed it knows nothing.
    let founded = Catalogue { cluster_id: "c0ffee".into(), ..Catalogue::default() };
    member.catalogue.send_replace(Arc::new(founded));
    until("it is no member", || told() == Some((String::new(), None))).await;
    member.kill();
    other.kill();
}

#[tokio::test]
async fn who_says_farewell_has_left_and_was_not_lost() {
    let one = start(plan("a", &[]));
    let two = start(plan("b", &[one.addr().await]));
    one.sees_alive(&["a", "b"]).await;
    two.stop();
    until("b has left", || one.seen(Seen::Left) == ["b"]).await;
    one.lines.told("member has left").await;
    one.stop();
}

#[tokio::test]
async fn without_the_key_nobody_is_let_in() {
    let with_key = |uuid, join: &[String], key: Option<u8>| {
        let mut plan = plan(uuid, join);
        plan.options.key = key.map(|byte| [byte; 32]);
        start(plan)
    };
    let one = with_key("a", &[], Some(7));
    let join = [one.addr().await];
    let (other, none) = (with_key("x", &join, Some(8)), with_key("y", &join, None));
    other.lines.told("cannot reach a node, and tries again").await;
    none.lines.told("cannot reach a node, and tries again").await;
    let two = with_key("b", &join, Some(7));
    one.sees_alive(&["a", "b"]).await;
    two.sees_alive(&["a", "b"]).await;
    assert_eq!(other.seen(Seen::Alive), ["x"]);
    assert_eq!(none.seen(Seen::Alive), ["y"]);
    [one, two, other, none].into_iter().for_each(Running::kill);
}

#[tokio::test]
async fn a_member_of_the_catalogue_is_looked_for_and_its_number_is_told() {
    let (one, two) = (start(plan("a", &[])), start(plan("b", &[])));
    let node = |uuid: &str, gossip_addr: String| Node {
        uuid: uuid.into(),
        name: uuid.into(),
        rpc_addr: "127.0.0.1:8400".into(),
        gossip_addr,
        version: String::new(),
        protocol_max: 1,
        labels: BTreeMap::new(),
        state: NodeState::Active,
    };
    let nodes =
        [(NodeId(1), node("a", one.addr().await)), (NodeId(2), node("b", two.addr().await))];
    let catalogue = Catalogue {
        cluster_id: "c0ffee".into(),
        nodes: nodes.into_iter().collect(),
        ..Catalogue::default()
    };
    assert_eq!(one.seen(Seen::Alive), ["a"], "nobody told it of another");
    one.catalogue.send_replace(Arc::new(catalogue.clone()));
    two.catalogue.send_replace(Arc::new(catalogue));
    until("b is seen as number 2", || one.board.of(NodeId(2)).is_some_and(|p| p.uuid == "b")).await;
    let present = one.board.of(NodeId(2)).unwrap();
    assert_eq!((present.cluster_id.as_str(), present.labels["rack"].as_str()), ("c0ffee", "a"));
    [one, two].into_iter().for_each(Running::kill);
}

#[tokio::test]
async fn a_port_that_is_taken_is_tried_again_until_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = plan("a", &[]);
    plan.options.addr = taken.local_addr().unwrap();
    let addr = plan.options.addr.to_string();
    let node = start(plan);
    node.lines.told("cannot gossip, and tries again").await;
    assert!(node.board.now().is_empty());
    drop(taken);
    assert_eq!(node.addr().await, addr);
    node.kill();
}

#[tokio::test]
async fn who_ends_while_it_suspects_somebody_lets_go_of_its_port() {
    let slowly = |mut plan: Plan| {
        plan.options.pace.probe = Duration::from_millis(500);
        plan
    };
    let one = start(slowly(plan("a", &[])));
    let port = one.addr().await;
    let two = start(slowly(plan("b", std::slice::from_ref(&port))));
    one.sees_alive(&["a", "b"]).await;
    two.kill();
    // It is suspected after half a second, and given up two seconds later.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    one.kill();
    for taken in [TcpListener::bind(&port).err(), UdpSocket::bind(&port).err()] {
        assert!(taken.is_none(), "{port}: {taken:?}");
    }
}

#[tokio::test]
async fn a_start_is_newer_than_the_last_one_although_the_clock_was_set_back() {
    let one = start(plan("a", &[]));
    let join = [one.addr().await];
    let two = start(plan("b", &join));
    one.sees_alive(&["a", "b"]).await;
    let before = one.board.now()["b"].told;
    two.kill();
    until("b is missed", || one.seen(Seen::Dead) == ["b"]).await;
    let again = start(Plan { clock: || Arc::new(SetBack(SystemClock::new())), ..plan("b", &join) });
    let is_newer = || {
        let presence = one.board.now();
        presence["b"].seen == Seen::Alive && presence["b"].told.generation > before.generation
    };
    until("b is newer than before", is_newer).await;
    [one, again].into_iter().for_each(Running::kill);
}

#[tokio::test]
async fn a_panic_within_the_library_begins_gossip_anew() {
    static PANICS: AtomicU64 = AtomicU64::new(0);
    let one = start(plan("a", &[]));
    let mut hit = plan("b", &[one.addr().await]);
    hit.options.panics = || PANICS.load(Ordering::Relaxed);
    let two = start(hit);
    one.sees_alive(&["a", "b"]).await;
    let before = one.board.now()["b"].told.generation;
    PANICS.fetch_add(1, Ordering::Relaxed);
    let is_back = || {
        let presence = one.board.now();
        presence["b"].seen == Seen::Alive && presence["b"].told.generation > before
    };
    until("b is back", is_back).await;
    [one, two].into_iter().for_each(Running::kill);
}

#[tokio::test]
async fn two_nodes_without_an_address_find_each_other_by_multicast() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let group: SocketAddr = format!("239.255.84.0:{port}").parse().unwrap();
    if let Err(reason) = multicast_works(group).await {
        eprintln!("skipped: multicast cannot be used here: {reason}");
        return;
    }
    let looking = |uuid| {
        let mut plan = plan(uuid, &[]);
        plan.options.multicast = Some(group);
        start(plan)
    };
    let (one, two, other) = (looking("a"), looking("b"), start(plan("x", &[])));
    one.sees_alive(&["a", "b"]).await;
    two.sees_alive(&["a", "b"]).await;
    other.addr().await;
    assert_eq!(other.seen(Seen::Alive), ["x"], "it was not told to look");
    [one, two, other].into_iter().for_each(Running::kill);
}

/// Whether one socket hears another on the loopback interface.
async fn multicast_works(group: SocketAddr) -> Result<(), String> {
    let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let open = || discovery::open(group, local).map_err(|error| error.to_string());
    let (speaks, hears) = (open()?, open()?);
    let mut buffer = [0; 16];
    for _ in 0..20 {
        speaks.send_to(b"anybody?", group).await.map_err(|error| error.to_string())?;
        let heard = tokio::time::timeout(Duration::from_millis(100), hears.recv_from(&mut buffer));
        if heard.await.is_ok() {
            return Ok(());
        }
    }
    Err("nothing that was sent was heard".into())
}
