//! For each reason, facts that have it and the sentence that follows.

use super::super::partition::{PartitionState, PartitionStatus, ReplicaRole};
use super::super::readers::{ReaderStatus, ReaderWait};
use super::*;
use crate::model::{Durability, Offset, Term, Timestamp};
use crate::observe::{Complaint, MessageId, Reading, Wait};
use crate::supervision::{ExitReason, Kind, Load, State, TreeStatus};

const NOW: Duration = Duration::from_secs(100);
const RAFT: &str = "node/partitions/log/0/raft";

fn ago(ms: u64) -> Duration {
    NOW - Duration::from_millis(ms)
}

fn place(path: &str, kind: Kind, children: Vec<TreeStatus>) -> TreeStatus {
    TreeStatus {
        path: path.into(),
        kind,
        state: State::Running,
        generation: 1,
        restarts: 0,
        last_exit: None,
        uptime: Some(Duration::from_secs(60)),
        in_flight: 0,
        refused: 0,
        children,
    }
}

/// A node without trouble and without work.
fn calm() -> Facts {
    let leaf = |path: &str| place(path, Kind::Actor, Vec::new());
    let partition = place(
        "node/partitions/log/0",
        Kind::Supervisor,
        vec![leaf("node/partitions/log/0/log"), leaf(RAFT)],
    );
    let partitions = place("node/partitions", Kind::Supervisor, vec![partition]);
    let front = vec![leaf("node/frontends/grpc"), leaf("node/frontends/http")];
    let front = place("node/frontends", Kind::Supervisor, front);
    let workers = ["node/partitions/log/0/log/flush", RAFT, "node/partitions/log/0/log"];
    Facts {
        now: NOW,
        wall: Timestamp(1_000_000),
        tree: place("node", Kind::Supervisor, vec![partitions, front]),
        readings: workers.map(|path| (path.to_owned(), Reading::default())).into(),
        partitions: vec![PartitionFacts {
            raft: RAFT.into(),
            status: PartitionStatus {
                state: PartitionState::Serving,
                reason: String::new(),
                start: Offset(0),
                high_watermark: Offset(1000),
                size_bytes: 0,
                segments: 1,
                term: Term(1),
                durability: Durability::Fsync,
                flushes: 0,
                refused: 0,
                restarts: 0,
                role: ReplicaRole::Leader,
                leader: None,
                replicas: Vec::new(),
                source_end: None,
            },
            is_full: false,
            flush: (Wait::Work, ago(3000)),
            entry: (Wait::Work, ago(3000)),
            readers: Vec::new(),
            in_flight: 0,
            in_flight_max: 64,
            in_flight_bytes: 0,
            in_flight_bytes_max: 1 << 20,
            overload: None,
        }],
        joining: None,
        complaints: Vec::new(),
        hang_after: Duration::from_secs(10),
    }
}

fn place_mut<'a>(tree: &'a mut TreeStatus, path: &str) -> &'a mut TreeStatus {
    if tree.path.as_str() == path {
        return tree;
    }
    let next = tree
        .children
        .iter_mut()
        .find(|child| path == child.path.as_str() || path.starts_with(&format!("{}/", child.path)));
    place_mut(next.expect("there is such a place"), path)
}

fn overload(last_ms: u64) -> Option<OverloadFacts> {
    Some(OverloadFacts { what: Load::Messages, since: ago(last_ms + 1000), last: ago(last_ms) })
}

fn of_partition(facts: &Facts) -> Explanation {
    explain(&Subject::Partition("log/0".into()), facts).unwrap()
}

fn of_node(facts: &Facts) -> Explanation {
    explain(&Subject::Node, facts).unwrap()
}

#[test]
fn a_calm_node_serves_and_its_partition_waits_for_requests() {
    let facts = calm();
    assert_eq!(of_node(&facts).reason, Reason::Serving);
    let partition = of_partition(&facts);
    assert_eq!(partition.reason, Reason::Idle);
    assert_eq!(partition.since, Some(Duration::from_secs(3)));
    assert!(partition.also.is_empty() && partition.advice.is_empty(), "{partition:?}");
}

