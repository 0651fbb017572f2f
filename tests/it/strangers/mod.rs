// What strangers may send to the ports that are for nodes, and names that would lead elsewhere.

mod forge;
mod gossip;
mod names;
mod peers;

use duramen::model::{FIRST_TOPIC, GroupId, Term};
use duramen::ops::settings::{Settings, Value};
use duramen::testing::Cluster;
use std::collections::BTreeSet;

const KEY: [u8; 32] = [7; 32];

fn with_key(settings: &mut Settings) {
    let text: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    settings.gossip.key = Value::read(&text).expect("a key");
}

/// What no stranger may change: who leads in which term, and who is a member.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    terms: Vec<(GroupId, Term, Option<usize>)>,
    members: BTreeSet<(u32, String, String)>,
}

fn standing(cluster: &Cluster) -> Standing {
    let groups = [GroupId::CONTROLLER, cluster.group(FIRST_TOPIC, 0)];
    let terms = groups.map(|group| {
        let known = cluster.nodes().filter_map(|(_, node)| node.cluster().leadership.of(group));
        let term = known.map(|known| known.term).max().unwrap_or_default();
        (group, term, cluster.leader_now(group))
    });
    let (_, first) = cluster.nodes().next().expect("a node runs");
    let catalogue = first.cluster().control.catalogue();
    let member = |(number, node): (&duramen::model::NodeId, &duramen::cluster::Node)| {
        (number.0, node.uuid.clone(), format!("{:?}", node.state))
    };
    Standing { terms: terms.to_vec(), members: catalogue.nodes.iter().map(member).collect() }
}
