//! What is told of a crash: gathered here from the tree and the recorders, written elsewhere.

use super::*;
use crate::observe::{
    CrashEvent, CrashReason, CrashReport, Frames, InHand, Outcome, REPORT_EXITS_MAX,
    REPORT_RECORDERS_MAX, RecorderDump,
};
use crate::supervision::life::LastReading;

impl Tree {
    /// Adds an exit to the history of a place.
    pub(super) fn remember_exit(&mut self, id: u64, generation: u64, reason: &ExitReason) {
        let (at, at_ns) = self.moment();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.exits.len() >= REPORT_EXITS_MAX {
            node.exits.pop_front();
        }
        node.exits.push_back(PastExit {
            at,
            at_ns,
            path: node.vitals.path.to_string(),
            generation,
            kind: reason.kind(),
            text: CrashReason::new(reason.kind(), reason).text,
        });
    }

    /// Tells of an exit that was a crash. Whoever only lived on the thread of one that hung is
    /// told of in that one's report.
    pub(super) fn report_exit(
        &self,
        id: u64,
        generation: u64,
        reason: &ExitReason,
        last: Option<LastReading>,
    ) {
        if !reason.is_crash() || *reason == ExitReason::Abandoned {
            return;
        }
        let told = || {
            let mut told = CrashReason::new(reason.kind(), reason);
            if let ExitReason::Panic { location, backtrace, .. } = reason {
                told.location = (!location.is_empty()).then(|| location.clone());
                told.backtrace = backtrace.clone().map(Frames::new);
            }
            told
        };
        self.report(id, generation, CrashEvent::Exit, told, last);
    }

    /// Tells of a fault domain that has left service.
    pub(super) fn report_quarantine(&self, id: u64, reason: &str) {
        let Some(node) = self.nodes.get(&id) else { return };
        let generation = node.vitals.facts().generation;
        let told = || CrashReason::new("quarantined", &reason);
        self.report(id, generation, CrashEvent::Quarantine, told, None);
    }

    fn report(
        &self,
        id: u64,
        generation: u64,
        event: CrashEvent,
        reason: impl FnOnce() -> CrashReason,
        last: Option<LastReading>,
    ) {
        let Some(sink) = &self.shared.environment.crashes else { return };
        let Some(node) = self.nodes.get(&id) else { return };
        let vitals = &node.vitals;
        let Some(suppressed) = sink.admit(vitals.path.as_str(), event, self.now()) else { return };
        let (at, at_ns) = self.moment();
        let last = last.unwrap_or_else(|| LastReading {
            reading: vitals.recorder.reading(),
            in_flight: vitals.in_flight(),
        });
        let (recorders, recorders_left_out) = self.recorders_around(id, at, at_ns);
        sink.take(CrashReport {
            at,
            at_ns,
            path: vitals.path.to_string(),
            event,
            generation,
            reason: reason(),
            suppressed,
            restarts: vitals.facts().restarts,
            mailbox: last.reading.mailbox,
            in_flight: last.in_flight as u64,
            in_hand: in_hand(&last, recorders.first(), life_since_ns(node)),
            exits: self.exits_below(id),
            recorders,
            recorders_left_out,
        });
    }

    fn moment(&self) -> (Timestamp, u64) {
        let at_ns = u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX);
        (self.shared.environment.clock.wall(), at_ns)
    }

    /// The recorders of a place and of all below it, then those of its siblings where they are one
    /// fault domain with it; and how many did not fit.
    fn recorders_around(&self, id: u64, at: Timestamp, at_ns: u64) -> (Vec<RecorderDump>, usize) {
        let Some(node) = self.nodes.get(&id) else { return (Vec::new(), 0) };
        let own = &node.vitals.path;
        let above = node.parent.and_then(|parent| self.nodes.get(&parent));
        let domain = above.filter(|above| match &above.body {
            Body::Supervisor { policy, .. } => policy.is_one_domain(),
            Body::Actor { .. } => false,
        });
        let recorders = self.shared.environment.hub.recorders();
        let mut near: Vec<_> = recorders
            .into_iter()
            .filter_map(|recorder| {
                let path = ActorPath::from(&**recorder.path_text());
                let distance = match path {
                    path if path == *own => 0,
                    path if path.is_within(own) => 1,
                    path if domain.is_some_and(|above| path.is_within(&above.vitals.path)) => 2,
                    _ => return None,
                };
                Some((distance, recorder))
            })
            .filter(|(distance, recorder)| *distance == 0 || recorder.reading().handled > 0)
            .collect();
        near.sort_by_key(|(distance, _)| *distance);
        let left_out = near.len().saturating_sub(REPORT_RECORDERS_MAX);
        near.truncate(REPORT_RECORDERS_MAX);
        let dump = |(_, recorder): (i32, Arc<crate::observe::Recorder>)| {
            RecorderDump::of(&recorder, at, at_ns)
        };
        (near.into_iter().map(dump).collect(), left_out)
    }

    /// The last exits of a place and of those below it, the oldest first.
    fn exits_below(&self, id: u64) -> Vec<PastExit> {
        let (mut exits, mut places) = (Vec::new(), vec![id]);
        while let Some(node) = places.pop().and_then(|id| self.nodes.get(&id)) {
            exits.extend(node.exits.iter().cloned());
            if let Body::Supervisor { children, .. } = &node.body {
                places.extend(children);
            }
        }
        exits.sort_by_key(|exit| exit.at_ns);
        exits.drain(..exits.len().saturating_sub(REPORT_EXITS_MAX));
        exits
    }
}

/// When the life that has just ended cannot have begun before: at the end of the one before it.
fn life_since_ns(node: &Node) -> u64 {
    node.exits.iter().rev().nth(1).map_or(0, |exit| exit.at_ns)
}

/// The message in hand: one whose handler runs, or has just panicked. Rings outlive lives, so that
/// a message of an earlier life is none.
fn in_hand(last: &LastReading, own: Option<&RecorderDump>, since_ns: u64) -> Option<InHand> {
    if let Some((message, id, since_ns)) = last.reading.handling {
        return Some(InHand { message, id: id.0, since_ns });
    }
    let newest = own?.entries.last()?;
    let is_its = newest.outcome == Outcome::Panicked && newest.taken_ns >= since_ns;
    is_its.then_some(InHand { message: newest.message, id: newest.id.0, since_ns: newest.taken_ns })
}
