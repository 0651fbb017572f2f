//! A cluster under load, and what an episode may ask of it.

use crate::canary::Canary;
use crate::checker::{self, Copy, Ledger};
use crate::cluster::{Cluster, Node};
use crate::load::Load;
use crate::read::{replica_of, span_of};
use crate::rights;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);
pub const TOPIC: &str = "storm";

pub struct Stage {
    pub cluster: Cluster,
    pub load: Option<Load>,
    pub canary: Option<Canary>,
    pub partitions: u32,
    pub is_gate: bool,
}

impl Stage {
    pub fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Waits until something holds, or ends the run with what the nodes say.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > PATIENCE {
                for number in 0..self.cluster.nodes.len() {
                    let name = &self.cluster.nodes[number].name;
                    eprintln!("--- {name}\n{}", self.cluster.last_lines(number, 25));
                }
                let directory = self.cluster.directory.display();
                panic!("not within {PATIENCE:?}: {what}; the nodes' logs are in {directory}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Each partition acknowledges again.
    pub fn until_acknowledged(&mut self, when: &str) {
        let before = self.load.as_ref().expect("under load").acknowledged();
        self.until(&format!("every partition acknowledges, {when}"), |stage| {
            let now = stage.load.as_ref().expect("under load").acknowledged();
            now.iter().zip(&before).all(|(now, before)| now > before)
        });
    }

    /// Runs the program against any node that is up; its output.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let up = (0..self.cluster.nodes.len()).filter(|number| self.cluster.is_up(*number));
        let addresses: Vec<String> = up.map(|n| self.cluster.nodes[n].rpc.clone()).collect();
        let output = Command::new(env!("CARGO_BIN_EXE_duramen"))
            .args(arguments)
            .args(["--rpc-addr", &addresses.join(",")])
            .envs(rights::token_of_root().map(|token| ("DURAMEN_TOKEN", token)))
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// As [`Stage::ask`], until it works: a cluster without a leader says so, and is asked again.
    pub fn admin(&mut self, arguments: &[&str]) -> String {
        let mut answer = Err(String::new());
        self.until(&format!("duramen {} works", arguments.join(" ")), |stage| {
            answer = stage.ask(arguments);
            if let Err(error) = &answer {
                std::thread::sleep(Duration::from_millis(200));
                if crate::is_verbose() {
                    eprintln!("duramen {}: {error}", arguments.join(" "));
                }
            }
            answer.is_ok()
        });
        answer.unwrap_or_default()
    }

    pub fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.ask(&["cluster", "status", "--json"]).ok()?).ok()
    }

    /// Who leads partition 0, by place in the list of nodes.
    pub fn leader(&mut self) -> usize {
        self.leader_of(0)
    }

    /// Who leads a partition.
    pub fn leader_of(&mut self, partition: u32) -> usize {
        let mut found = None;
        self.until(&format!("partition {partition} has a leader"), |stage| {
            found = stage.leader_now(partition);
            found.is_some()
        });
        found.expect("waited for")
    }

    fn leader_now(&self, partition: u32) -> Option<usize> {
        let status = self.status()?;
        let topics = status["topics"].as_array()?;
        let topic = topics.iter().find(|topic| topic["name"] == TOPIC)?;
        let leader =
            topic["partitions"][partition as usize]["leader"].as_u64().filter(|node| *node > 0)?;
        let nodes = status["nodes"].as_array()?;
        let node = nodes.iter().find(|node| node["id"] == leader)?;
        self.cluster.nodes.iter().position(|own| node["name"] == own.name)
    }

    /// A node's number, as the cluster counts.
    pub fn node_number(&mut self, number: usize) -> String {
        let name = self.cluster.nodes[number].name.clone();
        let mut found = None;
        self.until(&format!("{name} is a member"), |stage| {
            found = stage.status().and_then(|status| {
                let nodes = status["nodes"].as_array()?.clone();
                let is_it = |n: &&Value| n["name"] == name && n["state"] != "removed";
                nodes.iter().find(is_it)?["id"].as_u64()
            });
            found.is_some()
        });
        found.expect("waited for").to_string()
    }

