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

/// What a thread is doing that handles a message.
fn handling(message: &'static str, request: u64) -> observe::ScopeGuard {
    let actor = observe::PathId::of("node/partitions/log/0/log");
    let call = observe::Call { request, trace: None };
    let mut scope = Scope::of_call(actor, call);
    (scope.message, scope.name) = (observe::MessageId(77), message);
    observe::enter(scope)
}

#[test]
fn a_line_carries_the_message_that_is_handled_in_every_format() {
    let log = |logger: &Logger, _: &LoggerHandle| {
        let _scope = handling("Append", 9);
        info!(logger, "one"; "n" => 1);
        info!(logger.new(o!("actor" => "node/other")), "two");
        drop(_scope);
        let _scope = handling("Tend", 0);
        info!(logger, "three");
    };
    let text = written("info", LogFormat::Text, log);
    let lines: Vec<_> = text.lines().map(|line| line.split_once(" INFO ").unwrap().1).collect();
    assert_eq!(
        lines,
        [
            "one  actor=node/partitions/log/0/log message=Append id=77 request=9 n=1",
            "two  actor=node/other message=Append id=77 request=9",
            "three  actor=node/partitions/log/0/log message=Tend id=77",
        ]
    );
    let text = written("info", LogFormat::Logfmt, log);
    let first =
        "level=info msg=one actor=node/partitions/log/0/log message=Append id=77 request=9 n=1";
    assert!(text.starts_with(&format!("ts=2026-11-21T10:00:00.123Z {first}\n")), "{text}");
    let text = written("info", LogFormat::Json, log);
    assert!(text.starts_with("{\"ts\":\"2026-11-21T10:00:00.123Z\""), "{text}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["message"], &lines[0]["id"]), (&"Append".into(), &77.into()));
    assert_eq!((&lines[0]["request"], &lines[0]["n"]), (&9.into(), &1.into()));
    assert_eq!((&lines[1]["actor"], &lines[2].get("request")), (&"node/other".into(), &None));
    assert_eq!(text.matches("\"actor\"").count(), 3, "each key once: {text}");
}

#[test]
fn a_line_that_tells_of_another_message_is_left_as_it_is() {
    let text = written("trace", LogFormat::Text, |logger, _| {
        let _scope = handling("Append", 9);
        trace!(logger, "answer"; "actor" => "node/raft", "message" => "Propose", "id" => 3);
    });
    assert!(text.ends_with("answer  actor=node/raft message=Propose id=3\n"), "{text}");
}

#[test]
fn outside_of_any_message_nothing_is_added() {
    let text = written("info", LogFormat::Text, |logger, _| info!(logger, "alone"; "a" => 1));
    assert!(text.ends_with("INFO alone  a=1\n"), "{text}");
}

#[test]
fn a_messages_own_level_holds_while_it_is_handled() {
    let text = written("info,*/Append:debug,*/Tend:off", LogFormat::Text, |logger, handle| {
        let other = logger.new(o!("actor" => "node/other"));
        {
            let _scope = handling("Append", 0);
            debug!(logger, "wanted one");
            debug!(other, "wanted two");
            trace!(logger, "unwanted");
        }
        debug!(logger, "unwanted");
        let _scope = handling("Tend", 0);
        warn!(logger, "unwanted");
        debug!(other, "wanted three"; "message" => "Append");
        let control = handle.control();
        assert!(!control.wants("node/partitions/log/0/log", "Append"), "debug is not trace");
        handle.set_spec("info,log/Append:trace".parse().unwrap());
        assert!(control.wants("node/partitions/log/0/log", "Append"));
        assert!(!control.wants("node/partitions/log/0/log", "Tend"));
        assert!(!control.wants("node/partitions/log/0/raft", "Append"));
    });
    let wanted: Vec<_> = text.lines().map(|line| line.contains(" wanted ")).collect();
    assert_eq!(wanted, [true; 3], "{text}");
}

#[test]
fn libraries_write_below_their_name_and_only_what_is_asked_for() {
    let text = written("info", LogFormat::Text, |logger, handle| {
        let events = || {
            tracing::warn!(target: "h2::proto", stream = 3, "reset by {}", "peer");
            tracing::debug!(target: "h2::proto", long = %"x".repeat(5000), actor = "me", "frame");
            tracing::info!(target: "hyper", "hello");
        };
        let dispatch = library::dispatch(&handle.control(), logger.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            events();
            // Who asked before asks again when the levels change.
            handle.set_spec("debug,library/h2:debug".parse().unwrap());
            events();
            handle.set_spec("debug,library:off".parse().unwrap());
            events();
        });
    });
    let lines: Vec<_> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let warning = "WARN reset by peer  actor=library/h2/proto stream=3";
    assert_eq!((lines[0], lines[1]), (warning, warning));
    let long = format!("{}…", "x".repeat(512));
    assert_eq!(lines[2], format!("DEBG frame  actor=library/h2/proto long={long}"));
}

#[test]
fn a_broadcast_whose_end_nobody_waited_for_is_no_error() {
    let text = written("info", LogFormat::Text, |logger, handle| {
        let events = || {
            tracing::error!(target: "memberlist_core::broadcast", "nobody heard");
            tracing::error!(target: "memberlist_core::state", "lost");
        };
        let dispatch = library::dispatch(&handle.control(), logger.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            events();
            handle.set_spec("info,library/memberlist_core:debug".parse().unwrap());
            events();
        });
    });
    let lines: Vec<_> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    let lost = "ERRO lost  actor=library/memberlist_core/state";
    let unheard = "DEBG nobody heard  actor=library/memberlist_core/broadcast";
    assert_eq!(lines, [lost, unheard, lost]);
}

#[test]
fn a_library_whose_lines_nobody_wants_is_not_even_asked_to_make_them() {
    let made = std::cell::Cell::new(0);
    let make = || {
        made.set(made.get() + 1);
        "made"
    };
    written("trace", LogFormat::Text, |logger, handle| {
        let dispatch = library::dispatch(&handle.control(), logger.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            let event = || tracing::info!(target: "tower::quiet", "{}", make());
            event();
            assert_eq!(made.get(), 0);
            handle.set_spec("info,library/tower:info".parse().unwrap());
            event();
            assert_eq!(made.get(), 1);
        });
    });
}

#[test]
fn who_sets_the_levels_at_once_leaves_one_spec_with_its_own_level() {
    let clock = Arc::new(ManualClock::at(Timestamp(0)));
    let (logger, handle) =
        start_on(std::io::sink(), LogFormat::Text, "info".parse().unwrap(), clock);
    for _ in 0..2000 {
        std::thread::scope(|scope| {
            for spec in ["trace", "error"] {
                let control = handle.control();
                scope.spawn(move || control.set_spec(spec.parse().unwrap()));
            }
        });
        let is_trace = handle.spec().most_detailed() == slog::FilterLevel::Trace;
        assert_eq!(logger.is_trace_enabled(), is_trace, "{}", handle.spec());
    }
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
