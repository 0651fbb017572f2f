//! A mirror: the same offsets and the same batches as at its source, for reading only; it goes on
//! where it stood, whoever was away, and stops with a reason where a copy would not be one.

use crate::harness::{on_a_system, settings, silent, until};
use duramen::actors::partition::{PartitionApi, ProduceError};
use duramen::model::{Offset, TopicName};
use duramen::node::{MirrorPlan, Node, NodeError, Surroundings};
use duramen::ops::data_dir::DataDirError;
use duramen::ops::settings::ByteSize;
use duramen::supervision::State;
use duramen::testing::TestNode;
use duramen::wire::client::{
    Bearer, Client, ClientError, ClientOptions, ClusterClient, ClusterOptions, Consistency,
    FetchOptions, Place, Position, ProducerOptions, Target,
};
use duramen::wire::pb::duramen::v1::{AlterTopicRequest, CreateTopicRequest, DeleteTopicRequest};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const GRACE: Duration = Duration::from_secs(2);

fn try_mirror(directory: &Path, from: &str, topic: &str) -> Result<Node, NodeError> {
    let (topic, token) = (TopicName::new(topic).unwrap(), Bearer::default());
    let plan = MirrorPlan { from: vec![from.into()], topic, token };
    let surroundings = Surroundings { mirror: Some(plan), ..Surroundings::of(silent()) };
    Node::start_with(&settings(directory), surroundings)
}

fn mirror(directory: &Path, from: &str, topic: &str) -> Node {
    try_mirror(directory, from, topic).unwrap()
}

fn end(node: &Node, topic: &str, partition: u32) -> u64 {
    node.partitions().get(topic, partition).map_or(0, |here| here.high_watermark().0)
}

/// Why the mirror has stopped; waits until it has.
async fn stopped(node: &Node, topic: &str) -> String {
    let mut told = String::new();
    let path = format!("node/mirror/{topic}").as_str().into();
    until("the mirror stops", || {
        let status = node.tree().status();
        let place = status.find(&path).expect("it has a place in the tree");
        match &place.state {
            State::Quarantined { reason, .. } => {
                told.clone_from(reason);
                true
            }
            _ => false,
        }
    })
    .await;
    told
}

/// All that a node serves of a partition, as it lies in its log.
async fn batches(addr: &str, topic: &str, partition: u32) -> (u64, Vec<u8>) {
    let cluster = cluster_of(addr).await;
    let options = FetchOptions {
        position: Position::Start,
        chunk_bytes_max: 0,
        records_max: None,
        follow: false,
        consistency: Consistency::Committed,
    };
    let target = Target { topic: topic.into(), partition };
    let mut chunks = cluster.fetch(&target, options, GRACE).await.unwrap();
    let (mut start, mut bytes) = (None, Vec::new());
    while let Some(chunk) = chunks.next().await.unwrap() {
        start.get_or_insert(chunk.base.0);
        bytes.extend_from_slice(&chunk.batches);
    }
    // Each names the term of who stored it (the layout's "partition leader epoch"): that is its own.
    let mut at = 0;
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        bytes[at + 12..at + 16].fill(0);
        at += 12 + length;
    }
    (start.unwrap_or(0), bytes)
}

async fn cluster_of(addr: &str) -> ClusterClient {
    ClusterClient::connect(&[addr.to_owned()], ClusterOptions::default(), None).await.unwrap()
}

fn batch(values: &[&str]) -> bytes::Bytes {
    use duramen::log::batch::BatchBuilder;
    use duramen::model::{Record, Timestamp};
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(&Record::of_value(value.as_bytes().to_vec(), Timestamp(7))).unwrap();
    }
    builder.finish().unwrap().into_bytes()
}