#[test]
fn a_flush_that_takes_long_is_named_with_those_who_wait_for_it() {
    let mut facts = calm();
    facts.partitions[0].flush = (Wait::Sync, ago(40));
    facts.partitions[0].in_flight = 7;
    assert_eq!(of_partition(&facts).reason, Reason::Flushing, "40 ms is nothing");
    facts.partitions[0].flush = (Wait::Sync, ago(512));
    let slow = of_node(&facts);
    assert_eq!((slow.reason, slow.subject.as_str()), (Reason::SlowFlush, "node/partitions/log/0"));
    assert_eq!(
        slow.sentence,
        "the disk has not finished a flush for 512 ms; 7 requests wait for it"
    );
    assert!(slow.advice.contains("duramen tap 'log/0/log/flush'"), "{}", slow.advice);
}

#[test]
fn a_slow_flush_is_remembered_for_a_while() {
    let mut facts = calm();
    facts.readings[0].1.slowest = Some(("Write", 700_000_000));
    assert!(of_partition(&facts).sentence.ends_with("took 700 ms"));
    facts.readings[0].1.slowest = Some(("Tend", 700_000_000));
    assert_eq!(of_partition(&facts).reason, Reason::SlowFlush, "a checkpoint is the disk's too");
    facts.readings[0].1.slowest = Some(("Wait", 700_000_000));
    assert_eq!(of_partition(&facts).reason, Reason::Idle, "a wait is no flush");
}

#[test]
fn housekeeping_that_holds_up_requests_is_a_slow_disk_and_is_not_when_nobody_waits() {
    let mut facts = calm();
    facts.partitions[0].flush = (Wait::Tend, ago(30_000));
    assert_eq!(of_partition(&facts).reason, Reason::Housekeeping);
    facts.partitions[0].in_flight = 500;
    let told = of_node(&facts);
    assert_eq!(told.reason, Reason::SlowFlush);
    assert!(told.sentence.contains("a checkpoint) for 30.0 s; 500 requests wait"), "{told:?}");
}

#[test]
fn a_restart_that_an_operator_asked_for_is_no_crash() {
    let mut facts = calm();
    let raft = place_mut(&mut facts.tree, RAFT);
    raft.state = State::Restarting { until: NOW };
    raft.last_exit = Some(ExitReason::Normal);
    let told = of_node(&facts);
    assert!(told.sentence.starts_with("it was stopped") && told.advice.is_empty(), "{told:?}");
}

#[test]
fn a_crash_is_told_with_its_reason_and_the_time_of_the_next_life() {
    let mut facts = calm();
    let raft = place_mut(&mut facts.tree, RAFT);
    raft.state = State::Restarting { until: NOW + Duration::from_millis(250) };
    let message = "index out of bounds".to_owned();
    let location = "src/x.rs:1:1".to_owned();
    raft.last_exit = Some(ExitReason::Panic { message, location, backtrace: None });
    let told = of_node(&facts);
    assert_eq!(
        (told.reason, told.next.as_str()),
        (Reason::Restarting, "it starts again in 250 ms")
    );
    assert!(told.sentence.contains("panicked at src/x.rs:1:1: index out of bounds"), "{told:?}");
    assert_eq!(told.advice, "duramen crash show latest");
}

#[test]
fn quarantine_is_worse_than_anything_and_says_how_to_release() {
    let mut facts = calm();
    facts.partitions[0].overload = overload(1);
    facts.complaints.push(complaint());
    let partition = place_mut(&mut facts.tree, "node/partitions/log/0");
    let reason = "3 restarts within 1 minute".to_owned();
    partition.state = State::Quarantined { reason, since: Timestamp(940_000) };
    let told = of_node(&facts);
    assert_eq!(told.since, Some(Duration::from_secs(60)));
    assert_eq!(told.reason, Reason::Quarantined);
    assert_eq!(
        told.advice, "duramen actor release node/partitions/log/0, once it may serve again",
        "nothing crashed: there is no report to look at"
    );
    let also: Vec<Reason> = told.also.iter().map(|other| other.reason).collect();
    assert_eq!(also, [Reason::Overloaded, Reason::BadClient]);
}

