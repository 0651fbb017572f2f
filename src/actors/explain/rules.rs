//! The rules: which reason holds, and what is said of it. For a partition the first rule that
//! applies is the reason; for the node the worst of its parts.

use super::super::control::Joining;
use super::super::readers::ReaderWait;
use super::{Explanation, Facts, PartitionFacts, Reason, Subject};
use crate::observe::{Complaint, Wait};
use crate::supervision::{ExitReason, Kind, Load, State, TreeStatus};
use std::time::Duration;

/// Who brings a node into its cluster, below the node.
const FORMATION: &str = "/controller/formation";
/// A flush that takes longer is a slow one.
pub const SLOW_FLUSH: Duration = Duration::from_millis(100);
/// What a flush thread does that takes as long as the disk takes.
const DISK_JOBS: [&str; 3] = ["Write", "Sync", "Tend"];
/// A handler that runs longer is told of.
const LONG_HANDLER: Duration = Duration::from_secs(1);
/// A client that takes nothing for longer is told of.
pub const CLIENT_STUCK: Duration = Duration::from_secs(5);
/// A client's mistake counts for so long.
const COMPLAINT_RECENT: Duration = Duration::from_secs(60);
/// Of a kind of finding so many are told.
const ALSO_MAX: usize = 5;

/// Explains one thing; `None` where there is no such thing.
pub fn explain(subject: &Subject, facts: &Facts) -> Option<Explanation> {
    match subject {
        Subject::Node => Some(node(facts)),
        Subject::Partition(name) => {
            let found = facts.partitions.iter().find(|known| known.name() == name)?;
            Some(partition(found, facts))
        }
        Subject::Actor(path) => {
            let is_known = facts.tree.find(&path.as_str().into()).is_some();
            (is_known || facts.reading(path).is_some()).then(|| actor(path, facts))
        }
    }
}

fn node(facts: &Facts) -> Explanation {
    let path = facts.tree.path.to_string();
    let mut found: Vec<Explanation> = Vec::new();
    for known in &facts.partitions {
        let mut whole = partition(known, facts);
        found.append(&mut whole.also);
        found.push(whole);
    }
    places(&facts.tree, &mut |place| {
        let is_partitions = facts.partitions.iter().any(|known| {
            place.path.as_str().starts_with(known.path())
                || known.path().starts_with(place.path.as_str())
        });
        if !is_partitions {
            found.extend(of_state(place, facts));
        }
    });
    found.extend(joining(facts));
    found
        .extend(facts.complaints.iter().filter_map(|known| complaint(known, facts)).take(ALSO_MAX));
    found.sort_by_key(|explanation| explanation.reason);
    if found.first().is_none_or(|worst| worst.reason.is_well()) {
        let under_way: usize = facts.partitions.iter().map(|known| known.in_flight).sum();
        let readers: usize = facts.partitions.iter().map(|known| known.readers.len()).sum();
        return Explanation {
            sentence: format!("all is well: requests under way: {under_way}, readers: {readers}"),
            since: facts.tree.uptime,
            next: "nothing, until a request comes or a part fails".into(),
            also: found,
            ..said(&path, Reason::Serving)
        };
    }
    let worst = found.remove(0);
    found.retain(|other| !other.reason.is_well());
    Explanation { also: found, ..worst }
}

/// A node that is let into no cluster yet.
fn joining(facts: &Facts) -> Option<Explanation> {
    let Joining { asks, since, answer } = facts.joining.as_ref()?;
    let (whom, advice) = match &asks[..] {
        [] => (
            "nobody is known whom it could ask".to_owned(),
            "give --join the gossip addresses of members, and see that they can be reached from \
             here by TCP and UDP"
                .to_owned(),
        ),
        [first, ..] => (
            format!("it asks {}", asks.join(", ")),
            format!("see how the cluster is: duramen cluster status --addr {first}"),
        ),
    };
    Some(Explanation {
        sentence: format!("it waits to be let into a cluster: {whom}; the last answer: {answer}"),
        since: Some(facts.now.saturating_sub(*since)),
        next: "it asks again within a second, and when gossip has news".into(),
        advice,
        ..said(&format!("{}{FORMATION}", facts.tree.path), Reason::Joining)
    })
}