#[test]
fn a_mirror_copies_all_partitions_serves_them_and_takes_nothing() {
    let source = TestNode::start();
    let from = source.rpc_addr().to_string();
    let directory = TempDir::new().unwrap();
    on_a_system(async {
        let cluster = cluster_of(&from).await;
        let asked = CreateTopicRequest {
            name: "orders".into(),
            partitions: 2,
            replication_factor: 1,
            settings: None,
        };
        cluster.admin().await.unwrap().create_topic(asked).await.unwrap();
        let mut producer = cluster.producer("orders", ProducerOptions::default());
        for round in 0..20 {
            let values = [format!("a{round}"), "b".repeat(round * 100)];
            let sent = batch(&[&values[0], &values[1]]);
            let place = Place::Partition(u32::from(round % 3 == 0));
            producer.send(place, sent).await.unwrap().await.unwrap();
        }
        let node = mirror(directory.path(), &from, "orders");
        let own = node.rpc_addr().to_string();
        until("all is copied", || end(&node, "orders", 0) == 26 && end(&node, "orders", 1) == 14)
            .await;
        for partition in [0, 1] {
            let copied = batches(&own, "orders", partition).await;
            assert!(!copied.1.is_empty());
            assert_eq!(copied, batches(&from, "orders", partition).await, "byte for byte");
        }

        // What comes later comes too, also in a partition that is new.
        let alter =
            AlterTopicRequest { name: "orders".into(), partitions: 3, ..Default::default() };
        cluster.admin().await.unwrap().alter_topic(alter).await.unwrap();
        let sent = batch(&["late"]);
        let mut late = cluster.producer("orders", ProducerOptions::default());
        late.send(Place::Partition(2), sent.clone()).await.unwrap().await.unwrap();
        late.send(Place::Partition(0), sent.clone()).await.unwrap().await.unwrap();
        until("the new partition is copied", || {
            end(&node, "orders", 2) == 1 && end(&node, "orders", 0) == 27
        })
        .await;
        assert_eq!(
            batches(&own, "orders", 2).await,
            batches(&from, "orders", 2).await,
            "byte for byte"
        );

        // Nobody appends here.
        let mut client = Client::connect(&own, ClientOptions::default()).await.unwrap();
        let told = client.describe("orders").await.unwrap().partitions;
        let is_whole = told.iter().all(|known| known.source_end == Some(known.high_watermark));
        assert!(told.len() == 3 && is_whole, "each says where its source ends: {told:?}");
        let target = Target { topic: "orders".into(), partition: 0 };
        let refused = client.produce_once(&target, sent).await.unwrap_err();
        let ClientError::Refused(refusal) = &refused else { panic!("{refused:?}") };
        let told = format!("this node mirrors orders from {from}: produce there");
        assert_eq!((refusal.message.as_str(), refusal.definite), (told.as_str(), true));
        assert_eq!(end(&node, "orders", 0), 27);
        node.shutdown(GRACE).await;

        // Nor is the directory one for a node that takes appends, or another mirror.
        let started = Node::start(&settings(directory.path()), silent());
        let refused = started.map(drop).unwrap_err();
        assert!(matches!(refused, NodeError::DataDir(DataDirError::OfAMirror { .. })), "{refused}");
        let refused = try_mirror(directory.path(), &from, "log").map(drop).unwrap_err();
        assert!(matches!(refused, NodeError::DataDir(DataDirError::OfAMirror { .. })), "{refused}");
    });
}

#[test]
fn a_mirror_goes_on_where_it_stood_whoever_was_away() {
    let source =
        TestNode::builder().settings(|it| it.rpc.addr = "127.0.0.1:9801".parse().unwrap()).start();
    let from = source.rpc_addr().to_string();
    let directory = TempDir::new().unwrap();
    for number in 0..10 {
        source.append(format!("first {number}")).unwrap();
    }
    on_a_system(async {
        let node = mirror(directory.path(), &from, "log");
        until("the first ten are copied", || end(&node, "log", 0) == 10).await;
        node.shutdown(GRACE).await;
    });
    for number in 0..10 {
        source.append(format!("second {number}")).unwrap();
    }
    let stopped = on_a_system(async {
        let node = mirror(directory.path(), &from, "log");
        until("the next ten are copied", || end(&node, "log", 0) == 20).await;
        let stopped = tokio::task::spawn_blocking(move || source.crash()).await.unwrap();
        // What is here is served without the source.
        let own = node.rpc_addr().to_string();
        assert!(!batches(&own, "log", 0).await.1.is_empty());
        let source = tokio::task::spawn_blocking(move || {
            let source = stopped.start();
            source.append("third").unwrap();
            source
        });
        let source = source.await.unwrap();
        until("what came after the crash is copied", || end(&node, "log", 0) == 21).await;
        assert_eq!(batches(&own, "log", 0).await, batches(&from, "log", 0).await);
        node.shutdown(GRACE).await;
        source
    });
    drop(stopped);
}

