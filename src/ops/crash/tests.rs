//! What crash reports promise: their files are few, whole, and nowhere else.

#![allow(clippy::disallowed_methods, reason = "tests look at the files themselves")]

use super::*;
use crate::model::Timestamp;
use crate::observe::{CrashReason, Frames, InHand};
use slog::o;
use std::path::Path;
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn report(path: &str, number: i64) -> CrashReport {
    CrashReport {
        at: Timestamp(1_795_255_200_000 + number),
        at_ns: 7,
        path: path.into(),
        event: CrashEvent::Exit,
        generation: 3,
        reason: CrashReason::new("panic", &format!("panicked: number {number}")),
        suppressed: 0,
        restarts: 2,
        mailbox: 5,
        in_flight: 6,
        in_hand: Some(InHand { message: "Append", id: 9, since_ns: 1 }),
        exits: Vec::new(),
        recorders: Vec::new(),
        recorders_left_out: 0,
    }
}

fn store(data_dir: &Path, reports_max: u32, bytes_max: u64) -> Arc<CrashStore> {
    let mut settings = Settings { data_dir: data_dir.into(), ..Settings::default() };
    settings.crash.reports_max = reports_max;
    settings.crash.bytes_max = crate::ops::settings::ByteSize(bytes_max);
    CrashStore::new(&settings, Logger::root(slog::Discard, o!()))
}

#[allow(clippy::disallowed_methods, reason = "a test's patience")]
fn settle(store: &CrashStore) {
    let begun = Instant::now();
    while !store.is_idle() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not written in time");
        std::thread::yield_now();
    }
}

fn write(store: &CrashStore, report: CrashReport) {
    store.take(report);
    settle(store);
}

#[test]
fn a_report_is_one_file_that_is_listed_and_read_back() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    assert!(list(store.directory()).unwrap().is_empty(), "and there is no directory before");
    assert!(!store.directory().exists());
    let mut told = report("node/partitions/log/0/raft", 1);
    told.reason.backtrace = Some(Frames::new("   0: duramen::x\n   at src/x.rs:1:2\n"));
    write(&store, told);

    let listed = list(store.directory()).unwrap();
    let name = "20261121T100000.001Z-000-node-partitions-log-0-raft.json";
    assert_eq!((listed.len(), &*listed[0].name), (1, name));
    assert_eq!((&*listed[0].kind, &*listed[0].reason), ("panic", "panicked: number 1"));
    assert_eq!((listed[0].generation, &*listed[0].at), (3, "2026-11-21T10:00:00.001Z"));
    for asked in [name, name.strip_suffix(".json").unwrap(), LATEST] {
        let text = read(store.directory(), asked).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["reason"]["backtrace"][0]["at"], "src/x.rs:1:2", "{asked}");
        assert_eq!((&object["mailbox"], &object["in_flight"]), (&5.into(), &6.into()));
        assert_eq!(object["config"]["log.durability"], "fsync");
        assert_eq!(object["build"]["version"], env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(store.counts().written, 1);
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    write(&store, report("node/../../etc", 1));
    let listed = list(store.directory()).unwrap();
    assert_eq!(listed[0].name, "20261121T100000.001Z-000-node-..-..-etc.json");
    std::fs::write(data_dir.path().join("1.json"), "outside").unwrap();
    for name in ["../1.json", "/etc/passwd", "1/../../1.json", "", ".json", "..", "1\0.json"] {
        let refused = read(store.directory(), name);
        assert!(matches!(refused, Err(CrashFileError::NotAName { .. })), "{name}: {refused:?}");
    }
    let missing = read(store.directory(), "20200101T000000.000Z-x.json");
    assert!(matches!(missing, Err(CrashFileError::Missing { .. })));
    // A link within the directory is not followed either: the same text, had by its own name, is.
    let outside = data_dir.path().join("1.json");
    std::os::unix::fs::symlink(&outside, store.directory().join("1.json")).unwrap();
    assert!(matches!(read(store.directory(), "1.json"), Err(CrashFileError::Io { .. })));
    assert_eq!(list(store.directory()).unwrap().len(), 1);
    std::fs::rename(&outside, store.directory().join("1.json")).unwrap();
    assert_eq!(read(store.directory(), "1").unwrap(), "outside");
}

#[test]
fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
    let data_dir = tempfile::tempdir().unwrap();
    let few = store(data_dir.path(), 3, 1 << 20);
    for number in 0..7 {
        write(&few, report("node/x", number));
    }
    let numbers = |store: &CrashStore| -> Vec<String> {
        list(store.directory()).unwrap().into_iter().map(|listed| listed.reason).collect()
    };
    let last = ["panicked: number 4", "panicked: number 5", "panicked: number 6"];
    assert_eq!(numbers(&few), last);

    let size = list(few.directory()).unwrap()[0].bytes;
    let small = store(data_dir.path(), 50, 2 * size + size / 2);
    write(&small, report("node/x", 8));
    assert_eq!(numbers(&small), ["panicked: number 6", "panicked: number 8"]);
    // One that alone is too large is not written, and nothing else goes for its sake.
    let tiny = store(data_dir.path(), 50, size / 2);
    write(&tiny, report("node/x", 9));
    assert_eq!((tiny.counts().failed, tiny.counts().written), (1, 0));
    assert_eq!(numbers(&tiny).len(), 2);
}

