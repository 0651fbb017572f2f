//! What a node does about the cluster by itself: where it leads the controller it plans, and tells
//! group 0 who belongs to it; of every group that it leads it reports the members.

use super::change::Control;
use crate::actors::control::{ControlApi, ControlError};
use crate::actors::presence::Seen;
use crate::cluster::{Catalogue, Command, GroupNews, Sight, controller_group, plan};
use crate::model::{Clock, GroupId, NodeId, ReplicaId, Term};
use crate::raft::Membership;
use slog::{Logger, debug, info, warn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How the duties are carried out.
#[derive(Debug, Clone)]
pub struct DutyOptions {
    /// How often is looked without a reason.
    pub look_every: Duration,
    /// The shortest time between two looks, so that a burst of changes is one.
    pub settle: Duration,
    /// A node that is silent for so long is not preferred as a leader any more.
    pub absent_after: Duration,
    /// A node that is silent for so long is taken out, where its groups go on without it. `None`:
    /// only people take nodes out.
    pub remove_dead_after: Option<Duration>,
}

impl Default for DutyOptions {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(1),
            settle: Duration::from_millis(20),
            absent_after: Duration::from_secs(3),
            remove_dead_after: None,
        }
    }
}

/// Steps proposed at a time.
const STEPS_MAX: usize = 64;
/// Groups whose members are reported at a time.
const REPORTS_MAX: usize = 512;
/// The longest that one proposal of steps is waited for.
const STEPS_WAIT: Duration = Duration::from_secs(10);

/// Runs for as long as its actor.
pub(super) async fn carry_out(
    control: Control,
    clock: Arc<dyn Clock>,
    logger: Logger,
    options: DutyOptions,
) {
    // Nothing to do before there is a group to do it with.
    let _ = control.group().await;
    let mut leaders = control.parts().leadership.changes();
    let mut presence = control.parts().presence.watch();
    let mut catalogue = control.watch();
    let mut duties =
        Duties { control, logger, silent: BTreeMap::new(), desired: None, settled: None };
    loop {
        leaders.mark_unchanged();
        presence.mark_unchanged();
        catalogue.mark_unchanged();
        duties.look(clock.monotonic(), &options).await;
        tokio::time::sleep(options.settle).await;
        tokio::select! {
            _ = leaders.changed() => {}
            _ = presence.changed() => {}
            _ = catalogue.changed() => {}
            () = tokio::time::sleep(options.look_every) => {}
        }
    }
}

struct Duties {
    control: Control,
    logger: Logger,
    /// Members that are not seen, since when, on this node's monotonic clock.
    silent: BTreeMap<NodeId, Duration>,
    /// What group 0 was told last that it is to consist of, and its term.
    desired: Option<(Term, Vec<ReplicaId>)>,
    /// With these there was nothing to be done: nor is there as long as they are the same.
    settled: Option<(Arc<Catalogue>, Sight)>,
}

impl Duties {
    async fn look(&mut self, now: Duration, options: &DutyOptions) {
        let catalogue = self.control.catalogue();
        if !catalogue.is_founded() {
            return;
        }
        self.report(&catalogue).await;
        if !self.control.leads() {
            self.silent.clear();
            self.desired = None;
            return;
        }
        let sight = self.sight(&catalogue, now, options);
        self.desire(&catalogue);
        if let Some((known, seen)) = &self.settled
            && Arc::ptr_eq(known, &catalogue)
            && *seen == sight
        {
            return;
        }
        let mut steps = plan(&catalogue, &sight, STEPS_MAX);
        let raised = catalogue.protocol_to_raise();
        steps.extend(raised.map(|protocol| Command::RaiseProtocol { protocol }));
        if steps.is_empty() {
            self.settled = Some((catalogue, sight));
            return;
        }
        for step in &steps {
            info!(self.logger, "placement"; "step" => ?step);
        }
        let proposed = tokio::time::timeout(STEPS_WAIT, self.control.change_all(None, steps)).await;
        match proposed {
            Ok(Ok(answers)) => {
                for answer in answers {
                    if let Err(no) = answer.outcome {
                        debug!(self.logger, "a step came too late"; "reason" => %no);
                    }
                }
            }
            Ok(Err(error)) => self.not_done("placement", &error),
            Err(_) => warn!(self.logger, "placement was not acknowledged in time"),
        }
    }

