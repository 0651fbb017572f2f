// The failure of a part is the failure of that part.

use crate::harness::{client, on_a_system, one_record, settings, silent, until};
use duramen::actors::partition::{PartitionApi, PartitionState, ProduceError};
use duramen::model::Offset;
use duramen::node::Node;
use duramen::supervision::{ActorPath, Fault, State};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

const LOG: &str = "node/partitions/log/0/log";
const RAFT: &str = "node/partitions/log/0/raft";
const GRPC: &str = "node/frontends/grpc";
const HTTP: &str = "node/frontends/http";
const HOUSEKEEPING: &str = "node/housekeeping";
const ACTORS: [&str; 5] = [LOG, RAFT, GRPC, HTTP, HOUSEKEEPING];

/// Who restarts with whom: a partition as a whole, everybody else alone.
fn fault_domain(path: &str) -> Vec<&'static str> {
    match path {
        LOG | RAFT => vec![LOG, RAFT],
        other => ACTORS.into_iter().filter(|actor| *actor == other).collect(),
    }
}

fn generations(node: &Node) -> BTreeMap<String, u64> {
    let status = node.tree().status();
    ACTORS
        .iter()
        .map(|path| {
            let place = status.find(&ActorPath::from(*path)).unwrap_or_else(|| panic!("no {path}"));
            ((*path).to_owned(), place.generation)
        })
        .collect()
}

fn is_running(node: &Node, path: &str) -> bool {
    let status = node.tree().status();
    status.find(&ActorPath::from(path)).is_some_and(|place| place.state == State::Running)
}

/// 64 clients, each with one record outstanding, until told to stop. Every acknowledged value is
/// kept with its offset; clients reconnect when their connection is lost.
struct Producers {
    stop: Rc<Cell<bool>>,
    acknowledged: Rc<RefCell<Vec<(u64, String)>>>,
    refusals: Rc<RefCell<Vec<tonic::Status>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Producers {
    async fn start(node: &Node, count: usize) -> Self {
        let stop = Rc::new(Cell::new(false));
        let acknowledged = Rc::new(RefCell::new(Vec::new()));
        let refusals = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for producer in 0..count {
            let mut client = client(node).await;
            let (stop, acknowledged) = (Rc::clone(&stop), Rc::clone(&acknowledged));
            let refusals = Rc::clone(&refusals);
            tasks.push(actix_rt::spawn(async move {
                for sequence in 0.. {
                    if stop.get() {
                        return;
                    }
                    let value = format!("{producer}-{sequence}");
                    match client.produce_once(one_record(value.clone())).await {
                        Ok(ack) => {
                            acknowledged.borrow_mut().push((ack.into_inner().base_offset, value));
                        }
                        Err(status) => {
                            refusals.borrow_mut().push(status);
                            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                        }
                    }
                }
            }));
        }
        Self { stop, acknowledged, refusals, tasks }
    }

    async fn wait_for_more(&self, count: usize) {
        let goal = self.acknowledged.borrow().len() + count;
        until("more records are acknowledged", || self.acknowledged.borrow().len() >= goal).await;
    }

    async fn finish(self) -> (Vec<(u64, String)>, Vec<tonic::Status>) {
        self.stop.set(true);
        for task in self.tasks {
            task.await.unwrap();
        }
        (self.acknowledged.take(), self.refusals.take())
    }
}

async fn assert_all_there(node: &Node, acknowledged: &[(u64, String)]) {
    let end = node.log().high_watermark();
    let mut stored = BTreeMap::new();
    let mut from = node.log().start_offset();
    while from < end {
        for (offset, record) in node.log().read_records(from, 10_000, 1 << 20).await.unwrap() {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            stored.insert(offset.0, value);
            from = offset.next();
        }
    }
    assert_eq!(stored.len() as u64, end.0, "offsets are dense");
    for (offset, value) in acknowledged {
        assert_eq!(stored.get(offset), Some(value), "acknowledged at offset {offset}");
    }
}

/// Goal: a panic in any actor under load costs what its fault domain was doing, and nothing else.
/// Method: a real panic inside the actor's task while 64 clients produce; then read everything.
#[test]
fn a_panic_in_any_actor_stays_in_its_fault_domain_and_loses_nothing_acknowledged() {
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.supervision.restarts_max = 100;
        let node = Node::start(&settings, silent()).unwrap();
        assert_eq!(node.ready().await, PartitionState::Serving);
        let producers = Producers::start(&node, 64).await;
        producers.wait_for_more(64).await;

        for actor in ACTORS {
            let before = generations(&node);
            let panicked = Instant::now();
            let fault = Fault::Panic(format!("injected into {actor}"));
            node.tree().inject(&ActorPath::from(actor), fault).await.unwrap();
            until("the actor has a new life", || generations(&node)[actor] > before[actor]).await;
            for path in fault_domain(actor) {
                until("its fault domain runs again", || is_running(&node, path)).await;
            }
            println!("{actor}: back after {:?}", panicked.elapsed());
            producers.wait_for_more(200).await;
            let after = generations(&node);
            for other in ACTORS.iter().filter(|path| !fault_domain(actor).contains(path)) {
                assert_eq!(
                    after[*other], before[*other],
                    "{other} is not of the domain of {actor}"
                );
            }
        }

        let (acknowledged, refusals) = producers.finish().await;
        for status in &refusals {
            use tonic::Code::{Aborted, Cancelled, Unavailable, Unknown};
            assert!(
                matches!(status.code(), Unavailable | Unknown | Aborted | Cancelled),
                "a typed outcome: {status:?}"
            );
        }
        println!("{} acknowledged, {} refused", acknowledged.len(), refusals.len());
        assert_all_there(&node, &acknowledged).await;
        node.shutdown(settings.shutdown.grace).await;
    });
}

