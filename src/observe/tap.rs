//! A node's recorders, and where handled messages are told to whoever looks: the log at level
//! trace, and taps.
//!
//! A tap never slows the node: what does not fit its queue is dropped and counted.

use super::scribe::Scribe;
use super::{Entry, Pattern, Recorder};
use crate::model::Clock;
use slog::{Drain, Logger, warn};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// Counts how often it changed who looks at what: what is remembered of an older count is stale.
#[derive(Debug, Default)]
pub struct Attention(AtomicU64);

impl Attention {
    /// Who looks at what has changed.
    pub fn changed(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// The present count.
    pub fn epoch(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Who knows which messages are to be logged.
pub trait MessageFilter: Send + Sync + 'static {
    /// Whether messages of this name, handled by the actor of this path, are logged.
    fn wants(&self, path: &str, message: &str) -> bool;
    /// Changes when the answers do.
    fn attention(&self) -> Arc<Attention>;
}

/// A message that was handled, or a request that was answered, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who handled it.
    pub path: Arc<str>,
    /// What is known of it.
    pub entry: Entry,
    /// The message's `Debug`, or how large it is where only taps for slow messages look; empty
    /// where only its answer is told.
    pub shown: String,
}

impl Entry {
    /// What is told of the message itself where its `Debug` was not made.
    pub(super) fn size(&self) -> String {
        let Self { message, items, bytes, .. } = self;
        format!("{message} of {items} items, {bytes} bytes")
    }
}

/// What a tap is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct TapFilter {
    /// Of which actors.
    pub pattern: Pattern,
    /// Only messages of these names; empty: all.
    pub messages: Vec<String>,
    /// Only those whose handling, or answer, took so long.
    pub slower_than: Duration,
    /// One of so many; 0 and 1: all.
    pub sample: u64,
    /// So many may wait to be fetched.
    pub queue_len: usize,
}

impl TapFilter {
    fn names(&self, message: &str) -> bool {
        self.messages.is_empty() || self.messages.iter().any(|name| name == message)
    }

    fn wants(&self, path: &str, message: &str) -> bool {
        self.names(message) && self.pattern.covers(path)
    }
}

struct Line {
    number: u64,
    /// Its bit in [`Interest::taps`].
    bit: u16,
    filter: TapFilter,
    queue: mpsc::Sender<Arc<Seen>>,
    counts: Arc<Counts>,
}

impl Line {
    /// Whether the next message that it may have is one of its sample.
    fn samples(&self) -> bool {
        let number = self.counts.seen.fetch_add(1, Ordering::Relaxed);
        self.filter.sample <= 1 || number.is_multiple_of(self.filter.sample)
    }
}

#[derive(Debug, Default)]
struct Counts {
    seen: AtomicU64,
    dropped: AtomicU64,
}

/// The receiving end of a tap. Dropped, it is closed.
pub struct Tap {
    number: u64,
    queue: mpsc::Receiver<Arc<Seen>>,
    counts: Arc<Counts>,
    hub: Arc<Hub>,
}

impl Tap {
    /// The next; waits for it.
    pub async fn next(&mut self) -> Option<Arc<Seen>> {
        self.queue.recv().await
    }

    /// How many did not fit the queue.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tap({})", self.number)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.hub.lines().retain(|line| line.number != self.number);
        self.hub.attention.changed();
    }
}

/// Messages that all recorders of a node keep together: 256 each of 64 (about 2 MiB) ...
const ENTRIES_IN_ALL: usize = 16 << 10;
/// ... and so many each of any more.
const ENTRIES_EACH_MIN: usize = 8;

/// What a hub is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// Messages that each recorder keeps; fewer where there are very many recorders.
    pub entries_max: usize,
    /// Messages that are logged in a second, of all actors; more are counted.
    pub lines_per_second_max: u64,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self { entries_max: 256, lines_per_second_max: 4_000 }
    }
}

/// How many messages were logged in the present tenth of a second.
#[derive(Debug, Default)]
struct LineRate {
    window: AtomicU64,
    lines: AtomicU64,
    refused: AtomicU64,
    told: AtomicU64,
}

