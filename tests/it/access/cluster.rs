// A cluster: one policy on all nodes, through changes of leaders, restarts, and nodes that join.

use super::{Issuer, batch, code, raw};
use duramen::access::Action;
use duramen::model::FIRST_TOPIC;
use duramen::ops::settings::{Settings, Value};
use duramen::testing::{Cluster, block_on, until};
use duramen::wire::client::{Consistency, FetchOptions, Position, Target};
use duramen::wire::pb::duramen::v1 as pb;
use pb::change_access_request::Change;
use prost::Message;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tonic::Code;
use tonic::transport::Channel;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

const FETCH: FetchOptions = FetchOptions {
    position: Position::Start,
    chunk_bytes_max: 0,
    records_max: Some(1),
    follow: false,
    consistency: Consistency::Committed,
};

pub fn log() -> Target {
    Target::topic(FIRST_TOPIC)
}

/// Nodes that take tokens and know each other by the key of gossip.
fn start(issuer: &Issuer, nodes: usize) -> Cluster {
    start_with(issuer, nodes, |_| {})
}

/// The same with other settings.
pub fn start_with(
    issuer: &Issuer,
    nodes: usize,
    more: impl Fn(&mut Settings) + 'static,
) -> Cluster {
    let trusted = issuer.trusted();
    Cluster::start_with(nodes, move |settings: &mut Settings| {
        trusted(settings);
        settings.gossip.key = Value::read(KEY).expect("a key");
        more(settings);
    })
}

pub fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.nodes().map(|(_, node)| node.rpc_addr()).collect()
}

/// What nobody without rights may do, tried on every node again and again.
struct Canary {
    stop: Arc<AtomicBool>,
    aims: Arc<Mutex<Vec<SocketAddr>>>,
    tried: Arc<AtomicU64>,
    got: Arc<Mutex<Vec<String>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Canary {
    fn start(issuer: &Arc<Issuer>, who: &'static str, aims: Vec<SocketAddr>) -> Self {
        let (stop, tried) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (got, aims) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Mutex::new(aims)));
        let thread = {
            let (issuer, stop, tried) = (Arc::clone(issuer), Arc::clone(&stop), Arc::clone(&tried));
            let (got, aims) = (Arc::clone(&got), Arc::clone(&aims));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let aims = aims.lock().unwrap().clone();
                    for aim in aims {
                        for success in block_on(tries(&issuer, who, aim)) {
                            got.lock().unwrap().push(format!("{success} at {aim}"));
                        }
                    }
                    tried.fetch_add(1, Ordering::AcqRel);
                }
            })
        };
        Self { stop, aims, tried, got, thread }
    }

    fn aim(&self, aims: Vec<SocketAddr>) {
        *self.aims.lock().unwrap() = aims;
    }

    fn await_rounds(&self, more: u64) {
        let goal = self.tried.load(Ordering::Acquire) + more;
        until("the canary has tried", || self.tried.load(Ordering::Acquire) >= goal);
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

/// Tries as somebody who may not, at one node, while something happens to it.
pub fn canary_gets_nothing_at(
    issuer: &Arc<Issuer>,
    aim: SocketAddr,
    who: &'static str,
    happens: impl FnOnce(),
) {
    let canary = Canary::start(issuer, who, vec![aim]);
    canary.await_rounds(1);
    happens();
    canary.await_rounds(2);
    let got = canary.finish();
    assert!(got.is_empty(), "{who}: {got:?}");
}

/// One of each; those that succeeded.
async fn tries(issuer: &Issuer, who: &str, aim: SocketAddr) -> Vec<&'static str> {
    let mut got = Vec::new();
    let Ok(mut client) = issuer.connect(aim, who).await else { return got };
    if client.produce_once(&log(), batch("canary")).await.is_ok() {
        got.push("produce");
    }
    if client.describe(FIRST_TOPIC).await.is_ok() {
        got.push("describe a topic");
    }
    let reading = async { client.fetch(&log(), FETCH).await?.next().await };
    if matches!(reading.await, Ok(Some(_))) {
        got.push("consume");
    }
    let mut admin = client.admin();
    let grab = pb::ChangeAccessRequest { change: Some(Change::Add("p, canary, *, *".into())) };
    if admin.change_access(grab).await.is_ok() {
        got.push("change the policy");
    }
    let topic = pb::CreateTopicRequest {
        name: "canary".into(),
        partitions: 1,
        replication_factor: 1,
        settings: None,
    };
    if admin.create_topic(topic).await.is_ok() {
        got.push("create");
    }
    if admin.cluster_status(pb::ClusterStatusRequest {}).await.is_ok() {
        got.push("describe");
    }
    got
}

