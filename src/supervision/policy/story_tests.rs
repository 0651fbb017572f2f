//! Goal: the promises at the top of the policy hold in any story. Method: stories at random against
//! a model that knows only who lives.

use super::tests::{BACKOFF, WINDOW, crash, fatal, spec};
use super::*;
use proptest::prelude::{Just, ProptestConfig, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Gen;

/// What may happen to a supervisor of five children.
#[derive(Debug, Clone)]
enum Move {
    Begin(usize),
    End(usize, u8),
    Pass(u64),
    Restart(usize),
    Quarantine(usize),
    Release(usize),
    Stop,
    Start,
}

fn moves() -> impl Gen<Value = Vec<Move>> {
    let some = 0..5usize;
    let one = prop_oneof![
        8 => some.clone().prop_map(Move::Begin),
        6 => (some.clone(), 0..4u8).prop_map(|(child, how)| Move::End(child, how)),
        6 => (0..4_000u64).prop_map(Move::Pass),
        1 => some.clone().prop_map(Move::Restart),
        1 => some.clone().prop_map(Move::Quarantine),
        2 => some.prop_map(Move::Release),
        1 => Just(Move::Stop),
        1 => Just(Move::Start),
    ];
    prop::collection::vec(one, 0..200)
}

/// Knows who lives, and holds every decision against it.
struct World {
    policy: Policy,
    now: Duration,
    /// The life of each child, and whether it has begun and was told to end.
    lives: BTreeMap<ChildId, (u64, bool, bool)>,
    newest: BTreeMap<ChildId, u64>,
    timers: Vec<Duration>,
    granted: Vec<Duration>,
    strategy: Strategy,
    restarts_max: u32,
}

impl World {
    fn carry_out(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Start { child, generation } => {
                    assert!(!self.lives.contains_key(&child), "two lives of {child}");
                    let newest = self.newest.insert(child, generation);
                    assert!(newest.is_none_or(|newest| generation > newest), "{child} goes back");
                    assert!(
                        !matches!(self.policy.view(child), View::Quarantined { .. }),
                        "{child} starts in quarantine"
                    );
                    if self.strategy != Strategy::OneForOne {
                        let elders = self.lives.range(..child);
                        assert!(elders.clone().all(|(_, life)| life.1), "{child} overtakes");
                        assert!(self.lives.range(child..).next().is_none(), "{child} is too late");
                    }
                    self.lives.insert(child, (generation, false, false));
                }
                Decision::Stop { child } => {
                    let life = self.lives.get_mut(&child).expect("only the living are stopped");
                    assert!(!life.2, "{child} is told twice");
                    life.2 = true;
                }
                Decision::ArmTimer { until, .. } => {
                    assert!(until >= self.now);
                    self.granted.push(self.now);
                    self.timers.push(until);
                }
                Decision::Done | Decision::Escalate { .. } => {
                    assert!(self.lives.is_empty(), "down, and somebody lives");
                    self.granted.clear();
                }
                Decision::Quarantine { .. } | Decision::Up | Decision::Removed { .. } => {}
            }
        }
        let recent = |at: &&Duration| self.now.saturating_sub(**at) <= WINDOW;
        let recent = self.granted.iter().filter(recent).count();
        assert!(recent <= self.restarts_max as usize, "{recent} restarts in one window");
    }

    fn play(&mut self, played: Move) {
        let now = self.now;
        let id = |index: usize| index as u64 + 1;
        let decisions = match played {
            Move::Begin(index) => {
                let Some(life) = self.lives.get_mut(&id(index)) else { return };
                life.1 = true;
                self.policy.started(id(index), life.0, now)
            }
            Move::End(index, how) => {
                let Some((generation, ..)) = self.lives.remove(&id(index)) else { return };
                let reason = match how {
                    0 => ExitReason::Normal,
                    1 => fatal(),
                    _ => crash(),
                };
                let mut all = self.policy.exited(id(index), generation, &reason, 0.3, now);
                all.extend(self.policy.exited(id(index), generation, &reason, 0.3, now));
                all
            }
            Move::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.timers.retain(|timer| *timer > self.now);
                self.policy.wake(self.now)
            }
            Move::Restart(index) => self.policy.restart(Some(id(index)), now),
            Move::Quarantine(index) => self.policy.quarantine(Some(id(index)), "test", now),
            Move::Release(index) => {
                let released = self.policy.release(Some(id(index)), now);
                if released.is_some() {
                    self.granted.clear();
                }
                released.unwrap_or_default()
            }
            Move::Stop => self.policy.stop(now),
            Move::Start => self.policy.start(now),
        };
        self.carry_out(decisions);
    }

    /// Lets everything settle: who was told to end ends, who was started begins.
    fn rest(&mut self) {
        for _ in 0..200 {
            let ended = self.lives.iter().find(|(_, life)| life.2).map(|(&child, _)| child);
            let begun = self.lives.iter().find(|(_, life)| !life.1).map(|(&child, _)| child);
            match (ended, begun, self.timers.is_empty()) {
                (Some(child), ..) => {
                    let (generation, ..) = self.lives.remove(&child).unwrap();
                    let normal = ExitReason::Normal;
                    let decisions = self.policy.exited(child, generation, &normal, 0.3, self.now);
                    self.carry_out(decisions);
                }
                (None, Some(child), _) => self.play(Move::Begin(child as usize - 1)),
                (None, None, false) => self.play(Move::Pass(5_000)),
                (None, None, true) => return,
            }
        }
        panic!("never comes to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Goal: no story leads to two lives of a child, a start out of order, more restarts than
    /// granted, or a child that is forgotten. Method: the model in `World`.
    #[test]
    fn no_story_breaks_the_promises(
        moves in moves(),
        strategy in prop::sample::select(
            vec![Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll]
        ),
        exhausted in prop::sample::select(vec![Exhausted::Escalate, Exhausted::Quarantine]),
        restarts_max in 0..6u32,
    ) {
        let spec = spec(strategy, exhausted, restarts_max);
        let alone = strategy == Strategy::OneForOne && exhausted == Exhausted::Quarantine;
        let mut world = World {
            policy: Policy::new(&spec),
            now: Duration::ZERO,
            lives: BTreeMap::new(),
            newest: BTreeMap::new(),
            timers: Vec::new(),
            granted: Vec::new(),
            strategy,
            restarts_max: if alone { restarts_max * 5 } else { restarts_max },
        };
        for child in 1..=5 {
            let decisions = world.policy.add(child, Restart::Permanent, BACKOFF, 0, world.now);
            world.carry_out(decisions);
        }
        world.play(Move::Start);
        for played in moves {
            world.play(played);
        }
        world.rest();
        for child in 1..=5 {
            let lives = world.lives.contains_key(&child);
            let should = match world.policy.view(child) {
                View::Running => true,
                View::Stopped | View::Quarantined { .. } => false,
                other => panic!("{child} is {other:?} for ever"),
            };
            prop_assert_eq!(lives, should, "child {}", child);
        }
    }
}
