// The failure of a part is the failure of that part.

use crate::harness::one_record;
use duramen::actors::partition::{PartitionApi, PartitionState, ProduceError};
use duramen::model::{Offset, Record, Timestamp};
use duramen::supervision::{Fault, State};
use duramen::testing::{LoadPlan, TestNode, What, block_on};
use duramen::wire::pb::duramen::v1::log_client::LogClient;
use std::collections::BTreeMap;

const LOG: &str = "node/partitions/log/0/log";
const RAFT: &str = "node/partitions/log/0/raft";
const GRPC: &str = "node/frontends/grpc";
const HTTP: &str = "node/frontends/http";
const HOUSEKEEPING: &str = "node/housekeeping";
const PLANTER: &str = "node/planter";
const ACCESS: &str = "node/access";
const AUDIT: &str = "node/audit";
const GROUP_LOG: &str = "node/controller/group/log";
const GROUP_RAFT: &str = "node/controller/group/raft";
const CATALOGUE: &str = "node/controller/catalogue";
const FORMATION: &str = "node/controller/formation";
const GOSSIP: &str = "node/membership/gossip";
const ACTORS: [&str; 13] = [
    LOG,
    RAFT,
    GRPC,
    HTTP,
    HOUSEKEEPING,
    PLANTER,
    ACCESS,
    AUDIT,
    GROUP_LOG,
    GROUP_RAFT,
    CATALOGUE,
    FORMATION,
    GOSSIP,
];

/// Who restarts with whom: a partition as a whole, everybody else alone.
fn fault_domain(path: &str) -> Vec<&'static str> {
    match path {
        LOG | RAFT => vec![LOG, RAFT],
        GROUP_LOG | GROUP_RAFT => vec![GROUP_LOG, GROUP_RAFT],
        other => ACTORS.into_iter().filter(|actor| *actor == other).collect(),
    }
}

fn generations(node: &TestNode) -> BTreeMap<&'static str, u64> {
    ACTORS.into_iter().map(|path| (path, node.generation(path))).collect()
}

fn state(node: &TestNode) -> PartitionState {
    node.log().describe().state
}

/// Goal: the table above names all there is. A new actor must take a side.
#[test]
fn every_actor_of_a_node_belongs_to_a_known_fault_domain() {
    let node = TestNode::start();
    let mut known = ACTORS.to_vec();
    known.sort_unstable();
    let actors = || {
        let mut actors: Vec<String> = node.actors().iter().map(ToString::to_string).collect();
        actors.sort_unstable();
        actors
    };
    // The groups are planted as the catalogue says, which comes a moment after the first answer.
    node.until("all that the table names is there", |_| actors().len() >= known.len());
    assert_eq!(actors(), known);
}

/// Goal: a panic in any actor under load costs what its fault domain was doing, and nothing else.
/// Method: a real panic inside the actor's task while 64 clients produce; then read everything.
#[test]
fn a_panic_in_any_actor_stays_in_its_fault_domain_and_loses_nothing_acknowledged() {
    let node =
        TestNode::builder().settings(|settings| settings.supervision.restarts_max = 100).start();
    node.ready();
    let load = node.load(LoadPlan::default());
    load.await_acknowledged(64);
    for actor in ACTORS {
        let before = generations(&node);
        let mark = node.inject(actor, Fault::Panic(format!("injected into {actor}")));
        for path in fault_domain(actor) {
            node.await_life_after(path, before[path]);
        }
        load.await_acknowledged(200);
        for (path, generation) in generations(&node) {
            let lives = u64::from(fault_domain(actor).contains(&path));
            assert_eq!(generation, before[path] + lives, "{path} after a panic of {actor}");
        }
        let exit = node.last_exit(actor).map(|reason| reason.to_string()).unwrap_or_default();
        assert!(exit.contains(actor), "{exit}");
        if let [log, raft] = fault_domain(actor)[..] {
            // The log is recovered before anybody builds on it.
            let order = [(actor, What::Exited), (log, What::Started), (raft, What::Started)];
            node.assert_order(mark, &order);
        }
    }
    let ledger = load.finish();
    ledger.assert_kept();
    for kind in ledger.errors().keys() {
        let typed = kind.starts_with("refused") || kind.as_str() == "connection lost";
        assert!(typed, "a typed outcome: {kind}");
    }
    node.stop().assert_nothing_left();
}

/// Goal: a crash loop ends, with a reason, and the node goes on answering.
/// Method: crash the log actor once more than the policy allows.
#[test]
fn a_crash_loop_of_the_log_quarantines_its_partition_and_the_node_keeps_answering() {
    let node = TestNode::start();
    node.ready();
    let address = format!("http://{}", node.rpc_addr());
    let mut client = block_on(LogClient::connect(address)).unwrap();
    let kept = block_on(client.produce_once(one_record("kept"))).unwrap().into_inner();
    for _ in 0..=node.settings().supervision.restarts_max {
        assert_ne!(state(&node), PartitionState::Quarantined, "no earlier than the policy says");
        let life = node.generation(LOG);
        let mark = node.inject(LOG, Fault::Panic("injected loop".into()));
        node.await_event_after(mark, LOG, What::Exited);
        node.until("the log lives again, or is given up", |node| {
            let place = node.place(LOG);
            state(node) == PartitionState::Quarantined
                || place.generation > life && place.state == State::Running
        });
    }
    assert_eq!(state(&node), PartitionState::Quarantined, "no later than the policy says");

    let status = node.log().describe();
    assert!(status.reason.contains("injected loop"), "{}", status.reason);
    let refused = block_on(client.produce_once(one_record("refused"))).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("quarantined"), "{}", refused.message());
    let read = block_on(node.log().read_records(Offset(kept.base_offset), 1, 1 << 20)).unwrap();
    assert_eq!(read.len(), 1, "what was committed can still be read");
    let http = node.http_addr().to_string();
    let (ready, text) = crate::harness::binary::http(&http, "GET", "/readyz?verbose", "");
    assert_eq!(ready, 200, "degraded is not unready");
    assert!(text.contains("quarantined") && text.contains("injected loop"), "{text}");
    for path in [GRPC, HTTP] {
        assert_eq!(node.place(path).state, State::Running);
    }

    block_on(node.tree().release(&node.path("partitions/log/0"))).unwrap();
    node.ready();
    let ack = block_on(client.produce_once(one_record("after"))).unwrap().into_inner();
    assert_eq!(ack.base_offset, kept.base_offset + 1);
    drop(client);
    node.stop().assert_nothing_left();
}

/// Goal: a caller knows whether its records may be stored.
/// Method: crash the raft actor with proposals in its mailbox, and ask again while it is down.
#[test]
fn a_caller_in_flight_learns_that_the_outcome_is_unknown() {
    let node = TestNode::start();
    node.ready();
    let record = Record::of_value("x", Timestamp(1));
    node.inject(RAFT, Fault::Panic("injected".into()));
    // Proposals queue until the fault strikes; then the partition refuses them.
    let mut outcomes = Vec::new();
    while node.generation(RAFT) == 1 {
        match node.log().propose_records(vec![record.clone()]) {
            Ok(pending) => outcomes.push(block_on(pending)),
            Err(error) => outcomes.push(Err(error)),
        }
    }
    for outcome in outcomes {
        match outcome {
            Ok(_) | Err(ProduceError::Restarting { .. }) => {}
            Err(ProduceError::Unknown { message }) => assert!(message.contains("may"), "{message}"),
            Err(other) => panic!("not the outcome of a restart: {other:?}"),
        }
    }
    node.stop().assert_nothing_left();
}
