#![allow(clippy::disallowed_methods, reason = "tests change files")]

use super::read::read_kept;
use super::*;
use crate::model::SystemClock;
use slog::o;

fn log(directory: &Path) -> AuditLog {
    let logger = Logger::root(slog::Discard, o!());
    AuditLog::new(directory, Arc::new(SystemClock::new()), logger)
}

fn note(what: &str) -> AuditNote {
    AuditNote {
        kind: "denied",
        subject: Some("mallory".into()),
        peer: "127.0.0.1".into(),
        call: "/x/Y".into(),
        what: what.into(),
        outcome: "denied".into(),
    }
}

#[test]
fn notes_outlive_the_node_and_a_flood_is_folded() {
    let directory = tempfile::tempdir().unwrap();
    let first = log(directory.path());
    for _ in 0..5_000 {
        first.note(note("produce log"));
    }
    first.note(note("consume log"));
    assert!(first.flush(Duration::from_secs(30)));
    let second = log(directory.path());
    second.note(note("admin *"));
    assert!(second.flush(Duration::from_secs(30)));
    let mut seen = Vec::new();
    let chain = read(&directory.path().join(DIRECTORY), |entry| seen.push(entry)).unwrap();
    let total: u64 = seen.iter().map(|entry| entry.times).sum();
    assert_eq!(total, 5_002);
    assert!(seen.len() < 100, "{} lines", seen.len());
    assert_eq!(chain.number, seen.len() as u64);
    assert_eq!(seen.last().unwrap().what, "admin *");
}

/// One that closes its file behind each write.
fn turning(directory: &Path, files_max: usize) -> AuditLog {
    let logger = Logger::root(slog::Discard, o!());
    AuditLog::with_limits(directory, Arc::new(SystemClock::new()), logger, (1, files_max))
}

fn numbers(place: &Path) -> Result<Vec<u64>, (PathBuf, usize, String)> {
    let mut numbers = Vec::new();
    read(place, |entry| numbers.push(entry.number)).map(|_| numbers)
}

#[test]
fn the_chain_goes_on_from_file_to_file_over_restarts_and_a_file_that_is_missing_shows() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(DIRECTORY);
    for life in 0..3 {
        let log = turning(directory.path(), 64);
        for what in ["a", "b"] {
            log.note(note(&format!("{what}{life}")));
            assert!(log.flush(Duration::from_secs(30)));
        }
    }
    assert_eq!(numbers(&place), Ok((1..=6).collect()));
    assert_eq!(files(&place).unwrap().len(), 6, "one for each write");
    // A line that was on its way into a new file follows the last file's.
    fs::write(place.join(CURRENT), "{\"entry\":{\"num").unwrap();
    assert_eq!(numbers(&place), Ok((1..=6).collect()));
    let log = turning(directory.path(), 64);
    log.note(note("c"));
    assert!(log.flush(Duration::from_secs(30)));
    assert_eq!(numbers(&place), Ok((1..=7).collect()));

    let middle = place.join(format!("{:020}.jsonl", 4));
    let kept = fs::read_to_string(&middle).unwrap();
    fs::remove_file(&middle).unwrap();
    let (file, line, what) = numbers(&place).unwrap_err();
    assert_eq!((file.file_name(), line), (place.join(format!("{:020}.jsonl", 5)).file_name(), 1));
    assert!(what.contains("a line is missing"), "{what}");
    // Cut off in the middle, only the very last line may be.
    fs::write(&middle, &kept[..kept.len() - 5]).unwrap();
    assert_eq!(numbers(&place).unwrap_err().0, middle);
    fs::write(&middle, kept).unwrap();
    assert_eq!(numbers(&place), Ok((1..=7).collect()));
}

#[test]
fn the_oldest_files_go_and_what_is_left_is_a_chain() {
    let directory = tempfile::tempdir().unwrap();
    let log = turning(directory.path(), 3);
    for number in 0..6 {
        log.note(note(&number.to_string()));
        assert!(log.flush(Duration::from_secs(30)));
    }
    let place = directory.path().join(DIRECTORY);
    let kept = |files_max| {
        let mut numbers = Vec::new();
        read_kept(&place, (1, files_max), |entry| numbers.push(entry.number)).map(|_| numbers)
    };
    assert_eq!(kept(3), Ok(vec![4, 5, 6]));
    // With fewer files than are kept none went by itself.
    let (file, line, what) = kept(4).unwrap_err();
    assert_eq!((file, line), (place.join(closed_name(4)), 1));
    assert!(what.contains("it is number 4"), "{what}");
    // Neither did what is missing before a file that is not full.
    let size = fs::metadata(place.join(closed_name(4))).unwrap().len();
    assert!(read_kept(&place, (size, 3), |_| {}).is_ok());
    assert!(read_kept(&place, (size + 1, 3), |_| {}).is_err());
}

#[test]
fn first_lines_that_are_missing_show() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(directory.path());
    for what in ["a", "b", "c"] {
        log.note(note(what));
    }
    assert!(log.flush(Duration::from_secs(30)));
    let place = directory.path().join(DIRECTORY);
    let file = place.join(CURRENT);
    let whole = fs::read_to_string(&file).unwrap();
    let without_first: String = whole.split_inclusive('\n').skip(1).collect();
    fs::write(&file, without_first).unwrap();
    let (at, line, what) = numbers(&place).unwrap_err();
    assert_eq!((at, line), (file, 1));
    assert!(what.contains("lines are missing before it: it is number 2"), "{what}");
}

