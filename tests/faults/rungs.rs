//! The rungs of the ladder for clusters. Each is a nemesis: what one of its episodes does to a
//! cluster under load. What must hold afterwards is the same for all (checker.rs).

use crate::canary;
use crate::cluster::{mounts_missing, namespaces_missing};
use crate::stage::Stage;
use duramen::testing::Chance;
use std::time::Duration;

/// What the machine must allow for a rung.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Namespaces,
    Mounts,
}

impl Needs {
    /// Why it cannot be had here; `None` where it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Namespaces => namespaces_missing(),
            Self::Mounts => mounts_missing(),
        }
    }
}

/// One rung.
pub struct Rung {
    pub name: &'static str,
    pub about: &'static str,
    /// Episodes of a full run, and of the subset that gates each change.
    pub full: u32,
    pub gate: u32,
    /// Nodes of the cluster; each holds all partitions.
    pub nodes: usize,
    pub needs: Needs,
    /// Whether access control is on, and those who may not try all the time.
    pub is_guarded: bool,
    /// Beyond the usual ones, for all nodes.
    pub flags: &'static [&'static str],
    /// Gives back what it did, for the figures.
    pub episode: fn(&mut Stage, &mut Chance, u32) -> &'static str,
}

pub const RUNGS: [Rung; 9] = [
    Rung {
        name: "C1",
        about: "kill -9 of the leader, a follower, a minority, the majority, all",
        full: 200,
        gate: 10,
        nodes: 3,
        needs: Needs::Nothing,
        is_guarded: false,
        flags: &[],
        episode: kill,
    },
    Rung {
        name: "C1x5",
        about: "as C1, with five nodes",
        full: 100,
        gate: 5,
        nodes: 5,
        needs: Needs::Nothing,
        is_guarded: false,
        flags: &[],
        episode: kill,
    },
    Rung {
        name: "C4",
        about: "partitions: isolated, one-way, chain, flapping, client, raft and gossip plane",
        full: 50 * SHAPES.len() as u32,
        gate: SHAPES.len() as u32,
        nodes: 3,
        needs: Needs::Namespaces,
        is_guarded: false,
        flags: &[],
        episode: partition,
    },
    Rung {
        name: "C6",
        about: "SIGSTOP of the leader, rolling, of all",
        full: 100,
        gate: 5,
        nodes: 3,
        needs: Needs::Nothing,
        is_guarded: false,
        flags: &[],
        episode: pause,
    },
    Rung {
        name: "C7",
        about: "members go and come, wiped nodes among them",
        full: 100,
        gate: 4,
        nodes: 3,
        needs: Needs::Nothing,
        is_guarded: false,
        flags: &[],
        episode: churn,
    },
    Rung {
        name: "C9",
        about: "the disk of a leader or follower is full, then has room again",
        full: 20,
        gate: 2,
        nodes: 3,
        needs: Needs::Mounts,
        is_guarded: false,
        flags: &[],
        episode: full_disk,
    },
    Rung {
        name: "C11",
        about: "a follower that lags behind what the leader has left, killed while it catches up",
        full: 100,
        gate: 3,
        nodes: 3,
        needs: Needs::Nothing,
        is_guarded: false,
        flags: &["--config", "{retention}"],
        episode: catch_up,
    },
    Rung {
        name: "C14",
        about: "rolling restart",
        full: 20,
        gate: 2,
        nodes: 3,
        needs: Needs::Nothing,
        is_guarded: false,
        flags: &[],
        episode: rolling_restart,
    },
    Rung {
        name: "C15",
        about: "who may not tries everything: kills, the catalogue's snapshot, reloads, a new node",
        full: 100,
        gate: 5,
        nodes: 3,
        needs: Needs::Nothing,
        is_guarded: true,
        flags: &[],
        episode: canary::episode,
    },
];

fn kill(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let count = stage.cluster.nodes.len();
    let leader = stage.leader();
    let others = 1 + chance.below(count as u64 - 1) as usize;
    let follower = (leader + others) % count;
    // The leader, and others from a follower on.
    let with_leader = |size: usize| {
        let rest = (0..count).map(move |at| (follower + at) % count);
        let rest = rest.filter(move |node| *node != leader);
        std::iter::once(leader).chain(rest).take(size).collect::<Vec<_>>()
    };
    let any = chance.below(count as u64) as usize;
    let (what, victims) = match number % 5 {
        0 => ("leader of a partition", vec![leader]),
        1 => ("follower", vec![follower]),
        2 => ("any minority", (0..(count - 1) / 2).map(|at| (any + at) % count).collect()),
        3 => ("majority", with_leader(count / 2 + 1)),
        _ => ("all", (0..count).collect()),
    };
    for victim in &victims {
        stage.cluster.kill(*victim);
    }
    stage.wait(Duration::from_millis(200 + chance.below(2_000)));
    for victim in &victims {
        stage.cluster.start_node(*victim);
    }
    stage.until_acknowledged("after the nodes came back");
    what
}

/// The ways in which three nodes can fail to hear each other, and their client.
const SHAPES: [&str; 10] = [
    "leader isolated",
    "follower isolated",
    "chain",
    "leader dumb",
    "leader deaf",
    "one link one way",
    "flapping",
    "leader and client",
    "raft plane",
    "gossip plane",
];