fn partition(known: &PartitionFacts, facts: &Facts) -> Explanation {
    let path = known.path();
    // In the order of cause and effect: a crash explains a flush that does not end, and that a
    // full house.
    let place = facts.tree.find(&path.into());
    let down =
        place.and_then(|place| of_state(place, facts)).or_else(|| places_below(known, facts));
    let trouble = [handlers(known, facts), disk(known, facts), overload(known, facts)];
    let mut found: Vec<Explanation> =
        down.into_iter().chain(trouble.into_iter().flatten()).collect();
    if found.iter().all(|other| other.reason != Reason::SlowFlush) {
        found.extend(slow_lately(known, facts));
    }
    found.extend(readers_stuck(known, facts));
    if found.is_empty() {
        let mut working = working(known, facts);
        if let Some(lag) = known.status.lag() {
            let lacks = plural(lag as usize, "record");
            working.sentence += &format!("; it is a copy, and lacks {lacks} of its source");
        }
        return working;
    }
    let first = found.remove(0);
    Explanation { also: found, ..first }
}

/// What a place's state alone explains; `None` where it runs.
fn of_state(place: &TreeStatus, facts: &Facts) -> Option<Explanation> {
    let path = place.path.as_str();
    let last = place.last_exit.as_ref().filter(|exit| exit.is_crash());
    let because = last.map(|exit| format!(": {exit}")).unwrap_or_default();
    Some(match &place.state {
        State::Running => return None,
        State::Quarantined { reason, since } => Explanation {
            sentence: format!("it left service: {reason}"),
            since: u64::try_from(facts.wall.0.saturating_sub(since.0))
                .ok()
                .map(Duration::from_millis),
            next: "nothing, until it is released; committed records can be read meanwhile".into(),
            advice: if has_crashed(place) {
                format!("duramen crash show latest; mend the cause; duramen actor release {path}")
            } else {
                format!("duramen actor release {path}, once it may serve again")
            },
            ..said(path, Reason::Quarantined)
        },
        State::Restarting { until } => {
            let crashed = has_crashed(place);
            Explanation {
                sentence: if crashed {
                    format!("it crashed and waits for its next life{because}")
                } else {
                    "it was stopped, and waits for its next life".to_owned()
                },
                next: format!("it starts again in {}", time(until.saturating_sub(facts.now))),
                advice: if crashed { "duramen crash show latest" } else { "" }.into(),
                ..said(path, Reason::Restarting)
            }
        }
        State::Stopping => Explanation {
            sentence: "it lets what is under way finish, and ends".into(),
            next: "it ends when that is done, or when the grace time is over".into(),
            ..said(path, Reason::Stopping)
        },
        State::Stopped => Explanation {
            sentence: format!("it has ended{because}"),
            next: "nothing: it does not come back by itself".into(),
            advice: format!("duramen actor restart {path}"),
            ..said(path, Reason::Stopped)
        },
        State::Starting => Explanation {
            sentence: "it was not started yet, or its parts were not".into(),
            next: "it starts when what it depends on has started".into(),
            ..said(path, Reason::Starting)
        },
    })
}

/// Whether a crash led here, and not an operator.
fn has_crashed(place: &TreeStatus) -> bool {
    let crashed = |one: &TreeStatus| one.last_exit.as_ref().is_some_and(ExitReason::is_crash);
    crashed(place) || place.children.iter().any(crashed)
}

/// The actors of a partition whose supervisor says that it runs.
fn places_below(known: &PartitionFacts, facts: &Facts) -> Option<Explanation> {
    let place = facts.tree.find(&known.path().into())?;
    let worst = place.children.iter().filter_map(|child| of_state(child, facts));
    worst.min_by_key(|explanation| explanation.reason)
}

