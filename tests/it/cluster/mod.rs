// Several nodes as one: what a cluster promises to clients and operators.

mod failover;
mod formation;
mod identity;
mod order;
mod routing;
mod shortened;

use duramen::actors::partition::PartitionApi;
use duramen::model::{Offset, Record, Timestamp};
use duramen::testing::{Cluster, LoadPlan, block_on};
use duramen::wire::client::Admin;
use duramen::wire::pb::duramen::v1 as pb;

/// A load that leaves most of the machine to the nodes.
fn small() -> LoadPlan {
    LoadPlan { producers: 2, consumers: 1, ..LoadPlan::default() }
}

fn status(admin: &mut Admin) -> pb::ClusterStatus {
    block_on(admin.cluster_status(pb::ClusterStatusRequest {})).unwrap()
}

/// A running node other than this one.
fn other_than(cluster: &Cluster, number: usize) -> usize {
    cluster.nodes().map(|(other, _)| other).find(|other| *other != number).unwrap()
}

/// Appends through whoever leads the topic `log`, however often that changes.
fn append(cluster: &Cluster, value: &str) -> Offset {
    cluster.until_some("a leader takes a record", |cluster| {
        let leader = cluster.leader_now(cluster.group("log", 0))?;
        let record = Record::of_value(value.as_bytes().to_vec(), Timestamp(0));
        let pending = cluster.node(leader).log().propose_records(vec![record]).ok()?;
        block_on(pending).ok().map(|ack| ack.base_offset)
    })
}
