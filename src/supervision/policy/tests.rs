//! Goal: each promise at the top of the policy. Method: small stories, fact in, decisions out.

use super::*;
use crate::model::Disposition;

pub(super) const BACKOFF: Backoff =
    Backoff { min: Duration::from_secs(1), max: Duration::from_secs(5), jitter: 0.5 };
pub(super) const WINDOW: Duration = Duration::from_secs(60);

pub(super) fn spec(strategy: Strategy, exhausted: Exhausted, restarts_max: u32) -> SupervisorSpec {
    SupervisorSpec {
        intensity: Intensity { restarts_max, window: WINDOW },
        ..SupervisorSpec::new("test", strategy, exhausted)
    }
}

/// A running supervisor of permanent children 1 to `children`.
fn running(spec: &SupervisorSpec, children: u64) -> Policy {
    let mut policy = Policy::new(spec);
    for child in 1..=children {
        policy.add(child, Restart::Permanent, BACKOFF, 0, at(0));
    }
    let mut todo = policy.start(at(0));
    while let Some(decision) = todo.pop() {
        if let Decision::Start { child, generation } = decision {
            todo.extend(policy.started(child, generation, at(0)));
        }
    }
    policy
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn crash() -> ExitReason {
    ExitReason::Failed { reason: "crash".to_owned(), disposition: Disposition::RebuildActor }
}

pub(super) fn fatal() -> ExitReason {
    ExitReason::Failed { reason: "bad disk".to_owned(), disposition: Disposition::Quarantine }
}

fn start(child: ChildId, generation: u64) -> Decision {
    Decision::Start { child, generation }
}

fn stop(child: ChildId) -> Decision {
    Decision::Stop { child }
}

fn timer(child: ChildId, seconds: u64) -> Decision {
    Decision::ArmTimer { child, until: at(seconds) }
}

#[test]
fn children_start_in_turn_and_stop_in_reverse() {
    let mut policy = Policy::new(&spec(Strategy::OneForOne, Exhausted::Escalate, 3));
    for child in 1..=3 {
        assert_eq!(policy.add(child, Restart::Permanent, BACKOFF, 0, at(0)), []);
    }
    assert_eq!(policy.start(at(0)), [start(1, 1)]);
    assert_eq!(policy.started(1, 1, at(0)), [start(2, 1)]);
    assert_eq!(policy.started(2, 1, at(0)), [start(3, 1)]);
    assert_eq!(policy.started(3, 1, at(0)), [Decision::Up]);
    assert_eq!(policy.stop(at(1)), [stop(3)]);
    assert_eq!(policy.exited(3, 1, &ExitReason::Normal, 0.0, at(1)), [stop(2)]);
    assert_eq!(policy.exited(2, 1, &ExitReason::Killed, 0.0, at(1)), [stop(1)]);
    assert_eq!(policy.view(1), View::Stopping);
    assert_eq!(policy.exited(1, 1, &ExitReason::Normal, 0.0, at(1)), [Decision::Done]);
    assert_eq!(policy.view(1), View::Stopped);
}

#[test]
fn children_that_go_together_do_not_wait_for_one_another() {
    let spec = SupervisorSpec {
        order: Order::Together,
        ..spec(Strategy::OneForOne, Exhausted::Escalate, 3)
    };
    let mut policy = Policy::new(&spec);
    policy.add(1, Restart::Permanent, BACKOFF, 0, at(0));
    policy.add(2, Restart::Permanent, BACKOFF, 0, at(0));
    assert_eq!(policy.start(at(0)), [start(1, 1), start(2, 1)]);
    assert_eq!(policy.started(2, 1, at(0)), []);
    assert_eq!(policy.started(1, 1, at(0)), [Decision::Up]);
    assert_eq!(policy.stop(at(0)), [stop(2), stop(1)]);
}

#[test]
fn one_for_one_restarts_the_child_alone_after_its_own_wait() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 3), 3);
    assert_eq!(policy.exited(2, 1, &crash(), 0.0, at(10)), [timer(2, 11)]);
    assert_eq!(policy.view(2), View::Restarting { until: at(11) });
    assert_eq!(policy.exited(3, 1, &crash(), 0.0, at(10)), [timer(3, 11)]);
    assert_eq!(policy.wake(at(10)), []);
    assert_eq!(policy.wake(at(11)), [start(2, 2), start(3, 2)], "neither waits for the other");
}

