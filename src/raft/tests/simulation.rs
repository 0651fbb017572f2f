//! Any number of seeded worlds, in which everything goes wrong that may. `DURAMEN_RAFT_SEEDS` asks
//! for more of them than the suite has time for; a failure names its seed.

use super::world::{Counts, Sabotage, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn live(seed: u64, sabotage: Sabotage) -> Counts {
    let nodes = if seed.is_multiple_of(2) { 3 } else { 5 };
    let founders = 1 + (seed / 2 % u64::from(nodes)) as u32;
    let mut world = World::new(seed, nodes, founders, sabotage);
    world.loss_percent = seed % 7;
    for _ in 0..3000 {
        world.act();
    }
    world.heal();
    world.counts
}

#[test]
fn nothing_that_was_committed_is_lost_and_no_term_has_two_leaders() {
    let asked = std::env::var("DURAMEN_RAFT_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let from = std::env::var("DURAMEN_RAFT_SEED").ok().and_then(|seed| seed.parse().ok());
    let from: u64 = from.unwrap_or(1);
    let mut sum = Counts::default();
    for seed in from..from + asked.unwrap_or(100) {
        match catch_unwind(AssertUnwindSafe(|| live(seed, Sabotage::None))) {
            Ok(counts) => {
                sum.leaders += counts.leaders;
                sum.committed += counts.committed;
                sum.crashes += counts.crashes;
                sum.installs += counts.installs;
                sum.memberships += counts.memberships;
                sum.joint += counts.joint;
                sum.reads += counts.reads;
            }
            Err(_) => panic!(
                "seed {seed}: run it alone with DURAMEN_RAFT_SEED={seed} DURAMEN_RAFT_SEEDS=1"
            ),
        }
    }
    println!("{sum:?}");
    let happened = [sum.leaders, sum.committed, sum.crashes, sum.installs, sum.memberships];
    assert!(happened.iter().all(|count| *count > 0), "{sum:?}");
    assert!(sum.joint > 0 && sum.reads > 0, "{sum:?}");
}

fn is_caught(sabotage: Sabotage) -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = (1..200).any(|seed| catch_unwind(|| live(seed, sabotage)).is_err());
    std::panic::set_hook(hook);
    caught
}

#[test]
fn the_checker_notices_answers_that_leave_before_they_are_durable() {
    assert!(is_caught(Sabotage::EarlyReports));
}

#[test]
fn the_checker_notices_replicas_that_begin_with_other_voters() {
    assert!(is_caught(Sabotage::OwnFounders));
}

#[test]
fn the_checker_notices_votes_that_are_not_kept() {
    assert!(is_caught(Sabotage::ForgottenVotes));
}
