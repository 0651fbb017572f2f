// Full disks, failing disks, rotten bytes, lost power: what a node does on its bad days. Most run
// on the simulated disk, in this process; what the operating system must show runs on real files.

use crate::harness::binary::{Binary, run, serve};
use duramen::actors::partition::{PartitionApi, PartitionState, PendingAck, ProduceError};
use duramen::log::disk::sim::{CrashMode, DiskCall, Errno, Fault, SimDisk};
use duramen::model::{Durability, Offset, Record, Timestamp};
use duramen::ops::settings::ByteSize;
use duramen::testing::{TestNode, What, block_on};
use std::path::Path;
use std::time::Duration;

fn propose(node: &TestNode, value: impl Into<Vec<u8>>) -> Result<PendingAck, ProduceError> {
    node.log().propose_records(vec![Record::of_value(value.into(), Timestamp(1))])
}

fn append(node: &TestNode, value: impl Into<Vec<u8>>) -> Result<Offset, ProduceError> {
    let ack = block_on(propose(node, value)?)?;
    assert_eq!(ack.durability, Durability::Fsync);
    Ok(ack.base_offset)
}

fn values(node: &TestNode) -> Vec<String> {
    let values = node.values().unwrap();
    values.into_iter().map(|value| String::from_utf8(value).unwrap()).collect()
}

fn node_on(disk: &SimDisk) -> TestNode {
    TestNode::builder().sim_disk(disk).start()
}

/// Goal: a full disk refuses writes with a reason, serves reads, and needs no restart to recover.
#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_when_space_returns() {
    let disk = SimDisk::new();
    disk.set_capacity(4 << 20);
    let node = TestNode::builder()
        .settings(|settings| settings.log.reserve_free_bytes = ByteSize(256 << 10))
        .sim_disk(&disk)
        .start();

    let mut stored = Vec::new();
    let refused = loop {
        let value = format!("{}-{}", stored.len(), "x".repeat(10_000));
        match append(&node, value.clone()) {
            Ok(offset) => {
                assert_eq!(offset.0, stored.len() as u64);
                stored.push(value);
            }
            Err(error) => break error,
        }
        assert!(stored.len() < 10_000, "a disk of 4 MiB takes no 100 MB");
    };
    assert!(matches!(&refused, ProduceError::DiskFull { .. }), "{refused:?}");
    assert!(refused.is_definite() && refused.to_string().contains("free"), "{refused}");
    assert!(stored.len() > 100, "only {} records fit", stored.len());
    let again = append(&node, "still full").unwrap_err();
    assert!(matches!(again, ProduceError::DiskFull { .. }), "{again:?}");
    assert!(values(&node) == stored, "reads go on");
    let status = node.log().describe();
    assert!(status.reason.contains("disk full"), "{}", status.reason);

    disk.set_capacity(64 << 20);
    node.ready();
    let offset = append(&node, "after").unwrap();
    assert_eq!(offset.0, stored.len() as u64, "what was refused took no offset");
    stored.push("after".into());
    assert!(values(&node) == stored);
    assert_eq!(node.log().describe().restarts, 0);
    node.stop().assert_nothing_left();
}

/// Goal: after a failed sync nothing is acknowledged any more, and the sync is not tried again.
#[test]
fn a_failed_sync_quarantines_the_partition_and_is_never_retried() {
    let disk = SimDisk::new();
    let node = node_on(&disk);
    append(&node, "safe").unwrap();

    disk.fail(Fault::every(DiskCall::Sync).with(Errno::Io));
    let outcome = append(&node, "unsafe").unwrap_err();
    assert!(matches!(outcome, ProduceError::Unknown { .. }), "{outcome:?}");
    node.await_event("partitions/log/0", What::Quarantined);
    node.until("callers see it", |node| node.log().describe().state == PartitionState::Quarantined);
    let reason = node.log().describe().reason;
    assert!(reason.contains("sync"), "{reason}");

    let syncs = disk.calls(DiskCall::Sync);
    disk.heal();
    let refused = append(&node, "later").unwrap_err();
    assert!(matches!(refused, ProduceError::Quarantined { .. }), "{refused:?}");
    assert_eq!(disk.calls(DiskCall::Sync), syncs, "a failed sync is final");
    assert_eq!(values(&node), ["safe"], "what was committed can be read");
    node.stop().assert_nothing_left();
}