#[test]
fn rest_for_one_takes_those_after_it_down_in_reverse_and_up_in_order() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Escalate, 3), 4);
    assert_eq!(policy.exited(2, 1, &crash(), 0.0, at(10)), [timer(2, 11), stop(4)]);
    assert_eq!(policy.wake(at(11)), [], "nothing starts before all of the group is down");
    assert_eq!(policy.view(3), View::Restarting { until: at(11) }, "alive, but going down");
    assert_eq!(policy.exited(4, 1, &ExitReason::Normal, 0.0, at(11)), [stop(3)]);
    assert_eq!(policy.exited(3, 1, &ExitReason::Normal, 0.0, at(12)), [start(2, 2)]);
    assert_eq!(policy.started(2, 2, at(12)), [start(3, 2)]);
    assert_eq!(policy.started(3, 2, at(12)), [start(4, 2)]);
    assert_eq!(policy.view(1), View::Running);
    assert_eq!(policy.started(4, 2, at(12)), []);
}

#[test]
fn one_for_all_takes_everyone_down() {
    let mut policy = running(&spec(Strategy::OneForAll, Exhausted::Escalate, 3), 3);
    assert_eq!(policy.exited(2, 1, &crash(), 0.0, at(10)), [timer(2, 11), stop(3)]);
    assert_eq!(policy.exited(3, 1, &ExitReason::Normal, 0.0, at(10)), [stop(1)]);
    assert_eq!(policy.exited(1, 1, &ExitReason::Normal, 0.0, at(10)), []);
    assert_eq!(policy.wake(at(11)), [start(1, 2)]);
}

#[test]
fn crashes_that_follow_from_one_incident_are_counted_once() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Escalate, 1), 3);
    assert_eq!(policy.exited(1, 1, &crash(), 0.0, at(10)), [timer(1, 11), stop(3)]);
    assert_eq!(policy.exited(2, 1, &crash(), 0.0, at(10)), [], "it leaned on the first");
    assert_eq!(policy.exited(3, 1, &crash(), 0.0, at(10)), []);
    assert_eq!(policy.wake(at(11)), [start(1, 2)]);
}

#[test]
fn a_factory_that_crashes_counts_and_holds_its_group_back() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Escalate, 3), 2);
    policy.exited(1, 1, &crash(), 0.0, at(0));
    policy.exited(2, 1, &ExitReason::Normal, 0.0, at(0));
    assert_eq!(policy.wake(at(1)), [start(1, 2)]);
    assert_eq!(policy.exited(1, 2, &crash(), 0.0, at(1)), [timer(1, 3)], "and the wait doubles");
    assert_eq!(policy.wake(at(3)), [start(1, 3)]);
}

#[test]
fn the_wait_doubles_up_to_its_bound_and_is_short_again_after_a_calm_window() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 100), 1);
    let mut waits = Vec::new();
    let (mut now, mut generation) = (at(0), 1);
    for calm in [0, 0, 0, 0, 0, 60, 0] {
        now += Duration::from_secs(calm);
        let decisions = policy.exited(1, generation, &crash(), 0.0, now);
        let [Decision::ArmTimer { until, .. }] = decisions[..] else { panic!("{decisions:?}") };
        waits.push((until - now).as_secs());
        now = until;
        generation += 1;
        assert_eq!(policy.wake(now), [start(1, generation)]);
        policy.started(1, generation, now);
    }
    assert_eq!(waits, [1, 2, 4, 5, 5, 1, 2]);
}

#[test]
fn chance_shortens_a_wait_by_the_jitter_at_most() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 100), 1);
    let decisions = policy.exited(1, 1, &crash(), 1.0, at(10));
    let until = at(10) + Duration::from_millis(500);
    assert_eq!(decisions, [Decision::ArmTimer { child: 1, until }]);
}

