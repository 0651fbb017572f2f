//! The inside of a node in the words of the wire: what gRPC sends, and HTTP shows as JSON.

use crate::actors::explain::{Explanation, Subject};
use crate::actors::observer::{Acted, LogLevels, PlaceReport, TreeReport};
use crate::actors::readiness::NodeInfo;
use crate::model::Clock;
use crate::observe::Seen;
use crate::wire::pb::duramen::v1 as pb;
use std::time::Duration;

/// A whole node.
pub fn tree(report: TreeReport, node: &NodeInfo) -> pb::TreeResponse {
    pb::TreeResponse {
        node_id: node.node_id.clone(),
        version: node.version.clone(),
        time_ms: report.time.0,
        places: report.places.into_iter().map(place).collect(),
        taps: u32::try_from(report.taps).unwrap_or(u32::MAX),
        tap_dropped: report.tap_dropped,
        log_dropped: report.log_dropped,
    }
}

fn place(place: PlaceReport) -> pb::Place {
    let (reason, since_ms) = match place.quarantine {
        Some((reason, since)) => (reason, Some(since.0)),
        None => (String::new(), None),
    };
    pb::Place {
        path: place.path,
        kind: place.kind.name().into(),
        state: place.state.into(),
        reason,
        since_ms,
        again_in_ms: place.again_in.map(millis),
        generation: place.generation,
        restarts: place.restarts,
        uptime_ms: place.uptime.map(millis),
        mailbox: place.mailbox,
        in_flight: place.in_flight,
        refused: place.refused,
        handled: place.handled,
        per_second: place.per_second,
        slowest: place.slowest.map(|(message, took)| pb::SlowestMessage {
            message: message.into(),
            took_us: micros(took),
        }),
        handling: place.handling.map(|handling| pb::MessageInHand {
            message: handling.message.into(),
            id: handling.id,
            for_us: micros(handling.since),
        }),
        last_exit: place.last_exit,
    }
}

/// A message as a tap tells it. `clock` is the one of the recorders.
pub fn envelope(seen: &Seen, clock: &dyn Clock) -> pb::Envelope {
    let entry = &seen.entry;
    let age = clock.monotonic().saturating_sub(Duration::from_nanos(entry.sent_ns));
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    pb::Envelope {
        path: seen.path.to_string(),
        message: entry.message.into(),
        id: entry.id.0,
        cause: entry.cause.0,
        request: entry.request,
        sender: entry.sender.path().to_string(),
        time_ms: clock.wall().0.saturating_sub(age_ms),
        sent_ns: entry.sent_ns,
        waited_ns: entry.waited_ns(),
        handled_ns: entry.handled_ns,
        outcome: entry.outcome.name().into(),
        answer: entry.answer.map(|(answer, _)| answer.name().into()),
        answered_after_ns: entry.answer.map(|(_, after_ns)| after_ns),
        items: entry.items,
        bytes: entry.bytes,
        shown: seen.shown.clone(),
    }
}

/// What is to be explained; without a word about it, the node.
pub fn subject(asked: Option<pb::explain_request::Subject>) -> Subject {
    match asked {
        None | Some(pb::explain_request::Subject::Node(_)) => Subject::Node,
        Some(pb::explain_request::Subject::Partition(name)) => Subject::Partition(name),
        Some(pb::explain_request::Subject::Actor(path)) => Subject::Actor(path),
    }
}

/// An explanation, with what else is worth knowing.
pub fn explanation(told: Explanation) -> pb::Explanation {
    pb::Explanation {
        subject: told.subject,
        reason: told.reason.code().into(),
        sentence: told.sentence,
        since_ms: told.since.map(millis),
        next: told.next,
        advice: told.advice,
        also: told.also.into_iter().map(explanation).collect(),
    }
}

/// What an action did.
pub fn acted(acted: Acted) -> pb::CommandResponse {
    let affected = acted.affected.into_iter();
    pb::CommandResponse {
        path: acted.path,
        affected: affected
            .map(|(path, state)| pb::AffectedPlace { path, state: state.into() })
            .collect(),
        next: acted.next,
    }
}

/// Which lines are written.
pub fn log_levels(levels: LogLevels) -> pb::LogLevels {
    pb::LogLevels { spec: levels.spec, before: levels.before, dropped: levels.dropped }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
