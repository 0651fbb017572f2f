//! What lets an owner see inside: the stamp that every message carries, the recorder that every
//! actor has, taps on both, and the closed list of reasons for which anything waits.
//!
//! Everything here is cheap when nobody looks: a message costs two readings of the clock and one
//! uncontended lock. Built without the feature `observe` the recorders keep nothing; that build
//! exists to measure what seeing costs.

mod call;
mod complaints;
mod message;
mod path;
mod pattern;
mod recorder;
mod scope;
mod tap;
#[cfg(all(test, feature = "observe"))]
mod tests;
mod wait;

pub use call::{Call, TraceContext};
pub use complaints::{Complaint, Complaints};
pub use message::{Mail, MailLoad, MessageId, Stamp};
pub use path::PathId;
pub use pattern::Pattern;
pub use recorder::{
    Answer, Entry, Handled, KindStats, Mishap, Outcome, Reading, Receipt, Recorder,
};
pub use scope::{Scope, ScopeGuard, current, enter};
pub use tap::{Attention, Hub, MessageFilter, Seen, Tap, TapFilter, TooManyTaps};
pub use wait::{Wait, WaitCell, WaitGuard};

/// Whether recorders keep anything.
pub const IS_ON: bool = cfg!(feature = "observe");