fn handlers(known: &PartitionFacts, facts: &Facts) -> Option<Explanation> {
    let place = facts.tree.find(&known.path().into())?;
    place.children.iter().find_map(|child| long_handler(child.path.as_str(), facts))
}

fn long_handler(path: &str, facts: &Facts) -> Option<Explanation> {
    let (message, id, since_ns) = facts.reading(path)?.handling?;
    let since = facts.now.saturating_sub(Duration::from_nanos(since_ns));
    (since >= LONG_HANDLER).then(|| Explanation {
        sentence: format!("it is inside one {message} (message {}) and answers nobody", id.0),
        since: Some(since),
        next: format!("it is replaced after {} without progress", time(facts.hang_after)),
        advice: "wait, or: duramen actor restart ".to_owned() + path,
        ..said(path, Reason::Hung)
    })
}

fn disk(known: &PartitionFacts, facts: &Facts) -> Option<Explanation> {
    let path = known.path();
    let (wait, since) = known.flush;
    let waited = facts.now.saturating_sub(since);
    let waiting = waiting("request", known.in_flight);
    if known.is_full {
        let needs = match wait {
            Wait::Space { free_bytes } => {
                format!(" Writes begin again at {free_bytes} free bytes.")
            }
            _ => String::new(),
        };
        return Some(Explanation {
            sentence: format!("the disk is full, so writes are refused: {}", known.status.reason),
            since: matches!(wait, Wait::Space { .. }).then_some(waited),
            next: format!("it looks for free space by itself four times a second.{needs}"),
            advice: "free some space, or set log.retention_bytes or log.reserve_free_bytes".into(),
            ..said(path, Reason::DiskFull)
        });
    }
    match wait {
        Wait::Fence => Some(Explanation {
            sentence: "it waits for a thread of an earlier life, which still writes".into(),
            since: Some(waited),
            next: "it begins when that thread's disk call returns, or fails after five seconds"
                .into(),
            advice: "look at the disk: iostat -x 1".into(),
            ..said(path, Reason::Fenced)
        }),
        Wait::Recovery => Some(Explanation {
            sentence: format!("it reads its files after a start: {}", known.status.reason),
            since: Some(waited),
            next: "it serves when all of it is read".into(),
            ..said(path, Reason::Recovering)
        }),
        Wait::Tend | Wait::Prepare if known.in_flight == 0 => None,
        Wait::Write | Wait::Sync | Wait::Tend | Wait::Prepare if waited >= SLOW_FLUSH => {
            let what = match wait {
                Wait::Sync => "a flush",
                Wait::Tend => "housekeeping (retention, a checkpoint)",
                Wait::Prepare => "the preparation of blocks",
                _ => "a write",
            };
            Some(Explanation {
                sentence: format!(
                    "the disk has not finished {what} for {}; {waiting} for it",
                    time(waited)
                ),
                since: Some(waited),
                next: "they are acknowledged when the disk answers, and not before".into(),
                advice: format!(
                    "look at the disk: iostat -x 1; \
                 duramen tap '{}/log/flush' --slower-than 100ms",
                    known.name()
                ),
                ..said(path, Reason::SlowFlush)
            })
        }
        _ => None,
    }
}

fn overload(known: &PartitionFacts, facts: &Facts) -> Option<Explanation> {
    let streak = known.overload.filter(|streak| streak.is_recent(facts.now))?;
    let PartitionFacts { in_flight, in_flight_max, .. } = known;
    let PartitionFacts { in_flight_bytes, in_flight_bytes_max, .. } = known;
    let (bound, key) = match streak.what {
        Load::Messages => (
            format!("{in_flight} of the {in_flight_max} that may be under way are"),
            "admission.messages_max",
        ),
        Load::Bytes => (
            format!(
                "{in_flight_bytes} of the {in_flight_bytes_max} bytes that may be under way are"
            ),
            "admission.bytes_max",
        ),
        Load::Mailbox => {
            ("its mailbox was full when the last one came".to_owned(), "admission.messages_max")
        }
    };
    Some(Explanation {
        sentence: format!("it refuses requests: {bound}"),
        since: Some(facts.now.saturating_sub(streak.since)),
        next: "it takes the next request as soon as one is answered; refused clients were told \
               when to come back"
            .into(),
        advice: format!("send from fewer clients or in larger batches; or raise {key}"),
        ..said(known.path(), Reason::Overloaded)
    })
}

