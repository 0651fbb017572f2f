// Five bad days, and what the owner is told of each: `explain` names the cause, and the log holds
// the line that reveals it. `docs/debugging.md` tells the same stories; run with `--nocapture` to
// see the lines themselves.

use crate::harness::binary::run;
use crate::harness::{Lines, PATIENCE, client, on_a_system, one_record, settings, until};
use duramen::actors::explain::{Explanation, Reason, Subject};
use duramen::actors::partition::{PartitionApi, ProduceError};
use duramen::log::disk::sim::SimDisk;
use duramen::model::{Clock, Durability, Record, SystemClock, Timestamp};
use duramen::node::{Node, Surroundings};
use duramen::observe::Mishap;
use duramen::ops::logger::{LoggerHandle, start_on};
use duramen::ops::settings::{LogFormat, Settings};
use duramen::wire::client::{Client, ClientOptions};
use duramen::wire::pb::duramen::v1::{FetchRequest, ProduceRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The machine's clock, and a time by which it is ahead.
#[derive(Debug, Default)]
struct AheadClock {
    system: SystemClock,
    ahead_ms: AtomicU64,
}

impl AheadClock {
    fn jump(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for AheadClock {
    fn monotonic(&self) -> Duration {
        self.system.monotonic() + Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        self.system.wall()
    }
}

/// A node on a simulated disk, with its log and a clock that can jump.
struct Story {
    node: Node,
    disk: SimDisk,
    clock: Arc<AheadClock>,
    lines: Lines,
    settings: Settings,
    _logger: LoggerHandle,
    _directory: tempfile::TempDir,
}

impl Story {
    async fn begin(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        change(&mut settings);
        let (disk, clock, lines) = (SimDisk::new(), Arc::<AheadClock>::default(), Lines::default());
        let level = "info".parse().unwrap();
        let (logger, handle) =
            start_on(lines.clone(), LogFormat::Logfmt, level, Arc::clone(&clock) as _);
        let surroundings = Surroundings {
            disk: Arc::new(disk.clone()),
            clock: Arc::clone(&clock) as _,
            ..Surroundings::of(logger)
        };
        let node = Node::start_with(&settings, surroundings).unwrap();
        node.ready().await;
        // What founding writes must not be what a story waits for.
        node.settled().await;
        Self { node, disk, clock, lines, settings, _logger: handle, _directory: directory }
    }

    /// All that is told of the node, the worst first.
    fn told(&self) -> Vec<Explanation> {
        let mut worst = self.node.observer().explain(Subject::Node).unwrap();
        let also = std::mem::take(&mut worst.also);
        std::iter::once(worst).chain(also).collect()
    }

    fn is_told(&self, reason: Reason) -> bool {
        self.told().iter().any(|told| told.reason == reason)
    }

    /// Waits until this reason is told, and shows it.
    async fn until_told(&self, reason: Reason) -> Explanation {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.told();
            if let Some(found) = told.iter().find(|told| told.reason == reason) {
                let Explanation { subject, sentence, next, advice, .. } = found;
                println!("{subject}: {sentence}\n  next: {next}\n  type: {advice}");
                return found.clone();
            }
            assert!(Instant::now() < deadline, "{} is not told: {told:#?}", reason.code());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the log has a line with all of these.
    async fn until_line(&self, parts: &[&str]) {
        let find = || {
            let text = self.lines.text();
            let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        };
        until(&format!("a line with {parts:?}"), || find().is_some()).await;
        println!("{}", find().unwrap());
    }

    async fn end(self) {
        self.node.shutdown(self.settings.shutdown.grace).await;
    }
}

fn one(value: &str) -> Vec<Record> {
    vec![Record::of_value(value.as_bytes().to_vec(), Timestamp(1))]
}

#[test]
fn a_slow_disk_is_named_while_it_is_slow_and_afterwards() {
    on_a_system(async {
        let story = Story::begin(|_| {}).await;
        story.until_told(Reason::Serving).await;
        let held = story.disk.hold_syncs();
        let pending = story.node.log().propose_records(one("a")).unwrap();
        let told = story.until_told(Reason::SlowFlush).await;
        assert!(told.sentence.contains("1 request waits for it"), "{}", told.sentence);
        held.release();
        pending.await.unwrap();
        story.until_line(&["slow flush", "elapsed_us=", "actor=node/partitions/log/0/log"]).await;
        // The flush thread may still be on its way out of the sync that was acknowledged.
        let is_past =
            |told: &Explanation| told.sentence.contains("slowest Write of the last minute");
        until("it is remembered", || story.told().iter().any(is_past)).await;
        story.end().await;
    });
}

#[test]
fn a_slow_disk_is_remembered_whoever_waited_for_it_and_at_every_durability() {
    for durability in [Durability::Fsync, Durability::Interval] {
        on_a_system(async {
            let story = Story::begin(|settings| {
                settings.log.durability = durability;
                settings.log.sync_interval = Duration::from_millis(20);
            })
            .await;
            // Two at a time: the second waits for others before its flush.
            let two = || [one("a"), one("b")].map(|r| story.node.log().propose_records(r).unwrap());
            for pending in two() {
                pending.await.unwrap();
            }
            let held = story.disk.hold_syncs();
            let pending = two();
            held.wait_until_held();
            story.clock.jump(Duration::from_secs(300));
            held.release();
            for pending in pending {
                pending.await.unwrap();
            }
            story.until_line(&["slow flush", "elapsed_us=30"]).await;
            let told = story.until_told(Reason::SlowFlush).await;
            assert!(told.sentence.contains("of the last minute took 5 min"), "{}", told.sentence);
            story.end().await;
        });
    }
}

#[test]
fn a_partition_that_crashes_on_every_request_is_named_with_the_panic() {
    on_a_system(async {
        let story = Story::begin(|settings| settings.supervision.restarts_max = 2).await;
        let recorders = story.node.hub().recorders();
        let is_raft = |path: &str| path.ends_with("log/0/raft");
        let raft = recorders.iter().find(|known| is_raft(known.path_text())).unwrap();
        raft.plan(Some("Propose"), Mishap::Panic("the index is wrong".into()), 3);
        let send = async || match story.node.log().propose_records(one("a")) {
            Ok(pending) => drop(pending.await),
            Err(ProduceError::Restarting { .. } | ProduceError::Quarantined { .. }) => {}
            Err(other) => panic!("{other:?}"),
        };
        let deadline = Instant::now() + PATIENCE;
        while !story.is_told(Reason::Quarantined) {
            assert!(Instant::now() < deadline, "{:?}", story.told());
            send().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let told = story.until_told(Reason::Quarantined).await;
        assert!(told.sentence.contains("the index is wrong"), "{}", told.sentence);
        assert!(told.advice.contains("duramen actor release node/partitions/log/0"));
        story
            .until_line(&["actor died", "the index is wrong", "actor=node/partitions/log/0/raft"])
            .await;
        story.until_line(&["quarantined", "the index is wrong"]).await;
        until("the report is written", || story.node.crashes().counts().written > 0).await;
        let data_dir = story.settings.data_dir.to_str().unwrap();
        for command in ["list", "show"] {
            let shown = run(&["crash", command, "--table", "--data-dir", data_dir], b"");
            let shown = String::from_utf8(shown.stdout).unwrap();
            println!("$ duramen crash {command}\n{shown}");
            assert!(shown.contains("the index is wrong"), "{shown}");
        }
        let ring = raft.ring();
        let last = ring.last().unwrap();
        assert_eq!((last.message, last.outcome_name()), ("Propose", "panicked"));
        story.end().await;
    });
}

#[test]
fn a_crash_leaves_on_record_who_was_not_answered() {
    on_a_system(async {
        let story = Story::begin(|_| {}).await;
        let recorders = story.node.hub().recorders();
        let raft =
            recorders.iter().find(|known| known.path_text().ends_with("log/0/raft")).unwrap();
        let held = story.disk.hold_syncs();
        let pending = story.node.log().propose_records(one("a")).unwrap();
        let outcomes = || -> Vec<&str> {
            let ring = raft.ring();
            let proposals = ring.iter().filter(|entry| entry.message == "Propose");
            proposals.map(|entry| entry.outcome_name()).collect()
        };
        until("the first is handled", || outcomes() == ["done"]).await;
        raft.plan(Some("Propose"), Mishap::Panic("boom".into()), 1);
        let crashing = story.node.log().propose_records(one("b")).unwrap();
        assert!(matches!(crashing.await, Err(ProduceError::Unknown { .. })));
        assert!(matches!(pending.await, Err(ProduceError::Unknown { .. })));
        until("both are on record", || outcomes() == ["unknown", "panicked"]).await;
        held.release();
        story.end().await;
    });
}

#[test]
fn a_full_mailbox_is_named_with_its_limit() {
    on_a_system(async {
        let story = Story::begin(|settings| settings.admission.messages_max = 4).await;
        let recorders = story.node.hub().recorders();
        let raft =
            recorders.iter().find(|known| known.path_text().ends_with("log/0/raft")).unwrap();
        raft.plan(Some("Persisted"), Mishap::Delay(Duration::from_millis(800)), 1);
        let mut pending = vec![story.node.log().propose_records(one("a")).unwrap()];
        let refused = loop {
            match story.node.log().propose_records(one("b")) {
                Ok(more) => pending.push(more),
                Err(refused) => break refused,
            }
            assert!(pending.len() < 1000, "four may be under way");
            tokio::time::sleep(Duration::from_micros(100)).await;
        };
        assert!(matches!(refused, ProduceError::Overloaded { .. }), "{refused:?}");
        let told = story.until_told(Reason::Overloaded).await;
        assert!(told.sentence.contains("4 of the 4"), "{}", told.sentence);
        story.until_line(&["requests are refused for load", "in_flight=4"]).await;
        for pending in pending {
            pending.await.unwrap();
        }
        story.clock.jump(Duration::from_secs(6));
        assert!(!story.is_told(Reason::Overloaded), "it is over");
        story.end().await;
    });
}

#[test]
fn a_consumer_that_does_not_read_is_named_with_its_address() {
    on_a_system(async {
        let story = Story::begin(|_| {}).await;
        let mut stuck = client(&story.node).await;
        let request = FetchRequest { topic: "log".into(), follow: true, ..FetchRequest::default() };
        let mut stream = stuck.fetch(request).await.unwrap().into_inner();
        for _ in 0..64 {
            let records = vec![Record::of_value(vec![7; 64 << 10], Timestamp(1))];
            story.node.log().propose_records(records).unwrap().await.unwrap();
        }
        // The stream is given more than its windows take, and then waits for the client.
        let holds = || {
            let readers = story.node.log().published().readers().list();
            readers.first().is_some_and(|reader| {
                reader.wait == duramen::actors::readers::ReaderWait::Client && reader.next.0 > 0
            })
        };
        until("the stream waits for its client", holds).await;
        story.clock.jump(Duration::from_secs(6));
        let told = story.until_told(Reason::ConsumerStuck).await;
        assert!(told.sentence.contains("127.0.0.1:"), "{}", told.sentence);
        story.until_line(&["a consumer takes nothing", "peer=127.0.0.1:", "next_offset="]).await;
        // It reads on, and is well again.
        let mut next = 0;
        while next < 64 {
            next = stream.message().await.unwrap().unwrap().next_offset;
        }
        until("it is forgotten", || !story.is_told(Reason::ConsumerStuck)).await;
        story.end().await;
    });
}

#[test]
fn a_client_that_sends_nonsense_is_named_with_its_last_mistake() {
    on_a_system(async {
        let story = Story::begin(|_| {}).await;
        let mut bad = client(&story.node).await;
        let nonsense = ProduceRequest {
            topic: "log".into(),
            batch: b"no batch at all".to_vec().into(),
            ..ProduceRequest::default()
        };
        bad.produce_once(nonsense.clone()).await.unwrap_err();
        let told = story.until_told(Reason::BadClient).await;
        assert!(told.sentence.contains("1 request that made no sense"), "{}", told.sentence);
        story.until_line(&["a client sends requests that make no sense", "peer=127.0.0.1:"]).await;
        // Within a stream a refusal is an answer, and the call itself ends well.
        let stream = tokio_stream::iter(vec![nonsense, one_record("good")]);
        let mut answers = bad.produce(stream).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().error.is_some());
        assert!(answers.message().await.unwrap().unwrap().error.is_none());
        let told = story.until_told(Reason::BadClient).await;
        assert!(told.sentence.contains("2 requests"), "{}", told.sentence);
        // What an operator mistypes is no client's mistake.
        let address = story.node.rpc_addr().to_string();
        let mut operator = Client::connect(&address, ClientOptions::default()).await.unwrap();
        operator.observer().tree("no/such/place").await.unwrap_err();
        let told = story.until_told(Reason::BadClient).await;
        assert!(told.sentence.contains("2 requests"), "{}", told.sentence);
        operator.describe("no-such-topic").await.unwrap_err();
        let told = story.until_told(Reason::BadClient).await;
        assert!(told.sentence.contains("3 requests"), "though it came anew: {}", told.sentence);
        story.clock.jump(Duration::from_secs(61));
        assert!(!story.is_told(Reason::BadClient), "it is forgotten");
        story.end().await;
    });
}
