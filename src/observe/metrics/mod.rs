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

/// Why gossip of somebody was not taken, or not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GossipRefused {
    /// More came in a second than is looked at.
    Rate,
    /// It is longer than any of ours.
    Size,
    /// It is garbled, not encrypted with the key, or of another program.
    Unreadable,
    /// It can be read, and no node says such a thing.
    Message,
    /// As many connections are open as may be; this one gave way, or was not let in.
    Crowded,
    /// It did not come within its time.
    Late,
    /// As many nodes are known as may be.
    Nodes,
    /// The answer would have been much longer than the question of a stranger.
    Answer,
}

impl GossipRefused {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Rate,
        Self::Size,
        Self::Unreadable,
        Self::Message,
        Self::Crowded,
        Self::Late,
        Self::Nodes,
        Self::Answer,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Size => "size",
            Self::Unreadable => "unreadable",
            Self::Message => "message",
            Self::Crowded => "crowded",
            Self::Late => "late",
            Self::Nodes => "nodes",
            Self::Answer => "answer",
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
    pub producer_duplicates: Counter,
    pub producer_refused: Counter,
    pub raft_dropped: Counter,
    pub flush_duration: Histogram,
    pub flush_bytes: Histogram,
    pub flush_records: Histogram,
    pub flush_failures: Counter,
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self {
            appended_records: Counter::default(),
            appended_bytes: Counter::default(),
            retired_segments: Counter::default(),
            retired_bytes: Counter::default(),
            producer_duplicates: Counter::default(),
            producer_refused: Counter::default(),
            raft_dropped: Counter::default(),
            flush_duration: Histogram::of_durations(),
            flush_bytes: Histogram::of_bytes(),
            flush_records: Histogram::of_counts(),
            flush_failures: Counter::default(),
        }
    }
}

impl LogMetrics {
    /// Adds what is counted of logs to a snapshot: of one, or of several together. Histograms of
    /// sixty lines are left out where nothing was counted, unless `all` are asked for.
    pub fn read(logs: &[&Self], snapshot: &mut Snapshot, place: [&str; 2], all: bool) {
        for (family, of) in [
            (&of::APPENDED_RECORDS, (|log| &log.appended_records) as fn(&Self) -> &Counter),
            (&of::APPENDED_BYTES, |log| &log.appended_bytes),
            (&of::RETIRED_SEGMENTS, |log| &log.retired_segments),
            (&of::RETIRED_BYTES, |log| &log.retired_bytes),
            (&of::PRODUCER_DUPLICATES, |log| &log.producer_duplicates),
            (&of::PRODUCER_REFUSED, |log| &log.producer_refused),
            (&of::RAFT_DROPPED, |log| &log.raft_dropped),
            (&of::FLUSH_FAILURES, |log| &log.flush_failures),
        ] {
            let sum: u64 = logs.iter().map(|log| of(log).get()).sum();
            snapshot.number(family, &place, sum as f64);
        }
        for (family, of) in [
            (&of::FLUSH_DURATION, (|log| &log.flush_duration) as fn(&Self) -> &Histogram),
            (&of::FLUSH_BYTES, |log| &log.flush_bytes),
            (&of::FLUSH_RECORDS, |log| &log.flush_records),
        ] {
            let sum = logs.iter().map(|log| of(log).read()).reduce(Distribution::plus);
            if let Some(sum) = sum.filter(|sum| all || sum.count() > 0) {
                snapshot.distribution(family, &place, sum);
            }
        }
    }
}

/// What a node counts where it happens.
#[derive(Debug)]
#[allow(missing_docs, reason = "the catalogue says what each is")]
pub struct Metrics {
    requests: [[Counter; Outcome::ALL.len()]; Method::ALL.len()],
    request_duration: [Histogram; Method::ALL.len()],
    refused: [Counter; RefusedFor::ALL.len()],
    gossip_refused: [Counter; GossipRefused::ALL.len()],
    received: [Counter; Protocol::ALL.len()],
    sent: [Counter; Protocol::ALL.len()],
    pub connections_gave_way: Counter,
    pub spans_exported: Counter,
    pub spans_dropped: Counter,
    pub export_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Default::default(),
            request_duration: [const { Histogram::of_durations() }; Method::ALL.len()],
            refused: Default::default(),
            gossip_refused: Default::default(),
            received: Default::default(),
            sent: Default::default(),
            connections_gave_way: Counter::default(),
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
        self.read(&mut snapshot);
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

    /// Gossip that was not taken, or not answered.
    pub fn gossip_refused(&self, reason: GossipRefused) -> &Counter {
        &self.gossip_refused[reason as usize]
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
    pub fn read(&self, snapshot: &mut Snapshot) {
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
        for reason in GossipRefused::ALL {
            snapshot.counter(&of::GOSSIP_REFUSED, &[reason.name()], self.gossip_refused(reason));
        }
        for protocol in Protocol::ALL {
            snapshot.counter(&of::RECEIVED, &[protocol.name()], self.received(protocol));
            snapshot.counter(&of::SENT, &[protocol.name()], self.sent(protocol));
        }
        snapshot.counter(&of::CONNECTIONS_GAVE_WAY, &[], &self.connections_gave_way);
        snapshot.counter(&of::SPANS_EXPORTED, &[], &self.spans_exported);
        snapshot.counter(&of::SPANS_DROPPED, &[], &self.spans_dropped);
        snapshot.counter(&of::EXPORT_FAILURES, &[], &self.export_failures);
    }
}
