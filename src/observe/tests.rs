//! What recorders and taps promise.

use super::*;
use crate::model::{Clock, ManualClock, Timestamp};
use slog::{Discard, Drain, Level, Logger, o};
use std::sync::Arc;
use std::time::Duration;

struct Desk {
    manual: Arc<ManualClock>,
    clock: Arc<dyn Clock>,
    hub: Arc<Hub>,
    raft: Arc<Recorder>,
    mailbox: Arc<Mailbox>,
}

fn desk(entries_max: usize) -> Desk {
    let manual = Arc::new(ManualClock::at(Timestamp(0)));
    let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
    let hub = Hub::new(
        Logger::root(Discard, o!()),
        None,
        HubLimits { entries_max, ..HubLimits::default() },
    );
    let raft = hub.recorder("node/partitions/log/0/raft", &clock);
    let mailbox = Mailbox::of_new_life(&raft);
    Desk { manual, clock, hub, raft, mailbox }
}

impl Desk {
    /// Sends, and handles for so long, one message; within it another may be sent.
    fn pass(&self, name: &'static str, took_ms: u64, within: impl FnOnce()) -> Stamp {
        let stamp = Stamp::now(&*self.clock);
        drop(self.mailbox.post());
        let load = MailLoad { items: 1, bytes: 7 };
        let handled = self.raft.begin(&stamp, name, load, || format!("{name}(shown)"));
        within();
        self.manual.advance(Duration::from_millis(took_ms));
        drop(handled);
        stamp
    }

    fn filter(&self, pattern: &str) -> TapFilter {
        TapFilter {
            pattern: Pattern::new(pattern).expect("the tests' patterns are patterns"),
            messages: Vec::new(),
            slower_than: Duration::ZERO,
            sample: 1,
            queue_len: 8,
        }
    }
}

fn names(recorder: &Recorder) -> Vec<&'static str> {
    recorder.ring().iter().map(|entry| entry.message).collect()
}

#[test]
fn a_message_sent_while_another_is_handled_is_caused_by_it_and_of_the_same_call() {
    let desk = desk(8);
    let call = Call { request: 42, trace: None };
    let grpc = PathId::of("node/frontends/grpc");
    let mut inner = Stamp::default();
    let outer = {
        let _call = enter(Scope::of_call(grpc, call));
        desk.pass("Propose", 1, || inner = Stamp::now(&*desk.clock))
    };
    assert_eq!((outer.sender, outer.cause), (grpc, MessageId(0)));
    assert_eq!((inner.cause, inner.sender), (outer.id, desk.raft.path()));
    assert_eq!((outer.call.request, inner.call.request), (42, 42));
    assert!(outer.id < inner.id && current() == Scope::default());
}

#[test]
fn the_ring_keeps_the_newest_in_order() {
    let desk = desk(3);
    for name in ["a", "b", "c", "d", "e"] {
        desk.pass(name, 1, || {});
    }
    assert_eq!(names(&desk.raft), ["c", "d", "e"]);
    assert_eq!(desk.raft.reading().handled, 5);
}

#[test]
fn an_entry_has_its_times_its_outcome_and_later_its_answer() {
    let desk = desk(8);
    let mut receipt = Receipt::default();
    desk.pass("Propose", 2, || receipt = Receipt::of_current());
    let entry = desk.raft.ring()[0];
    assert_eq!((entry.outcome, entry.handled_ns, entry.bytes), (Outcome::Done, 2_000_000, 7));
    desk.manual.advance(Duration::from_millis(3));
    desk.raft.answered(desk.clock.monotonic(), [(receipt, Answer::Ok)]);
    let entry = desk.raft.ring()[0];
    assert_eq!((entry.answer, entry.outcome_name()), (Some((Answer::Ok, 5_000_000)), "ok"));
}

#[test]
fn an_answer_to_a_message_that_was_overwritten_is_given_to_no_other() {
    let desk = desk(1);
    let mut receipt = Receipt::default();
    desk.pass("first", 1, || receipt = Receipt::of_current());
    desk.pass("second", 1, || {});
    desk.raft.answered(desk.clock.monotonic(), [(receipt, Answer::Ok)]);
    assert_eq!(desk.raft.ring()[0].answer, None);
}

#[test]
fn a_handler_that_panics_leaves_its_message_as_the_last() {
    let desk = desk(8);
    desk.pass("fine", 1, || {});
    let panicking = std::panic::AssertUnwindSafe(|| desk.pass("bad", 1, || panic!("boom")));
    std::panic::catch_unwind(panicking).unwrap_err();
    let last = *desk.raft.ring().last().unwrap();
    assert_eq!((last.message, last.outcome), ("bad", Outcome::Panicked));
    assert_eq!((desk.raft.reading().handling, current()), (None, Scope::default()));
}

