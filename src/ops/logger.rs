//! Diagnostics on standard error: never waited for, filtered per actor and message, in three
//! formats.
//!
//! A line carries by itself what its thread was doing when it was written: actor, message, id,
//! request (`observe::current`).
//!
//! Lines are handed to a thread of their own over a bounded channel; when it is full they are
//! dropped and counted, and the next line that gets through says how many. What is written can be
//! changed while the node runs ([`LoggerHandle::set_spec`]). User bytes never reach a line: types
//! that hold them do not print them (`model::Payload`).

mod fields;
mod library;
mod lines;
mod spec;

#[cfg(test)]
mod tests;

pub use fields::ACTOR_KEY;
pub use lines::rfc3339;
pub use spec::{LevelSpec, LevelSpecError};

use crate::model::Clock;
use crate::observe::{self, Attention, MessageFilter, Scope};
use crate::ops::settings::{LogFormat, LoggerSettings};
use arc_swap::ArcSwap;
use fields::{Added, Told};
use lines::TIME_KEY;
use slog::{BorrowedKV, Drain, Level, Logger, Never, OwnedKVList, Record, RecordStatic, o};
use slog_async::{AsyncCore, AsyncGuard};
use std::fmt;
use std::io::{IsTerminal, LineWriter, Write};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines that may wait for the writer of standard error.
const LINES_WAITING_MAX: usize = 2048;
/// A line up to this length goes out in one write.
const LINE_BYTES: usize = 16 << 10;

/// Starts the logger on standard error.
pub fn start(settings: &LoggerSettings, clock: Arc<dyn Clock>) -> (Logger, LoggerHandle) {
    let stderr = std::io::stderr();
    let format = match settings.format {
        LogFormat::Auto if stderr.is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    start_on(stderr, format, settings.spec.clone(), clock)
}

/// Starts a logger on any writer. [`LogFormat::Auto`] means JSON here.
pub fn start_on(
    writer: impl Write + Send + 'static,
    format: LogFormat,
    spec: LevelSpec,
    clock: Arc<dyn Clock>,
) -> (Logger, LoggerHandle) {
    let writer = LineWriter::with_capacity(LINE_BYTES, writer);
    let (core, guard) = match format {
        LogFormat::Text => writer_thread(lines::Text::new(writer)),
        LogFormat::Logfmt => writer_thread(lines::Logfmt::new(writer)),
        LogFormat::Json | LogFormat::Auto => writer_thread(lines::json(writer)),
    };
    let shared = Arc::new(Shared {
        most_detailed: AtomicUsize::new(spec.most_detailed().as_usize()),
        spec: ArcSwap::from_pointee(spec),
        setting: Mutex::default(),
        attention: Arc::default(),
        has_library: AtomicBool::new(false),
        dropped: AtomicU64::new(0),
    });
    let drain = Filtered {
        shared: Arc::clone(&shared),
        clock: AssertUnwindSafe(clock),
        core,
        untold: AtomicU64::new(0),
    };
    let logger = Logger::root(drain, o!());
    (logger, LoggerHandle { shared, _guard: guard })
}

fn writer_thread<D>(drain: D) -> (AsyncCore, AsyncGuard)
where
    D: Drain<Ok = ()> + Send + 'static,
{
    // An error on standard error can be told to nobody.
    AsyncCore::custom(drain.ignore_res())
        .chan_size(LINES_WAITING_MAX)
        .thread_name("duramen-logger".into())
        .build_with_guard()
}

/// Steers a running logger. Dropping it writes what waits and ends the logger's thread: lines
/// after that are lost.
pub struct LoggerHandle {
    shared: Arc<Shared>,
    _guard: AsyncGuard,
}

impl fmt::Debug for LoggerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggerHandle").field("spec", &self.spec()).finish_non_exhaustive()
    }
}

impl LoggerHandle {
    /// The same power without the ownership.
    pub fn control(&self) -> LogControl {
        LogControl(Arc::clone(&self.shared))
    }

    /// Which lines are written.
    pub fn spec(&self) -> Arc<LevelSpec> {
        self.shared.spec.load_full()
    }

    /// Changes which lines are written, from the next line on.
    pub fn set_spec(&self, spec: LevelSpec) {
        self.shared.set_spec(spec);
    }

