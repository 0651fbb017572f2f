//! Spans: what a sampled request went through, as plain data. Made where the work is, and handed
//! to whoever exports them. A request that is not sampled costs one branch.

use super::metrics::{Method, Metrics, Outcome, Protocol};
use super::{Call, IS_ON, TraceContext};
use crate::model::{Chance, Clock, ManualClock};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The one that asked.
    Client,
    /// The one that was asked.
    Server,
    /// Work within a node.
    Internal,
}

impl SpanKind {
    /// The name in debug files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Internal => "internal",
        }
    }
}

/// What an attribute of a span says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// Text. Never a user's bytes.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A wall clock that is off by less was not set right.
const EPOCH_SLACK_NS: u64 = 50_000_000;

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRecord {
    /// What was done.
    pub name: &'static str,
    /// For whom.
    pub kind: SpanKind,
    /// Its place: the trace, and its own number.
    pub trace_id: u128,
    /// See above.
    pub span_id: u64,
    /// The span that it is part of; 0: none.
    pub parent_id: u64,
    /// When it began (nanoseconds since 1970 UTC).
    pub start_ns: u64,
    /// When it ended (the same).
    pub end_ns: u64,
    /// What else is known.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, where it did.
    pub error: Option<Cow<'static, str>>,
}

/// Whoever exports spans. Takes them on the thread that made them: must neither wait nor fail.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes a span, or drops and counts it.
    fn submit(&self, span: SpanRecord);
}

/// A request that a front end has begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// What is stamped on all that is sent for it. Its trace, where there is one, is that of its
    /// own span, and is recorded.
    pub call: Call,
    method: Method,
    /// The caller's span; 0: none.
    parent_id: u64,
    at: Duration,
}

/// Decides which requests are sampled, and makes their spans.
pub struct Tracer {
    sink: Option<Arc<dyn SpanSink>>,
    /// A trace whose number is below is sampled, where the caller does not say; `None`: none is.
    threshold: Option<u64>,
    ids: AtomicU64,
    clock: Arc<dyn Clock>,
    /// Wall time at monotonic zero (nanoseconds since 1970 UTC), as it was last set right.
    epoch_ns: AtomicU64,
}

impl Tracer {
    /// A tracer that records nothing, with times of this clock.
    pub fn off(clock: Arc<dyn Clock>) -> Self {
        let epoch_ns = AtomicU64::new(epoch_ns(&*clock));
        Self { sink: None, threshold: None, ids: AtomicU64::new(0), clock, epoch_ns }
    }