#[test]
fn a_reading_tells_what_is_in_hand_what_waits_and_what_was_slow() {
    let desk = desk(8);
    let _waiting = [desk.mailbox.post(), desk.mailbox.post()];
    desk.pass("slow", 30, || {
        let reading = desk.raft.reading();
        let (name, _, since_ns) = reading.handling.unwrap();
        assert_eq!((name, since_ns, reading.mailbox), ("slow", 0, 2));
    });
    desk.pass("quick", 1, || {});
    let reading = desk.raft.reading();
    assert_eq!(reading.slowest, Some(("slow", 30_000_000)));
    let quick =
        KindStats { message: "quick", handled: 1, busy_ns: 1_000_000, slowest_ns: 1_000_000 };
    assert_eq!(reading.kinds[1], quick);
    desk.manual.advance(Duration::from_secs(61));
    desk.pass("quick", 1, || {});
    desk.manual.advance(Duration::from_secs(61));
    desk.pass("quick", 1, || {});
    assert_eq!(desk.raft.reading().slowest, Some(("quick", 1_000_000)), "the past is forgotten");
}

#[test]
fn messages_per_second_are_those_of_the_last_full_second() {
    let desk = desk(8);
    for _ in 0..100 {
        desk.pass("a", 20, || {});
    }
    assert!((49..=51).contains(&desk.raft.reading().per_second), "{:?}", desk.raft.reading());
    desk.manual.advance(Duration::from_secs(1000));
    assert_eq!(desk.raft.reading().per_second, 0);
}

#[test]
fn a_mishap_strikes_so_many_messages_of_its_name_and_no_other() {
    let desk = desk(8);
    desk.raft.plan(Some("Append"), Mishap::Drop, 2);
    assert_eq!(desk.raft.mishap("Propose"), None);
    assert_eq!(desk.raft.mishap("Append"), Some(Mishap::Drop));
    assert_eq!(desk.raft.mishap("Append"), Some(Mishap::Drop));
    assert_eq!(desk.raft.mishap("Append"), None);
    desk.raft.plan(None, Mishap::Delay(Duration::ZERO), 1);
    desk.raft.unplan();
    assert_eq!(desk.raft.mishap("Append"), None);
}

