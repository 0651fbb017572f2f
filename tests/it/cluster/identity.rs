// Who may not come in: a wiped disk, a node of another cluster, another's directory.

use super::append;
use crate::harness::Lines;
use duramen::actors::partition::PartitionApi;
use duramen::model::{FIRST_TOPIC, SystemClock};
use duramen::node::NodeError;
use duramen::ops::logger::{LoggerHandle, start_on};
use duramen::ops::settings::LogFormat;
use duramen::testing::{Cluster, TestNode, block_on};
use slog::Logger;
use std::fs;
use std::sync::Arc;

fn log_of_lines() -> (Lines, Logger, LoggerHandle) {
    let lines = Lines::default();
    let level = "info".parse().unwrap();
    let clock = Arc::new(SystemClock::new());
    let (logger, handle) = start_on(lines.clone(), LogFormat::Logfmt, level, clock);
    (lines, logger, handle)
}

fn with_causes(error: &NodeError) -> String {
    duramen::model::with_causes(error)
}

fn until_logged(node: &TestNode, lines: &Lines, wanted: &str) {
    node.until(&format!("the log says: {wanted}"), |_| lines.text().contains(wanted));
}

#[test]
fn a_replica_whose_files_are_gone_does_not_vote_again() {
    let mut cluster = Cluster::start(3);
    append(&cluster, "one");
    let files = cluster.node(3).data_dir().join("partitions/log/0");
    cluster.stop_node(3);
    fs::remove_dir_all(&files).unwrap();
    cluster.restart(3);
    let mut client = cluster.client(3);
    let described = block_on(client.describe(FIRST_TOPIC)).unwrap();
    let told = &described.partitions[0];
    assert_eq!(told.state, "quarantined");
    let wanted = format!(
        "its files are gone ({}): a replica without its vote must not vote; put the files back, or \
         type `duramen node replace n3` at another node",
        files.display()
    );
    assert_eq!(told.reason, wanted);
    assert!(cluster.node(3).partitions().get(FIRST_TOPIC, 0).is_none(), "nobody is there to vote");
    assert!(!files.join("vote").exists());
    append(&cluster, "two of three are enough");
}

#[test]
fn a_node_whose_controller_is_gone_does_not_start() {
    let mut cluster = Cluster::start(3);
    cluster.stop_node(3);
    let id = cluster.node(1).cluster().control.catalogue().cluster_id.clone();
    let stopped = cluster.stopped(3);
    let directory = stopped.data_dir().to_owned();
    fs::remove_dir_all(directory.join("controller")).unwrap();
    let refused = with_causes(&stopped.try_start().unwrap_err());
    assert_eq!(
        refused,
        format!(
            "the data directory {} belongs to node n3 of cluster {id}, but controller is gone: a \
             node that lost what it voted must not vote again",
            directory.display()
        )
    );
}

#[test]
fn a_wiped_directory_does_not_come_back_under_the_name_it_had() {
    let mut cluster = Cluster::start(3);
    let uuid = cluster.node(3).node_id().to_owned();
    drop(cluster.take(3));
    let (lines, logger, _handle) = log_of_lines();
    let join = cluster.join_addr(1);
    let node = TestNode::builder()
        .logger(logger)
        .settings(|settings| {
            settings.node.name = Some("n3".into());
            settings.gossip.join = vec![join];
        })
        .start();
    let wanted = format!(
        "the name n3 belongs to node n3, whose directory is another one (uuid {uuid}): a wiped \
         directory is a new node: start it under another --node-name, or `duramen node replace n3`"
    );
    until_logged(&node, &lines, &wanted);
    assert_eq!(node.cluster().control.node(), None);
    let catalogue = cluster.node(1).cluster().control.catalogue();
    assert_eq!(catalogue.nodes.len(), 3, "it was given no number");
    drop(node);

    // Under a name of its own it is welcome, as a new node.
    let join = cluster.join_addr(1);
    let node = TestNode::builder()
        .settings(|settings| {
            settings.node.name = Some("n4".into());
            settings.gossip.join = vec![join];
        })
        .start();
    node.until("it is a member", |node| node.cluster().control.node().is_some_and(|n| n.0 == 4));
    drop(node);
}