impl LineRate {
    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more may be logged, and how many were refused that nobody was told of. At the
    /// edge of a window two threads may let a few more pass.
    fn admit(&self, per_second_max: u64, now_ns: u64) -> (bool, u64) {
        const WINDOW_NS: u64 = 100_000_000;
        let window = now_ns / WINDOW_NS;
        let mut untold = 0;
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.lines.store(0, Ordering::Relaxed);
            untold = self.take_untold();
        }
        let is_admitted = self.lines.fetch_add(1, Ordering::Relaxed) < per_second_max.div_ceil(10);
        if !is_admitted {
            self.refuse();
        }
        (is_admitted, untold)
    }

    fn take_untold(&self) -> u64 {
        let refused = self.refused.load(Ordering::Relaxed);
        refused - self.told.swap(refused, Ordering::Relaxed).min(refused)
    }
}

/// Where every recorder of a node tells what somebody wants to see.
pub struct Hub {
    logger: Logger,
    filter: Option<Arc<dyn MessageFilter>>,
    attention: Arc<Attention>,
    limits: HubLimits,
    rate: LineRate,
    /// Starts with the first message that is logged.
    scribe: OnceLock<io::Result<Scribe>>,
    recorders: Mutex<BTreeMap<Arc<str>, Weak<Recorder>>>,
    /// Messages that each of them keeps, as many as there are.
    entries_each: AtomicUsize,
    taps: Mutex<Vec<Line>>,
    taps_opened: AtomicU64,
    taps_max: usize,
    dropped: AtomicU64,
}

/// As many taps as may be open at once: each has a bit.
const TAPS_MAX: usize = u16::BITS as usize;

/// There are as many taps as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} taps are open already: close one of them")]
pub struct TooManyTaps {
    /// The limit.
    pub max: usize,
}

impl Hub {
    /// A hub that logs what the filter wants; without a filter, what the logger's level lets pass.
    pub fn new(
        logger: Logger,
        filter: Option<Arc<dyn MessageFilter>>,
        limits: HubLimits,
    ) -> Arc<Self> {
        let attention = filter.as_ref().map_or_else(Arc::default, |filter| filter.attention());
        Arc::new(Self {
            logger,
            filter,
            attention,
            limits,
            rate: LineRate::default(),
            scribe: OnceLock::new(),
            recorders: Mutex::default(),
            entries_each: AtomicUsize::new(usize::MAX),
            taps: Mutex::default(),
            taps_opened: AtomicU64::new(0),
            taps_max: TAPS_MAX,
            dropped: AtomicU64::new(0),
        })
    }

    /// Opens a tap.
    ///
    /// # Errors
    /// When too many are open.
    pub fn tap(self: &Arc<Self>, filter: TapFilter) -> Result<Tap, TooManyTaps> {
        let (sender, queue) = mpsc::channel(filter.queue_len.max(1));
        let counts = Arc::<Counts>::default();
        let number = self.taps_opened.fetch_add(1, Ordering::Relaxed);
        let mut lines = self.lines();
        if lines.len() >= self.taps_max {
            return Err(TooManyTaps { max: self.taps_max });
        }
        let taken = lines.iter().fold(0_u16, |taken, line| taken | line.bit);
        let bit = 1 << taken.trailing_ones();
        lines.push(Line { number, bit, filter, queue: sender, counts: Arc::clone(&counts) });
        drop(lines);
        self.attention.changed();
        Ok(Tap { number, queue, counts, hub: Arc::clone(self) })
    }

    /// The recorder of whoever has this path; a new one where there is none.
    pub fn recorder(self: &Arc<Self>, path: &str, clock: &Arc<dyn Clock>) -> Arc<Recorder> {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = recorders.get(path).and_then(Weak::upgrade) {
            return known;
        }
        recorders.retain(|_, recorder| recorder.strong_count() > 0);
        let recorder =
            Recorder::new(path, Arc::clone(clock), Arc::clone(self), self.limits.entries_max);
        recorders.insert(Arc::clone(recorder.path_text()), Arc::downgrade(&recorder));
        let each = (ENTRIES_IN_ALL / recorders.len()).max(ENTRIES_EACH_MIN);
        self.entries_each.store(each, Ordering::Relaxed);
        recorder
    }

    /// How many messages a recorder keeps at most, so that many recorders do not take more memory.
    pub(super) fn entries_each(&self) -> usize {
        self.entries_each.load(Ordering::Relaxed)
    }