/// Goal: an acknowledgement waits for the disk. Method: hold the sync, and look.
#[test]
fn nothing_is_acknowledged_or_readable_before_its_sync_returns() {
    let disk = SimDisk::new();
    let node = node_on(&disk);
    append(&node, "first").unwrap();

    let hold = disk.hold_syncs();
    let mut pending = Box::pin(propose(&node, "second").unwrap());
    node.until("the sync has begun", |_| hold.arrived() > 0);
    let early =
        block_on(async { tokio::time::timeout(Duration::from_millis(50), &mut pending).await });
    assert!(early.is_err(), "acknowledged before the sync returned: {early:?}");
    assert_eq!(node.log().high_watermark(), Offset(1), "nor can it be read");
    hold.release();
    assert_eq!(block_on(pending).unwrap().base_offset, Offset(1));
    assert_eq!(node.log().high_watermark(), Offset(2));
    node.stop().assert_nothing_left();
}

/// Goal: the level `interval` keeps its word while appends never pause.
#[test]
fn the_level_interval_syncs_at_its_interval_also_under_load() {
    let disk = SimDisk::new();
    let node = TestNode::builder()
        .settings(|settings| {
            settings.log.durability = Durability::Interval;
            settings.log.sync_interval = Duration::from_millis(20);
        })
        .sim_disk(&disk)
        .start();
    let store = "00000000000000000000.store";
    let syncs = disk.calls_on(DiskCall::Sync, store);
    let mut appended = 0;
    node.until("three intervals passed", |node| {
        appended += 1;
        drop(propose(node, format!("{appended}")).unwrap());
        disk.calls_on(DiskCall::Sync, store) >= syncs + 3
    });
    node.stop().assert_nothing_left();
}

/// Goal: a raised limit is one limit for all parts.
#[test]
fn limits_raised_above_their_defaults_hold_on_the_whole_way() {
    let node = TestNode::builder()
        .settings(|settings| {
            settings.log.batch_bytes_max = ByteSize::mib(48);
            settings.log.record_bytes_max = ByteSize::mib(40);
        })
        .sim_disk(&SimDisk::new())
        .start();
    assert_eq!(append(&node, vec![7; 36 << 20]).unwrap(), Offset(0));
    let refused = append(&node, vec![7; 41 << 20]).unwrap_err();
    assert!(matches!(refused, ProduceError::TooLarge { .. }), "{refused:?}");
    let far = |at: i64| Record::of_value("x", Timestamp(at));
    let apart = vec![far(i64::MIN), far(i64::MAX), far(i64::MIN), far(5)];
    let ack = block_on(node.log().propose_records(apart).unwrap()).unwrap();
    assert_eq!((ack.base_offset, ack.records), (Offset(1), 4), "spread over several batches");
    assert_eq!(block_on(node.log().read_records(Offset(3), 9, 1 << 20)).unwrap().len(), 2);
    assert_eq!(node.log().describe().restarts, 0);
    node.stop().assert_nothing_left();
}

/// Goal: what was acknowledged outlives the power. Method: cut it under load, at many places, with
/// unsynced sectors kept, lost or torn; the control is a node that acknowledges before it syncs.
#[test]
fn a_power_cut_loses_nothing_acknowledged_at_level_fsync() {
    let mut lost_without_sync = 0;
    for seed in 0..24 {
        let mode = [CrashMode::Clean, CrashMode::Lost, CrashMode::Torn][seed as usize % 3];
        let (acknowledged, found) = power_cut(seed, mode, Durability::Fsync);
        assert!(
            acknowledged.len() > 20,
            "seed {seed}: too little was acknowledged to mean anything"
        );
        for (offset, value) in &acknowledged {
            assert_eq!(found.get(offset.0 as usize), Some(value), "seed {seed}, offset {offset}");
        }
        let (acknowledged, found) = power_cut(seed, CrashMode::Lost, Durability::Os);
        let lost =
            |(offset, value): &&(Offset, String)| found.get(offset.0 as usize) != Some(value);
        lost_without_sync += acknowledged.iter().filter(lost).count();
    }
    assert!(lost_without_sync > 0, "the control must lose something, or this test sees nothing");
}

