// A fail-over, message by message, over three nodes and in one order: as it happens, and afterwards
// from what the nodes logged.

use crate::harness::binary::{EXE, run};
use duramen::testing::{block_on, until};
use duramen::wire::client::{Client, ClientOptions};
use duramen::wire::pb::duramen::v1 as pb;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A node in a process of its own, on an address of the loopback that is its own.
struct Process {
    child: Child,
    host: String,
    log: PathBuf,
}

impl Process {
    fn start(directory: &Path, network: u8, number: u8) -> Self {
        let host = format!("127.{network}.6.{number}");
        let log = directory.join(format!("n{number}.log"));
        let config = directory.join("node.toml");
        let spec = "[logger]\nspec = \"info,partitions/**:trace,replicators/**:trace\"\nformat = \"json\"\n";
        std::fs::write(&config, spec).unwrap();
        let mut command = Command::new(EXE);
        command.arg("serve").arg("--config").arg(&config);
        command.arg("--data-dir").arg(directory.join(format!("n{number}")));
        command.args(["--node-name", &format!("n{number}")]);
        for (flag, port) in [("--rpc-addr", 8400), ("--http-addr", 8080), ("--gossip-addr", 8401)] {
            command.args([flag, &format!("{host}:{port}")]);
        }
        if number > 1 {
            command.args(["--join", &format!("127.{network}.6.1:8401")]);
        }
        let child = command.stdin(Stdio::null()).stderr(File::create(&log).unwrap()).spawn();
        let process = Self { child: child.unwrap(), host, log };
        until("the node is a member", || process.status().is_some_and(|status| status.node > 0));
        process
    }

    fn rpc(&self) -> String {
        format!("{}:8400", self.host)
    }

    fn status(&self) -> Option<pb::ClusterStatus> {
        block_on(async {
            let client = Client::connect(&self.rpc(), ClientOptions::default()).await.ok()?;
            client.admin().cluster_status(pb::ClusterStatusRequest {}).await.ok()
        })
    }

    /// Who leads the topic `log`, in which term.
    fn leader(&self) -> Option<(u32, u64)> {
        let status = self.status()?;
        let partition = status.topics.first()?.partitions.first()?.clone();
        (partition.leader > 0).then_some((partition.leader, partition.term))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message of the group of the topic `log`, as it is carried or received by a node.
#[derive(Debug, Clone)]
struct Step {
    node: u32,
    how: &'static str,
    /// As `Vote(1/0 n2#`.
    begins: String,
    term: u64,
}

impl Step {
    fn is_in(&self, line: &str) -> bool {
        let Self { node, how, begins, term } = self;
        let is_here = line.contains(&format!("  n{node}  ")) && line.contains(&format!("  {how} "));
        let mut said = line.split(')').filter_map(|message| message.split_once(begins));
        let is_whole = |before: &str| !before.ends_with(char::is_alphabetic);
        is_here
            && said
                .any(|(before, rest)| is_whole(before) && rest.contains(&format!(" term {term},")))
    }
}

/// The first step that is missing in a text, in which they are to come one after another.
fn missing(text: &str, steps: &[Step]) -> Option<Step> {
    let mut lines = text.lines();
    steps.iter().find(|step| !lines.any(|line| step.is_in(line))).cloned()
}

/// What two nodes say to each other until the first has got an entry of its term to the second.
fn fail_over(winner: u32, voter: u32, term: u64) -> Vec<Step> {
    let there = [("PreVote", "PreVoteAnswer"), ("Vote", "VoteAnswer"), ("Append", "AppendAnswer")];
    let mut steps = Vec::new();
    for (asked, answered) in there {
        for (kind, from, to) in [(asked, winner, voter), (answered, voter, winner)] {
            // Which of the node's replicas it is depends on how fast each joined.
            let begins = format!("{kind}(1/0 n{from}#");
            for (node, how) in [(from, "Carry"), (to, "Carried")] {
                steps.push(Step { node, how, begins: begins.clone(), term });
            }
        }
    }
    steps
}

#[test]
fn every_message_of_a_fail_over_is_read_in_order_from_three_nodes_and_from_their_logs() {
    let directory = tempfile::tempdir().unwrap();
    let network = 64 + (std::process::id() % 128) as u8;
    let mut nodes: Vec<Process> =
        (1..=3).map(|number| Process::start(directory.path(), network, number)).collect();
    until("the cluster is well", || {
        nodes.iter().all(|node| {
            node.status().is_some_and(|s| s.healthy && s.nodes.iter().all(|n| n.controller_voter))
        })
    });
    let addresses: Vec<String> = nodes.iter().map(Process::rpc).collect();
    let told = directory.path().join("told");
    let mut tap = Command::new(EXE)
        .args(["tap", "**", "--table", "-m", "Carry", "-m", "Carried", "--addr"])
        .arg(addresses.join(","))
        .stdout(File::create(&told).unwrap())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&told).unwrap();
    until("all three are tapped", || {
        let shown = read();
        (1..=3).all(|number| shown.contains(&format!("  n{number}  ")))
    });

    let (leader, before) = nodes[0].leader().unwrap();
    let dead = nodes.remove(leader as usize - 1);
    let logs = (1..=3).map(|n| directory.path().join(format!("n{n}.log")).display().to_string());
    let logs = logs.collect::<Vec<_>>().join(",");
    assert!(dead.log.exists());
    drop(dead);
    let mut after = None;
    until("another one leads", || {
        after = nodes[0].leader().filter(|(node, term)| *node != leader && *term > before);
        after.is_some()
    });
    let (winner, term) = after.unwrap();
    let voter = 6 - winner - leader;
    let steps = fail_over(winner, voter, term);
    until("the tap has told it to its end, in order", || missing(&read(), &steps).is_none());
    tap.kill().unwrap();
    tap.wait().unwrap();

    // What was never said is missed, and so is what comes in another order.
    let mut reversed = steps.clone();
    reversed.reverse();
    let election: String =
        read().lines().filter(|line| line.contains("Vote")).map(|l| format!("{l}\n")).collect();
    assert!(missing(&election, &reversed).is_some(), "{election}");

    let from_logs = || {
        let told = run(
            &["tap", "**", "--table", "-m", "Carry", "-m", "Carried", "--from-log", &logs],
            b"",
        );
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8(told.stdout).unwrap()
    };
    until("the logs tell the same", || missing(&from_logs(), &steps).is_none());
    let drawn = run(&["tap", "**", "--sequence", "--from-log", &logs], b"");
    let drawn = String::from_utf8(drawn.stdout).unwrap();
    assert!(drawn.starts_with("sequenceDiagram\n"), "{drawn}");
    assert!(
        drawn.contains(&format!("n{winner}->>n{voter}: Vote 1/0 term {term}, last ")),
        "{drawn}"
    );
}
