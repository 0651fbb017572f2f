//! What lets an owner see inside: the stamp that every message carries, the recorder that every
//! actor has, taps on both, metrics, spans, and the closed list of reasons for which anything
//! waits.
//!
//! Everything here is cheap when nobody looks: a message costs three readings of the clock and two
//! takings of an uncontended lock (`benches/observe.rs`). Built without the feature `observe` the recorders keep nothing; that build
//! exists to measure what seeing costs.

mod call;
mod complaints;
mod crash;
mod mailbox;
mod message;
pub mod metrics;
mod path;
mod pattern;
mod recorder;
mod scope;
mod scribe;
mod span;
mod tap;
#[cfg(all(test, feature = "observe"))]
mod tests;
mod wait;

pub use call::{Call, TraceContext};
pub use complaints::{Complaint, Complaints};
pub use crash::{
    CrashEvent, CrashReason, CrashReport, CrashSink, Frames, InHand, PastExit, REPORT_EXITS_MAX,
    REPORT_MESSAGES_MAX, REPORT_RECORDERS_MAX, RecorderDump,
};
pub use mailbox::{Mailbox, Posted};
pub use message::{Mail, MailLoad, MessageId, Stamp};
pub use path::PathId;
pub use pattern::Pattern;
pub use recorder::{
    Answer, Entry, Handled, KindStats, Mishap, Outcome, Reading, Receipt, Recorder,
};
pub use scope::{Scope, ScopeGuard, current, enter};
pub use span::{Attribute, Begun, Instruments, SpanKind, SpanRecord, SpanSink, Tracer};
pub use tap::{Attention, Hub, HubLimits, MessageFilter, Seen, Tap, TapFilter, TooManyTaps};
pub use wait::{Wait, WaitCell};

/// Whether recorders keep anything.
pub const IS_ON: bool = cfg!(feature = "observe");