#[test]
fn a_copy_begins_where_the_source_begins_and_never_has_a_gap() {
    let source = TestNode::builder()
        .settings(|it| {
            it.log.segment_bytes_max = ByteSize(64 << 10);
            it.log.batch_bytes_max = ByteSize(16 << 10);
            it.log.record_bytes_max = ByteSize(16 << 10);
            it.log.retention_bytes = Some(ByteSize(128 << 10));
        })
        .start();
    let from = source.rpc_addr().to_string();
    let fill = |source: &TestNode| {
        let before = source.log().start_offset();
        for _ in 0..60 {
            source.append("x".repeat(8000)).unwrap();
        }
        source.until("the source drops its oldest", |node| node.log().start_offset() > before);
    };
    fill(&source);
    let directory = TempDir::new().unwrap();
    let copied = on_a_system(async {
        let node = mirror(directory.path(), &from, "log");
        until("the rest is copied", || end(&node, "log", 0) == 60).await;
        let here = node.partitions().get("log", 0).unwrap();
        let (start, bytes) = batches(&node.rpc_addr().to_string(), "log", 0).await;
        assert!(start > 0 && here.start_offset() == Offset(start));
        let theirs = batches(&from, "log", 0).await;
        assert!(theirs.0 >= start && bytes.ends_with(&theirs.1), "offsets and bytes are theirs");
        let refused = here.clone().read_only("elsewhere".into()).propose_batches(batch(&["no"]));
        assert!(matches!(refused, Err(ProduceError::ReadOnly { .. })));
        node.shutdown(GRACE).await;
        start
    });

    // It is also there after a restart; but what was dropped meanwhile is not to be had any more.
    while source.log().start_offset() <= Offset(60) {
        fill(&source);
    }
    on_a_system(async {
        let node = mirror(directory.path(), &from, "log");
        let told = stopped(&node, "log").await;
        assert!(told.contains("has dropped the records 60 to"), "{told}");
        assert!(told.contains("move the mirror's data directory away"), "{told}");
        assert_eq!(end(&node, "log", 0), 60);
        assert_eq!(batches(&node.rpc_addr().to_string(), "log", 0).await.0, copied, "still read");
        node.shutdown(GRACE).await;
    });
}

#[test]
fn a_topic_that_was_made_anew_and_another_cluster_are_not_what_was_copied() {
    let source = TestNode::start();
    let from = source.rpc_addr().to_string();
    let other = TestNode::start();
    let directory = TempDir::new().unwrap();
    on_a_system(async {
        let cluster = cluster_of(&from).await;
        let mut admin = cluster.admin().await.unwrap();
        let asked = CreateTopicRequest {
            name: "orders".into(),
            partitions: 1,
            replication_factor: 1,
            settings: None,
        };
        admin.create_topic(asked.clone()).await.unwrap();
        let mut producer = cluster.producer("orders", ProducerOptions::default());
        producer.send(Place::Any, batch(&["one"])).await.unwrap().await.unwrap();
        let node = mirror(directory.path(), &from, "orders");
        until("it is copied", || end(&node, "orders", 0) == 1).await;
        node.shutdown(GRACE).await;
        let node = mirror(directory.path(), &other.rpc_addr().to_string(), "orders");
        let told = stopped(&node, "orders").await;
        assert!(told.contains("belongs to cluster"), "{told}");
        node.shutdown(GRACE).await;

        let node = mirror(directory.path(), &from, "orders");
        admin.delete_topic(DeleteTopicRequest { name: "orders".into() }).await.unwrap();
        admin.create_topic(asked).await.unwrap();
        let told = stopped(&node, "orders").await;
        assert!(told.contains("was deleted at the source and made anew"), "{told}");
        node.shutdown(GRACE).await;
    });
}
