// How nodes become a cluster, and how one leaves it or comes back.

use super::{small, status};
use duramen::model::{FIRST_TOPIC, NodeId};
use duramen::testing::{Cluster, block_on};
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::log::v1::Server;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn three_nodes_form_a_cluster_from_one_address_and_take_records_at_each() {
    let cluster = Cluster::start(3);
    cluster.create_topic("orders", 2, 3);
    let load = cluster.load("orders", small());
    load.await_acknowledged(50);
    load.finish().assert_kept();
}

#[test]
fn the_topic_of_a_node_that_began_alone_is_spread_with_the_records_it_had() {
    let mut cluster = Cluster::start(1);
    for number in 0..20 {
        cluster.node(1).append(format!("alone {number}")).unwrap();
    }
    let before = cluster.node(1).values().unwrap();
    cluster.add();
    cluster.add();
    cluster.until_healthy();
    for number in [2, 3] {
        let node = cluster.node(number);
        node.until("the follower has them all", |node| {
            node.partitions().get(FIRST_TOPIC, 0).is_some() && node.values().unwrap() == before
        });
    }
}

#[test]
fn any_server_lists_all_servers_and_one_leader() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    for number in 1..=3 {
        let client = cluster.client(number);
        let wanted: BTreeSet<(String, String, bool)> = cluster
            .nodes()
            .map(|(n, node)| (format!("n{n}"), node.rpc_addr().to_string(), n == leader))
            .collect();
        cluster.until("the list is as it should be", |_| {
            let told = block_on(client.servers()).unwrap();
            let told = told
                .into_iter()
                .map(|Server { id, rpc_addr, is_leader }| (id, rpc_addr, is_leader));
            told.collect::<BTreeSet<_>>() == wanted
        });
    }
}

fn state_of(cluster: &Cluster, at: usize, node: u32) -> String {
    let status = status(&mut cluster.admin(at));
    status.nodes.into_iter().find(|known| known.id == node).map_or_else(String::new, |n| n.state)
}

#[test]
fn a_node_that_leaves_hands_over_what_it_leads_and_is_taken_out() {
    let cluster = Cluster::start(4);
    cluster.create_topic("orders", 4, 3);
    let load = cluster.load("orders", small());
    load.await_acknowledged(20);
    let asked = pb::LeaveNodeRequest { node: "n4".into() };
    block_on(cluster.admin(1).leave_node(asked)).unwrap();
    cluster.until("it is out", |cluster| state_of(cluster, 1, 4) == "removed");
    cluster.until("it knows that it is", |cluster| state_of(cluster, 4, 4) == "removed");
    load.await_acknowledged(20);
    load.finish().assert_kept();
    let catalogue = cluster.node(1).cluster().control.catalogue();
    assert_eq!(catalogue.hosted_by(NodeId(4)).count(), 0);
    assert!(catalogue.controller.voters.iter().all(|voter| voter.node().0 != 4));
    for partition in 0..4 {
        assert_ne!(cluster.leader_of("orders", partition), 4);
    }
}

/// The record of its removal is behind the last that such a node is sent: another one tells it.
#[test]
fn whoever_is_removed_hears_of_it_also_the_first_to_lead_and_one_that_was_away() {
    let mut cluster = Cluster::start(4);
    let asked = pb::LeaveNodeRequest { node: "n1".into() };
    block_on(cluster.admin(2).leave_node(asked)).unwrap();
    cluster.until("the first one knows that it is out", |cluster| {
        let known = status(&mut cluster.admin(1));
        state_of(cluster, 1, 1) == "removed"
            && !known.healthy
            && known.troubles.iter().any(|trouble| trouble.contains("was removed from its cluster"))
    });
    cluster.stop_node(4);
    let asked = pb::RemoveNodeRequest { node: "n4".into(), force: true };
    cluster.until("the one that is away is out", |cluster| {
        block_on(cluster.admin(2).remove_node(asked.clone())).is_ok()
            || state_of(cluster, 2, 4) == "removed"
    });
    cluster.restart(4);
    cluster.until("it knows that it is", |cluster| state_of(cluster, 4, 4) == "removed");
    assert!(status(&mut cluster.admin(2)).nodes.iter().any(|node| node.state == "active"));
}

#[test]
fn a_node_comes_back_under_another_address_with_what_it_had() {
    let mut cluster = Cluster::start(3);
    let load = cluster.load(FIRST_TOPIC, small());
    load.await_acknowledged(20);
    let was = cluster.node(3).rpc_addr();
    cluster.stop_node(3);
    load.await_acknowledged(20);
    cluster.restart(3);
    let now = cluster.node(3).rpc_addr();
    assert_ne!(was, now, "the ports of a node under test change");
    cluster.until_healthy();
    cluster.until("the others are told where it is now", |cluster| {
        let told = status(&mut cluster.admin(1));
        told.nodes.iter().any(|node| node.id == 3 && node.rpc_addr == now.to_string())
    });
    load.await_acknowledged(20);
    load.finish().assert_kept();
    let whole = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).values().unwrap();
    cluster
        .node(3)
        .until("it has what was written meanwhile", |node| node.values().unwrap() == whole);
}

#[test]
fn a_node_that_nobody_lets_in_explains_what_it_waits_for() {
    use duramen::actors::explain::{Reason, Subject};
    let directory = tempfile::tempdir().unwrap();
    let mut settings = crate::harness::settings(directory.path());
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    settings.gossip.join = vec![nobody.into()];
    actix_rt::System::new().block_on(async {
        let node = duramen::node::Node::start(&settings, crate::harness::silent()).unwrap();
        let told = |subject| node.observer().explain(subject).unwrap();
        let waits = || told(Subject::Node).reason == Reason::Joining;
        crate::harness::until("it says that it waits to be let in", waits).await;
        let whole = told(Subject::Node);
        assert!(whole.sentence.contains("nobody is known whom it could ask"), "{whole:?}");
        assert!(whole.since.is_some() && whole.advice.contains("--join"), "{whole:?}");
        let part = told(Subject::Actor("formation".into()));
        assert_eq!((part.reason, part.subject), (Reason::Joining, whole.subject));
        node.shutdown(std::time::Duration::ZERO).await;
    });
}

#[test]
fn whoever_has_waited_for_a_new_topic_finds_each_partition_led() {
    let cluster = Cluster::start(3);
    let make = |name: &str, patience| {
        let name = name.into();
        let asked =
            pb::CreateTopicRequest { name, partitions: 8, replication_factor: 3, settings: None };
        block_on(cluster.admin(2).create_led_topic(asked, patience)).unwrap()
    };
    let made = make("orders", Duration::from_secs(60));
    assert_eq!(made.partitions.len(), 8);
    assert!(made.partitions.iter().all(|partition| partition.leader != 0), "{made:?}");
    assert_eq!(make("hasty", Duration::ZERO).partitions.len(), 8, "made, whoever leads");
}