#[test]
fn a_path_has_one_report_a_second_and_the_next_counts_those_between() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    let admit = |path, now| store.admit(path, CrashEvent::Exit, now);
    assert_eq!(admit("node/a", SECOND), Some(0));
    for ms in 1..=999 {
        assert_eq!(admit("node/a", SECOND + Duration::from_millis(ms)), None);
    }
    assert_eq!(admit("node/b", SECOND), Some(0), "another path is another matter");
    assert_eq!(store.admit("node/a", CrashEvent::Quarantine, SECOND), Some(0), "and a quarantine");
    assert_eq!(admit("node/a", 2 * SECOND), Some(999));
    assert_eq!(admit("node/a", 3 * SECOND), Some(0));
    assert_eq!(store.counts().suppressed, 999);
}

#[test]
fn a_storm_over_many_paths_is_remembered_within_bounds() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    let storm = |now| {
        let paths = (0..5000).map(|number| format!("node/{number}"));
        paths.filter_map(|path| store.admit(&path, CrashEvent::Exit, now)).count()
    };
    assert_eq!(storm(SECOND), PATHS_MAX);
    assert!(store.state().lately.len() <= PATHS_MAX);
    assert_eq!(store.counts().dropped, 5000 - PATHS_MAX as u64);
    assert_eq!(storm(3 * SECOND), PATHS_MAX, "there is room again");
}

/// A backtrace that is not resolved before it is let through.
struct Slow(Mutex<std::sync::mpsc::Receiver<()>>);

impl std::fmt::Display for Slow {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A sender that is gone lets through as well.
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }
}

#[test]
fn while_one_is_written_a_bounded_number_waits_and_the_rest_is_counted() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    let (open, gate) = std::sync::mpsc::channel();
    let mut first = report("node/slow", 0);
    first.reason.backtrace = Some(Frames::new(Slow(Mutex::new(gate))));
    store.take(first);
    let mut taken = 0;
    for number in 0..1000 {
        let path = format!("node/{number}");
        if store.admit(&path, CrashEvent::Exit, SECOND).is_some() {
            store.take(report(&path, number));
            taken += 1;
        }
    }
    // The first is in hand, or still waits itself.
    assert!((QUEUE_MAX - 1..=QUEUE_MAX + 1).contains(&taken), "{taken}");
    assert_eq!(store.counts().dropped, 1000 - taken as u64);
    drop(open);
    settle(&store);
    assert_eq!(store.counts().written, taken as u64 + 1);
    assert_eq!(store.state().untold, 0, "the loss is told");
}

#[test]
fn a_directory_that_cannot_be_written_is_a_failure_that_is_counted() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(&data_dir.path().join("gone"), 50, 1 << 20);
    write(&store, report("node/x", 1));
    assert_eq!(store.counts(), CrashCounts { failed: 1, ..CrashCounts::default() });
}

#[test]
fn half_a_report_is_listed_as_such() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    write(&store, report("node/x", 1));
    std::fs::write(store.directory().join("20270101T000000.000Z-x.json"), "{\"at\":").unwrap();
    std::fs::write(store.directory().join("report.json.new"), "left behind").unwrap();
    let listed = list(store.directory()).unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[1].reason.starts_with("cannot be read as a report"), "{listed:?}");
}

#[test]
fn within_a_millisecond_the_order_is_that_of_the_reports() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    let paths = ["node/z", "node/a", "node/z", "node/m"].iter().cycle().take(12);
    let mut wanted = Vec::new();
    for (number, path) in paths.enumerate() {
        let mut told = report(path, 1);
        told.generation = number as u64;
        write(&store, told);
        wanted.push(number as u64);
    }
    let listed = list(store.directory()).unwrap();
    assert_eq!(listed.iter().map(|one| one.generation).collect::<Vec<_>>(), wanted);
    let latest = read(store.directory(), LATEST).unwrap();
    assert!(latest.contains("\"generation\":11"), "{latest}");
}

#[test]
fn a_list_reads_no_further_than_the_heads() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    write(&store, report("node/x", 1));
    let file = store.directory().join(&list(store.directory()).unwrap()[0].name);
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, _) = text.split_once("\"restarts\"").unwrap();
    std::fs::write(&file, format!("{head}\n no JSON from here on")).unwrap();
    let listed = list(store.directory()).unwrap();
    assert_eq!((&*listed[0].path, &*listed[0].reason), ("node/x", "panicked: number 1"));
}

/// A backtrace whose telling panics.
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("on purpose")
    }
}

#[test]
fn a_report_that_panics_is_a_failure_and_the_next_is_written() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = store(data_dir.path(), 50, 1 << 20);
    let mut broken = report("node/x", 1);
    broken.reason.backtrace = Some(Frames::new(Broken));
    write(&store, broken);
    write(&store, report("node/y", 2));
    let counts = CrashCounts { written: 1, failed: 1, ..CrashCounts::default() };
    assert_eq!(store.counts(), counts);
}
