//! How long a call may wait: the caller's deadline (`grpc-timeout`), within the node's own.

use std::future::Future;
use std::time::Duration;
use tonic::metadata::MetadataMap;

/// The time that the caller gives, if it says so. A malformed value counts as none.
fn of(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

/// The time that a call has: what the caller gives, and never more than `max`.
pub fn at_most(max: Duration, metadata: &MetadataMap) -> Duration {
    of(metadata).unwrap_or(max).min(max)
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The specification's limit; it also keeps every product below within u64.
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Waits for `work`, at most so long; `late` makes the answer when time runs out.
pub async fn within<T, E>(
    time: Duration,
    work: impl Future<Output = Result<T, E>>,
    late: impl FnOnce() -> E,
) -> Result<T, E> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_the_specification_is_understood() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse("1n"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn anything_else_is_no_deadline() {
        for text in ["", "S", "123456789S", "-1S", "+1S", "1s", "1é", "é", "1.5S"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
