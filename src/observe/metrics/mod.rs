//! What a node counts where it happens. The rest of the catalogue is read at scrape time from
//! what the node knows anyway: recorders, the tree, what partitions publish.

pub mod catalogue;
mod primitives;
mod request;
mod snapshot;

pub use primitives::{Counter, Distribution, Histogram};
pub use request::{Method, Outcome, Protocol};
pub use snapshot::{Sample, Snapshot, TEXT_CONTENT_TYPE, Value};

use catalogue as of;

/// Why a partition did not take a request to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// As many requests are under way as are admitted.
    Messages,
    /// As many bytes are under way as are admitted.
    Bytes,
    /// The mailbox is full.
    Mailbox,
    /// It is being rebuilt.
    Restarting,
    /// It left service.
    Quarantined,
    /// It has stopped.
    Stopped,
}

impl RefusedFor {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Messages,
        Self::Bytes,
        Self::Mailbox,
        Self::Restarting,
        Self::Quarantined,
        Self::Stopped,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Mailbox => "mailbox",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
            Self::Stopped => "stopped",
        }
    }
}

/// What is counted of a partition's log.
#[derive(Debug)]
#[allow(missing_docs, reason = "the catalogue says what each is")]
pub struct LogMetrics {
    pub appended_records: Counter,
    pub appended_bytes: Counter,
    pub retired_segments: Counter,
    pub retired_bytes: Counter,
    pub flush_duration: Histogram,
    pub flush_bytes: Histogram,
    pub flush_records: Histogram,
    pub flush_failures: Counter,
}

/// What a node counts where it happens.
#[derive(Debug)]
#[allow(missing_docs, reason = "the catalogue says what each is")]
pub struct Metrics {
    pub log: LogMetrics,
    requests: [[Counter; Outcome::ALL.len()]; Method::ALL.len()],
    request_duration: [Histogram; Method::ALL.len()],
    refused: [Counter; RefusedFor::ALL.len()],
    received: [Counter; Protocol::ALL.len()],
    sent: [Counter; Protocol::ALL.len()],
    pub spans_exported: Counter,
    pub spans_dropped: Counter,
    pub export_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            log: LogMetrics {
                appended_records: Counter::default(),
                appended_bytes: Counter::default(),
                retired_segments: Counter::default(),
                retired_bytes: Counter::default(),
                flush_duration: Histogram::of_durations(),
                flush_bytes: Histogram::of_bytes(),
                flush_records: Histogram::of_counts(),
                flush_failures: Counter::default(),
            },
            requests: Default::default(),
            request_duration: [const { Histogram::of_durations() }; Method::ALL.len()],
            refused: Default::default(),
            received: Default::default(),
            sent: Default::default(),
            spans_exported: Counter::default(),
            spans_dropped: Counter::default(),
            export_failures: Counter::default(),
        }
    }
}

/// Where all metrics of a node can be read at once, from any thread. Asks no actor.
pub trait Measure: Send + Sync + 'static {
    /// All metrics at this moment.
    fn snapshot(&self) -> Snapshot;
}

/// Of a front end without a node.
impl Measure for Metrics {
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.read(&mut snapshot, "log", "0");
        snapshot
    }
}

impl Metrics {
    /// Requests of this method that were answered so.
    pub fn requests(&self, method: Method, outcome: Outcome) -> &Counter {
        &self.requests[method as usize][outcome as usize]
    }

    /// How long requests of this method took.
    pub fn request_duration(&self, method: Method) -> &Histogram {
        &self.request_duration[method as usize]
    }

    /// Requests to append that were not taken.
    pub fn refused(&self, reason: RefusedFor) -> &Counter {
        &self.refused[reason as usize]
    }

    /// Bytes read from connections.
    pub fn received(&self, protocol: Protocol) -> &Counter {
        &self.received[protocol as usize]
    }

    /// Bytes written to connections.
    pub fn sent(&self, protocol: Protocol) -> &Counter {
        &self.sent[protocol as usize]
    }

    /// Adds what is counted here to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot, topic: &str, partition: &str) {
        let log = &self.log;
        let place = [topic, partition];
        snapshot.counter(&of::APPENDED_RECORDS, &place, &log.appended_records);
        snapshot.counter(&of::APPENDED_BYTES, &place, &log.appended_bytes);
        snapshot.counter(&of::RETIRED_SEGMENTS, &place, &log.retired_segments);
        snapshot.counter(&of::RETIRED_BYTES, &place, &log.retired_bytes);
        snapshot.histogram(&of::FLUSH_DURATION, &place, &log.flush_duration);
        snapshot.histogram(&of::FLUSH_BYTES, &place, &log.flush_bytes);
        snapshot.histogram(&of::FLUSH_RECORDS, &place, &log.flush_records);
        snapshot.counter(&of::FLUSH_FAILURES, &place, &log.flush_failures);
        for method in Method::ALL {
            let labels = [method.protocol().name(), method.name()];
            for outcome in Outcome::ALL {
                let counter = self.requests(method, outcome);
                let labels = [labels[0], labels[1], outcome.name()];
                snapshot.counter(&of::REQUESTS, &labels, counter);
            }
            // Twenty lines each: of methods that nobody calls only the one that matters most.
            let histogram = self.request_duration(method);
            if method == Method::Produce || histogram.read().count() > 0 {
                snapshot.histogram(&of::REQUEST_DURATION, &labels, histogram);
            }
        }
        for reason in RefusedFor::ALL {
            snapshot.counter(&of::REFUSALS, &[reason.name()], self.refused(reason));
        }
        for protocol in Protocol::ALL {
            snapshot.counter(&of::RECEIVED, &[protocol.name()], self.received(protocol));
            snapshot.counter(&of::SENT, &[protocol.name()], self.sent(protocol));
        }
        snapshot.counter(&of::SPANS_EXPORTED, &[], &self.spans_exported);
        snapshot.counter(&of::SPANS_DROPPED, &[], &self.spans_dropped);
        snapshot.counter(&of::EXPORT_FAILURES, &[], &self.export_failures);
    }
}
