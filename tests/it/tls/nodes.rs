// Nodes that prove who they are to each other.

use super::{Pki, Told, options};
use bytes::Bytes;
use duramen::actors::partition::PartitionApi;
use duramen::log::batch::BatchBuilder;
use duramen::model::{Record, Timestamp};
use duramen::observe::Outcome;
use duramen::testing::{Cluster, block_on};
use duramen::wire::client::{
    Client, ClientOptions, ClusterClient, ClusterOptions, Place, ProducerOptions, Target,
};
use duramen::wire::pb::duramen::v1 as pb;
use std::rc::Rc;

fn cluster(pki: &Rc<Pki>, nodes: usize) -> Cluster {
    let pki = Rc::clone(pki);
    Cluster::start_with(nodes, move |settings| {
        let name = settings.node.name.clone().unwrap();
        settings.tls.dir = Some(pki.node(&name));
    })
}

pub fn batch(value: &'static [u8]) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(&Record::of_value(value.to_vec(), Timestamp(0))).unwrap();
    builder.finish().unwrap().into_bytes()
}

/// The topic `orders`, of one partition that all three have.
fn create_orders(cluster: &Cluster, client: &ClientOptions) {
    block_on(async {
        let mut admin =
            Client::connect(&addresses(cluster)[0], client.clone()).await.unwrap().admin();
        let asked = pb::CreateTopicRequest {
            name: "orders".into(),
            partitions: 1,
            replication_factor: 3,
            settings: None,
        };
        admin.create_topic(asked).await.unwrap();
    });
    cluster.until_healthy();
}

/// Appends through whatever leads, found from these addresses.
fn append(addresses: &[String], client: &ClientOptions, value: &'static [u8]) -> u64 {
    let options = ClusterOptions { client: client.clone(), ..ClusterOptions::default() };
    block_on(async {
        let cluster = ClusterClient::connect(addresses, options, None).await.unwrap();
        let mut producer = cluster.producer("orders", ProducerOptions::default());
        let receipt = producer.send(Place::Partition(0), batch(value)).await.unwrap();
        receipt.await.unwrap().ack.base_offset.0
    })
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster.nodes().map(|(_, node)| node.rpc_addr().to_string()).collect()
}

#[test]
fn three_nodes_agree_and_pass_on_within_tls_and_survive_a_leader() {
    let pki = Rc::new(Pki::new());
    let mut cluster = cluster(&pki, 3);
    let ada = options(&pki.client("ada"));
    create_orders(&cluster, &ada);
    let leader = cluster.leader_of("orders", 0);
    assert_eq!(append(&addresses(&cluster), &ada, b"one"), 0);
    // A follower passes on to the leader: as a node, and for a client.
    let (_, follower) = cluster.nodes().find(|(number, _)| *number != leader).unwrap();
    let follower = follower.rpc_addr().to_string();
    block_on(async {
        let mut client = Client::connect(&follower, ada.clone()).await.unwrap();
        let ack = client.produce_once(&Target::topic("orders"), batch(b"two")).await.unwrap();
        assert_eq!(ack.base_offset.0, 1);
    });
    cluster.crash(leader);
    assert_eq!(append(&addresses(&cluster), &ada, b"three"), 2);
}

#[test]
fn a_node_that_is_revoked_gets_nothing_more() {
    let pki = Rc::new(Pki::new());
    let cluster = cluster(&pki, 3);
    let ada = options(&pki.client("ada"));
    create_orders(&cluster, &ada);
    let leader = cluster.leader_of("orders", 0);
    let revoked = (1..=3).find(|number| *number != leader).unwrap();
    let end = |number: usize| cluster.node(number).partition("orders", 0).high_watermark().0;
    append(&addresses(&cluster), &ada, b"before");
    cluster.until("it has what the others have", |_| end(revoked) == 1);

    let dir_of = |number: usize| cluster.node(number).settings().tls.dir.clone().unwrap();
    let certificate = dir_of(revoked).join("node.pem");
    let others: Vec<usize> = (1..=3).filter(|number| *number != revoked).collect();
    for number in &others {
        pki.revoke_file(&certificate, &dir_of(*number));
    }
    for number in &others {
        let path = format!("replicators/n{revoked}");
        cluster.node(*number).await_message(&path, "ConnectionLost", Outcome::Done);
    }
    // Of the others alone a majority is left, and what they store the revoked one must not learn.
    let with_others: Vec<_> =
        others.iter().map(|number| cluster.node(*number).rpc_addr().to_string()).collect();
    for value in [&b"secret"[..], b"later"] {
        append(&with_others, &ada, value);
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!((end(leader), end(revoked)), (3, 1));
}

#[test]
fn a_node_with_the_certificate_of_another_becomes_no_member_until_it_has_its_own() {
    let pki = Rc::new(Pki::new());
    let cluster = cluster(&pki, 1);
    let join = cluster.join_addr(1);
    let dir = pki.node("n7");
    let told = Told::start(&dir, |settings| {
        settings.node.name = Some("n2".into());
        settings.gossip.join = vec![join];
    });
    block_on(async {
        told.tells("its certificate does not say that it is this node", 0).await;
        told.tells("the certificate is that of the node n7", 0).await;
    });
    assert!(told.node.cluster().control.node().is_none(), "it is no member");
    let n2 = pki.node("n2");
    for file in ["node-key.pem", "node.pem"] {
        super::replace(&dir.join(file), &std::fs::read_to_string(n2.join(file)).unwrap());
    }
    told.node.until("it is a member", |node| node.cluster().control.node().is_some());
}
