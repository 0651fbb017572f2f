//! Many partitions on one node: given, taken away and given other settings while it runs, there
//! again after a restart, and never started without the files that hold their vote.

use crate::harness::binary::http;
use duramen::actors::partition::{PartitionApi, PartitionState};
use duramen::cluster::{Catalogue, Hosted, Placement, Replica, ReplicaState, Topic, TopicSettings};
use duramen::model::{
    Durability, NodeId, Offset, Record, ReplicaId, Timestamp, TopicId, TopicName,
};
use duramen::supervision::State;
use duramen::testing::{LoadPlan, TestNode, block_on};
use std::fs;

const ME: NodeId = NodeId(1);

/// A cluster of this one node with the topic `log`.
fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue { cluster_id: "c1".into(), ..Catalogue::default() };
    add(&mut catalogue, "log", 1);
    catalogue
}

/// Adds a topic, with a replica of each of its partitions here.
fn add(catalogue: &mut Catalogue, name: &str, partitions: u32) {
    catalogue.last_topic += 1;
    let mut placement = || {
        catalogue.last_incarnation += 1;
        let id = ReplicaId::new(ME, catalogue.last_incarnation);
        Placement {
            replicas: vec![Replica { id, state: ReplicaState::Member }],
            ..Placement::default()
        }
    };
    let topic = Topic {
        partitions: (0..partitions).map(|_| placement()).collect(),
        id: TopicId(catalogue.last_topic),
        replication_factor: 1,
        settings: TopicSettings::default(),
    };
    catalogue.topics.insert(TopicName::new(name).unwrap(), topic);
}

fn follow(node: &TestNode, catalogue: &Catalogue) {
    block_on(node.partitions().follow(catalogue, ME)).unwrap();
}

fn serves(node: &TestNode, topic: &str, partition: u32) {
    node.until(&format!("{topic}/{partition} serves"), |node| {
        let found = node.partitions().get(topic, partition);
        found.is_some_and(|handle| {
            // Once its log is read it may take a moment until it is known how much is committed.
            let is_readable = block_on(handle.read_records(Offset(0), 1, 1)).is_ok();
            handle.describe().state == PartitionState::Serving && is_readable
        })
    });
}

fn append(node: &TestNode, topic: &str, partition: u32, value: &str) -> u64 {
    let record = Record::of_value(value.as_bytes().to_vec(), Timestamp(1));
    let pending = node.partition(topic, partition).propose_records(vec![record]).unwrap();
    block_on(pending).unwrap().base_offset.0
}

fn values(node: &TestNode, topic: &str, partition: u32) -> Vec<String> {
    let handle = node.partition(topic, partition);
    let read = handle.read_records(Offset(0), 100, 1 << 20);
    let text = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    block_on(read).unwrap().into_iter().map(|(_, record)| text(record)).collect()
}

fn here(node: &TestNode) -> Vec<String> {
    node.partitions().list().iter().map(|(topic, n, _)| format!("{topic}/{n}")).collect()
}

#[test]
fn partitions_come_and_go_while_others_are_written_to() {
    let node = TestNode::start();
    let load = node.load(LoadPlan::default());
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 3);
    follow(&node, &catalogue);
    assert_eq!(here(&node), ["log/0", "orders/0", "orders/1", "orders/2"]);
    for partition in 0..3 {
        serves(&node, "orders", partition);
        assert_eq!(append(&node, "orders", partition, &partition.to_string()), 0);
    }
    assert_eq!(values(&node, "orders", 2), ["2"]);
    let directory = node.partitions().directory("orders", 1).unwrap();
    assert!(directory.is_dir());

    catalogue.topics.remove("orders");
    follow(&node, &catalogue);
    assert_eq!(here(&node), ["log/0"]);
    assert!(!directory.exists() && !directory.parent().unwrap().exists(), "nothing is left of it");
    assert!(!node.actors().iter().any(|path| path.as_str().contains("orders")));
    // The same name again is another topic: empty.
    add(&mut catalogue, "orders", 1);
    follow(&node, &catalogue);
    serves(&node, "orders", 0);
    assert_eq!(values(&node, "orders", 0), Vec::<String>::new());
    let ledger = load.finish();
    assert!(ledger.stored() > 0);
    ledger.assert_kept();
}