#[test]
fn the_end_is_the_last_whole_line_of_the_last_file_that_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(DIRECTORY);
    assert_eq!(end(&place).unwrap(), 0, "nothing was noted yet");
    let log = turning(directory.path(), 64);
    for what in ["a", "b"] {
        log.note(note(what));
        assert!(log.flush(Duration::from_secs(30)));
    }
    assert_eq!(end(&place).unwrap(), 2);
    // On its way when the machine stopped, in the middle of a letter.
    fs::write(place.join(CURRENT), b"{\"entry\":\"\xc3").unwrap();
    assert_eq!(end(&place).unwrap(), 2);
    fs::write(place.join(CURRENT), "changed\n").unwrap();
    assert!(end(&place).is_err(), "the number is not known");
}

#[test]
fn more_than_there_is_room_for_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(directory.path());
    for i in 0..10 * NOTES_MAX {
        log.note(AuditNote { peer: i.to_string(), ..note("produce log") });
    }
    assert!(log.flush(Duration::from_secs(30)));
    let mut total = 0;
    let mut kinds = std::collections::BTreeSet::new();
    read(&directory.path().join(DIRECTORY), |entry| {
        total += entry.times;
        kinds.insert(entry.kind);
    })
    .unwrap();
    assert_eq!(total, 10 * NOTES_MAX as u64);
    assert!(kinds.contains("lost"), "{kinds:?}");
}

#[test]
fn who_asks_for_ever_other_things_pushes_nobody_out_and_acts_are_all_noted() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(directory.path());
    for i in 0..5_000 {
        log.note(note(&format!("produce t{i}")));
    }
    for i in 0..100 {
        log.note(AuditNote { kind: "act", ..note(&format!("act {i}")) });
    }
    log.note(AuditNote { peer: "127.0.0.2".into(), ..note("produce u") });
    assert!(log.flush(Duration::from_secs(30)));
    let mut entries = Vec::new();
    read(&directory.path().join(DIRECTORY), |entry| entries.push(entry)).unwrap();
    let total: u64 = entries.iter().map(|entry| entry.times).sum();
    assert_eq!(total, 5_101);
    assert_eq!(entries.iter().filter(|entry| entry.kind == "act").count(), 100);
    assert!(entries.iter().any(|entry| entry.what == "produce u"));
    let beyond = entries.iter().filter(|entry| entry.what == BEYOND_SHARE);
    assert!(beyond.map(|entry| entry.times).sum::<u64>() > 4_000);
    assert!(entries.len() < 500, "{} lines", entries.len());
}

#[test]
fn a_tail_reads_each_line_once_from_one_file_to_the_next_also_while_they_are_written() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join(DIRECTORY);
    fs::create_dir(&directory).unwrap();
    let log = log(base.path());
    let mut tail = log.tail(0);
    assert_eq!(tail.read(1 << 20).unwrap(), []);
    let (mut chain, mut numbers) = (Chain::default(), Vec::new());
    for _ in 0..3 {
        let mut text = String::new();
        for line in 0..3 {
            text += &chain.append(entry_of(note("x")));
            // The end of it is still on its way to the disk.
            fs::write(directory.join(CURRENT), &text).unwrap();
            if line == 1 {
                numbers.extend(tail.read(1).unwrap().into_iter().map(|(number, _)| number));
            }
            text.push('\n');
            fs::write(directory.join(CURRENT), &text).unwrap();
        }
        fs::rename(directory.join(CURRENT), directory.join(closed_name(chain.number))).unwrap();
    }
    loop {
        let more = tail.read(1 << 20).unwrap();
        if more.is_empty() {
            break;
        }
        numbers.extend(more.into_iter().map(|(number, _)| number));
    }
    assert_eq!(numbers, (1..=9).collect::<Vec<_>>());
    let from_the_middle = log.tail(4).read(1 << 20).unwrap();
    assert_eq!(from_the_middle.first().map(|(number, _)| *number), Some(5));
}

#[test]
fn what_could_not_be_stored_is_told_once_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(DIRECTORY);
    fs::write(&place, "in the way").unwrap();
    let log = log(directory.path());
    for _ in 0..3 {
        log.note(note("a"));
    }
    assert!(!log.flush(Duration::from_secs(30)));
    assert!(log.is_idle(), "nobody waits for what cannot be");
    assert_eq!(log.counts(), AuditCounts { written: 0, lost: 3 });
    fs::remove_file(&place).unwrap();
    log.note(note("b"));
    assert!(log.flush(Duration::from_secs(30)));
    let mut seen = Vec::new();
    read(&place, |entry| seen.push((entry.kind, entry.times))).unwrap();
    assert_eq!(seen, [("denied".into(), 1), ("lost".into(), 3)]);
    assert_eq!(log.counts(), AuditCounts { written: 2, lost: 3 });
}

#[test]
fn a_change_shows_and_a_line_cut_off_by_a_crash_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let first = log(directory.path());
    first.note(note("a"));
    first.note(note("b"));
    assert!(first.flush(Duration::from_secs(30)));
    let place = directory.path().join(DIRECTORY);
    let file = place.join(CURRENT);
    let whole = fs::read_to_string(&file).unwrap();
    // In the middle of a letter.
    fs::write(&file, [whole.as_bytes(), b"{\"entry\":\"\xc3"].concat()).unwrap();
    let mut count = 0;
    read(&place, |_| count += 1).unwrap();
    assert_eq!(count, 2, "before anybody has cut it");
    let second = log(directory.path());
    second.note(note("c"));
    assert!(second.flush(Duration::from_secs(30)));
    let mut count = 0;
    read(&place, |_| count += 1).unwrap();
    assert_eq!(count, 3);
    let changed = fs::read_to_string(&file).unwrap().replacen("mallory", "alice", 1);
    fs::write(&file, changed).unwrap();
    let (_, line, _) = read(&place, |_| {}).unwrap_err();
    assert_eq!(line, 1);
}