#[test]
fn a_canary_gets_nothing_through_crashes_new_leaders_reloads_and_a_node_that_joins() {
    let issuer = Arc::new(Issuer::new());
    let mut cluster = start(&issuer, 3);
    issuer.enforce(cluster.node(1).rpc_addr(), "p, alice, log, *\np, *, secret, *, deny");
    cluster.until("every node has the policy in force", |cluster| {
        cluster.nodes().all(|(_, node)| {
            let mut nobody = issuer.client(node.rpc_addr(), "nobody");
            code(&block_on(nobody.produce_once(&log(), batch("x")))) == Some(Code::PermissionDenied)
        })
    });
    let canary = Canary::start(&issuer, "canary", addresses(&cluster));
    canary.await_rounds(1);

    // A new leader of everything.
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    cluster.crash(leader);
    canary.aim(addresses(&cluster));
    canary.await_rounds(2);
    cluster.restart(leader);
    canary.aim(addresses(&cluster));
    canary.await_rounds(2);
    cluster.until_healthy();

    // The policy changes under its feet.
    for round in 0..3 {
        let some = cluster.nodes().next().unwrap().1.rpc_addr();
        issuer.change(some, Change::Add(format!("p, bob{round}, orders-*, produce")));
        canary.await_rounds(1);
    }

    // A node that knows nothing yet is asked from its first moment.
    let joining = cluster.builder().start();
    canary.aim(vec![joining.rpc_addr()]);
    canary.await_rounds(2);
    cluster.admit(joining);
    canary.aim(addresses(&cluster));
    canary.await_rounds(1);

    // Who has the right gets it, on every node: nothing was refused because nothing works.
    for address in addresses(&cluster) {
        let mut alice = issuer.client(address, "alice");
        until("alice may", || block_on(alice.produce_once(&log(), batch("alice"))).is_ok());
    }
    let got = canary.finish();
    assert!(got.is_empty(), "{got:?}");

    // The control: the same canary, given the rights, gets everything.
    let some = addresses(&cluster)[0];
    issuer.change(some, Change::Add("p, canary, *, *".into()));
    let mut missing = vec!["produce", "describe a topic", "consume", "describe"];
    until("the canary succeeds", || {
        let got = block_on(tries(&issuer, "canary", some));
        missing.retain(|what| !got.contains(what));
        missing.is_empty()
    });
}

#[test]
fn a_right_that_is_taken_on_one_node_is_gone_on_all() {
    let issuer = Issuer::new();
    let cluster = start(&issuer, 3);
    let first = cluster.node(1).rpc_addr();
    issuer.enforce(first, "p, alice, log, produce");
    for address in addresses(&cluster) {
        let mut alice = issuer.client(address, "alice");
        until("alice may", || block_on(alice.produce_once(&log(), batch("alice"))).is_ok());
    }
    issuer.change(first, Change::Remove("p, alice, log, produce".into()));
    for address in addresses(&cluster) {
        let mut alice = issuer.client(address, "alice");
        let refused = || block_on(alice.produce_once(&log(), batch("late")));
        let mut refused = refused;
        until("alice may no more", || code(&refused()) == Some(Code::PermissionDenied));
    }
    let stored = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).values().unwrap();
    assert!(stored.iter().filter(|value| *value == b"alice").count() >= 3);
}

/// A request as one node passes it on to another.
pub async fn forwarded(
    channel: Channel,
    metadata: Vec<(&'static str, String)>,
) -> Result<Option<pb::Error>, tonic::Status> {
    let request = pb::ProduceRequest {
        topic: FIRST_TOPIC.into(),
        batch: batch("forged"),
        no_forward: true,
        on_behalf_of: "alice".into(),
        ..Default::default()
    };
    let path = "/duramen.v1.Log/Produce";
    let message = request.encode_to_vec().into();
    let answered = raw::call(channel, path, &metadata, message).await?;
    let response = pb::ProduceResponse::decode(answered.unwrap_or_default()).unwrap();
    Ok(response.error)
}

#[test]
fn what_is_passed_on_is_judged_as_who_asked_and_only_nodes_are_believed() {
    let issuer = Issuer::new();
    let cluster = start(&issuer, 3);
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    issuer.enforce(cluster.node(1).rpc_addr(), &format!("p, alice, log, {}", Action::Produce));
    let follower = cluster.nodes().find(|(number, _)| *number != leader).unwrap().1.rpc_addr();
    let mut alice = issuer.client(follower, "alice");
    until("a follower passes on for alice", || {
        block_on(alice.produce_once(&log(), batch("alice"))).is_ok()
    });
    let aim = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).rpc_addr();
    let passed_on = ("duramen-forwarded", "1".to_owned());
    let forwarded = |metadata| async move { forwarded(raw::channel(aim).await, metadata).await };
    let stranger = block_on(forwarded(vec![passed_on.clone()]));
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    let mallory = ("authorization", format!("Bearer {}", issuer.token("mallory")));
    let forged = block_on(forwarded(vec![passed_on.clone(), mallory])).unwrap().unwrap();
    assert_eq!(forged.code, Code::PermissionDenied as i32);
    assert!(forged.message.starts_with("mallory not permitted"), "{}", forged.message);
    let guessed = ("duramen-peer-proof", "AAAA".to_owned());
    let guessed = block_on(forwarded(vec![passed_on.clone(), guessed]));
    assert_eq!(guessed.unwrap_err().code(), Code::Unauthenticated);
    // The control: a node is believed.
    let key: Vec<u8> = (0..32).collect();
    let mut request = tonic::Request::new(());
    duramen::wire::peer::PeerProof::of(&key).show(&mut request);
    let proof = request.metadata().get("duramen-peer-proof").unwrap().to_str().unwrap().to_owned();
    let believed = vec![passed_on, ("duramen-peer-proof", proof)];
    assert_eq!(block_on(forwarded(believed)).unwrap(), None);
    // And nobody becomes one by asking.
    let change = raw::call;
    let join = block_on(async {
        change(raw::channel(aim).await, "/duramen.v1.Peer/Join", &[], bytes::Bytes::new()).await
    });
    assert_eq!(join.unwrap_err().code(), Code::Unauthenticated);
}