    /// A tracer that samples this share (0 to 1) of what comes without a context. `seed` tells its
    /// numbers from those of other processes.
    pub fn new(sink: Arc<dyn SpanSink>, ratio: f64, seed: u64, clock: Arc<dyn Clock>) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
        let threshold = (ratio > 0.0).then_some((ratio.min(1.0) * u64::MAX as f64) as u64);
        let epoch_ns = AtomicU64::new(epoch_ns(&*clock));
        Self { sink: Some(sink), threshold, ids: AtomicU64::new(seed), clock, epoch_ns }
    }

    /// Whether anything can be recorded.
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// The time of spans.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The number of a new span. Never 0.
    pub fn new_id(&self) -> u64 {
        // Well spread, and different for each step of the counter.
        let seed = self.ids.fetch_add(Chance::STEP, Ordering::Relaxed);
        Chance::new(seed).next_u64().max(1)
    }

    /// The place of a new span below `incoming`, or of the first one of a new trace; `None` where
    /// it is not to be recorded. The second number is its parent.
    fn place(&self, incoming: Option<TraceContext>) -> Option<(TraceContext, u64)> {
        self.sink.as_ref()?;
        let (trace_id, parent_id) = match incoming {
            Some(TraceContext { trace_id, span_id, sampled }) => {
                sampled.then_some((trace_id, span_id))?
            }
            None => {
                let threshold = self.threshold?;
                let low = self.new_id();
                (low <= threshold).then_some(())?;
                ((u128::from(self.new_id()) << 64) | u128::from(low), 0)
            }
        };
        Some((TraceContext { trace_id, span_id: self.new_id(), sampled: true }, parent_id))
    }

    /// Begins a request that came with this context.
    pub fn begin(&self, method: Method, incoming: Option<TraceContext>) -> Begun {
        if !IS_ON {
            return Begun { call: Call::default(), method, parent_id: 0, at: Duration::ZERO };
        }
        let placed = self.place(incoming);
        let (trace, parent_id) = placed.unzip();
        let parent_id = parent_id.unwrap_or(0);
        Begun { call: Call::begin(trace), method, parent_id, at: self.now() }
    }

    /// A new place below this one, for a span that is yet to be recorded.
    #[must_use]
    pub fn below(&self, above: TraceContext) -> TraceContext {
        TraceContext { span_id: self.new_id(), ..above }
    }

    /// Records a span of work within the node, at `place` below `parent_id`.
    pub fn internal(
        &self,
        name: &'static str,
        place: TraceContext,
        parent_id: u64,
        (from, to): (Duration, Duration),
        attributes: Vec<(&'static str, Attribute)>,
        error: Option<Cow<'static, str>>,
    ) {
        self.submit(name, SpanKind::Internal, place, parent_id, (from, to), attributes, error);
    }

    /// Records the span of a whole command that asks nodes.
    pub fn client(
        &self,
        name: &'static str,
        place: TraceContext,
        from: Duration,
        attributes: Vec<(&'static str, Attribute)>,
        error: Option<Cow<'static, str>>,
    ) {
        let span = (from, self.now());
        self.submit(name, SpanKind::Client, place, 0, span, attributes, error);
    }

    /// The first place of a new trace, where it is to be recorded.
    pub fn root(&self) -> Option<TraceContext> {
        self.place(None).map(|(place, _)| place)
    }

    #[allow(clippy::too_many_arguments, reason = "each is a field of the record")]
    fn submit(
        &self,
        name: &'static str,
        kind: SpanKind,
        TraceContext { trace_id, span_id, .. }: TraceContext,
        parent_id: u64,
        (from, to): (Duration, Duration),
        attributes: Vec<(&'static str, Attribute)>,
        error: Option<Cow<'static, str>>,
    ) {
        let Some(sink) = &self.sink else { return };
        let epoch_ns = self.epoch_ns();
        let wall = |at: Duration| epoch_ns.saturating_add(nanos(at));
        let (start_ns, end_ns) = (wall(from), wall(to));
        sink.submit(SpanRecord {
            name,
            kind,
            trace_id,
            span_id,
            parent_id,
            start_ns,
            end_ns,
            attributes,
            error,
        });
    }
}

impl Tracer {
    /// Wall time is set right while a node runs. A small difference is only how coarse the wall
    /// clock is: spans of one trace must not be moved against each other by it.
    fn epoch_ns(&self) -> u64 {
        let (known, fresh) = (self.epoch_ns.load(Ordering::Relaxed), epoch_ns(&*self.clock));
        if fresh.abs_diff(known) < EPOCH_SLACK_NS {
            return known;
        }
        self.epoch_ns.store(fresh, Ordering::Relaxed);
        fresh
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracer({})", if self.is_on() { "on" } else { "off" })
    }
}

/// What everyone in a node who does something worth measuring is handed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Instruments {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where spans are made.
    pub tracer: Arc<Tracer>,
}

impl Default for Instruments {
    /// Counts for nobody and traces nothing, on a clock that stands still.
    fn default() -> Self {
        let tracer = Tracer::off(Arc::new(ManualClock::default()));
        Self { metrics: Arc::default(), tracer: Arc::new(tracer) }
    }
}

impl Instruments {
    /// Begins a request that came with this context.
    pub fn begin(&self, method: Method, incoming: Option<TraceContext>) -> Begun {
        self.tracer.begin(method, incoming)
    }

    /// Counts a request that has been answered, and records its span where it is sampled. `why`
    /// makes the error, where it failed.
    pub fn finish(&self, begun: &Begun, outcome: Outcome, why: impl FnOnce() -> String) {
        if !IS_ON {
            return;
        }
        let Begun { call, method, parent_id, at } = *begun;
        let now = self.tracer.now();
        self.metrics.requests(method, outcome).one();
        self.metrics.request_duration(method).observe_for(now.saturating_sub(at));
        let Some(place) = call.trace else { return };
        let system = match method.protocol() {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
        };
        let attributes = vec![
            ("rpc.system", system.into()),
            ("rpc.method", method.span_name().into()),
            ("duramen.request", call.request.into()),
            ("duramen.outcome", outcome.name().into()),
        ];
        let error = (outcome != Outcome::Ok).then(|| Cow::Owned(why()));
        let (name, span) = (method.span_name(), (at, now));
        self.tracer.submit(name, SpanKind::Server, place, parent_id, span, attributes, error);
    }
}

/// Wall time at monotonic zero (nanoseconds since 1970 UTC), as of now.
fn epoch_ns(clock: &dyn Clock) -> u64 {
    let wall_ms = u64::try_from(clock.wall().0).unwrap_or(0);
    (wall_ms * 1_000_000).saturating_sub(nanos(clock.monotonic()))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<SpanRecord>>);

    impl SpanSink for Kept {
        fn submit(&self, span: SpanRecord) {
            self.0.lock().unwrap().push(span);
        }
    }

    fn traced(ratio: f64) -> (Instruments, Arc<Kept>) {
        let kept = Arc::<Kept>::default();
        let clock = Arc::new(ManualClock::default());
        let tracer = Tracer::new(Arc::clone(&kept) as _, ratio, 7, clock);
        (Instruments { tracer: Arc::new(tracer), ..Instruments::default() }, kept)
    }

    fn incoming(sampled: bool) -> Option<TraceContext> {
        Some(TraceContext { trace_id: 5, span_id: 6, sampled })
    }

    /// A clock whose wall time is set right by somebody.
    #[derive(Debug, Default)]
    struct SetRight {
        ticking: ManualClock,
        by_ms: std::sync::atomic::AtomicI64,
    }

    impl Clock for SetRight {
        fn monotonic(&self) -> Duration {
            self.ticking.monotonic()
        }

        fn wall(&self) -> crate::model::Timestamp {
            crate::model::Timestamp(self.ticking.wall().0 + self.by_ms.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn a_span_has_the_wall_time_that_holds_when_it_is_recorded() {
        let (kept, clock) = (Arc::<Kept>::default(), Arc::<SetRight>::default());
        let tracer = Tracer::new(Arc::clone(&kept) as _, 1.0, 7, Arc::clone(&clock) as _);
        let instruments = Instruments { tracer: Arc::new(tracer), ..Instruments::default() };
        clock.by_ms.store(5_000, Ordering::SeqCst);
        let begun = instruments.begin(Method::Produce, None);
        clock.ticking.advance(Duration::from_millis(20));
        instruments.finish(&begun, Outcome::Ok, String::new);
        let span = kept.0.lock().unwrap()[0].clone();
        assert_eq!((span.start_ns, span.end_ns), (5_000_000_000, 5_020_000_000));
    }

    #[test]
    fn the_callers_choice_is_kept_whatever_the_ratio() {
        for ratio in [0.0, 1.0] {
            let (instruments, kept) = traced(ratio);
            let refused = instruments.begin(Method::Produce, incoming(false));
            instruments.finish(&refused, Outcome::Ok, String::new);
            assert!(refused.call.trace.is_none() && kept.0.lock().unwrap().is_empty());
            let wanted = instruments.begin(Method::Produce, incoming(true));
            instruments.finish(&wanted, Outcome::Ok, String::new);
            let kept = kept.0.lock().unwrap();
            let [span] = &kept[..] else { panic!("one span, not {kept:?}") };
            assert_eq!((span.trace_id, span.parent_id, span.kind), (5, 6, SpanKind::Server));
            assert_eq!(wanted.call.trace.map(|place| place.span_id), Some(span.span_id));
        }
    }

    #[test]
    fn without_a_context_about_the_wanted_share_is_sampled() {
        let (instruments, _) = traced(0.25);
        let sampled = (0..4000)
            .filter(|_| instruments.begin(Method::Fetch, None).call.trace.is_some())
            .count();
        assert!((800..1200).contains(&sampled), "{sampled} of 4000");
        assert_eq!(traced(0.0).0.begin(Method::Fetch, None).call.trace, None);
        assert!(traced(1.0).0.begin(Method::Fetch, None).call.trace.is_some());
    }

    #[test]
    fn every_request_has_a_number_and_is_counted_also_when_nothing_is_traced() {
        let instruments = Instruments::default();
        let first = instruments.begin(Method::Append, incoming(true));
        let second = instruments.begin(Method::Append, None);
        assert!(0 < first.call.request && first.call.request < second.call.request);
        assert_eq!(first.call.trace, None, "nobody would record it");
        instruments.finish(&first, Outcome::Invalid, || unreachable!("nobody asks why"));
        let counter = instruments.metrics.requests(Method::Append, Outcome::Invalid);
        assert_eq!(counter.get(), 1);
    }
}
