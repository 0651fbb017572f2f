//! What is known of an actor's end: plain data, made where ends are learnt and written elsewhere.
//!
//! Making one copies rings and counters. What takes long (the backtrace's names, paths, text) is
//! done when it is serialized, on the thread that writes it.

use super::{Entry, PathId};
use crate::model::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// As many messages of one recorder are in a report, the newest.
pub const REPORT_MESSAGES_MAX: usize = 1024;
/// As many recorders are in a report: the actor's own, its workers', its siblings'.
pub const REPORT_RECORDERS_MAX: usize = 16;
/// As many past exits are in a report, the last.
pub const REPORT_EXITS_MAX: usize = 16;
/// A reason's text is cut at so many characters: whoever panics chooses how much it says.
const REASON_CHARS_MAX: usize = 2048;

/// Takes reports of crashes. Called on the control thread: must not block.
pub trait CrashSink: Send + Sync + fmt::Debug + 'static {
    /// Asks whether a report is wanted that would be made now (monotonic time). `Some` says of
    /// how many crashes of this path none was made since the last report; `None`: not now, and
    /// this one is counted.
    fn admit(&self, path: &str, event: CrashEvent, now: Duration) -> Option<u64>;

    /// Takes the report that was admitted.
    fn take(&self, report: CrashReport);
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CrashEvent {
    /// A life ended that was not to end.
    Exit,
    /// A fault domain left service.
    Quarantine,
}

/// All that is known of a crash. Times are monotonic nanoseconds (`_ns`) and, beside them, the
/// wall clock's in RFC 3339.
#[derive(Debug, Clone, Serialize)]
pub struct CrashReport {
    /// When it was noticed.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: Timestamp,
    /// The same by the monotonic clock.
    pub at_ns: u64,
    /// Who crashed.
    pub path: String,
    /// What happened to it.
    pub event: CrashEvent,
    /// In which life.
    pub generation: u64,
    /// Why.
    pub reason: CrashReason,
    /// Crashes of the same path since the last report for which no report was made.
    pub suppressed: u64,
    /// How often it was started again, before this.
    pub restarts: u64,
    /// Messages in its mailbox when its life ended.
    pub mailbox: u64,
    /// Admitted requests without an answer when its life ended.
    pub in_flight: u64,
    /// The message in hand, where there was one.
    pub in_hand: Option<InHand>,
    /// The last exits of the place, and of those below it, the oldest first.
    pub exits: Vec<PastExit>,
    /// The last messages of the actor, then of its workers and of its fault domain.
    pub recorders: Vec<RecorderDump>,
    /// Recorders that did not fit.
    pub recorders_left_out: usize,
}

/// Why something crashed.
#[derive(Debug, Clone, Serialize)]
pub struct CrashReason {
    /// `panic`, `failed`, `killed`, `hung` or `quarantined`.
    pub kind: &'static str,
    /// In words.
    pub text: String,
    /// Where a panic was: `file:line:column`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<Frames>,
}

impl CrashReason {
    /// A reason in words, cut where it is too long.
    pub fn new(kind: &'static str, text: &dyn fmt::Display) -> Self {
        let mut text = text.to_string();
        if let Some((end, _)) = text.char_indices().nth(REASON_CHARS_MAX) {
            text.truncate(end);
            text.push('…');
        }
        Self { kind, text, location: None, backtrace: None }
    }
}

/// A message whose handler had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InHand {
    /// Its name.
    pub message: &'static str,
    /// Its number.
    pub id: u64,
    /// Since when it was handled.
    pub since_ns: u64,
}

/// An exit that is over.
#[derive(Debug, Clone, Serialize)]
pub struct PastExit {
    /// When.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: Timestamp,
    /// The same by the monotonic clock.
    pub at_ns: u64,
    /// Whose.
    pub path: String,
    /// Which life it ended.
    pub generation: u64,
    /// `normal`, `panic`, `failed`, `killed`, `hung` or `abandoned`.
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

/// What one recorder held.
#[derive(Debug, Clone)]
pub struct RecorderDump {
    /// Whose.
    pub path: Arc<str>,
    /// Its messages, the oldest first.
    pub entries: Vec<Entry>,
    /// The wall clock (milliseconds) at monotonic zero.
    pub origin: Timestamp,
}

impl RecorderDump {
    /// The newest of these messages; `at` and `at_ns` are the same moment by both clocks.
    pub fn new(path: Arc<str>, mut entries: Vec<Entry>, at: Timestamp, at_ns: u64) -> Self {
        entries.drain(..entries.len().saturating_sub(REPORT_MESSAGES_MAX));
        Self { path, entries, origin: Timestamp(at.0.saturating_sub(millis(at_ns))) }
    }
}

impl Serialize for RecorderDump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            path: &'a str,
            messages: Vec<Message>,
        }
        let messages = self.entries.iter().map(|entry| Message::of(entry, self.origin)).collect();
        Shown { path: &self.path, messages }.serialize(serializer)
    }
}

