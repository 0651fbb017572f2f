//! The flight recorder of one actor: its last messages, and what it does and did.
//!
//! Always on, and kept over the actor's lives. Written by the actor's thread, read by anyone.

use super::tap::{Hub, Interest, Seen};
use super::{
    MailLoad, MessageId, PathId, Scope, ScopeGuard, Stamp, Wait, WaitCell, current, enter,
};
use crate::model::Clock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The window over which messages per second are counted.
const RATE_WINDOW_NS: u64 = 1_000_000_000;
/// The slowest message is that of the present window and of the one before it.
const SLOWEST_WINDOW_NS: u64 = 60_000_000_000;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// Its handler runs.
    #[default]
    Handling,
    /// Its handler has returned.
    Done,
    /// Its handler panicked.
    Panicked,
    /// A test had it dropped.
    Dropped,
}

impl Outcome {
    /// The name in logs, taps and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handling => "handling",
            Self::Done => "done",
            Self::Panicked => "panicked",
            Self::Dropped => "dropped",
        }
    }
}

/// How a request was answered that its handler left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done, as was asked.
    Ok,
    /// Nothing was done.
    Refused,
    /// It is not known whether it was done.
    Unknown,
}

impl Answer {
    /// The name in logs, taps and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// One message, as the recorder keeps it. Times are monotonic, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub id: MessageId,
    /// The message that its sender was handling.
    pub cause: MessageId,
    /// Who sent it.
    pub sender: PathId,
    /// Its name.
    pub message: &'static str,
    /// The client's request that it is part of; 0: none.
    pub request: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// When its handler began.
    pub taken_ns: u64,
    /// How long its handler ran; 0 while it runs.
    pub handled_ns: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// How its request was answered, and how long after it was sent.
    pub answer: Option<(Answer, u64)>,
    /// Records, entries, or whatever it counts.
    pub items: u32,
    /// Bytes of its payload.
    pub bytes: u64,
}

impl Entry {
    /// What the filter "slower than" looks at: the time until the answer, else that in the handler.
    pub fn took_ns(&self) -> u64 {
        self.answer.map_or(self.handled_ns, |(_, after_ns)| after_ns)
    }

    /// How it stands with the message, in one word.
    pub fn outcome_name(&self) -> &'static str {
        self.answer.map_or(self.outcome.name(), |(answer, _)| answer.name())
    }

    /// How long it lay in the mailbox.
    pub fn waited_ns(&self) -> u64 {
        self.taken_ns.saturating_sub(self.sent_ns)
    }
}

/// Finds a message again that was answered later than it was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    slot: u32,
    id: MessageId,
}

impl Receipt {
    /// The message that the calling thread is handling.
    pub fn of_current() -> Self {
        let scope = current();
        Self { slot: scope.slot, id: scope.message }
    }
}

/// What a test lets happen to a message instead of, or before, its handling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// A panic with this text.
    Panic(String),
    /// The thread sleeps so long; then the message is handled.
    Delay(Duration),
    /// It is dropped without being handled.
    Drop,
}

#[derive(Debug)]
struct Planned {
    message: Option<String>,
    mishap: Mishap,
    times: u32,
    /// So many are let pass first.
    skip: u32,
}

/// What an actor did with messages of one name, since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindStats {
    /// The name.
    pub message: &'static str,
    /// How many were handled.
    pub handled: u64,
    /// How long handling them took in all (nanoseconds).
    pub busy_ns: u64,
    /// How long the slowest took (nanoseconds).
    pub slowest_ns: u64,
}

#[derive(Debug)]
struct Kind {
    stats: KindStats,
    /// What is remembered of who looks, and from which count of changes.
    interest: Interest,
    epoch: u64,
}

