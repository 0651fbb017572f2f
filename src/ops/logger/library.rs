//! What libraries tell of themselves (`tracing` events of h2, hyper, tonic, tower …) as lines of
//! diagnostics, with the actor `library/<target>`.
//!
//! A library's line that nobody wants costs what `tracing` costs without a subscriber: each place
//! that could write one asks once, and again when the levels change. Spans are nobody's wish.

use super::fields::{ACTOR_KEY, MESSAGE_KEY};
use super::spec::LIBRARY;
use super::{LogControl, TIME_KEY};
use slog::{BorrowedKV, FilterLevel, KV, Logger, Record, RecordLocation, RecordStatic, Serializer};
use std::fmt::{self, Write};
use std::sync::atomic::Ordering;
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id};
use tracing_core::subscriber::{Interest, Subscriber};
use tracing_core::{Dispatch, Event, Level, LevelFilter, Metadata, dispatcher, span};

/// A value of an event is cut at so many bytes: libraries print whatever they have.
const VALUE_BYTES_MAX: usize = 512;
/// Fields of an event beyond this number are left out.
const FIELDS_MAX: usize = 16;

/// Lets the libraries of this process write through `logger`, at the levels of `control`. Says
/// false where something else in the process has the libraries' ear already.
pub fn install(control: &LogControl, logger: Logger) -> bool {
    dispatcher::set_global_default(dispatch(control, logger)).is_ok()
}

/// The way from `tracing` to a logger.
pub(super) fn dispatch(control: &LogControl, logger: Logger) -> Dispatch {
    control.0.has_library.store(true, Ordering::Release);
    Dispatch::new(Library { control: control.clone(), logger })
}

/// Lets every place that could write a line ask again.
pub(super) fn levels_changed() {
    tracing_core::callsite::rebuild_interest_cache();
}

struct Library {
    control: LogControl,
    logger: Logger,
}

impl Library {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = self.control.0.spec.load().level_of(&path(metadata.target()));
        metadata.is_event() && wanted.accepts(level(metadata))
    }
}

/// `h2::proto` is `library/h2/proto`.
fn path(target: &str) -> String {
    format!("{LIBRARY}/{}", target.replace("::", "/"))
}

/// Where memberlist says that nobody heard the end of a broadcast. Whoever has it told what a node
/// says of itself waits for that end within a limit only, and at a stop the limit is short: that it is
/// over by then is expected, and no error of anybody.
const UNHEARD: &str = "memberlist_core::broadcast";

fn level(metadata: &Metadata<'_>) -> slog::Level {
    match *metadata.level() {
        Level::ERROR if metadata.target() == UNHEARD => slog::Level::Debug,
        Level::ERROR => slog::Level::Error,
        Level::WARN => slog::Level::Warning,
        Level::INFO => slog::Level::Info,
        Level::DEBUG => slog::Level::Debug,
        Level::TRACE => slog::Level::Trace,
    }
}

impl Subscriber for Library {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.control.0.spec.load().most_detailed_library() {
            FilterLevel::Off | FilterLevel::Critical => LevelFilter::OFF,
            FilterLevel::Error => LevelFilter::ERROR,
            FilterLevel::Warning => LevelFilter::WARN,
            FilterLevel::Info => LevelFilter::INFO,
            FilterLevel::Debug => LevelFilter::DEBUG,
            FilterLevel::Trace => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        line.actor = path(metadata.target());
        let location = RecordLocation {
            file: "",
            line: metadata.line().unwrap_or_default(),
            column: 0,
            function: "",
            module: "",
        };
        let fixed = RecordStatic { location: &location, tag: "", level: level(metadata) };
        self.logger.log(&Record::new(&fixed, &format_args!("{}", line.message), BorrowedKV(&line)));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event, as a line.
#[derive(Default)]
struct Line {
    actor: String,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Cut(String::new());
        // An error says only that the text was cut.
        let _ = write!(text, "{value:?}");
        match field.name() {
            "message" => self.message = text.0,
            // Names that lines have for themselves, and what bridges from `log` repeat.
            ACTOR_KEY | TIME_KEY | "level" | "msg" => {}
            name if name.starts_with("log.") => {}
            name if self.fields.len() < FIELDS_MAX => self.fields.push((name, text.0)),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl KV for Line {
    fn serialize(&self, _: &Record<'_>, serializer: &mut dyn Serializer) -> slog::Result {
        debug_assert!(self.fields.iter().all(|(name, _)| *name != MESSAGE_KEY));
        for (name, value) in self.fields.iter().rev() {
            serializer.emit_str(name, value)?;
        }
        serializer.emit_str(ACTOR_KEY, &self.actor)
    }
}

/// Text that ends after [`VALUE_BYTES_MAX`].
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut room = VALUE_BYTES_MAX.saturating_sub(self.0.len()).min(text.len());
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        self.0.push_str(&text[..room]);
        if room == text.len() {
            return Ok(());
        }
        self.0.push('…');
        Err(fmt::Error)
    }
}
