//! Idempotent producers: what they send again is stored once, whatever became of the answer; what
//! cannot be their next batch is refused.

use crate::harness::binary::{Binary, http, run};
use bytes::Bytes;
use duramen::actors::partition::{Ack, PartitionApi, ProduceError};
use duramen::log::batch::{BatchBuilder, BatchLimits, records};
use duramen::log::producers::PRODUCERS_MAX;
use duramen::model::{Record, Timestamp};
use duramen::observe::Mishap;
use duramen::testing::{TestNode, block_on, runtime, until};
use duramen::wire::client::{
    Client, ClientError, ClientOptions, ClusterClient, ClusterOptions, ClusterProducer,
    Consistency, FetchOptions, Place, Position, ProducerOptions, Target,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Code;

const RAFT: &str = "node/partitions/log/0/raft";
const TABLE: &str = "producers";

fn batch(producer: i64, sequence: i32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new().with_producer(producer, 0, sequence);
    for value in values {
        builder.push(&Record::of_value(value.as_bytes().to_vec(), Timestamp(7))).unwrap();
    }
    builder.finish().unwrap().into_bytes()
}

fn send(node: &TestNode, batch: &Bytes) -> Result<Ack, ProduceError> {
    block_on(node.log().propose_batches(batch.clone())?)
}

fn values(node: &TestNode) -> Vec<String> {
    let values = node.values().unwrap();
    values.into_iter().map(|value| String::from_utf8(value).unwrap()).collect()
}

fn metric(node: &TestNode, name: &str) -> u64 {
    let (_, text) = http(&node.http_addr().to_string(), "GET", "/metrics", "");
    let wanted = format!("{name}{{topic=\"log\",partition=\"0\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
    line.unwrap_or_else(|| panic!("no {wanted} in {text}")).parse().unwrap()
}

#[test]
fn a_batch_that_is_sent_again_is_answered_with_its_first_place() {
    let node = TestNode::start();
    let (one, two) = (batch(5, 0, &["a", "b"]), batch(5, 2, &["c"]));
    let first = send(&node, &one).unwrap();
    assert_eq!((first.base_offset.0, first.records), (0, 2));
    node.append("between").unwrap();
    assert_eq!(send(&node, &one).unwrap(), first);
    // Both of one flush: the second waits for what the first becomes.
    let pending = [&two, &two, &one].map(|batch| node.log().propose_batches(batch.clone()));
    let offsets = pending.map(|pending| block_on(pending.unwrap()).unwrap().base_offset.0);
    assert_eq!(offsets, [3, 3, 0]);
    assert_eq!(values(&node), ["a", "b", "between", "c"]);
    assert_eq!(metric(&node, "duramen_producer_duplicates_total"), 3);
    // Without a number the same bytes are something new each time.
    assert_ne!(node.append("between").unwrap(), node.append("between").unwrap());
}

#[test]
fn what_cannot_be_next_is_refused_and_leaves_no_trace() {
    let node = TestNode::start();
    let refused = |batch: &Bytes| {
        let error = send(&node, batch).unwrap_err();
        assert!(matches!(error, ProduceError::Sequence { .. }) && error.is_definite(), "{error:?}");
        error.to_string()
    };
    send(&node, &batch(5, 0, &["a"])).unwrap();
    assert!(refused(&batch(5, 2, &["c"])).contains("where 1 comes next"));
    assert!(refused(&batch(6, 1, &["?"])).contains("nothing is known"));
    assert_eq!(send(&node, &batch(5, 1, &["b"])).unwrap().base_offset.0, 1);
    assert_eq!(values(&node), ["a", "b"]);
    assert_eq!(metric(&node, "duramen_producer_refused_total"), 2);
    let two = [batch(8, 0, &["x"]), batch(8, 1, &["y"])].concat();
    let error = send(&node, &two.into()).unwrap_err();
    assert!(matches!(error, ProduceError::Invalid { .. }), "{error:?}");
}

/// The entry is on disk, and the answer never comes: the actor dies first.
#[test]
fn an_answer_that_was_lost_with_the_partitions_life_is_given_by_the_next_one() {
    let node = TestNode::start();
    send(&node, &batch(5, 0, &["a"])).unwrap();
    let generation = node.generation(RAFT);
    node.on_message(RAFT, "Persisted", 1, Mishap::Panic("before the answer".into()));
    let two = batch(5, 1, &["b"]);
    let lost = send(&node, &two).unwrap_err();
    assert!(matches!(lost, ProduceError::Unknown { .. }), "{lost:?}");
    node.await_life_after(RAFT, generation);
    node.ready();
    assert_eq!(send(&node, &two).unwrap().base_offset.0, 1);
    assert_eq!(send(&node, &batch(5, 2, &["c"])).unwrap().base_offset.0, 2);
    assert_eq!(values(&node), ["a", "b", "c"]);
}

#[test]
fn a_killed_node_knows_its_producers_from_the_log_alone() {
    let node = TestNode::start();
    let two = batch(5, 1, &["b"]);
    send(&node, &batch(5, 0, &["a"])).unwrap();
    send(&node, &two).unwrap();
    let directory = node.partitions().directory("log", 0).unwrap();
    let node = node.crash();
    assert!(!directory.join(TABLE).exists(), "too early for a table");
    let node = node.start();
    assert_eq!(send(&node, &two).unwrap().base_offset.0, 1);
    assert!(send(&node, &batch(5, 9, &["?"])).is_err());
    assert_eq!(values(&node), ["a", "b"]);
}

#[test]
fn a_table_that_was_saved_and_the_entries_behind_it_are_known_after_a_restart() {
    let node = TestNode::start();
    let directory = node.partitions().directory("log", 0).unwrap();
    let batches = [batch(5, 0, &["a"]), batch(6, 0, &["b"]), batch(5, 1, &["c"])];
    send(&node, &batches[0]).unwrap();
    send(&node, &batches[1]).unwrap();
    node.until("the table is saved", |_| directory.join(TABLE).exists());
    send(&node, &batches[2]).unwrap();
    let mut node = node.crash().start();
    for _ in 0..2 {
        let again = batches.each_ref().map(|batch| send(&node, batch).unwrap().base_offset.0);
        assert_eq!(again, [0, 1, 2]);
        node = node.stop().start();
    }
    assert_eq!(values(&node), ["a", "b", "c"]);
}

#[test]
fn a_producer_that_is_no_longer_remembered_is_told_so() {
    let node = TestNode::start();
    let old = batch(0, 0, &["old"]);
    send(&node, &old).unwrap();
    let others = (1..=i64::from(PRODUCERS_MAX)).map(|producer| batch(producer, 0, &["x"]));
    let pending: Vec<_> = others.map(|batch| node.log().propose_batches(batch).unwrap()).collect();
    for pending in pending {
        block_on(pending).unwrap();
    }
    let error = send(&node, &batch(0, 1, &["next"])).unwrap_err();
    assert!(error.to_string().contains("whether it is stored cannot be told"), "{error}");
    assert_eq!(send(&node, &batch(1, 1, &["next"])).unwrap().base_offset.0, 1001);
}

async fn producer(addresses: &[String], topic: &str, idempotent: bool) -> ClusterProducer {
    let cluster = ClusterClient::connect(addresses, ClusterOptions::default(), None).await;
    let options = ProducerOptions { idempotent, ..ProducerOptions::default() };
    cluster.unwrap().producer(topic, options)
}

fn plain(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(&Record::of_value(value.as_bytes().to_vec(), Timestamp(7))).unwrap();
    builder.finish().unwrap().into_bytes()
}

/// Sends values `0..count`, one a batch; what failed.
async fn stream(
    mut producer: ClusterProducer,
    count: usize,
    sent: Arc<AtomicUsize>,
) -> Vec<ClientError> {
    let (mut receipts, mut failed) = (Vec::new(), Vec::new());
    for number in 0..count {
        let receipt = producer.send(Place::Partition(0), plain(&number.to_string())).await;
        receipts.push(receipt.unwrap());
        sent.store(number + 1, Ordering::Release);
    }
    for receipt in receipts {
        failed.extend(receipt.await.err());
    }
    failed
}

/// Goal: a producer that goes on while the partition dies again and again has each record stored
/// once, in order. Negative control: without numbers some fate is open.
#[test]
fn a_stream_through_a_dying_partition_is_stored_once_and_in_order() {
    for idempotent in [true, false] {
        let node = TestNode::builder()
            .settings(|settings| settings.supervision.restarts_max = 1000)
            .start();
        let address = node.rpc_addr().to_string();
        let sent = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&sent);
        let sending = runtime().spawn(async move {
            stream(producer(&[address], "log", idempotent).await, 300, told).await
        });
        let is_over = || sent.load(Ordering::Acquire) == 300;
        let mut deaths = 0;
        while deaths < 10 && !is_over() {
            let generation = node.generation(RAFT);
            node.on_message(RAFT, "Persisted", 5, Mishap::Panic("before the answers".into()));
            node.until("it dies, or all is sent", |node| {
                node.generation(RAFT) > generation || is_over()
            });
            deaths += u32::from(node.generation(RAFT) > generation);
        }
        let failed = block_on(sending).unwrap();
        assert!(deaths > 2, "{deaths} deaths");
        node.ready();
        let wanted: Vec<_> = (0..300).map(|number| number.to_string()).collect();
        let is_exact = failed.is_empty() && values(&node) == wanted;
        assert_eq!(is_exact, idempotent, "{deaths} deaths: {:?}, {:?}", failed, values(&node));
    }
}

#[test]
fn a_client_is_told_with_a_code_that_nobody_retries() {
    let node = TestNode::start();
    let answer = block_on(async {
        let address = node.rpc_addr().to_string();
        let mut client = Client::connect(&address, ClientOptions::default()).await.unwrap();
        client.produce_once(&Target::topic("log"), batch(5, 3, &["?"])).await
    });
    let Err(ClientError::Refused(refusal)) = answer else { panic!("{answer:?}") };
    assert_eq!((refusal.code, refusal.definite), (Code::FailedPrecondition, true));
    assert!(refusal.leader.is_none() && refusal.retry_after.is_none());
}

/// A node of three, each on an address of the loopback of its own to gossip on.
fn member(directory: &Path, network: u8, number: usize) -> Binary {
    let gossip = |number: usize| format!("127.{network}.0.{number}:8501");
    let (own, first, name) = (gossip(number), gossip(1), format!("n{number}"));
    let mut flags = vec!["--gossip-addr", &own, "--node-name", &name];
    if number > 1 {
        flags.extend(["--join", &first]);
    }
    Binary::start_with(&directory.join(&name), &flags)
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&run(arguments, b"").stdout).unwrap_or_default()
}