fn slow_lately(known: &PartitionFacts, facts: &Facts) -> Option<Explanation> {
    let flush = format!("{}/log/flush", known.path());
    let (message, took_ns) =
        facts.reading(&flush)?.slowest.filter(|(name, _)| DISK_JOBS.contains(name))?;
    let took = Duration::from_nanos(took_ns);
    (took >= SLOW_FLUSH).then(|| Explanation {
        sentence: format!(
            "the disk is slow: the slowest {message} of the last minute took {}",
            time(took)
        ),
        next: "each flush that takes long holds up the requests behind it".into(),
        advice: format!(
            "look at the disk: iostat -x 1; duramen tap '{}/log/flush' --slower-than 100ms",
            known.name()
        ),
        ..said(known.path(), Reason::SlowFlush)
    })
}

fn readers_stuck(known: &PartitionFacts, facts: &Facts) -> Vec<Explanation> {
    let stuck = known.readers.iter().filter(|reader| reader.wait == ReaderWait::Client);
    let stuck = stuck.map(|reader| (reader, facts.now.saturating_sub(reader.since)));
    let stuck = stuck.filter(|(_, waited)| *waited >= CLIENT_STUCK).take(ALSO_MAX);
    let end = known.status.high_watermark.0;
    stuck
        .map(|(reader, waited)| {
            let peer = reader.peer.map_or("in this process".to_owned(), |peer| peer.to_string());
            let behind = end.saturating_sub(reader.next.0);
            Explanation {
                sentence: format!(
                    "the consumer {peer} has taken nothing for {}: it stands at offset {}, {} \
                     behind the end",
                    time(waited),
                    reader.next,
                    plural(behind as usize, "record")
                ),
                since: Some(waited),
                next: "it gets the next records when its client reads; nobody else waits for it"
                    .into(),
                advice: format!(
                    "look at the client at {peer}: it holds the stream and does not read"
                ),
                ..said(known.path(), Reason::ConsumerStuck)
            }
        })
        .collect()
}

/// What a partition without trouble does.
fn working(known: &PartitionFacts, facts: &Facts) -> Explanation {
    let path = known.path();
    let since = |at: Duration| Some(facts.now.saturating_sub(at));
    let requests = waiting("request", known.in_flight);
    match (known.flush, known.entry) {
        ((Wait::Write | Wait::Sync, at), _) => Explanation {
            sentence: format!("a flush is under way; {requests} for it or the next"),
            since: since(at),
            next: "they are acknowledged when the disk has stored them".into(),
            ..said(path, Reason::Flushing)
        },
        (_, (Wait::Gather, at)) if known.in_flight > 0 => Explanation {
            sentence: format!("{requests} a moment for others to share their flush"),
            since: since(at),
            next: "a flush begins within a millisecond".into(),
            ..said(path, Reason::Gathering)
        },
        ((wait @ (Wait::Tend | Wait::Prepare), at), _) => Explanation {
            sentence: match wait {
                Wait::Tend => "it applies retention and writes a checkpoint".into(),
                _ => "it prepares blocks for later writes".to_owned(),
            },
            since: since(at),
            next: "it takes the next entry when that is done".into(),
            ..said(path, Reason::Housekeeping)
        },
        ((_, at), _) if known.in_flight == 0 => Explanation {
            sentence: "it serves, and waits for requests".into(),
            since: since(at),
            next: "nothing, until a request comes".into(),
            ..said(path, Reason::Idle)
        },
        _ => Explanation {
            sentence: format!("it serves; {requests} to become part of a flush"),
            next: "they are acknowledged when the disk has stored them".into(),
            ..said(path, Reason::Serving)
        },
    }
}

