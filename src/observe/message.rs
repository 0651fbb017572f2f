//! What every message between actors has: a name, a size, and the stamp that it is sent with.

use super::{Call, PathId, current};
use crate::model::Clock;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A message between actors. Its `Debug` is short and stable, and shows payloads only by length and
/// checksum.
pub trait Mail: fmt::Debug + Send + 'static {
    /// The name by which logs, taps and statistics know it.
    const NAME: &'static str;

    /// How much it carries.
    fn load(&self) -> MailLoad {
        MailLoad::default()
    }
}

/// How much a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailLoad {
    /// Records, entries, or whatever the message counts.
    pub items: u32,
    /// Bytes of payload.
    pub bytes: u64,
}

/// The number of a message or of a client's request: in the order of sending, over all nodes of
/// the process. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The next number.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is written on the envelope when a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Its number.
    pub id: MessageId,
    /// The message that its sender was handling.
    pub cause: MessageId,
    /// Who sent it.
    pub sender: PathId,
    /// The client's request that it is part of.
    pub call: Call,
    /// When (monotonic time).
    pub sent_at: Duration,
}

impl Stamp {
    /// The stamp of a message that the calling thread sends now.
    pub fn now(clock: &dyn Clock) -> Self {
        if !super::IS_ON {
            return Self::default();
        }
        let scope = current();
        Self {
            id: MessageId::next(),
            cause: scope.message,
            sender: scope.actor,
            call: scope.call,
            sent_at: clock.monotonic(),
        }
    }
}