#[test]
fn a_node_of_another_cluster_does_not_join() {
    let cluster = Cluster::start(1);
    let mut other = Cluster::start(1);
    let own = other.node(1).cluster().control.catalogue().cluster_id.clone();
    let theirs = cluster.node(1).cluster().control.catalogue().cluster_id.clone();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let was = other.node(1).data_dir().to_owned();
    other.stop_node(1);
    copy(&was, &data);

    let (lines, logger, _handle) = log_of_lines();
    let join = cluster.join_addr(1);
    let mut settings = crate::harness::settings(&data);
    settings.gossip.join = vec![join];
    settings.node.name = Some("stranger".into());
    actix_rt::System::new().block_on(async {
        let node = duramen::node::Node::start(&settings, logger).unwrap();
        let wanted =
            format!("is a node of another cluster ({theirs}), this one is of {own}: start");
        crate::harness::until("the log tells why", || lines.text().contains(&wanted)).await;
        let known = || node.cluster().control.catalogue().nodes.len();
        crate::harness::until("it reads its own catalogue", || known() > 0).await;
        assert_eq!(known(), 1);
        node.shutdown(std::time::Duration::ZERO).await;
    });
    assert_eq!(cluster.node(1).cluster().control.catalogue().nodes.len(), 1);
    assert!(cluster.node(1).cluster().status().healthy, "nobody is missed there");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_node_does_not_start_with_the_files_of_anothers_replica() {
    let mut cluster = Cluster::start(3);
    append(&cluster, "one");
    let of = |number: usize| cluster.node(number).data_dir().join("partitions/log/0");
    let (theirs, own) = (of(2), of(3));
    cluster.stop_node(2);
    cluster.stop_node(3);
    fs::remove_dir_all(&own).unwrap();
    copy(&theirs, &own);
    cluster.restart(2);
    cluster.restart(3);
    let described = block_on(cluster.client(3).describe(FIRST_TOPIC)).unwrap();
    let wanted = format!(
        "{} holds the files of another replica: a replica without its vote must not vote; put the \
         files back, or type `duramen node replace n3` at another node",
        own.display()
    );
    assert_eq!(described.partitions[0].reason, wanted);
    assert!(cluster.node(3).partitions().get(FIRST_TOPIC, 0).is_none());
}

#[test]
fn a_directory_in_use_is_not_taken_over() {
    let cluster = Cluster::start(1);
    let directory = cluster.node(1).data_dir().to_owned();
    let settings = crate::harness::settings(&directory);
    actix_rt::System::new().block_on(async {
        let refused = duramen::node::Node::start(&settings, crate::harness::silent()).unwrap_err();
        let text = with_causes(&refused);
        let pid = std::process::id();
        let wanted = format!("the data directory {} is used by process {pid}", directory.display());
        assert!(text.starts_with(&wanted), "{text}");
    });
    assert!(cluster.node(1).log().describe().reason.is_empty(), "the first one did not notice");
}

#[test]
fn a_node_of_a_later_protocol_is_told_so_and_stays_out() {
    use duramen::actors::control::{ControlError, JoinAsked};
    use duramen::cluster::NodeSelf;
    let cluster = Cluster::start(1);
    let node = NodeSelf {
        uuid: "later".into(),
        name: "later".into(),
        rpc_addr: "127.0.0.1:1".into(),
        gossip_addr: "127.0.0.1:2".into(),
        version: "9.9.9".into(),
        protocol_min: 4,
        protocol_max: 5,
        labels: Default::default(),
    };
    let asked = JoinAsked { node, cluster_id: String::new() };
    let control = Arc::clone(&cluster.node(1).cluster().control);
    let refused = block_on(control.join_here(asked)).unwrap_err();
    let ControlError::Rejected(refused) = refused else { panic!("{refused:?}") };
    assert_eq!(
        refused.message,
        "the node later (version 9.9.9) speaks protocols 4 to 5, the cluster 3: upgrade the \
         cluster's nodes first"
    );
}