    /// All recorders that are in use, by path.
    pub fn recorders(&self) -> Vec<Arc<Recorder>> {
        let recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.values().filter_map(Weak::upgrade).collect()
    }

    /// How many taps are open.
    pub fn taps(&self) -> usize {
        self.lines().len()
    }

    /// How many messages did not fit the queue of a tap, since the beginning.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.attention.epoch()
    }

    /// Whether anybody looks at messages of this name at this actor.
    pub(super) fn interest(&self, path: &str, message: &str) -> Interest {
        let log = match &self.filter {
            Some(filter) => filter.wants(path, message),
            None => self.logger.is_trace_enabled(),
        };
        let lines = self.lines();
        let wanting = lines.iter().filter(|line| line.filter.wants(path, message));
        Interest { log, taps: wanting.fold(0, |taps, line| taps | line.bit) }
    }

    /// What is left of an interest in one message once every tap that samples has chosen, and
    /// whether the message is to be shown in full. Taps for slow messages choose when it is known
    /// how long it took: for them alone nothing is rendered that nobody may want.
    pub(super) fn choose(&self, interest: Interest) -> (Interest, bool) {
        let (mut taps, mut is_shown) = (0, interest.log);
        if interest.taps != 0 {
            for line in self.lines().iter().filter(|line| line.bit & interest.taps != 0) {
                if !line.filter.slower_than.is_zero() {
                    taps |= line.bit;
                } else if line.samples() {
                    taps |= line.bit;
                    is_shown = true;
                }
            }
        }
        (Interest { taps, ..interest }, is_shown)
    }

    /// What is left of an interest once the log has had its share of this second.
    pub(super) fn admit(&self, interest: Interest, now_ns: u64) -> Interest {
        if !interest.log {
            return interest;
        }
        let (is_admitted, untold) = self.rate.admit(self.limits.lines_per_second_max, now_ns);
        self.warn_of_unlogged(untold);
        Interest { log: is_admitted, ..interest }
    }

    fn warn_of_unlogged(&self, untold: u64) {
        if untold > 0 {
            warn!(self.logger, "messages were not logged: there were too many";
                "messages" => untold, "per_second_max" => self.limits.lines_per_second_max);
        }
    }

    /// Logs how many messages were not logged, where nobody was told yet: for whoever reads the
    /// counts, as a burst that ended has no later message that tells of it.
    pub fn tell_of_unlogged(&self) {
        self.warn_of_unlogged(self.rate.take_untold());
    }

    /// Messages that were to be logged and were too many, since the beginning.
    pub fn unlogged(&self) -> u64 {
        self.rate.refused.load(Ordering::Relaxed)
    }

    /// Tells everybody who looks, after [`Hub::choose`].
    pub(super) fn tell(&self, interest: Interest, seen: Seen) {
        match (interest.log, interest.taps) {
            (true, 0) => return self.log(seen),
            (false, 0) => return,
            (true, _) => self.log(seen.clone()),
            (false, _) => {}
        }
        let took = Duration::from_nanos(seen.entry.took_ns());
        let seen = Arc::new(seen);
        for line in self.lines().iter().filter(|line| line.bit & interest.taps != 0) {
            // Another tap may have taken the bit of one that was closed meanwhile.
            if !line.filter.wants(&seen.path, seen.entry.message) || took < line.filter.slower_than
            {
                continue;
            }
            if !line.filter.slower_than.is_zero() && !line.samples() {
                continue;
            }
            if line.queue.try_send(Arc::clone(&seen)).is_err() {
                line.counts.dropped.fetch_add(1, Ordering::Relaxed);
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn log(&self, seen: Seen) {
        let started = self.scribe.get_or_init(|| Scribe::start(self.logger.clone()));
        if !started.as_ref().is_ok_and(|scribe| scribe.take(seen)) {
            self.rate.refuse();
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} taps)", self.taps())
    }
}

/// Who looks at messages of one name at one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interest {
    pub(super) log: bool,
    /// A bit for each tap.
    pub(super) taps: u16,
}

impl Interest {
    pub(super) fn any(self) -> bool {
        self.log || self.taps != 0
    }
}