#[test]
fn an_actor_inside_one_message_for_long_is_named_with_the_message() {
    let mut facts = calm();
    facts.readings[1].1.handling = Some(("Propose", MessageId(9), 97_000_000_000));
    let told = of_partition(&facts);
    assert_eq!((told.reason, told.subject.as_str()), (Reason::Hung, RAFT));
    assert_eq!(told.sentence, "it is inside one Propose (message 9) and answers nobody");
    assert_eq!(told.next, "it is replaced after 10.0 s without progress");
    facts.readings[1].1.handling = Some(("Propose", MessageId(9), 99_500_000_000));
    let told = explain(&Subject::Actor(RAFT.into()), &facts).unwrap();
    assert_eq!((told.reason, told.since), (Reason::Handling, Some(Duration::from_millis(500))));
}

#[test]
fn a_full_house_refuses_for_a_while_and_is_told_for_five_seconds() {
    let mut facts = calm();
    facts.partitions[0].overload = overload(400);
    facts.partitions[0].in_flight = 64;
    let told = of_partition(&facts);
    assert_eq!(told.reason, Reason::Overloaded);
    assert!(told.sentence.contains("64 of the 64"), "{}", told.sentence);
    assert_eq!(told.since, Some(Duration::from_millis(1400)), "since the first of the row");
    let what = Load::Bytes;
    facts.partitions[0].overload = overload(400).map(|streak| OverloadFacts { what, ..streak });
    let told = of_partition(&facts);
    assert!(told.advice.ends_with("admission.bytes_max"), "{}", told.advice);
    facts.partitions[0].overload = overload(6000);
    assert_ne!(of_partition(&facts).reason, Reason::Overloaded);
}

#[test]
fn a_full_disk_says_how_much_must_be_free() {
    let mut facts = calm();
    facts.partitions[0].is_full = true;
    facts.partitions[0].flush = (Wait::Space { free_bytes: 4096 }, ago(2000));
    let told = of_partition(&facts);
    assert_eq!((told.reason, told.since), (Reason::DiskFull, Some(Duration::from_secs(2))));
    assert!(told.next.contains("4096 free bytes"), "{}", told.next);
}

fn reader(wait: ReaderWait, waited_ms: u64) -> ReaderStatus {
    let peer = Some("127.0.0.1:50000".parse().unwrap());
    ReaderStatus { number: 1, peer, next: Offset(400), wait, since: ago(waited_ms) }
}

#[test]
fn a_consumer_that_takes_nothing_is_named_and_one_at_the_end_is_not() {
    let mut facts = calm();
    facts.partitions[0].readers = vec![reader(ReaderWait::Records, 60_000)];
    assert_eq!(of_partition(&facts).reason, Reason::Idle);
    facts.partitions[0].readers = vec![reader(ReaderWait::Client, 4_000)];
    assert_eq!(of_partition(&facts).reason, Reason::Idle, "it may be slow for a while");
    facts.partitions[0].readers = vec![reader(ReaderWait::Client, 12_000)];
    let told = of_node(&facts);
    assert_eq!(told.reason, Reason::ConsumerStuck);
    assert_eq!(
        told.sentence,
        "the consumer 127.0.0.1:50000 has taken nothing for 12.0 s: it stands at offset 400, \
         600 records behind the end"
    );
}

fn complaint() -> Complaint {
    let peer = "127.0.0.1:50001".parse().unwrap();
    Complaint { peer, requests: 3, since: ago(9000), last: ago(10), reason: "bad crc".into() }
}

