//! One place of a node as it is shown: what the tree knows of it joined with what its recorder
//! knows. Workers, which only have a recorder, stand below their actor.

use crate::model::Timestamp;
use crate::observe::{Reading, Recorder};
use crate::supervision::{Kind, State, TreeStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A whole node at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeReport {
    /// The moment.
    pub time: Timestamp,
    /// Parents before their children, children in the order of their start.
    pub places: Vec<PlaceReport>,
    /// Taps open now.
    pub taps: usize,
    /// Messages that did not fit the queue of a tap, since the node started.
    pub tap_dropped: u64,
    /// Lines of diagnostics dropped, since the node started.
    pub log_dropped: u64,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// Has children.
    Supervisor,
    /// Does the work.
    Actor,
    /// A thread of an actor, that lives and dies with it.
    Worker,
}

impl PlaceKind {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Actor => "actor",
            Self::Worker => "worker",
        }
    }
}

/// A message in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHand {
    /// Its name.
    pub message: &'static str,
    /// Its number.
    pub id: u64,
    /// Since when its handler runs.
    pub since: Duration,
}

/// A place at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceReport {
    /// Where.
    pub path: String,
    /// What stands there.
    pub kind: PlaceKind,
    /// What it is or does, in one word.
    pub state: &'static str,
    /// Why, and since when, where it is quarantined.
    pub quarantine: Option<(String, Timestamp)>,
    /// When its next life begins at the earliest, where it is between two.
    pub again_in: Option<Duration>,
    /// Which life it is in.
    pub generation: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// How long the present life has lasted.
    pub uptime: Option<Duration>,
    /// Messages that wait.
    pub mailbox: u64,
    /// Admitted requests that are not yet answered.
    pub in_flight: u64,
    /// Messages refused since the node started.
    pub refused: u64,
    /// Messages handled since the node started.
    pub handled: u64,
    /// Messages handled in the last full second.
    pub per_second: u64,
    /// The slowest message of the last minute or two.
    pub slowest: Option<(&'static str, Duration)>,
    /// The message in hand.
    pub handling: Option<InHand>,
    /// How its last life ended.
    pub last_exit: Option<String>,
}

/// The state in one word.
pub fn state_name(state: &State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Stopping => "stopping",
        State::Restarting { .. } => "restarting",
        State::Quarantined { .. } => "quarantined",
        State::Stopped => "stopped",
    }
}

/// All places of a tree and the workers below them. `now` by the clock of the recorders.
pub fn report(root: &TreeStatus, recorders: &[Arc<Recorder>], now: Duration) -> Vec<PlaceReport> {
    let mut readings: BTreeMap<&str, Reading> =
        recorders.iter().map(|recorder| (&**recorder.path_text(), recorder.reading())).collect();
    let mut places = Vec::new();
    of_tree(root, &mut readings, now, &mut places);
    // What is left belongs to no place of the tree: each is a worker of the nearest place above.
    for (path, reading) in readings.into_iter().rev() {
        let owner = places.iter().rposition(|place| {
            path.strip_prefix(&*place.path).is_some_and(|rest| rest.starts_with('/'))
        });
        if let Some(owner) = owner {
            let worker = worker(path, &places[owner], &reading, now);
            places.insert(owner + 1, worker);
        }
    }
    places
}

fn of_tree(
    status: &TreeStatus,
    readings: &mut BTreeMap<&str, Reading>,
    now: Duration,
    places: &mut Vec<PlaceReport>,
) {
    let reading = readings.remove(status.path.as_str()).unwrap_or_default();
    let kind = match status.kind {
        Kind::Supervisor => PlaceKind::Supervisor,
        Kind::Actor => PlaceKind::Actor,
    };
    let (quarantine, again_in) = match &status.state {
        State::Quarantined { reason, since } => (Some((reason.clone(), *since)), None),
        State::Restarting { until } => (None, Some(until.saturating_sub(now))),
        _ => (None, None),
    };
    places.push(PlaceReport {
        path: status.path.to_string(),
        kind,
        state: state_name(&status.state),
        quarantine,
        again_in,
        generation: status.generation,
        restarts: status.restarts,
        uptime: status.uptime,
        mailbox: reading.mailbox,
        in_flight: status.in_flight as u64,
        refused: status.refused,
        handled: reading.handled,
        per_second: reading.per_second,
        slowest: slowest(&reading),
        handling: in_hand(&reading, now),
        last_exit: status.last_exit.as_ref().map(ToString::to_string),
    });
    for child in &status.children {
        of_tree(child, readings, now, places);
    }
}

fn worker(path: &str, owner: &PlaceReport, reading: &Reading, now: Duration) -> PlaceReport {
    PlaceReport {
        path: path.into(),
        kind: PlaceKind::Worker,
        mailbox: reading.mailbox,
        in_flight: 0,
        refused: 0,
        handled: reading.handled,
        per_second: reading.per_second,
        slowest: slowest(reading),
        handling: in_hand(reading, now),
        last_exit: None,
        ..owner.clone()
    }
}

fn slowest(reading: &Reading) -> Option<(&'static str, Duration)> {
    reading.slowest.map(|(message, took_ns)| (message, Duration::from_nanos(took_ns)))
}

fn in_hand(reading: &Reading, now: Duration) -> Option<InHand> {
    reading.handling.map(|(message, id, since_ns)| InHand {
        message,
        id: id.0,
        since: now.saturating_sub(Duration::from_nanos(since_ns)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Clock, ManualClock};
    use crate::observe::{Hub, HubLimits, MailLoad, Stamp};

    fn status(path: &str, kind: Kind, children: Vec<TreeStatus>) -> TreeStatus {
        TreeStatus {
            path: path.into(),
            kind,
            state: State::Running,
            generation: 3,
            restarts: 2,
            last_exit: None,
            uptime: Some(Duration::from_secs(9)),
            in_flight: 1,
            refused: 5,
            children,
        }
    }

    #[test]
    fn a_worker_stands_right_below_its_actor_with_its_own_messages() {
        let manual = Arc::new(ManualClock::at(Timestamp(0)));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as Arc<dyn Clock>;
        let hub =
            Hub::new(slog::Logger::root(slog::Discard, slog::o!()), None, HubLimits::default());
        let log = hub.recorder("node/log", &clock);
        let flush = log.below("flush");
        let in_hand = flush.begin(&Stamp::now(&*clock), "Write", MailLoad::default(), String::new);
        let actors = ["node/log", "node/raft"].map(|path| status(path, Kind::Actor, Vec::new()));
        let root = status("node", Kind::Supervisor, actors.to_vec());

        let places = report(&root, &hub.recorders(), Duration::from_secs(1));
        let told: Vec<_> = places.iter().map(|p| (p.path.as_str(), p.kind.name())).collect();
        assert_eq!(
            told,
            [
                ("node", "supervisor"),
                ("node/log", "actor"),
                ("node/log/flush", "worker"),
                ("node/raft", "actor")
            ]
        );
        let worker = &places[2];
        assert_eq!((worker.generation, worker.refused, worker.in_flight), (3, 0, 0));
        let handling = worker.handling.expect("a message is in hand");
        assert_eq!((handling.message, handling.since), ("Write", Duration::from_secs(1)));
        drop(in_hand);
        let places = report(&root, &hub.recorders(), Duration::from_secs(1));
        assert_eq!((places[2].handling, places[2].handled), (None, 1));
    }
}
