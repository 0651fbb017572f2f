//! What the logger promises, read back from what it wrote.

use super::*;
use crate::model::{ManualClock, Timestamp};
use slog::{debug, info, o, trace, warn};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What was written by `log` under a specification and a format.
fn written(spec: &str, format: LogFormat, log: impl FnOnce(&Logger, &LoggerHandle)) -> String {
    let output = Written::default();
    let clock = Arc::new(ManualClock::at(Timestamp(1_795_255_200_123)));
    let (logger, handle) = start_on(output.clone(), format, spec.parse().unwrap(), clock);
    log(&logger, &handle);
    drop(handle);
    let bytes = output.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_is_time_level_message_and_values_in_order() {
    let text = written("info", LogFormat::Text, |logger, _| {
        let logger = logger.new(o!("actor" => "node/http"));
        info!(logger, "listening"; "addr" => "127.0.0.1:1", "why" => "it was told to");
    });
    assert_eq!(
        text,
        "2026-11-21T10:00:00.123Z INFO listening  actor=node/http addr=127.0.0.1:1 \
         why=\"it was told to\"\n"
    );
}

#[test]
fn a_line_stays_one_line_whatever_it_holds() {
    for format in [LogFormat::Text, LogFormat::Json, LogFormat::Logfmt] {
        let text = written("info", format, |logger, _| {
            info!(logger, "two\nlines\u{1b}[31m"; "path" => "a\nb\u{7}");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let text = written("info", LogFormat::Json, |logger, _| {
        warn!(logger, "disk \"full\""; "free_bytes" => 7);
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["ts"], "2026-11-21T10:00:00.123Z");
    assert_eq!((&line["level"], &line["free_bytes"]), (&"warning".into(), &7.into()));
    assert_eq!(line["msg"], "disk \"full\"");
}

#[test]
fn logfmt_quotes_what_needs_it() {
    let text = written("info", LogFormat::Logfmt, |logger, _| {
        info!(logger, "ready"; "state" => "up", "empty" => "", "equation" => "a=b");
    });
    let rest = "level=info msg=ready state=up empty=\"\" equation=\"a=b\"\n";
    assert_eq!(text, format!("ts=2026-11-21T10:00:00.123Z {rest}"));
}

#[test]
fn an_actors_own_level_holds_for_it_alone() {
    let text = written("info,partitions/*/*/log:trace", LogFormat::Text, |logger, _| {
        let raft = logger.new(o!("actor" => "node/partitions/orders/0/raft"));
        let log = logger.new(o!("actor" => "node/partitions/orders/0/log"));
        trace!(raft, "unwanted");
        trace!(log, "wanted one");
        trace!(logger, "wanted two"; "actor" => "partitions/a/1/log");
        debug!(logger, "unwanted");
        info!(raft, "wanted three");
    });
    let messages: Vec<_> = text.lines().map(|line| line.contains("wanted ")).collect();
    assert_eq!(messages, [true; 3], "{text}");
}

#[test]
fn the_levels_can_be_changed_while_it_runs() {
    let text = written("warning", LogFormat::Text, |logger, handle| {
        info!(logger, "before");
        handle.set_spec("debug".parse().unwrap());
        debug!(logger, "between");
        handle.set_spec("off".parse().unwrap());
        warn!(logger, "after");
    });
    assert!(text.contains("between") && text.lines().count() == 1, "{text}");
}

/// A writer that says when it was entered and waits to be let through.
struct Stuck {
    entered: Sender<()>,
    open: Arc<(Mutex<bool>, Condvar)>,
    output: Written,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.entered.send(());
        let opened = self.open.0.lock().unwrap();
        drop(self.open.1.wait_while(opened, |open| !*open).unwrap());
        self.output.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stalls_stops_nobody_and_what_it_missed_is_counted() {
    let (entered, has_entered): (Sender<()>, Receiver<()>) = channel();
    let (open, output) = (Arc::new((Mutex::new(false), Condvar::new())), Written::default());
    let stuck = Stuck { entered, open: Arc::clone(&open), output: output.clone() };
    let clock = Arc::new(ManualClock::at(Timestamp(0)));
    let (logger, handle) = start_on(stuck, LogFormat::Text, LevelSpec::default(), clock);
    info!(logger, "first");
    has_entered.recv().unwrap();
    for _ in 0..LINES_WAITING_MAX + 5 {
        info!(logger, "more");
    }
    assert_eq!(handle.dropped_count(), 5);
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    // One line leaves the channel at a time, so that there is soon room for the next.
    while !text_of(&output).contains("dropped_lines=") {
        info!(logger, "again");
        std::thread::yield_now();
    }
    drop(handle);
    assert!(text_of(&output).contains("dropped_lines="), "the loss is told");
}

fn text_of(output: &Written) -> String {
    String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
}