#[test]
fn a_bad_client_is_named_with_its_last_mistake_and_forgotten_after_a_minute() {
    let mut facts = calm();
    facts.complaints.push(complaint());
    let told = of_node(&facts);
    assert_eq!(told.reason, Reason::BadClient);
    assert!(told.sentence.ends_with("3 requests that made no sense; the last: bad crc"));
    facts.complaints[0].last = ago(61_000);
    assert_eq!(of_node(&facts).reason, Reason::Serving);
}

#[test]
fn a_start_says_what_is_read_and_a_fence_says_who_is_waited_for() {
    let mut facts = calm();
    facts.partitions[0].flush = (Wait::Recovery, ago(10));
    facts.partitions[0].status.reason = "5 of 9 bytes read".into();
    assert!(of_partition(&facts).sentence.ends_with("5 of 9 bytes read"));
    facts.partitions[0].flush = (Wait::Fence, ago(10));
    assert_eq!(of_partition(&facts).reason, Reason::Fenced);
}

#[test]
fn a_node_that_is_not_let_in_says_whom_it_asks_since_when_and_what_it_was_told() {
    use super::super::control::Joining;
    let mut facts = calm();
    let answer = "10.0.0.1:8400: the controller is slow".to_owned();
    let asks = vec!["10.0.0.1:8400".to_owned(), "10.0.0.2:8400".to_owned()];
    facts.joining = Some(Joining { asks, since: ago(90_000), answer });
    let told = of_node(&facts);
    assert_eq!((told.reason, told.since), (Reason::Joining, Some(Duration::from_secs(90))));
    assert_eq!(told.subject, "node/controller/formation");
    assert_eq!(
        told.sentence,
        "it waits to be let into a cluster: it asks 10.0.0.1:8400, 10.0.0.2:8400; the last \
         answer: 10.0.0.1:8400: the controller is slow"
    );
    assert!(told.advice.ends_with("duramen cluster status --addr 10.0.0.1:8400"), "{told:?}");
    facts.joining = Some(Joining { asks: Vec::new(), since: ago(0), answer: "none yet".into() });
    let told = of_node(&facts);
    assert!(told.sentence.contains("nobody is known whom it could ask"), "{told:?}");
    assert!(told.advice.contains("--join"), "{told:?}");
}

#[test]
fn a_copy_says_what_it_lacks_of_its_source() {
    let mut facts = calm();
    assert!(!of_partition(&facts).sentence.contains("copy"));
    facts.partitions[0].status.source_end = Some(Offset(1041));
    let told = of_partition(&facts);
    assert_eq!(told.reason, Reason::Idle);
    assert!(told.sentence.ends_with("; it is a copy, and lacks 41 records of its source"));
}

#[test]
fn places_and_workers_are_explained_and_what_is_neither_is_not() {
    let facts = calm();
    let actor = |path: &str| explain(&Subject::Actor(path.into()), &facts);
    assert_eq!(actor("node/frontends/grpc").unwrap().reason, Reason::Idle);
    assert_eq!(actor("node/partitions/log/0/log/flush").unwrap().reason, Reason::Idle);
    assert_eq!(actor("node/frontends").unwrap().reason, Reason::Serving);
    assert_eq!(actor("node/partitions/log/0"), Some(of_partition(&facts)));
    assert_eq!(actor("node/rafts"), None);
    assert_eq!(explain(&Subject::Partition("log/1".into()), &facts), None);
}

#[test]
fn every_reason_has_a_code_of_its_own_and_the_list_is_sorted_by_how_bad_it_is() {
    let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
    assert_eq!(codes.len(), Reason::ALL.len());
    assert!(Reason::ALL.is_sorted());
    let guide = include_str!("../../../docs/debugging.md");
    let listed = codes.iter().all(|code| guide.contains(&format!("`{code}`")));
    assert!(listed, "docs/debugging.md lists them");
}
