// Which node takes what: appends at followers, reads at followers.

use super::{append, other_than};
use crate::harness::binary::run;
use duramen::actors::partition::PartitionApi;
use duramen::model::{FIRST_TOPIC, Offset};
use duramen::testing::{Cluster, block_on};
use duramen::wire::client::partition_of_key;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::log::v1 as book;
use tonic::Code;

async fn book_produce(cluster: &Cluster, number: usize) -> Result<u64, tonic::Status> {
    let address = format!("http://{}", cluster.node(number).rpc_addr());
    let mut client = book::log_client::LogClient::connect(address).await.unwrap();
    let record = Some(book::Record { value: "hello".into(), ..Default::default() });
    let answered = client.produce(book::ProduceRequest { record }).await?;
    Ok(answered.into_inner().offset)
}

async fn produce(cluster: &Cluster, number: usize) -> Result<u64, tonic::Status> {
    let address = format!("http://{}", cluster.node(number).rpc_addr());
    let mut client = pb::log_client::LogClient::connect(address).await.unwrap();
    let record = pb::Record { value: Some("hello".into()), ..Default::default() };
    let request = pb::ProduceRequest {
        topic: FIRST_TOPIC.into(),
        records: vec![record],
        ..Default::default()
    };
    Ok(client.produce_once(request).await?.into_inner().base_offset)
}

#[test]
fn records_that_are_produced_at_a_follower_reach_the_leader() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    let follower = other_than(&cluster, leader);
    assert_eq!(block_on(produce(&cluster, follower)).unwrap(), 0);
    assert_eq!(block_on(book_produce(&cluster, follower)).unwrap(), 1);
    assert_eq!(cluster.node(leader).values().unwrap(), [b"hello", b"hello"]);
}

#[test]
fn without_forwarding_a_follower_refuses_as_the_book_does_and_names_the_leader_to_others() {
    let cluster = Cluster::start_with(3, |settings| settings.rpc.forward = false);
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    let follower = other_than(&cluster, leader);
    let refused = block_on(book_produce(&cluster, follower)).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "node is not the leader"));
    let refused = block_on(produce(&cluster, follower)).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let leads = cluster.node(leader).rpc_addr().to_string();
    assert!(refused.message().contains(&leads) || has_leader(&refused, &leads), "{refused:?}");
    assert_eq!(block_on(book_produce(&cluster, leader)).unwrap(), 0);
}

fn has_leader(refused: &tonic::Status, address: &str) -> bool {
    use tonic_types::StatusExt;
    let info = refused.get_details_error_info();
    info.is_some_and(|info| info.metadata.get("leader_rpc_addr").is_some_and(|at| at == address))
}

#[test]
fn a_follower_shows_only_what_is_committed() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    let first = append(&cluster, "committed");
    // The leader reaches nobody, but what it takes lies in its own log.
    cluster.isolate(leader);
    let record = duramen::model::Record::of_value(b"alone".to_vec(), duramen::model::Timestamp(0));
    let pending = cluster.node(leader).log().propose_records(vec![record]);
    for (_, node) in cluster.nodes() {
        node.until("it shows the first", |node| node.log().high_watermark() > first);
        assert_eq!(node.log().high_watermark(), Offset(first.0 + 1), "and nothing more");
        assert_eq!(node.values().unwrap(), [b"committed"]);
    }
    drop(pending);
}

#[test]
fn the_command_parts_lines_by_key_as_kafkas_clients_do_and_keeps_their_order() {
    const PARTITIONS: u32 = 4;
    let cluster = Cluster::start(3);
    cluster.create_topic("keyed", PARTITIONS, 3);
    let line = |number: usize| match number % 10 {
        0 => format!("{number}\n"),
        _ => format!("key {}:{number}\n", number % 23),
    };
    let lines: String = (0..2000).map(line).collect();
    let addresses: Vec<_> = cluster.nodes().map(|(_, n)| n.rpc_addr().to_string()).collect();
    let arguments = ["produce", "keyed", "--partition", "key", "--key-separator", ":"];
    let more = ["--batch", "40", "--addr", &addresses.join(",")];
    let output = run(&[&arguments[..], &more[..]].concat(), lines.as_bytes());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.starts_with("acknowledged 2000 records"), "{told}");

    let mut without_key = Vec::new();
    let mut numbers = Vec::new();
    for partition in 0..PARTITIONS {
        let leader = cluster.leader_of("keyed", partition);
        let handle = cluster.node(leader).partition("keyed", partition);
        let mut newest = std::collections::BTreeMap::new();
        let mut next = Offset(0);
        while next < handle.high_watermark() {
            let records = block_on(handle.read_records(next, 1000, 1 << 20)).unwrap();
            next = records.last().unwrap().0.next();
            for (_, record) in records {
                let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let number: usize = text.parse().unwrap();
                numbers.push(number);
                let Some(key) = record.key else {
                    without_key.push(partition);
                    continue;
                };
                assert_eq!(partition_of_key(&key, PARTITIONS), partition, "line {number}");
                let before = newest.insert(key.to_vec(), number);
                assert!(before.is_none_or(|before| before < number), "{before:?} and {number}");
            }
        }
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..2000), "each line once");
    without_key.dedup();
    assert_eq!(without_key, [0, 1, 2, 3], "those without a key take turns");
}