#[tokio::test]
async fn a_tap_sees_what_its_filter_wants_from_the_moment_it_is_open() {
    let desk = desk(8);
    desk.pass("Append", 1, || {});
    let messages = vec!["Append".to_owned()];
    let filter = TapFilter { messages, ..desk.filter("log/0/*") };
    let mut tap = desk.hub.tap(filter).unwrap();
    desk.pass("Propose", 1, || {});
    let wanted = desk.pass("Append", 1, || {});
    let seen = tap.next().await.unwrap();
    assert_eq!((seen.entry.id, seen.shown.as_str()), (wanted.id, "Append(shown)"));
    assert_eq!(&*seen.path, "node/partitions/log/0/raft");
    let mut elsewhere = desk.hub.tap(desk.filter("log/1")).unwrap();
    desk.pass("Append", 1, || {});
    drop(tap);
    assert_eq!(desk.hub.taps(), 1);
    assert_eq!(elsewhere.dropped(), 0);
    let nothing = tokio::time::timeout(Duration::ZERO, elsewhere.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_tap_that_is_not_read_drops_and_counts_and_one_that_samples_skips() {
    let desk = desk(8);
    let slow = desk.hub.tap(TapFilter { queue_len: 2, ..desk.filter("**") }).unwrap();
    let mut sampled = desk.hub.tap(TapFilter { sample: 5, ..desk.filter("**") }).unwrap();
    let stamps: Vec<Stamp> = (0..10).map(|_| desk.pass("a", 1, || {})).collect();
    assert_eq!((slow.dropped(), desk.hub.dropped()), (8, 8));
    assert_eq!(sampled.next().await.unwrap().entry.id, stamps[0].id);
    assert_eq!(sampled.next().await.unwrap().entry.id, stamps[5].id);
}

#[tokio::test]
async fn a_tap_for_slow_messages_sees_them_by_the_time_of_their_answer_too() {
    let desk = desk(8);
    let slower_than = Duration::from_millis(10);
    let mut tap = desk.hub.tap(TapFilter { slower_than, ..desk.filter("raft") }).unwrap();
    let mut receipt = Receipt::default();
    desk.pass("Propose", 1, || receipt = Receipt::of_current());
    desk.manual.advance(Duration::from_millis(20));
    desk.raft.answered(desk.clock.monotonic(), [(receipt, Answer::Unknown)]);
    let seen = tap.next().await.unwrap();
    assert_eq!((seen.entry.outcome_name(), seen.entry.took_ns()), ("unknown", 21_000_000));
}

/// Goal: a message is rendered only for who is going to see it. Method: its `Debug` counts.
#[tokio::test]
async fn nothing_is_rendered_for_a_tap_that_does_not_choose_the_message() {
    let desk = desk(8);
    let rendered = std::cell::Cell::new(0);
    let pass = |took_ms| {
        let stamp = Stamp::now(&*desk.clock);
        let load = MailLoad { items: 2, bytes: 9 };
        let handled = desk.raft.begin(&stamp, "Append", load, || {
            rendered.set(rendered.get() + 1);
            "Append(shown)".into()
        });
        desk.manual.advance(Duration::from_millis(took_ms));
        drop(handled);
    };
    let mut sampled = desk.hub.tap(TapFilter { sample: 5, ..desk.filter("**") }).unwrap();
    (0..10).for_each(|_| pass(1));
    assert_eq!(rendered.get(), 2, "one of five");
    assert_eq!(sampled.next().await.unwrap().shown, "Append(shown)");
    drop(sampled);
    let slower_than = Duration::from_millis(10);
    let mut slow = desk.hub.tap(TapFilter { slower_than, ..desk.filter("**") }).unwrap();
    (0..10).for_each(|_| pass(1));
    pass(20);
    assert_eq!(rendered.get(), 2, "nothing for a tap that wants slow ones");
    let seen = slow.next().await.unwrap();
    assert_eq!((&*seen.shown, seen.entry.took_ns()), ("Append of 2 items, 9 bytes", 20_000_000));
    let _all = desk.hub.tap(desk.filter("**")).unwrap();
    pass(20);
    assert_eq!(slow.next().await.unwrap().shown, "Append(shown)", "another had it made");
}

#[test]
fn taps_are_limited() {
    let desk = desk(8);
    let open: Vec<Tap> = std::iter::from_fn(|| desk.hub.tap(desk.filter("x")).ok()).collect();
    let refused = desk.hub.tap(desk.filter("x")).unwrap_err();
    assert_eq!(refused.max, open.len());
    drop(open);
    desk.hub.tap(desk.filter("x")).unwrap();
}

#[test]
fn messages_beyond_the_rate_are_counted_and_not_logged() {
    let manual = Arc::new(ManualClock::at(Timestamp(0)));
    let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
    let logged = Arc::<Lines>::default();
    let logger = Logger::root(slog::Fuse(Arc::clone(&logged)), o!());
    let limits = HubLimits { lines_per_second_max: 100, ..HubLimits::default() };
    let hub = Hub::new(logger, None, limits);
    let raft = hub.recorder("raft", &clock);
    let burst = || {
        for _ in 0..15 {
            drop(raft.begin(&Stamp::now(&*clock), "a", MailLoad::default(), || "a".into()));
        }
    };
    burst();
    logged.until_messages(10);
    assert_eq!(hub.unlogged(), 5, "beyond a tenth of a second's share");
    manual.advance(Duration::from_millis(100));
    burst();
    logged.until_messages(20);
    assert_eq!(logged.count(Level::Warning), 1);
    assert_eq!(raft.reading().handled, 30, "all are recorded");
    // The burst is over: no message comes that would tell of its end.
    hub.tell_of_unlogged();
    assert_eq!((logged.count(Level::Warning), hub.unlogged()), (2, 10));
    hub.tell_of_unlogged();
    assert_eq!(logged.count(Level::Warning), 2, "told once");
}

/// Counts lines by level.
#[derive(Default)]
struct Lines(std::sync::Mutex<Vec<Level>>);

impl Lines {
    /// Waits until so many messages are logged: they come on a thread of their own.
    fn until_messages(&self, count: usize) {
        for _ in 0..10_000 {
            if self.count(Level::Trace) == count {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{} messages are logged, not {count}", self.count(Level::Trace));
    }

    fn count(&self, level: Level) -> usize {
        self.0.lock().expect("no test panics here").iter().filter(|known| **known == level).count()
    }
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.0.lock().expect("no test panics here").push(record.level());
        Ok(())
    }
}
