//! Real nodes in processes of their own: on loopback, or each in a network namespace of its own.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
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

/// A port that nobody has, and that nobody was given before: below those that the system hands out
/// by itself, as a node may be away for a while, and another connection must not take its port.
fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| {
        let at = (Ipv4Addr::LOCALHOST, *port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    let offset = std::process::id().wrapping_mul(61);
    let next = || offset.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST;
    let ports = std::iter::repeat_with(|| u16::try_from(next()).expect("below 32,000"));
    ports.take(COUNT as usize).find(is_free).expect("a free port")
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
    let p = prefix();
    let works = run(&format!(
        "ip link add {p}pb type bridge && ip netns add {p}probe \
         && ip link add {p}pv type veth peer name e0 netns {p}probe \
         && ip link set {p}pv master {p}pb up \
         && ip netns exec {p}probe iptables -A INPUT -s 10.99.0.1 -j DROP"
    ));
    for rest in [format!("netns del {p}probe"), format!("link del {p}pb")] {
        run(&format!("ip {rest}"));
    }
    (!works).then(|| {
        "network namespaces with bridges and packet filters cannot be made here (that takes root, \
         and a kernel that has them)"
            .into()
    })
}

/// Why small file systems cannot be mounted here; `None` where they can.
pub fn mounts_missing() -> Option<String> {
    let at = std::env::temp_dir().join(format!("{}mount", prefix()));
    let at = at.display();
    let works = run(&format!("mkdir {at} && mount -t tmpfs -o size=1m tmpfs {at}"));
    run(&format!("umount {at}; rmdir {at}"));
    (!works).then(|| "file systems cannot be mounted here (that takes root)".into())
}

/// What the names of this process' namespaces and links begin with: other runs have theirs. At most
/// 11 characters, of 15 that a link's name may have.
fn prefix() -> String {
    format!("dur{}", std::process::id())
}

fn namespace(number: usize) -> String {
    format!("{}n{number}", prefix())
}

/// An address in this process' own network: a node's, or with 254 the client's.
fn address(number: usize) -> String {
    let id = std::process::id();
    format!("10.{}.{}.{number}", 100 + id / 256 % 100, id % 256)
}

/// Takes away what runs left that were killed.
fn sweep() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for name in listed.unwrap_or_default().lines().filter_map(|line| line.split(' ').next()) {
        let numbers = name.strip_prefix("dur").and_then(|rest| rest.split_once('n'));
        let Some((id, _)) = numbers.filter(|(id, _)| id.parse::<u32>().is_ok()) else { continue };
        if !Path::new(&format!("/proc/{id}")).exists() {
            println!("  takes away what a run that was killed left: {name}");
            run(&format!("ip netns del {name}; ip link del dur{id}br"));
        }
    }
}

impl Cluster {
    /// Nodes that are not started yet.
    pub fn new(directory: &Path, count: usize, net: Net, flags: &[&str]) -> Self {
        let mut nodes = Vec::new();
        if net == Net::Namespaces {
            sweep();
            bridge_up();
        }
        for number in 1..=count {
            let host = match net {
                Net::Loopback => "127.0.0.1".to_owned(),
                Net::Namespaces => {
                    namespace_up(number);
                    address(number)
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
                command.args(["netns", "exec", &namespace(number + 1), EXE]);
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
        self.rule(to, &format!("-s {}", address(from)));
    }

    /// As [`Cluster::cut`], for one port only.
    pub fn cut_port(&self, from: usize, to: usize, protocol: &str, port: u16) {
        let (from, to) = (from + 1, to + 1);
        for side in ["dport", "sport"] {
            self.rule(to, &format!("-s {} -p {protocol} --{side} {port}", address(from)));
        }
    }

    /// The client, in the root namespace, no longer hears a node, nor the node it.
    pub fn cut_from_client(&self, number: usize) {
        self.rule(number + 1, &format!("-s {}", address(254)));
    }

    /// From now on node `at` (from 1) does not hear what is described.
    fn rule(&self, at: usize, what: &str) {
        let inside = format!("ip netns exec {} iptables", namespace(at));
        assert!(run(&format!("{inside} -A INPUT {what} -j DROP")), "not cut: {what}");
    }

    pub fn cut_both(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub fn heal(&self) {
        if self.net == Net::Namespaces {
            for number in 1..=self.nodes.len() {
                run(&format!("ip netns exec {} iptables -F", namespace(number)));
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
                run(&format!("ip netns del {}", namespace(number)));
            }
            run(&format!("ip link del {}br", prefix()));
        }
    }
}

fn bridge_up() {
    let (bridge, client) = (format!("{}br", prefix()), address(254));
    assert!(
        run(&format!(
            "ip link add {bridge} type bridge && ip link set {bridge} up \
             && ip addr add {client}/24 dev {bridge}"
        )),
        "no bridge can be made"
    );
}

fn namespace_up(number: usize) {
    let (space, link) = (namespace(number), format!("{}v{number}", prefix()));
    let made = run(&format!(
        "ip netns add {space} && ip link add {link} type veth peer name e0 netns {space} \
         && ip link set {link} master {}br up && ip -n {space} addr add {}/24 dev e0 \
         && ip -n {space} link set e0 up && ip -n {space} link set lo up",
        prefix(),
        address(number)
    ));
    assert!(made, "no namespace can be made");
}