    /// How many lines were dropped since the start, for the writer was too slow.
    pub fn dropped_count(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// Steers a running logger from anywhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogControl(Arc<Shared>);

impl LogControl {
    /// Which lines are written.
    pub fn spec(&self) -> Arc<LevelSpec> {
        self.0.spec.load_full()
    }

    /// Changes which lines are written, from the next line on.
    pub fn set_spec(&self, spec: LevelSpec) {
        self.0.set_spec(spec);
    }

    /// Lets the libraries of this process write through `logger`, at the levels of this control.
    /// Says false where something else in the process has the libraries' ear already.
    pub fn install_for_libraries(&self, logger: Logger) -> bool {
        library::install(self, logger)
    }

    /// How many lines were dropped since the start, for the writer was too slow.
    pub fn dropped_count(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl MessageFilter for LogControl {
    fn wants(&self, path: &str, message: &str) -> bool {
        let shared = &*self.0;
        if shared.most_detailed.load(Ordering::Acquire) < Level::Trace.as_usize() {
            return false;
        }
        shared.spec.load().level_of_message(path, message).accepts(Level::Trace)
    }

    fn attention(&self) -> Arc<Attention> {
        Arc::clone(&self.0.attention)
    }
}

impl Shared {
    fn set_spec(&self, spec: LevelSpec) {
        let most_detailed = spec.most_detailed().as_usize();
        // Two who set it at once must not leave one's spec with the other's level.
        let setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        self.spec.store(Arc::new(spec));
        self.most_detailed.store(most_detailed, Ordering::Release);
        drop(setting);
        self.attention.changed();
        if self.has_library.load(Ordering::Acquire) {
            library::levels_changed();
        }
    }
}

#[derive(Debug)]
struct Shared {
    spec: ArcSwap<LevelSpec>,
    /// Held while the spec and its most detailed level change together.
    setting: Mutex<()>,
    /// The spec's most detailed level as a number: all that a line nobody wants costs.
    most_detailed: AtomicUsize,
    /// Tells the recorders that the spec has changed.
    attention: Arc<Attention>,
    /// Libraries ask what is wanted of them, and remember the answer.
    has_library: AtomicBool,
    dropped: AtomicU64,
}

/// Decides on the caller's thread, then hands over.
struct Filtered {
    shared: Arc<Shared>,
    /// The time of a line is when it was written, not when it is printed.
    clock: AssertUnwindSafe<Arc<dyn Clock>>,
    core: AsyncCore,
    /// Dropped lines that no line has told of yet.
    untold: AtomicU64,
}

impl Filtered {
    /// Hands a line over, with the time and with what it gets by itself.
    fn hand_over(
        &self,
        record: &Record<'_>,
        values: &OwnedKVList,
        added: Option<Added<'_>>,
    ) -> bool {
        // The one part of a record that is free for it.
        let time = self.clock.wall().0.to_string();
        let fixed = RecordStatic { location: record.location(), tag: &time, level: record.level() };
        let sent = match added {
            None => self.core.log(&Record::new(&fixed, record.msg(), record.kv()), values),
            Some(added) => {
                let pairs = (record.kv(), added);
                self.core.log(&Record::new(&fixed, record.msg(), BorrowedKV(&pairs)), values)
            }
        };
        sent.is_ok()
    }

    fn tell_of_dropped(&self, values: &OwnedKVList) {
        let untold = self.untold.swap(0, Ordering::Relaxed);
        if untold == 0 {
            return;
        }
        let message = format_args!("lines were dropped: standard error is read too slowly");
        let location = slog::record_static!(Level::Warning, "");
        let pairs = slog::kv!("dropped_lines" => untold);
        let record = Record::new(&location, &message, BorrowedKV(&pairs));
        if !self.hand_over(&record, values, None) {
            self.untold.fetch_add(untold, Ordering::Relaxed);
        }
    }
}

impl Drain for Filtered {
    type Ok = ();
    type Err = Never;

    fn is_enabled(&self, level: Level) -> bool {
        level.as_usize() <= self.shared.most_detailed.load(Ordering::Acquire)
    }

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let scope = observe::current();
        let spec = self.shared.spec.load();
        let told =
            (spec.has_patterns() || scope != Scope::default()).then(|| Told::by(record, values));
        if spec.has_patterns()
            && let Some(told) = &told
            && !level_of(&spec, told, &scope).accepts(record.level())
        {
            return Ok(());
        }
        let added = told.as_ref().map(|told| Added { scope: &scope, told });
        if self.hand_over(record, values, added) {
            self.tell_of_dropped(values);
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The level of a line: by what it says of itself, else by what its thread was doing.
fn level_of(spec: &LevelSpec, told: &Told, scope: &Scope) -> slog::FilterLevel {
    let message = if told.message.is_empty() { scope.name } else { &told.message };
    if told.actor.is_empty() && scope.actor != observe::PathId::NOBODY {
        return spec.level_of_message(&scope.actor.path(), message);
    }
    spec.level_of_message(&told.actor, message)
}
