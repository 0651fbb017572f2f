//! A record, the unit that users append and read; and bytes that never print themselves.

use super::Timestamp;
use bytes::Bytes;
use std::fmt;

/// User bytes. `Debug` shows the length only, so that no message, log line or crash report can
/// leak what a user stored.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0.len())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A named value that travels with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name; need not be unique within a record.
    pub key: String,
    /// The value; `None` is Kafka's null, which is not the empty value.
    pub value: Option<Payload>,
}

/// What a user appends and reads. Its offset is not part of it: the log gives it one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Groups records for compaction and partitioning; `None` where there is no key.
    pub key: Option<Payload>,
    /// The content; `None` marks a deletion in a compacted topic.
    pub value: Option<Payload>,
    /// Headers in the order given.
    pub headers: Vec<Header>,
    /// When it happened by the producer's clock, or when the server first saw it.
    pub timestamp: Timestamp,
}

impl Record {
    /// A record of a value alone.
    pub fn of_value(value: impl Into<Payload>, timestamp: Timestamp) -> Self {
        Self { value: Some(value.into()), timestamp, ..Self::default() }
    }
}