    fn not_done(&self, what: &'static str, error: &ControlError) {
        debug!(self.logger, "not done, to be tried again"; "what" => what, "error" => %error);
    }

    /// Who is there. Where gossip shows no other member at all it says nothing about any.
    fn sight(&mut self, catalogue: &Catalogue, now: Duration, options: &DutyOptions) -> Sight {
        let presence = self.control.parts().presence.now();
        let me = self.control.node();
        let seen: Vec<(NodeId, Seen)> = presence
            .values()
            .filter_map(|present| present.node.map(|node| (node, present.seen)))
            .collect();
        let gossips = seen.iter().any(|(node, _)| Some(*node) != me);
        let is_there = |node: NodeId| {
            let here = |(other, seen): &(NodeId, Seen)| {
                *other == node && matches!(seen, Seen::Alive | Seen::Suspect)
            };
            Some(node) == me || !gossips || seen.iter().any(here)
        };
        self.silent.retain(|node, _| catalogue.nodes.contains_key(node) && !is_there(*node));
        let mut sight = Sight::default();
        for node in catalogue.nodes.keys().copied() {
            if is_there(node) {
                sight.alive.insert(node);
                continue;
            }
            let since = *self.silent.entry(node).or_insert(now);
            let silent = now.saturating_sub(since);
            if silent < options.absent_after {
                sight.doubtful.insert(node);
            }
            if options.remove_dead_after.is_some_and(|after| silent >= after) {
                sight.given_up.insert(node);
            }
        }
        sight
    }

    /// Tells group 0 whom it is to consist of; again each time that its leader or they change.
    fn desire(&mut self, catalogue: &Catalogue) {
        let known = self.control.parts().leadership.of(GroupId::CONTROLLER);
        let Some(term) = known.map(|known| known.term) else { return };
        let wanted = (term, controller_group(catalogue));
        if self.desired.as_ref() == Some(&wanted) {
            return;
        }
        match self.control.parts().acts.desire(GroupId::CONTROLLER, wanted.1.clone()) {
            Ok(()) => self.desired = Some(wanted),
            Err(reason) => debug!(self.logger, "group 0 takes no members now"; "reason" => reason),
        }
    }

    /// Tells the catalogue of groups that are led here and are not as it says.
    async fn report(&self, catalogue: &Catalogue) {
        let led = self.control.parts().leadership.led_here();
        let news = led
            .into_iter()
            .filter_map(|(group, known)| news_of(catalogue, group, known.term, &*known.led_here?));
        let groups: Vec<GroupNews> = news.take(REPORTS_MAX).collect();
        if groups.is_empty() {
            return;
        }
        if let Err(error) = self.control.change(Command::GroupsAre { groups }).await {
            self.not_done("report of groups' members", &error);
        }
    }
}

/// What the catalogue is to be told of a group, where that changes what it says.
fn news_of(
    catalogue: &Catalogue,
    group: GroupId,
    term: Term,
    members: &Membership,
) -> Option<GroupNews> {
    let voters: Vec<_> = members.voters.union(&members.outgoing).copied().collect();
    let learners: Vec<_> = members.learners.union(&members.learners_next).copied().collect();
    let differs = if group == GroupId::CONTROLLER {
        let known = &catalogue.controller;
        term >= known.term && (known.voters != voters || known.learners != learners)
    } else {
        let known = catalogue.placement(group)?;
        term >= known.term && known.told(known.term, &voters, &learners) != *known
    };
    differs.then(|| GroupNews { group: group.raw(), term, voters, learners })
}
