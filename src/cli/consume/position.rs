//! Where to begin to read, as people write it. Pure: the time is passed in.

use crate::model::{Offset, Timestamp};
use crate::ops::settings::parse_duration;
use crate::wire::client::Position;

/// Why a position was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a position; write start, end, an offset, -N for the last N records, or @TIME \
     (@2h ago, @2026-11-21T08:00Z, @ and milliseconds since 1970)"
)]
pub struct NotAPosition {
    /// What was given.
    pub text: String,
}

/// Reads `start`, `end`, `N`, `-N`, `@2h`, `@2026-11-21T08:00Z` or `@1795255200000`.
///
/// # Errors
/// [`NotAPosition`].
pub fn parse(text: &str, now: Timestamp) -> Result<Position, NotAPosition> {
    let not = || NotAPosition { text: text.into() };
    match text {
        "start" => return Ok(Position::Start),
        "end" => return Ok(Position::End),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return parse_time(time, now).map(Position::Time).ok_or_else(not);
    }
    let (digits, position): (&str, fn(u64) -> Position) = match text.strip_prefix('-') {
        Some(digits) => (digits, Position::BeforeEnd),
        None => (text, |offset| Position::Offset(Offset(offset))),
    };
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| only_digits).map(position).ok_or_else(not)
}

fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(millis) = text.parse::<i64>() {
        return Some(Timestamp(millis));
    }
    if let Some(ago) = parse_duration(text) {
        let millis = i64::try_from(ago.as_millis()).ok()?;
        return Some(Timestamp(now.0.saturating_sub(millis)));
    }
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_795_255_200_000);

    #[test]
    fn every_way_to_write_a_position_is_read() {
        let time = |millis| Position::Time(Timestamp(millis));
        for (text, position) in [
            ("start", Position::Start),
            ("end", Position::End),
            ("0", Position::Offset(Offset(0))),
            ("17", Position::Offset(Offset(17))),
            ("-10", Position::BeforeEnd(10)),
            ("@2h", time(NOW.0 - 7_200_000)),
            ("@1h30m", time(NOW.0 - 5_400_000)),
            ("@1795255200000", time(1_795_255_200_000)),
            ("@-5", time(-5)),
            ("@2026-11-21T10:00:00Z", time(1_795_255_200_000)),
            ("@2026-11-21T10:00Z", time(1_795_255_200_000)),
            ("@2026-11-21T11:00:00.250+01:00", time(1_795_255_200_250)),
        ] {
            assert_eq!(parse(text, NOW), Ok(position), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_ways_there_are() {
        for text in
            ["", "-", "@", "+5", "1.5", "begin", "@yesterday", "--5", "99999999999999999999"]
        {
            let refused = parse(text, NOW).unwrap_err();
            assert!(refused.to_string().contains("@2h"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn offsets_and_counts_are_read_as_written(number in any::<u64>()) {
            let offset = parse(&number.to_string(), NOW);
            prop_assert_eq!(offset, Ok(Position::Offset(Offset(number))));
            prop_assert_eq!(parse(&format!("-{number}"), NOW), Ok(Position::BeforeEnd(number)));
        }
    }
}