fn partition(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let shape = SHAPES[number as usize % SHAPES.len()];
    let leader = stage.leader();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let (a, b) = (others[0], others[1]);
    let last = Duration::from_millis(1_000 + chance.below(5_000));
    let cluster = &stage.cluster;
    match shape {
        "leader isolated" => others.iter().for_each(|other| cluster.cut_both(leader, *other)),
        "follower isolated" => [leader, b].iter().for_each(|other| cluster.cut_both(a, *other)),
        "chain" => cluster.cut_both(leader, a),
        "leader dumb" => others.iter().for_each(|other| cluster.cut(leader, *other)),
        "leader deaf" => others.iter().for_each(|other| cluster.cut(*other, leader)),
        "one link one way" => cluster.cut(leader, a),
        "flapping" => {
            for _ in 0..10 {
                stage.cluster.cut_both(leader, a);
                stage.cluster.cut_both(leader, b);
                stage.wait(Duration::from_millis(200));
                stage.cluster.heal();
                stage.wait(Duration::from_millis(200));
            }
        }
        "leader and client" => cluster.cut_from_client(leader),
        "raft plane" => {
            for other in &others {
                cluster.cut_port(leader, *other, "tcp", 8400);
                cluster.cut_port(*other, leader, "tcp", 8400);
            }
        }
        _ => {
            for (from, to) in [(leader, a), (a, leader), (leader, b), (b, leader), (a, b), (b, a)] {
                cluster.cut_port(from, to, "udp", 8401);
                cluster.cut_port(from, to, "tcp", 8401);
            }
        }
    }
    stage.wait(last);
    // All of them leave a majority whose members hear each other, but the client may not hear it.
    if !matches!(shape, "flapping" | "leader and client") {
        stage.until_acknowledged(shape);
    }
    stage.cluster.heal();
    stage.until_acknowledged("after the links were healed");
    shape
}

fn pause(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let seconds = [1, 5, 15, 60][chance.below(if stage.is_gate { 2 } else { 4 }) as usize];
    let what = match number % 3 {
        0 => {
            let leader = stage.leader();
            stage.cluster.pause(leader);
            stage.wait(Duration::from_secs(seconds));
            stage.cluster.resume(leader);
            "leader of a partition"
        }
        1 => {
            for node in 0..3 {
                stage.cluster.pause(node);
                stage.wait(Duration::from_millis(500 + chance.below(1_500)));
                stage.cluster.resume(node);
            }
            "rolling"
        }
        _ => {
            (0..3).for_each(|node| stage.cluster.pause(node));
            stage.wait(Duration::from_secs(seconds));
            (0..3).for_each(|node| stage.cluster.resume(node));
            "all"
        }
    };
    stage.until_acknowledged("after all went on");
    what
}

fn churn(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let victim = chance.below(3) as usize;
    let what = match number % 3 {
        // It says that it leaves, and comes back as a new node.
        0 => {
            let leaving = stage.node_number(victim);
            stage.admin(&["node", "leave", &leaving]);
            stage.until_gone(victim);
            stage.cluster.stop(victim);
            "left"
        }
        // It dies with its disk, and is replaced.
        1 => {
            let dead = stage.node_number(victim);
            stage.cluster.kill(victim);
            stage.admin(&["node", "remove", &dead, "--force", "--yes"]);
            "removed"
        }
        // It dies with its disk and comes back under its old name: it is a stranger until the dead
        // one is gone.
        _ => {
            let dead = stage.node_number(victim);
            stage.cluster.kill(victim);
            stage.cluster.wipe(victim);
            stage.cluster.start_node(victim);
            stage.until_refused(victim);
            stage.cluster.kill(victim);
            stage.admin(&["node", "remove", &dead, "--force", "--yes"]);
            "wiped"
        }
    };
    stage.cluster.wipe(victim);
    stage.cluster.start_node(victim);
    stage.until_whole();
    stage.until_acknowledged("after the node came back as a new one");
    what
}

fn full_disk(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let leader = stage.leader();
    let victim = if number.is_multiple_of(2) { leader } else { (leader + 1) % 3 };
    stage.fill_disk(victim);
    stage.wait(Duration::from_millis(1_000 + chance.below(4_000)));
    stage.until_acknowledged("while one disk is full");
    stage.free_disk(victim);
    stage.until_whole();
    stage.until_acknowledged("after the disk had room again");
    if victim == leader { "leader of a partition" } else { "another" }
}

fn catch_up(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let leader = stage.leader();
    let follower = (leader + 1 + chance.below(2) as usize) % 3;
    stage.cluster.kill(follower);
    stage.until_left_behind();
    stage.cluster.start_node(follower);
    stage.wait(Duration::from_millis(chance.below(1_500)));
    let victim = if number.is_multiple_of(2) { follower } else { leader };
    stage.cluster.kill(victim);
    stage.wait(Duration::from_millis(chance.below(500)));
    stage.cluster.start_node(victim);
    stage.until_acknowledged("after it was killed while catching up");
    stage.until_whole();
    if victim == follower { "receiver killed" } else { "sender killed" }
}

fn rolling_restart(stage: &mut Stage, _: &mut Chance, _: u32) -> &'static str {
    for node in 0..3 {
        stage.cluster.stop(node);
        stage.cluster.start_node(node);
        stage.until_whole();
    }
    stage.until_acknowledged("after the last one was back");
    "all three, in turn"
}
