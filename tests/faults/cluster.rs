//! Real nodes in processes of their own: on loopback, or each in a network namespace of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const EXE: &str = env!("CARGO_BIN_EXE_duramen");

/// How the nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    Loopback,
    /// One namespace each, behind a bridge: links can be cut one way.
    Namespaces,
}

pub struct Node {
    pub name: String,
    pub rpc: String,
    pub http: String,
    pub gossip: String,
    directory: PathBuf,
    child: Option<Child>,
    pub is_paused: bool,
}

pub struct Cluster {
    pub net: Net,
    pub nodes: Vec<Node>,
    pub directory: PathBuf,
    flags: Vec<String>,
    /// Who has an empty directory joins from now on, whoever it is.
    is_founded: bool,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn run(command: &str) -> bool {
    let status = Command::new("sh").args(["-c", command]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Why namespaces cannot be made here; `None` where they can.
pub fn namespaces_missing() -> Option<String> {
    if !run("command -v ip >/dev/null && command -v iptables >/dev/null") {
        return Some("`ip` and `iptables` are not there: apt-get install iproute2 iptables".into());
    }
    let works = run("ip netns add dur-probe && ip netns exec dur-probe ip link set lo up");
    run("ip netns del dur-probe");
    (!works).then(|| "network namespaces cannot be made here (that takes root)".into())
}

impl Cluster {
    /// Nodes that are not started yet.
    pub fn new(directory: &Path, count: usize, net: Net, flags: &[&str]) -> Self {
        let mut nodes = Vec::new();
        if net == Net::Namespaces {
            bridge_up();
        }
        for number in 1..=count {
            let host = match net {
                Net::Loopback => "127.0.0.1".to_owned(),
                Net::Namespaces => {
                    namespace_up(number);
                    format!("10.79.0.{number}")
                }
            };
            let port = |fixed: u16| if net == Net::Loopback { free_port() } else { fixed };
            let name = format!("n{number}");
            nodes.push(Node {
                rpc: format!("{host}:{}", port(8400)),
                http: format!("{host}:{}", port(8080)),
                gossip: format!("{host}:{}", port(8401)),
                directory: directory.join(&name),
                name,
                child: None,
                is_paused: false,
            });
        }
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self { net, nodes, directory: directory.to_owned(), flags, is_founded: false }
    }

    /// Starts them all: the first founds the cluster, the others join it.
    pub fn start(&mut self) {
        for number in 0..self.nodes.len() {
            self.start_node(number);
        }
    }

    pub fn start_node(&mut self, number: usize) {
        let seed =
            self.nodes[if number == 0 { 1.min(self.nodes.len() - 1) } else { 0 }].gossip.clone();
        let log = self.directory.join(format!("n{}.log", number + 1));
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        let node = &mut self.nodes[number];
        assert!(node.child.is_none(), "{} runs", node.name);
        let mut command = match self.net {
            Net::Loopback => Command::new(EXE),
            Net::Namespaces => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &format!("dur-{}", node.name), EXE]);
                command
            }
        };
        command.args(["serve", "--log-format", "json", "--node-name", &node.name]);
        command.arg("--data-dir").arg(&node.directory);
        command.args(["--rpc-addr", &node.rpc, "--http-addr", &node.http]);
        command.args(["--gossip-addr", &node.gossip, "--insecure-listen"]);
        // Whoever has a directory rejoins by what is in it.
        if (number > 0 || self.is_founded) && !node.directory.join("CLUSTER").exists() {
            command.args(["--join", &seed]);
        }
        self.is_founded = true;
        if let Ok(spec) = std::env::var("DURAMEN_FAULTS_LOG") {
            command.args(["--log", &spec]);
        }
        command.args(&self.flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.child = Some(command.spawn().expect("the node's program starts"));
        node.is_paused = false;
    }

    pub fn is_up(&self, number: usize) -> bool {
        self.nodes[number].child.is_some() && !self.nodes[number].is_paused
    }

    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.rpc.clone()).collect()
    }

    /// The process itself, also where `ip netns exec` was its parent: it replaces itself by it.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.nodes[number].child.as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.nodes[number].child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, number: usize) {
        self.signal(number, "TERM");
        if let Some(mut child) = self.nodes[number].child.take() {
            let begun = Instant::now();
            while child.try_wait().expect("it is ours").is_none() {
                assert!(begun.elapsed() < Duration::from_secs(30), "the node does not stop");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub fn pause(&mut self, number: usize) {
        self.signal(number, "STOP");
        self.nodes[number].is_paused = true;
    }

    pub fn resume(&mut self, number: usize) {
        self.signal(number, "CONT");
        self.nodes[number].is_paused = false;
    }

    fn signal(&self, number: usize, signal: &str) {
        if let Some(pid) = self.pid(number) {
            assert!(run(&format!("kill -{signal} {pid}")), "no {signal} to {pid}");
        }
    }

    /// Its directory is gone, as after the loss of a disk.
    pub fn wipe(&mut self, number: usize) {
        assert!(self.nodes[number].child.is_none(), "only the directory of a dead node is wiped");
        let _ = std::fs::remove_dir_all(&self.nodes[number].directory);
    }

    pub fn data_dir(&self, number: usize) -> &Path {
        &self.nodes[number].directory
    }

    /// Cuts what goes from one node to another; numbers from 0.
    pub fn cut(&self, from: usize, to: usize) {
        let (from, to) = (from + 1, to + 1);
        let rule = format!("iptables -A INPUT -s 10.79.0.{from} -j DROP");
        assert!(run(&format!("ip netns exec dur-n{to} {rule}")), "the link is not cut");
    }

    /// As [`Cluster::cut`], for one port only.
    pub fn cut_port(&self, from: usize, to: usize, protocol: &str, port: u16) {
        let (from, to) = (from + 1, to + 1);
        for side in ["dport", "sport"] {
            let rule = format!("iptables -A INPUT -s 10.79.0.{from} -p {protocol} --{side} {port}");
            assert!(run(&format!("ip netns exec dur-n{to} {rule} -j DROP")), "the port is not cut");
        }
    }

    /// The client, in the root namespace, no longer hears a node, nor the node it.
    pub fn cut_from_client(&self, number: usize) {
        let rule = "iptables -A INPUT -s 10.79.0.254 -j DROP";
        assert!(run(&format!("ip netns exec dur-n{} {rule}", number + 1)), "the link is not cut");
    }

    pub fn cut_both(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub fn heal(&self) {
        if self.net == Net::Namespaces {
            for number in 1..=self.nodes.len() {
                run(&format!("ip netns exec dur-n{number} iptables -F"));
            }
        }
    }

    /// The last lines that a node logged.
    pub fn last_lines(&self, number: usize, count: usize) -> String {
        let log = self.directory.join(format!("n{}.log", number + 1));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            if self.nodes[number].is_paused {
                self.resume(number);
            }
            self.kill(number);
        }
        if self.net == Net::Namespaces {
            for number in 1..=self.nodes.len() {
                run(&format!("ip netns del dur-n{number}"));
            }
            run("ip link del dur-br0");
        }
    }
}

fn bridge_up() {
    run("ip link del dur-br0");
    assert!(
        run("ip link add dur-br0 type bridge && ip link set dur-br0 up \
             && ip addr add 10.79.0.254/24 dev dur-br0"),
        "no bridge can be made"
    );
}

fn namespace_up(number: usize) {
    let made = run(&format!(
        "ip netns del dur-n{number}; ip link del dur-v{number}; ip netns add dur-n{number} \
         && ip link add dur-v{number} type veth peer name e0 netns dur-n{number} \
         && ip link set dur-v{number} master dur-br0 up \
         && ip -n dur-n{number} addr add 10.79.0.{number}/24 dev e0 \
         && ip -n dur-n{number} link set e0 up && ip -n dur-n{number} link set lo up"
    ));
    assert!(made, "no namespace can be made");
}