#[test]
fn a_restart_brings_all_of_them_back_before_any_catalogue_is_known() {
    let node = TestNode::start();
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 2);
    catalogue.topics.get_mut("orders").unwrap().settings =
        TopicSettings([("durability".to_owned(), "os".to_owned())].into());
    follow(&node, &catalogue);
    for partition in 0..2 {
        serves(&node, "orders", partition);
        append(&node, "orders", partition, "kept");
    }
    let node = node.stop().start();
    assert_eq!(here(&node), ["log/0", "orders/0", "orders/1"]);
    serves(&node, "orders", 1);
    assert_eq!(values(&node, "orders", 1), ["kept"]);
    assert_eq!(node.partition("orders", 1).describe().durability, Durability::Os);
    let node = node.crash().start();
    serves(&node, "orders", 0);
    assert_eq!(append(&node, "orders", 0, "more"), 1);
}

#[test]
fn a_partition_without_work_has_no_thread_and_takes_the_next_record() {
    let node = TestNode::start();
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 2);
    follow(&node, &catalogue);
    for partition in 0..2 {
        serves(&node, "orders", partition);
        append(&node, "orders", partition, "first");
    }
    let at_rest = |node: &TestNode| (0..2).all(|n| node.partitions().is_at_rest("orders", n));
    node.until("both logs are put aside", at_rest);
    assert!(!node.partitions().is_at_rest("orders", 2), "there is no such partition");
    assert_eq!(append(&node, "orders", 0, "second"), 1);
    node.until("the log that was written is put aside again", at_rest);
    let stopped = node.stop();
    stopped.assert_nothing_left();
    let node = stopped.start();
    serves(&node, "orders", 0);
    assert_eq!(values(&node, "orders", 0), ["first", "second"]);
    node.until("logs that were only recovered are put aside", at_rest);
}

#[test]
fn an_old_catalogue_neither_takes_away_what_is_newer_nor_brings_back_what_was_dropped() {
    let node = TestNode::start();
    let oldest = catalogue();
    let mut old = oldest.clone();
    add(&mut old, "dropped", 1);
    follow(&node, &old);
    serves(&node, "dropped", 0);
    let mut new = old.clone();
    new.topics.remove("dropped");
    add(&mut new, "orders", 1);
    follow(&node, &new);
    serves(&node, "orders", 0);
    append(&node, "orders", 0, "kept");
    for older in [&oldest, &old, &Catalogue::default()] {
        follow(&node, older);
        assert_eq!(here(&node), ["log/0", "orders/0"]);
    }
    assert_eq!(values(&node, "orders", 0), ["kept"]);
    let node = node.stop().start();
    follow(&node, &old);
    assert_eq!(here(&node), ["log/0", "orders/0"], "that outlasts a restart");
}

#[test]
fn other_settings_of_a_topic_take_effect_and_its_records_stay() {
    let node = TestNode::start();
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 1);
    follow(&node, &catalogue);
    serves(&node, "orders", 0);
    append(&node, "orders", 0, "kept");
    assert_eq!(node.partition("orders", 0).describe().durability, Durability::Fsync);
    let settings = &mut catalogue.topics.get_mut("orders").unwrap().settings.0;
    settings.insert("durability".into(), "os".into());
    settings.insert("retention_age".into(), "nonsense".into());
    follow(&node, &catalogue);
    serves(&node, "orders", 0);
    assert_eq!(node.partition("orders", 0).describe().durability, Durability::Os);
    assert_eq!(values(&node, "orders", 0), ["kept"]);
}