#[test]
fn a_transient_child_comes_back_from_crashes_only_and_a_temporary_one_never() {
    let mut policy = Policy::new(&spec(Strategy::OneForOne, Exhausted::Escalate, 9));
    policy.add(1, Restart::Transient, BACKOFF, 0, at(0));
    policy.add(2, Restart::Temporary, BACKOFF, 0, at(0));
    policy.start(at(0));
    policy.started(1, 1, at(0));
    policy.started(2, 1, at(0));
    assert_eq!(policy.exited(2, 1, &crash(), 0.0, at(0)), []);
    assert_eq!(policy.exited(1, 1, &crash(), 0.0, at(0)), [timer(1, 1)]);
    assert_eq!(policy.wake(at(1)), [start(1, 2)]);
    policy.started(1, 2, at(1));
    assert_eq!(policy.exited(1, 2, &ExitReason::Normal, 0.0, at(1)), []);
    assert_eq!((policy.view(1), policy.view(2)), (View::Stopped, View::Stopped));
}

#[test]
fn a_permanent_child_comes_back_from_a_normal_end_too() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 1), 1);
    assert_eq!(policy.exited(1, 1, &ExitReason::Normal, 0.0, at(0)), [timer(1, 1)]);
}

#[test]
fn spent_restarts_escalate_once_everything_is_down() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 1), 2);
    assert_eq!(policy.exited(1, 1, &crash(), 0.0, at(0)), [timer(1, 1)]);
    policy.wake(at(1));
    assert_eq!(policy.exited(1, 2, &crash(), 0.0, at(2)), [stop(2)]);
    let escalate = Decision::Escalate { child: 1, reason: crash() };
    assert_eq!(policy.exited(2, 1, &ExitReason::Normal, 0.0, at(2)), [escalate]);
    assert!(policy.is_down());
    assert_eq!(policy.start(at(3)), [start(1, 3)], "its parent may start it again");
}

#[test]
fn crashes_further_apart_than_the_window_are_never_too_many() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 1), 1);
    for life in 1..20 {
        let now = WINDOW * 2 * u32::try_from(life).unwrap();
        let decisions = policy.exited(1, life, &crash(), 0.0, now);
        assert!(matches!(decisions[..], [Decision::ArmTimer { .. }]), "{decisions:?}");
        assert_eq!(policy.wake(now + at(1)), [start(1, life + 1)]);
        policy.started(1, life + 1, now + at(1));
    }
}

#[test]
fn independent_children_are_quarantined_and_counted_one_by_one() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Quarantine, 1), 2);
    policy.exited(1, 1, &crash(), 0.0, at(0));
    policy.exited(2, 1, &crash(), 0.0, at(0));
    assert_eq!(policy.wake(at(1)), [start(1, 2), start(2, 2)], "each has a crash to spare");
    let reason = "failed: crash".to_owned();
    let quarantine = Decision::Quarantine { child: Some(1), reason: reason.clone() };
    assert_eq!(policy.exited(1, 2, &crash(), 0.0, at(2)), [quarantine]);
    assert_eq!(policy.view(1), View::Quarantined { reason });
    assert_eq!(policy.release(Some(2), at(3)), None, "it is not in quarantine");
    assert_eq!(policy.release(Some(1), at(3)), Some(vec![start(1, 3)]));
    policy.started(1, 3, at(3));
    assert_eq!(policy.exited(1, 3, &crash(), 0.0, at(3)), [timer(1, 4)], "with a clean record");
}

#[test]
fn dependent_children_leave_service_and_come_back_together() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Quarantine, 3), 2);
    let reason = "failed: bad disk".to_owned();
    let quarantine = Decision::Quarantine { child: None, reason: reason.clone() };
    assert_eq!(policy.exited(1, 1, &fatal(), 0.0, at(0)), [quarantine, stop(2)]);
    assert_eq!(policy.view(2), View::Quarantined { reason });
    assert_eq!(policy.exited(2, 1, &ExitReason::Normal, 0.0, at(0)), []);
    assert_eq!(policy.wake(at(100)), [], "it does not come back by itself");
    assert_eq!(policy.release(None, at(200)), Some(vec![start(1, 2)]));
    assert_eq!(policy.release(None, at(200)), None);
    assert_eq!(policy.started(1, 2, at(200)), [start(2, 2)]);
}