    /// Nobody counts the node among the members any more.
    pub fn until_gone(&mut self, number: usize) {
        let name = self.cluster.nodes[number].name.clone();
        self.until(&format!("{name} has left"), |stage| {
            let status = stage.status();
            let nodes = status.as_ref().and_then(|status| status["nodes"].as_array());
            nodes.is_some_and(|nodes| {
                !nodes.iter().any(|node| node["name"] == name && node["state"] != "removed")
            })
        });
    }

    /// The node says in its log that it is not let in.
    pub fn until_refused(&mut self, number: usize) {
        self.until("the node is refused, with a reason", |stage| {
            stage.cluster.last_lines(number, 200).contains("belongs to")
        });
    }

    /// All nodes are members and there, all partitions have all their replicas.
    pub fn until_whole(&mut self) {
        self.until("the cluster is whole and healthy", |stage| {
            let Some(status) = stage.status() else { return false };
            let count = stage.cluster.nodes.len();
            let is_member = |replica: &&Value| replica["state"] == "member";
            let is_complete = |partition: &Value, wanted: usize| {
                let replicas = partition["replicas"].as_array();
                replicas.is_some_and(|all| all.iter().filter(is_member).count() == wanted)
            };
            let topics = status["topics"].as_array();
            status["healthy"] == true
                && stage.members(&status) == count
                && topics.into_iter().flatten().all(|topic| {
                    let partitions = topic["partitions"].as_array();
                    let wanted = if topic["name"] == TOPIC { count } else { count.min(3) };
                    let is_complete = |partition: &Value| is_complete(partition, wanted);
                    partitions.is_some_and(|partitions| partitions.iter().all(is_complete))
                })
        });
    }

    /// Nodes that are members and were seen.
    pub fn members(&self, status: &Value) -> usize {
        let is_there = |node: &&Value| node["state"] == "active" && node["presence"] == "alive";
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(is_there).count())
    }

    /// The leader of partition 0 has no more what a follower lacks that is dead.
    pub fn until_left_behind(&mut self) {
        // It is dead already: what was acknowledged so far is all that it can have.
        let end = self.load.as_ref().expect("under load").offsets()[0];
        self.until("retention leaves the follower behind", |stage| {
            let leader = stage.leader();
            let span = span_of(&stage.cluster.nodes[leader].rpc, TOPIC, 0);
            span.is_some_and(|(start, _)| start > end)
        });
    }

    /// Takes all room from a node's disk.
    pub fn fill_disk(&self, number: usize) {
        let file = self.cluster.data_dir(number).join("junk");
        let status = Command::new("sh")
            .args(["-c", &format!("cat /dev/zero > {} 2>/dev/null", file.display())])
            .status();
        assert!(status.is_ok_and(|status| !status.success()), "the disk did not fill up");
    }

    pub fn free_disk(&self, number: usize) {
        std::fs::remove_file(self.cluster.data_dir(number).join("junk")).expect("it was there");
    }

    /// Ends the load, waits until all replicas end alike, and reads them all.
    pub fn end(&mut self) -> (Ledger, BTreeMap<u32, Vec<Copy>>) {
        let ledger = self.load.take().expect("under load").finish();
        self.until("all replicas end alike", |stage| {
            let nodes = &stage.cluster.nodes;
            (0..stage.partitions).all(|partition| {
                let span = |node: &Node| span_of(&node.rpc, TOPIC, partition);
                let ends = nodes.iter().map(|node| span(node).map(|(_, end)| end));
                let ends: Vec<_> = ends.collect();
                ends[0].is_some() && ends.iter().all(|end| *end == ends[0])
            })
        });
        let mut copies = BTreeMap::new();
        for partition in 0..self.partitions {
            let of_partition: &mut Vec<Copy> = copies.entry(partition).or_default();
            for number in 0..self.cluster.nodes.len() {
                let node = &self.cluster.nodes[number];
                let (name, rpc) = (node.name.clone(), node.rpc.clone());
                let mut read = None;
                self.until(&format!("{name} reads partition {partition}"), |_| {
                    read = replica_of(&rpc, TOPIC, partition);
                    read.is_some()
                });
                of_partition.push(Copy { node: name, ..read.expect("waited for") });
            }
        }
        (ledger, copies)
    }

    /// Ends the load and judges.
    pub fn judge(&mut self) -> (Ledger, Vec<String>) {
        let (ledger, copies) = self.end();
        let wrong = checker::check(&ledger, &copies);
        (ledger, wrong)
    }
}