/// What an actor is doing, and what it did lately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Messages in its mailbox.
    pub mailbox: u64,
    /// Messages handled since the beginning.
    pub handled: u64,
    /// Messages handled in the last full second.
    pub per_second: u64,
    /// The message whose handler runs, its number, and since when (monotonic nanoseconds).
    pub handling: Option<(&'static str, MessageId, u64)>,
    /// The slowest message of the last minute or two, and how long it took (nanoseconds).
    pub slowest: Option<(&'static str, u64)>,
    /// By name of message.
    pub kinds: Vec<KindStats>,
}

#[derive(Debug, Default)]
struct Window {
    since_ns: u64,
    handled: u64,
    per_second: u64,
}

impl Window {
    fn count(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.since_ns);
        if passed >= RATE_WINDOW_NS {
            self.per_second = self.rate(passed);
            (self.since_ns, self.handled) = (now_ns, 0);
        }
        self.handled += 1;
    }

    fn rate(&self, passed_ns: u64) -> u64 {
        (u128::from(self.handled) * 1_000_000_000 / u128::from(passed_ns.max(1))) as u64
    }

    fn read(&self, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.since_ns);
        if passed >= RATE_WINDOW_NS { self.rate(passed) } else { self.per_second }
    }
}

#[derive(Debug, Default)]
struct Slowest {
    since_ns: u64,
    present: Option<(&'static str, u64)>,
    before: Option<(&'static str, u64)>,
}

impl Slowest {
    fn note(&mut self, message: &'static str, took_ns: u64, now_ns: u64) {
        if now_ns.saturating_sub(self.since_ns) >= SLOWEST_WINDOW_NS {
            self.since_ns = now_ns;
            self.before = self.present.take();
        }
        if self.present.is_none_or(|(_, slowest)| took_ns > slowest) {
            self.present = Some((message, took_ns));
        }
    }

    fn read(&self) -> Option<(&'static str, u64)> {
        self.present.into_iter().chain(self.before).max_by_key(|(_, took_ns)| *took_ns)
    }
}

#[derive(Debug, Default)]
struct Book {
    ring: Vec<Entry>,
    next: usize,
    handled: u64,
    kinds: Vec<Kind>,
    handling: Option<(&'static str, MessageId, u64)>,
    window: Window,
    slowest: Slowest,
}

/// See the module.
pub struct Recorder {
    path: PathId,
    text: Arc<str>,
    clock: Arc<dyn Clock>,
    hub: Arc<Hub>,
    entries_max: usize,
    /// Of the mailbox of the present life.
    mailbox: Mutex<Arc<AtomicI64>>,
    wait: OnceLock<Arc<WaitCell>>,
    has_planned: AtomicBool,
    planned: Mutex<Vec<Planned>>,
    book: Mutex<Book>,
}

impl Recorder {
    /// A recorder that keeps the last `entries_max` messages of the actor at `path`.
    pub fn new(path: &str, clock: Arc<dyn Clock>, hub: Arc<Hub>, entries_max: usize) -> Arc<Self> {
        let path = PathId::of(path);
        Arc::new(Self {
            path,
            text: path.path(),
            clock,
            hub,
            entries_max: entries_max.max(1),
            mailbox: Mutex::default(),
            wait: OnceLock::new(),
            has_planned: AtomicBool::new(false),
            planned: Mutex::default(),
            book: Mutex::default(),
        })
    }

    /// Whose recorder it is.
    pub fn path(&self) -> PathId {
        self.path
    }

    /// The same as text.
    pub fn path_text(&self) -> &Arc<str> {
        &self.text
    }

    /// The recorder of a worker of this actor that is no actor itself.
    pub fn below(&self, name: &str) -> Arc<Self> {
        self.hub.recorder(&format!("{}/{name}", self.text), &self.clock)
    }

    /// The clock of its times.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Says where this actor, in all its lives, tells what it waits for.
    pub fn waits_by(&self, cell: &Arc<WaitCell>) {
        self.wait.get_or_init(|| Arc::clone(cell));
    }

    /// What it waits for, and since when (monotonic time), where it tells that.
    pub fn wait(&self) -> Option<(Wait, Duration)> {
        self.wait.get().map(|cell| cell.get())
    }

    /// Says where the messages in the mailbox of the life that now begins are counted.
    pub(super) fn count_in(&self, waiting: &Arc<AtomicI64>) {
        *self.mailbox.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(waiting);
    }

    fn waiting(&self) -> u64 {
        let mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        mailbox.load(Ordering::Relaxed).max(0) as u64
    }

    /// Notes that the handler of a message begins. Until the guard is dropped the calling thread
    /// works in the name of this actor and this message.
    /// `show` makes the message's `Debug`, where somebody looks.
    pub fn begin(
        &self,
        stamp: &Stamp,
        message: &'static str,
        load: MailLoad,
        show: impl FnOnce() -> String,
    ) -> Handled<'_> {
        if !super::IS_ON {
            return Handled { at: None, recorder: self, _scope: None };
        }
        let taken_ns = self.now_ns();
        let entry = Entry {
            id: stamp.id,
            cause: stamp.cause,
            sender: stamp.sender,
            message,
            request: stamp.call.request,
            sent_ns: nanos(stamp.sent_at),
            taken_ns,
            handled_ns: 0,
            outcome: Outcome::Handling,
            answer: None,
            items: load.items,
            bytes: load.bytes,
        };
        let (slot, kind, interest) = {
            let mut book = self.book();
            book.handling = Some((message, stamp.id, taken_ns));
            let slot = book.keep(entry, self.entries_max.min(self.hub.entries_each()));
            let (kind, interest) = book.kind(message, &self.hub, &self.text);
            (slot, kind, interest)
        };
        let (interest, is_shown) = self.hub.choose(self.hub.admit(interest, taken_ns));
        let shown = is_shown.then(show);
        let scope = enter(Scope {
            actor: self.path,
            message: stamp.id,
            name: message,
            slot: slot as u32,
            call: stamp.call,
        });
        let at = Some(At { slot, kind, id: stamp.id, taken_ns, interest, shown });
        Handled { at, recorder: self, _scope: Some(scope) }
    }

    /// Notes how requests were answered, all of them at `now` (monotonic time).
    pub fn answered(&self, now: Duration, answers: impl IntoIterator<Item = (Receipt, Answer)>) {
        if !super::IS_ON {
            return;
        }
        let now_ns = nanos(now);
        let mut book = self.book();
        for (Receipt { slot, id }, answer) in answers {
            let Some(entry) = book.ring.get_mut(slot as usize).filter(|entry| entry.id == id)
            else {
                continue; // overwritten since
            };
            entry.answer = Some((answer, now_ns.saturating_sub(entry.sent_ns)));
            let entry = *entry;
            let (_, interest) = book.kind(entry.message, &self.hub, &self.text);
            let (interest, _) = self.hub.choose(self.hub.admit(interest, now_ns));
            if interest.any() {
                let (path, shown) = (Arc::clone(&self.text), String::new());
                self.hub.tell(interest, Seen { path, entry, shown });
            }
        }
    }

    /// The messages that it still has, the oldest first.
    pub fn ring(&self) -> Vec<Entry> {
        let book = self.book();
        let (newer, older) = book.ring.split_at(book.next.min(book.ring.len()));
        [older, newer].concat()
    }

    /// What the actor is doing, and what it did lately.
    pub fn reading(&self) -> Reading {
        let now_ns = self.now_ns();
        let book = self.book();
        Reading {
            mailbox: self.waiting(),
            handled: book.handled,
            per_second: book.window.read(now_ns),
            handling: book.handling,
            slowest: book.slowest.read(),
            kinds: book.kinds.iter().map(|kind| kind.stats).collect(),
        }
    }

    /// Lets something happen to the next `times` messages of this name, or of any. For tests.
    pub fn plan(&self, message: Option<&str>, mishap: Mishap, times: u32) {
        self.schedule(Planned { message: message.map(str::to_owned), mishap, times, skip: 0 });
    }

    /// As [`Recorder::plan`], to the `n`-th such message from now on alone, counted from 1.
    pub fn plan_nth(&self, message: Option<&str>, mishap: Mishap, n: u32) {
        let (message, skip) = (message.map(str::to_owned), n.saturating_sub(1));
        self.schedule(Planned { message, mishap, times: 1, skip });
    }

    fn schedule(&self, planned: Planned) {
        self.planned().push(planned);
        self.has_planned.store(true, Ordering::Release);
    }

    /// How many messages something is still planned for.
    pub fn planned_left(&self) -> u32 {
        self.planned().iter().map(|plan| plan.times).sum()
    }

    /// Forgets what was planned.
    pub fn unplan(&self) {
        self.planned().clear();
        self.has_planned.store(false, Ordering::Release);
    }

    /// What was planned for a message of this name; used up.
    pub fn mishap(&self, message: &str) -> Option<Mishap> {
        if !self.has_planned.load(Ordering::Acquire) {
            return None;
        }
        let mut planned = self.planned();
        let found = planned
            .iter_mut()
            .find(|plan| plan.message.as_ref().is_none_or(|wanted| wanted == message))?;
        if found.skip > 0 {
            found.skip -= 1;
            return None;
        }
        found.times = found.times.saturating_sub(1);
        let mishap = found.mishap.clone();
        planned.retain(|plan| plan.times > 0);
        self.has_planned.store(!planned.is_empty(), Ordering::Release);
        Some(mishap)
    }

    fn ended(&self, at: At, outcome: Outcome) {
        let now_ns = self.now_ns();
        let At { slot, kind, id, taken_ns, interest, shown } = at;
        let handled_ns = now_ns.saturating_sub(taken_ns);
        let mut book = self.book();
        // A thread that was given up may end here long after its successor began.
        book.handling = book.handling.filter(|(_, handled, _)| *handled != id);
        book.handled += 1;
        book.window.count(now_ns);
        let stats = &mut book.kinds[kind].stats;
        stats.handled += 1;
        stats.busy_ns += handled_ns;
        stats.slowest_ns = stats.slowest_ns.max(handled_ns);
        let message = stats.message;
        book.slowest.note(message, handled_ns, now_ns);
        let Some(entry) = book.ring.get_mut(slot).filter(|entry| entry.id == id) else { return };
        (entry.handled_ns, entry.outcome) = (handled_ns, outcome);
        if interest.any() {
            // As it was handled: an answer is told of by itself.
            let entry = Entry { answer: None, ..*entry };
            drop(book);
            let shown = shown.unwrap_or_else(|| entry.size());
            self.hub.tell(interest, Seen { path: Arc::clone(&self.text), entry, shown });
        }
    }

    fn now_ns(&self) -> u64 {
        nanos(self.clock.monotonic())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn planned(&self) -> MutexGuard<'_, Vec<Planned>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({})", self.text)
    }
}

impl Book {
    fn keep(&mut self, entry: Entry, entries_max: usize) -> usize {
        if self.ring.len() != entries_max && self.next > 0 || self.ring.len() > entries_max {
            // The bound is another one than it was.
            self.ring.rotate_left(self.next);
            self.ring.drain(..self.ring.len().saturating_sub(entries_max));
            self.ring.shrink_to(entries_max);
            self.next = 0;
        }
        if self.ring.len() < entries_max {
            self.ring.push(entry);
            self.next = 0;
            return self.ring.len() - 1;
        }
        let slot = self.next;
        self.ring[slot] = entry;
        self.next = (slot + 1) % entries_max;
        slot
    }

    fn kind(&mut self, message: &'static str, hub: &Hub, path: &str) -> (usize, Interest) {
        let epoch = hub.epoch();
        let known = self.kinds.iter().position(|kind| kind.stats.message == message);
        let known = known.unwrap_or_else(|| {
            let stats = KindStats { message, handled: 0, busy_ns: 0, slowest_ns: 0 };
            self.kinds.push(Kind { stats, interest: Interest::default(), epoch: u64::MAX });
            self.kinds.len() - 1
        });
        let kind = &mut self.kinds[known];
        if kind.epoch != epoch {
            (kind.epoch, kind.interest) = (epoch, hub.interest(path, message));
        }
        (known, kind.interest)
    }
}

struct At {
    slot: usize,
    kind: usize,
    id: MessageId,
    taken_ns: u64,
    interest: Interest,
    /// Its `Debug`, where it was made.
    shown: Option<String>,
}

/// A message in hand. Dropped while its handler unwinds, it is noted as panicked.
#[must_use = "the message counts as handled when this is dropped"]
pub struct Handled<'a> {
    at: Option<At>,
    recorder: &'a Recorder,
    _scope: Option<ScopeGuard>,
}

impl Handled<'_> {
    /// Notes that a test had the message dropped.
    pub fn dropped(mut self) {
        if let Some(at) = self.at.take() {
            self.recorder.ended(at, Outcome::Dropped);
        }
    }
}

impl Drop for Handled<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            let panics = std::thread::panicking();
            self.recorder.ended(at, if panics { Outcome::Panicked } else { Outcome::Done });
        }
    }
}

impl fmt::Debug for Handled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handled({})", self.recorder.text)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