fn power_cut(
    seed: u64,
    mode: CrashMode,
    durability: Durability,
) -> (Vec<(Offset, String)>, Vec<String>) {
    let node = TestNode::builder()
        .settings(|settings| {
            settings.log.durability = durability;
            settings.log.segment_bytes_max = ByteSize(64 << 10);
            settings.log.batch_bytes_max = ByteSize(32 << 10);
            settings.log.record_bytes_max = ByteSize(16 << 10);
        })
        .sim_disk(&SimDisk::new())
        .seed(seed)
        .start();
    let mut acknowledged = Vec::new();
    let mut pending = Vec::new();
    for number in 0..(60 + seed * 7) {
        let value = format!("{number}-{}", "y".repeat((number as usize * 37) % 900));
        pending.push((value.clone(), propose(&node, value).unwrap()));
        if number % 5 == seed % 5 {
            for (value, ack) in pending.drain(..) {
                acknowledged.push((block_on(ack).unwrap().base_offset, value));
            }
        }
    }
    // The last few are on their way when the power goes.
    let stopped = node.power_cut(mode);
    drop(pending);
    let node = stopped.start();
    let status = node.log().describe();
    assert_eq!(status.state, PartitionState::Serving, "{mode:?}: {}", status.reason);
    let found = values(&node);
    node.stop().assert_nothing_left();
    (acknowledged, found)
}

fn feed(node: &Binary, lines: usize) {
    let input: String =
        (0..lines).map(|line| format!("line {line} of the rotten file\n")).collect();
    let output =
        run(&["produce", "log", "--batch", "50", "--rpc-addr", &node.rpc], input.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Goal: rot is reported and left alone, and costs its partition only.
#[test]
fn a_rotten_byte_in_the_log_quarantines_it_and_changes_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let node = Binary::start(&data_dir);
    feed(&node, 5_000);
    node.kill();
    let partition = data_dir.join("partitions/log/0");
    let store = partition.join("00000000000000000000.store");
    let mut bytes = std::fs::read(&store).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&store, &bytes).unwrap();
    let before = contents(&partition);

    let mut node = Binary::start(&data_dir);
    let status = node.describe();
    assert_eq!(status["state"], "quarantined", "{status}");
    assert!(status["reason"].as_str().unwrap().contains("corrupt"), "{status}");
    let refused = run(&["produce", "log", "--rpc-addr", &node.rpc], b"more\n");
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("error:") && told.contains("quarantined"), "{told}");
    assert_eq!(node.http("GET", "/readyz", "").0, 200, "degraded, not unready");
    assert!(node.is_running());
    node.kill();
    assert!(contents(&partition) == before, "a directory that cannot be read is left as found");

    let verify = run(&["segment", "verify", partition.to_str().unwrap()], b"");
    assert!(!verify.status.success(), "verify sees it too");
}

/// Goal: start-up refuses what it cannot use, with the right code and words, and touches nothing.
#[test]
fn a_node_that_cannot_start_says_why_and_what_to_try() {
    let directory = tempfile::tempdir().unwrap();
    let told = |output: &std::process::Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("error:") && text.contains("try:"), "{text}");
        text
    };

    let data_dir = directory.path().join("data");
    let node = Binary::start(&data_dir);
    let locked = serve(&data_dir, &[]).output().unwrap();
    assert_eq!(locked.status.code(), Some(73));
    assert!(told(&locked).contains(&node.pid().to_string()), "names the process that holds it");

    let other = directory.path().join("other");
    let taken = serve(&other, &["--rpc-addr", &node.rpc]).output().unwrap();
    assert!(matches!(taken.status.code(), Some(69 | 74)), "{:?}", taken.status);
    assert!(told(&taken).contains(&node.rpc));
    node.kill();

    std::fs::write(data_dir.join("VERSION"), "9000\n").unwrap();
    let before = contents(&data_dir);
    let newer = serve(&data_dir, &[]).output().unwrap();
    assert!(matches!(newer.status.code(), Some(73 | 78)), "{:?}", newer.status);
    assert!(told(&newer).contains("9000"));
    let ignoring_lock = |files: Vec<(String, Vec<u8>)>| -> Vec<(String, Vec<u8>)> {
        files.into_iter().filter(|(name, _)| name != "LOCK").collect()
    };
    assert_eq!(ignoring_lock(contents(&data_dir)), ignoring_lock(before));

    let foreign = directory.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "do not touch").unwrap();
    let refused = serve(&foreign, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(73));
    told(&refused);
    assert_eq!(contents(&foreign).len(), 1);

    let open = serve(&other, &["--rpc-addr", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(open.status.code(), Some(78));
    assert!(told(&open).contains("--insecure-listen"));
}
