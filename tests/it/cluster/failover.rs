// What becomes of records and reads when leaders change.

use super::{append, other_than, small, status};
use duramen::actors::partition::{PartitionApi, ReadError};
use duramen::actors::peers::PeerPost;
use duramen::model::{FIRST_TOPIC, NodeId, Offset};
use duramen::ops::settings::ByteSize;
use duramen::testing::{Cluster, LoadPlan, block_on};
use duramen::wire::pb::duramen::v1 as pb;

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_is_killed_under_load() {
    let mut cluster = Cluster::start(3);
    let load = cluster.load(FIRST_TOPIC, LoadPlan { producers: 4, ..small() });
    for _ in 0..2 {
        load.await_acknowledged(50);
        let leader = cluster.leader_of(FIRST_TOPIC, 0);
        cluster.crash(leader);
        load.await_acknowledged(50);
        cluster.restart(leader);
        cluster.until_healthy();
    }
    let ledger = load.finish();
    ledger.assert_kept();
    let whole = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).values().unwrap();
    assert!(whole.len() as u64 >= ledger.acknowledged());
    cluster.until("all replicas hold the same", |cluster| {
        let mut nodes = cluster.nodes();
        nodes.all(|(_, node)| node.values().is_ok_and(|values| values == whole))
    });
}

#[test]
fn a_linearizable_read_sees_everything_at_a_follower_and_is_refused_at_an_isolated_old_leader() {
    let cluster = Cluster::start(3);
    let group = cluster.group(FIRST_TOPIC, 0);
    let old = cluster.leader_of(FIRST_TOPIC, 0);
    let first = append(&cluster, "before");
    let follower = cluster.node(other_than(&cluster, old)).log();
    assert_eq!(block_on(follower.read_index()), Ok(Offset(first.0 + 1)));

    cluster.isolate(old);
    cluster.until("the majority has another leader", |cluster| {
        cluster.leader_now(group).is_some_and(|leader| leader != old)
    });
    let second = append(&cluster, "after");
    assert!(second > first);
    let read = block_on(cluster.node(old).log().read_index());
    let Err(ReadError::Unavailable { message, .. }) = read else { panic!("{read:?}") };
    assert!(message.starts_with("no leader confirmed in time that it still leads"), "{message}");
    assert_eq!(cluster.node(old).log().high_watermark(), second, "it cannot know of the second");

    cluster.heal();
    cluster.until("it follows and reads what is current", |cluster| {
        block_on(cluster.node(old).log().read_index()).is_ok_and(|end| end.0 > second.0)
    });
}

#[test]
fn what_an_isolated_leader_takes_is_not_acknowledged_and_not_read() {
    let cluster = Cluster::start(3);
    let old = cluster.leader_of(FIRST_TOPIC, 0);
    let kept = append(&cluster, "kept");
    cluster.isolate(old);
    let record = |value: &str| {
        duramen::model::Record::of_value(value.as_bytes().to_vec(), duramen::model::Timestamp(0))
    };
    // Whether it is refused at once depends on whether it still believes to lead.
    let lost = cluster.node(old).log().propose_records(vec![record("lost")]);
    let lost = lost.map_err(|_| ()).and_then(|pending| block_on(pending).map_err(|_| ()));
    assert_eq!(lost, Err(()), "no majority has it");
    append(&cluster, "instead");
    cluster.heal();
    cluster.until("all have what the majority took, and only that", |cluster| {
        let values = cluster.nodes().map(|(_, node)| node.values().unwrap());
        let mut tails = values.map(|values| values[kept.0 as usize..].to_vec());
        tails.all(|tail| tail == [b"kept".to_vec(), b"instead".to_vec()])
    });
}

#[test]
fn a_follower_that_is_behind_the_retention_point_comes_up_by_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |settings| {
        settings.log.segment_bytes_max = ByteSize::mib(1);
        settings.log.retention_bytes = Some(ByteSize::mib(2));
    });
    append(&cluster, "the oldest");
    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    let behind = other_than(&cluster, leader);
    cluster.crash(behind);
    let load = cluster.load(
        FIRST_TOPIC,
        LoadPlan { producers: 2, consumers: 0, records: 8, value_bytes: 16 << 10 },
    );
    load.await_acknowledged(400);
    drop(load);
    cluster.until("the oldest records are gone", |cluster| {
        cluster.nodes().all(|(_, node)| node.log().start_offset() > Offset(0))
    });
    cluster.restart(behind);
    cluster.until("it begins where the others do and holds what they hold", |cluster| {
        let leader = cluster.leader_of(FIRST_TOPIC, 0);
        let (node, leader) = (cluster.node(behind).log(), cluster.node(leader).log());
        node.start_offset() > Offset(0)
            && node.high_watermark() == leader.high_watermark()
            && cluster.node(behind).values().is_ok()
    });
    cluster.until_healthy();
}

#[test]
fn leadership_is_handed_over_when_asked_for_and_stays_there() {
    let cluster = Cluster::start(3);
    cluster.create_topic("orders", 1, 3);
    let load = cluster.load("orders", small());
    load.await_acknowledged(20);
    for _ in 0..2 {
        let old = cluster.leader_of("orders", 0);
        let heir = other_than(&cluster, old);
        let asked = pb::TransferLeaderRequest {
            topic: "orders".into(),
            partition: 0,
            to: format!("n{heir}"),
        };
        let told = block_on(cluster.admin(old).transfer_leader(asked)).unwrap();
        assert_eq!(told.leader as usize, heir);
        cluster.until("it leads", |cluster| cluster.leader_of("orders", 0) == heir);
        load.await_acknowledged(20);
    }
    load.finish().assert_kept();
}

#[test]
fn a_node_is_not_removed_where_that_would_leave_no_majority() {
    let mut cluster = Cluster::start(3);
    cluster.crash(3);
    cluster.until("it is missed", |cluster| {
        let status = status(&mut cluster.admin(1));
        status.nodes.iter().any(|node| node.id == 3 && node.presence == "dead")
    });
    let asked = |force| pb::RemoveNodeRequest { node: "n2".into(), force };
    let refused = block_on(cluster.admin(1).remove_node(asked(false))).unwrap_err().to_string();
    assert!(
        refused.contains(
            "without node n2 (n2) these are left without a majority: controller, log/0; bring \
             other members back first, or `duramen node leave n2`; --force removes it all the same"
        ),
        "{refused}"
    );
    // The one that is dead may go: two of three are left.
    let asked = pb::RemoveNodeRequest { node: "n3".into(), force: false };
    let told = block_on(cluster.admin(1).remove_node(asked)).unwrap();
    assert_eq!(told.warnings, Vec::<String>::new());
    cluster.until("the two go on without it", |cluster| {
        let catalogue = cluster.node(1).cluster().control.catalogue();
        catalogue.controller.voters.len() == 2
    });
    append(&cluster, "and take records");
}

#[test]
fn whoever_is_killed_is_missed_at_once_by_everybody_who_talked_to_it() {
    let mut cluster = Cluster::start(3);
    cluster.crash(3);
    for (_, node) in cluster.nodes() {
        let killed = NodeId(3);
        node.until("its connection has ended", |node| !node.peers().reaches(killed));
        let told = node.cluster().status();
        assert!(
            !told.healthy && told.troubles.iter().any(|one| one.contains("node n3")),
            "{told:?}"
        );
    }
    cluster.restart(3);
    cluster.until_healthy();
}