/// An [`Entry`] as it is written.
#[derive(Serialize)]
struct Message {
    id: u64,
    cause: u64,
    request: u64,
    sender: String,
    message: &'static str,
    sent_at: String,
    sent_ns: u64,
    waited_ns: u64,
    handled_ns: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_after_ns: Option<u64>,
    items: u32,
    bytes: u64,
}

impl Message {
    fn of(entry: &Entry, origin: Timestamp) -> Self {
        let sender: PathId = entry.sender;
        Self {
            id: entry.id.0,
            cause: entry.cause.0,
            request: entry.request,
            sender: sender.path().as_ref().to_owned(),
            message: entry.message,
            sent_at: Timestamp(origin.0.saturating_add(millis(entry.sent_ns))).rfc3339(),
            sent_ns: entry.sent_ns,
            waited_ns: entry.waited_ns(),
            handled_ns: entry.handled_ns,
            outcome: entry.outcome.name(),
            answer: entry.answer.map(|(answer, _)| answer.name()),
            answered_after_ns: entry.answer.map(|(_, after_ns)| after_ns),
            items: entry.items,
            bytes: entry.bytes,
        }
    }
}

/// A backtrace. Its names are looked up when it is serialized: that takes long.
#[derive(Clone)]
pub struct Frames(Arc<dyn fmt::Display + Send + Sync>);

impl Frames {
    /// Of something that prints as the standard library prints a backtrace.
    pub fn new(trace: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self(Arc::new(trace))
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frames")
    }
}

impl Serialize for Frames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(frames_of(&self.0.to_string()))
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Frame {
    function: String,
    /// `file:line:column`; empty where that is not known.
    at: String,
}

/// Takes apart what the standard library prints: `12: function`, then perhaps `at file:line`.
fn frames_of(text: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(at) = line.strip_prefix("at ") {
            if let Some(frame) = frames.last_mut() {
                at.clone_into(&mut frame.at);
            }
        } else if let Some((number, function)) = line.split_once(": ")
            && number.bytes().all(|digit| digit.is_ascii_digit())
        {
            frames.push(Frame { function: function.into(), at: String::new() });
        }
    }
    frames
}

fn millis(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

fn as_rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Answer, MessageId, Outcome};

    #[test]
    fn a_backtrace_is_taken_apart_into_functions_and_places() {
        let text = "   0: duramen::exit::hook\n             at ./src/exit.rs:1:2\n   1: main\n";
        let frames = frames_of(text);
        assert_eq!(frames.len(), 2);
        assert_eq!(
            (&*frames[0].function, &*frames[0].at),
            ("duramen::exit::hook", "./src/exit.rs:1:2")
        );
        assert_eq!((&*frames[1].function, &*frames[1].at), ("main", ""));
        assert_eq!(frames_of("disabled backtrace"), []);
    }

    #[test]
    fn messages_are_written_with_both_clocks_and_the_newest_are_kept() {
        let entry = |id| Entry {
            id: MessageId(id),
            cause: MessageId(1),
            sender: PathId::of("node/http"),
            message: "Append",
            request: 9,
            sent_ns: 1_500_000_000,
            taken_ns: 1_500_002_000,
            handled_ns: 7,
            outcome: Outcome::Panicked,
            answer: Some((Answer::Refused, 11)),
            items: 2,
            bytes: 30,
        };
        let entries = (1..=REPORT_MESSAGES_MAX as u64 + 3).map(entry).collect();
        let at = Timestamp(1_795_255_202_000);
        let dump = RecorderDump::new("node/x".into(), entries, at, 2_000_000_000);
        let object = serde_json::to_value(&dump).unwrap();
        let messages = object["messages"].as_array().unwrap();
        assert_eq!(messages.len(), REPORT_MESSAGES_MAX);
        assert_eq!(messages[0]["id"], 4);
        assert_eq!(messages[0]["sent_at"], "2026-11-21T10:00:01.500Z");
        assert_eq!(messages[0]["waited_ns"], 2000);
        assert_eq!(
            (&messages[0]["sender"], &messages[0]["answer"]),
            (&"node/http".into(), &"refused".into())
        );
    }

    #[test]
    fn a_reason_without_end_is_cut() {
        let reason = CrashReason::new("panic", &"é".repeat(REASON_CHARS_MAX + 5));
        assert_eq!(reason.text.chars().count(), REASON_CHARS_MAX + 1);
        assert_eq!(CrashReason::new("panic", &"short").text, "short");
    }
}