/// Who leads partition 0 of `orders`, once all three replicas vote.
fn leader(asked: &Binary) -> Option<usize> {
    let told = json(&["describe", "orders", "--json", "--addr", &asked.rpc]);
    let partition = &told["partitions"][0];
    let replicas = partition["replicas"].as_array()?;
    let voters = replicas.iter().filter(|replica| replica["role"] == "voter").count();
    let leader = partition["leader"].as_u64().filter(|leader| *leader > 0)?;
    (voters == 3).then_some(leader as usize)
}

fn leader_in_time(nodes: &[Binary]) -> usize {
    let mut found = None;
    until("orders has a leader and three voters", || {
        found = nodes.iter().find_map(leader);
        found.is_some()
    });
    found.unwrap()
}

async fn stored(cluster: &ClusterClient, topic: &str) -> Vec<String> {
    let options = FetchOptions {
        position: Position::Start,
        chunk_bytes_max: 0,
        records_max: None,
        follow: false,
        consistency: Consistency::Linearizable,
    };
    let patience = Duration::from_secs(30);
    let mut chunks = cluster.fetch(&Target::topic(topic), options, patience).await.unwrap();
    let mut values = Vec::new();
    while let Some(chunk) = chunks.next().await.unwrap() {
        for record in records(chunk.batches, BatchLimits::default()) {
            let (_, record) = record.unwrap();
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

/// Goal: the leader of three nodes is killed twice in the middle of a stream, and each record is
/// stored once, in order.
#[test]
fn a_stream_through_killed_leaders_is_stored_once_and_in_order() {
    const COUNT: usize = 600;
    let directory = tempfile::tempdir().unwrap();
    let network = (std::process::id() % 250) as u8 + 2;
    let mut nodes: Vec<_> = (1..=3).map(|n| member(directory.path(), network, n)).collect();
    until("orders is made", || {
        run(&["topic", "create", "orders", "--addr", &nodes[0].rpc], b"").status.success()
    });
    leader_in_time(&nodes);
    let addresses: Vec<_> = nodes.iter().map(|node| node.rpc.clone()).collect();
    let sent = Arc::new(AtomicUsize::new(0));
    let (told, seeds) = (Arc::clone(&sent), addresses.clone());
    let sending = runtime().spawn(async move {
        let producer = producer(&seeds, "orders", true).await;
        stream(producer, COUNT, told).await
    });
    for kill_at in [COUNT / 4, COUNT / 2] {
        until("so many are sent", || sent.load(Ordering::Acquire) >= kill_at);
        let number = leader_in_time(&nodes);
        assert!(sent.load(Ordering::Acquire) < COUNT, "too late to kill it");
        nodes.remove(number - 1).kill();
        nodes.insert(number - 1, member(directory.path(), network, number));
    }
    let failed = block_on(sending).unwrap();
    let addresses: Vec<_> = nodes.iter().map(|node| node.rpc.clone()).collect();
    let found = block_on(async {
        let options = ClusterOptions::default();
        let cluster = ClusterClient::connect(&addresses, options, None).await.unwrap();
        stored(&cluster, "orders").await
    });
    assert!(failed.is_empty(), "{failed:?}");
    let wanted: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(found, wanted);
}