/// Goal: a crash loop ends, with a reason, and the node goes on answering.
/// Method: crash the log actor once more than the policy allows.
#[test]
fn a_crash_loop_of_the_log_quarantines_its_partition_and_the_node_keeps_answering() {
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let mut client = client(&node).await;
        let kept = client.produce_once(one_record("kept")).await.unwrap().into_inner();
        let quarantined = || node.log().describe().state == PartitionState::Quarantined;
        let (mut crashed, mut crashes) = (0, 0);
        while !quarantined() {
            until("the log lives again, or is given up", || {
                quarantined() || is_running(&node, LOG) && generations(&node)[LOG] > crashed
            })
            .await;
            crashed = generations(&node)[LOG];
            let fault = Fault::Panic("injected loop".into());
            crashes += u32::from(node.tree().inject(&ActorPath::from(LOG), fault).await.is_ok());
            let over =
                || quarantined() || !is_running(&node, LOG) || generations(&node)[LOG] > crashed;
            until("the crash is seen", over).await;
        }
        assert_eq!(
            crashes,
            settings.supervision.restarts_max + 1,
            "no more than the policy allows"
        );

        let status = node.log().describe();
        assert!(status.reason.contains("injected loop"), "{}", status.reason);
        let refused = client.produce_once(one_record("refused")).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("quarantined"), "{}", refused.message());
        let read = node.log().read_records(Offset(kept.base_offset), 1, 1 << 20).await.unwrap();
        assert_eq!(read.len(), 1, "what was committed can still be read");
        let http = node.http_addr().to_string();
        let (ready, text) = tokio::task::spawn_blocking(move || {
            crate::harness::binary::http(&http, "GET", "/readyz?verbose", "")
        })
        .await
        .unwrap();
        assert_eq!(ready, 200, "degraded is not unready");
        assert!(text.contains("quarantined") && text.contains("injected loop"), "{text}");
        assert!(is_running(&node, GRPC) && is_running(&node, HTTP));

        node.tree().release(&ActorPath::from("node/partitions/log/0")).await.unwrap();
        until("a released partition serves", || {
            node.log().describe().state == PartitionState::Serving
        })
        .await;
        let ack = client.produce_once(one_record("after")).await.unwrap().into_inner();
        assert_eq!(ack.base_offset, kept.base_offset + 1);
        node.shutdown(settings.shutdown.grace).await;
    });
}

/// Goal: a caller knows whether its records may be stored.
/// Method: crash the raft actor with a proposal in its mailbox, and ask again while it is down.
#[test]
fn a_caller_in_flight_learns_that_the_outcome_is_unknown() {
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let fault = Fault::Panic("injected".into());
        let record = duramen::model::Record::of_value("x", duramen::model::Timestamp(1));
        node.tree().inject(&ActorPath::from(RAFT), fault).await.unwrap();
        // Proposals queue until the fault strikes; then the partition refuses them.
        let mut outcomes = Vec::new();
        while generations(&node)[RAFT] == 1 {
            match node.log().propose_records(vec![record.clone()]) {
                Ok(pending) => outcomes.push(pending.await),
                Err(error) => outcomes.push(Err(error)),
            }
            tokio::task::yield_now().await;
        }
        for outcome in outcomes {
            match outcome {
                Ok(_) => {}
                Err(ProduceError::Unknown { message }) => {
                    assert!(message.contains("may"), "{message}")
                }
                Err(ProduceError::Restarting { .. }) => {}
                Err(other) => panic!("not the outcome of a restart: {other:?}"),
            }
        }
        node.shutdown(settings.shutdown.grace).await;
    });
}