fn complaint(known: &Complaint, facts: &Facts) -> Option<Explanation> {
    let Complaint { peer, requests, since, last, reason } = known;
    (facts.now.saturating_sub(*last) < COMPLAINT_RECENT).then(|| Explanation {
        sentence: format!(
            "the client {peer} sent {} that made no sense; the last: {reason}",
            plural(*requests as usize, "request")
        ),
        since: Some(facts.now.saturating_sub(*since)),
        next: "each is refused; nothing else suffers".into(),
        advice: format!("look at the client at {peer}"),
        ..said(&format!("{}/frontends", facts.tree.path), Reason::BadClient)
    })
}

fn actor(path: &str, facts: &Facts) -> Explanation {
    let place = facts.tree.find(&path.into());
    if let Some(place) = place.filter(|place| place.kind == Kind::Supervisor) {
        return supervisor(place, facts);
    }
    if let Some(found) = place.and_then(|place| of_state(place, facts)) {
        return found;
    }
    if let Some(found) = joining(facts).filter(|found| found.subject == path) {
        return found;
    }
    if let Some(found) = long_handler(path, facts).filter(|_| place.is_some()) {
        return found;
    }
    let partition_of = |known: &&PartitionFacts| path.starts_with(&format!("{}/", known.path()));
    let known = facts.partitions.iter().find(partition_of);
    if let Some(found) = known.and_then(|known| disk(known, facts)) {
        return Explanation { subject: path.into(), ..found };
    }
    let Some(reading) = facts.reading(path) else {
        return Explanation {
            sentence: "it runs, and nothing is recorded of it".into(),
            next: "nothing".into(),
            ..said(path, Reason::Idle)
        };
    };
    let waiting = waiting("message", reading.mailbox as usize);
    match reading.handling {
        Some((message, id, since_ns)) => Explanation {
            sentence: format!("it handles {message} (message {}); {waiting}", id.0),
            since: Some(facts.now.saturating_sub(Duration::from_nanos(since_ns))),
            next: "it takes the next message when it is done".into(),
            ..said(path, Reason::Handling)
        },
        None if reading.mailbox > 0 => Explanation {
            sentence: format!("{waiting} for it: its thread is busy with others"),
            next: "it is run when its thread comes to it".into(),
            ..said(path, Reason::Handling)
        },
        None => Explanation {
            sentence: format!("it waits for messages; it has handled {} so far", reading.handled),
            next: "nothing, until a message comes".into(),
            ..said(path, Reason::Idle)
        },
    }
}

fn supervisor(place: &TreeStatus, facts: &Facts) -> Explanation {
    let path = place.path.as_str();
    if let Some(known) = facts.partitions.iter().find(|known| known.path() == path) {
        return partition(known, facts);
    }
    let mut below: Vec<Explanation> = Vec::new();
    places(place, &mut |inner| below.extend(of_state(inner, facts)));
    below.sort_by_key(|explanation| explanation.reason);
    match of_state(place, facts) {
        Some(found) => Explanation { also: below, ..found },
        None if below.is_empty() => Explanation {
            sentence: format!("it runs, and so do all {} below it", place.len() - 1),
            since: place.uptime,
            next: "nothing, until one of them ends".into(),
            ..said(path, Reason::Serving)
        },
        None => {
            let worst = below.remove(0);
            Explanation { also: below, ..worst }
        }
    }
}

fn places(place: &TreeStatus, visit: &mut dyn FnMut(&TreeStatus)) {
    visit(place);
    for child in &place.children {
        places(child, visit);
    }
}

fn said(subject: &str, reason: Reason) -> Explanation {
    Explanation {
        subject: subject.to_owned(),
        reason,
        sentence: String::new(),
        since: None,
        next: String::new(),
        advice: String::new(),
        also: Vec::new(),
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// How many wait: "1 request waits", "7 requests wait".
fn waiting(noun: &str, count: usize) -> String {
    format!("{} wait{}", plural(count, noun), if count == 1 { "s" } else { "" })
}

/// A time as people say it.
fn time(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => format!("{} min", ms / 60_000),
    }
}