#[test]
fn a_release_while_it_still_stops_starts_it_once_it_has() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Quarantine, 3), 2);
    policy.quarantine(Some(2), "operator", at(0));
    assert_eq!(policy.release(Some(1), at(0)), Some(vec![]));
    assert_eq!(policy.exited(2, 1, &ExitReason::Normal, 0.0, at(0)), [stop(1)]);
    assert_eq!(policy.exited(1, 1, &ExitReason::Normal, 0.0, at(0)), [start(1, 2)]);
}

#[test]
fn quarantine_outlives_a_restart_of_the_supervisor() {
    let mut policy = running(&spec(Strategy::OneForAll, Exhausted::Quarantine, 3), 1);
    policy.exited(1, 1, &fatal(), 0.0, at(0));
    assert_eq!(policy.stop(at(1)), [Decision::Done]);
    assert_eq!(policy.start(at(2)), [Decision::Up]);
    assert!(policy.quarantined().is_some());
    assert_eq!(policy.release(None, at(3)), Some(vec![start(1, 2)]));
}

#[test]
fn an_exit_that_forbids_a_restart_counts_also_while_its_group_goes_down() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Quarantine, 3), 2);
    assert_eq!(policy.exited(1, 1, &crash(), 0.0, at(0)), [timer(1, 1), stop(2)]);
    let decisions = policy.exited(2, 1, &fatal(), 0.0, at(0));
    assert!(matches!(decisions[..], [Decision::Quarantine { child: None, .. }]), "{decisions:?}");
    assert_eq!(policy.wake(at(1)), []);
}

#[test]
fn exits_and_starts_of_past_lives_change_nothing() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 0), 1);
    assert_eq!(policy.exited(1, 0, &crash(), 0.0, at(0)), []);
    assert_eq!(policy.exited(7, 1, &crash(), 0.0, at(0)), []);
    assert_eq!(policy.started(1, 9, at(0)), []);
    assert_eq!(policy.view(1), View::Running);
}

#[test]
fn an_operators_restart_is_not_counted() {
    let mut policy = running(&spec(Strategy::RestForOne, Exhausted::Escalate, 0), 2);
    for life in 1..5 {
        assert_eq!(policy.restart(Some(1), at(0)), [stop(2)]);
        assert_eq!(policy.exited(2, life, &ExitReason::Normal, 0.0, at(0)), [stop(1)]);
        assert_eq!(policy.exited(1, life, &ExitReason::Normal, 0.0, at(0)), [start(1, life + 1)]);
        assert_eq!(policy.started(1, life + 1, at(0)), [start(2, life + 1)]);
        policy.started(2, life + 1, at(0));
    }
}

#[test]
fn a_child_can_be_added_and_removed_while_the_others_run() {
    let mut policy = running(&spec(Strategy::OneForOne, Exhausted::Escalate, 3), 1);
    assert_eq!(policy.add(5, Restart::Permanent, BACKOFF, 7, at(0)), [start(5, 8)]);
    policy.started(5, 8, at(0));
    assert_eq!(policy.remove(5, at(1)), [stop(5)]);
    assert_eq!(policy.exited(5, 8, &crash(), 0.0, at(1)), [Decision::Removed { child: 5 }]);
    assert_eq!((policy.view(5), policy.view(1)), (View::Stopped, View::Running));
    assert_eq!(policy.remove(5, at(1)), []);
}

#[test]
fn a_group_that_leaves_service_as_it_starts_is_up_for_its_parent_which_waits() {
    let mut policy = Policy::new(&spec(Strategy::OneForAll, Exhausted::Quarantine, 3));
    for child in 1..=2 {
        policy.add(child, Restart::Permanent, BACKOFF, 0, at(0));
    }
    assert_eq!(policy.start(at(0)), [start(1, 1)]);
    assert_eq!(policy.started(1, 1, at(0)), [start(2, 1)]);
    let quarantine = Decision::Quarantine { child: None, reason: fatal().to_string() };
    assert_eq!(policy.exited(1, 1, &fatal(), 0.0, at(0)), [quarantine, stop(2)]);
    // Nothing else will ever happen here.
    assert_eq!(policy.exited(2, 1, &ExitReason::Normal, 0.0, at(0)), [Decision::Up]);
}
