//! The client call that something happens for: its number here, and its place in the client's own
//! trace.

use std::fmt;
use std::str::FromStr;

/// The client's request that a message belongs to. Copied into every message that is sent for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call {
    /// Number of the request in this process; 0: of none.
    pub request: u64,
    /// Its place in a trace; `None`: not traced.
    pub trace: Option<TraceContext>,
}

impl Call {
    /// A new request, traced or not.
    pub fn begin(trace: Option<TraceContext>) -> Self {
        Self { request: super::MessageId::next().0, trace }
    }
}

/// A place in a distributed trace (W3C Trace Context, `traceparent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace. Never 0.
    pub trace_id: u128,
    /// The span that is the parent of what follows. Never 0.
    pub span_id: u64,
    /// Whether spans are to be kept.
    pub sampled: bool,
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, sampled } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*sampled))
    }
}

/// A `traceparent` that is none: it is ignored, as the recommendation says, not refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceParent;

impl FromStr for TraceContext {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, NotATraceParent> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().ok_or(NotATraceParent)?;
            let is_hex = part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
            if part.len() != digits || !is_hex {
                return Err(NotATraceParent);
            }
            u128::from_str_radix(part, 16).map_err(|_| NotATraceParent)
        };
        let (version, trace_id) = (hex(2)?, hex(32)?);
        let (span_id, flags) = (hex(16)? as u64, hex(2)?);
        let is_over = parts.next().is_none();
        // Later versions may have more parts; the first version has these four.
        if version == 0xff || trace_id == 0 || span_id == 0 || (version == 0 && !is_over) {
            return Err(NotATraceParent);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_recommendations_example_is_read_and_written_back() {
        let read: TraceContext = EXAMPLE.parse().unwrap();
        assert!(read.sampled && read.span_id == 0xb7ad_6b71_6920_3331);
        assert_eq!(read.to_string(), EXAMPLE);
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        let later = format!("01{}-what-ever", &EXAMPLE[2..]);
        assert!(later.parse::<TraceContext>().is_ok());
        assert!(format!("{EXAMPLE}-more").parse::<TraceContext>().is_err());
    }

    #[test]
    fn anything_else_is_no_trace() {
        let zero_trace = EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_span = EXAMPLE.replace("b7ad6b7169203331", &"0".repeat(16));
        let upper = EXAMPLE.to_uppercase();
        let ff = format!("ff{}", &EXAMPLE[2..]);
        for text in ["", "00", "00-1-2-3", "é", &zero_trace, &zero_span, &upper, &ff] {
            assert_eq!(text.parse::<TraceContext>(), Err(NotATraceParent), "{text}");
        }
    }
}