#[test]
fn a_replica_whose_files_are_gone_is_not_started_and_stays_visible() {
    let node = TestNode::start();
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 2);
    follow(&node, &catalogue);
    for partition in 0..2 {
        serves(&node, "orders", partition);
        append(&node, "orders", partition, "x");
    }
    let lost = node.partitions().directory("orders", 1).unwrap();
    let stopped = node.stop();
    fs::remove_dir_all(&lost).unwrap();
    let node = stopped.start();
    serves(&node, "orders", 0);
    assert!(node.partitions().get("orders", 1).is_none());
    node.until("it is shown out of service", |node| {
        matches!(node.place("orders/1").state, State::Quarantined { ref reason, .. }
            if reason.contains("must not vote") && reason.contains("duramen node replace n1"))
    });
    assert!(!lost.exists(), "nothing was made anew");
    let (status, body) = http(&node.http_addr().to_string(), "GET", "/readyz?verbose", "");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("[~] partitions/orders/1 degraded: quarantined: its files are gone"));
    let (_, metrics) = http(&node.http_addr().to_string(), "GET", "/metrics", "");
    let shown = r#"duramen_partition_state{topic="orders",partition="1",state="quarantined"} 1"#;
    assert!(metrics.contains(shown), "{metrics}");
    // Still given to this node: following the catalogue does not make it again.
    follow(&node, &catalogue);
    assert!(node.partitions().get("orders", 1).is_none() && !lost.exists());
    // Replaced: the node forgets the old one and takes the new one.
    catalogue.last_incarnation += 1;
    let id = ReplicaId::new(ME, catalogue.last_incarnation);
    catalogue.topics.get_mut("orders").unwrap().partitions[1].replicas[0].id = id;
    follow(&node, &catalogue);
    serves(&node, "orders", 1);
    assert_eq!(values(&node, "orders", 1), Vec::<String>::new());
}

#[test]
fn the_files_of_another_replica_are_not_taken_for_its_own() {
    let node = TestNode::start();
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 2);
    follow(&node, &catalogue);
    for partition in 0..2 {
        serves(&node, "orders", partition);
        append(&node, "orders", partition, "x");
    }
    let [a, b] = [0, 1].map(|n| node.partitions().directory("orders", n).unwrap());
    let stopped = node.stop();
    fs::remove_dir_all(&b).unwrap();
    fs::rename(&a, &b).unwrap();
    let node = stopped.start();
    for partition in 0..2 {
        assert!(node.partitions().get("orders", partition).is_none());
    }
    node.until("both are shown", |node| {
        let reason = |path| match node.place(path).state {
            State::Quarantined { reason, .. } => reason,
            _ => String::new(),
        };
        reason("orders/0").contains("files are gone")
            && reason("orders/1").contains("the files of another replica")
    });
}

#[test]
fn a_directory_from_before_there_were_clusters_is_taken_over() {
    let node = TestNode::start();
    node.append("old").unwrap();
    let is_member = |node: &TestNode| node.cluster().control.catalogue().is_founded();
    node.until("it is a cluster of one", is_member);
    let stopped = node.stop();
    let data_dir = stopped.data_dir().to_owned();
    for name in ["CLUSTER", "members.json", "replicas.json", "partitions/log/0/replica"] {
        fs::remove_file(data_dir.join(name)).unwrap();
    }
    fs::remove_dir_all(data_dir.join("controller")).unwrap();
    fs::write(data_dir.join("VERSION"), "1\n").unwrap();
    let node = stopped.start();
    assert_eq!(node.values().unwrap(), [b"old"]);
    assert_eq!(node.partitions().list()[0].2, ReplicaId::FIRST);
    assert!(data_dir.join("partitions/log/0/replica").exists());
    node.until("it is a cluster of one again", is_member);
    node.until("its directory says so", |_| data_dir.join("CLUSTER").exists());
    assert_eq!(fs::read_to_string(data_dir.join("VERSION")).unwrap(), "2\n");
}

#[test]
fn hosted_replicas_are_those_that_this_file_speaks_of() {
    let mut catalogue = catalogue();
    add(&mut catalogue, "orders", 2);
    let hosted: Vec<Hosted<'_>> = catalogue.hosted_by(ME).collect();
    assert_eq!(hosted.len(), 3);
    assert_eq!(catalogue.hosted_by(NodeId(2)).count(), 0);
}
