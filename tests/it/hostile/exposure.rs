// What of a node can be reached, what that does for those who prove nothing, and what files it opens.

use super::until;
use crate::harness::binary::{Binary, EXE, run, signal_to};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A node within TLS, with access control, a key for gossip, and ports that are known.
struct Guarded {
    directory: tempfile::TempDir,
    gossip: u16,
    flags: Vec<String>,
}

impl Guarded {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let made = run(&["tls", "init", "--dir", &path("tls"), "--node-name", "n1"], b"");
        assert!(made.status.success(), "{made:?}");
        fs::write(path("gossip.key"), "07".repeat(32)).unwrap();
        fs::write(path("node.toml"), "[access]\nenabled = true\nadmins = [\"root\"]\n").unwrap();
        let gossip = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let flags = [
            ["--tls-dir", &path("tls")],
            ["--config", &path("node.toml")],
            ["--gossip-key-file", &path("gossip.key")],
            ["--gossip-addr", &format!("127.0.0.1:{gossip}")],
            ["--node-name", "n1"],
        ];
        let flags = flags.concat().into_iter().map(str::to_owned).collect();
        Self { directory, gossip, flags }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn start(&self) -> Binary {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Binary::start_with(&self.data_dir(), &flags)
    }

    /// As its administrator.
    fn run(&self, rpc: &str, arguments: &[&str]) -> (bool, String) {
        let tls = self.directory.path().join("tls");
        let tls = ["--tls-dir", tls.to_str().unwrap(), "--rpc-addr", rpc];
        let out = run(&[arguments, &tls].concat(), b"x\n");
        let told = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8(told).unwrap())
    }
}

/// Sockets of a process that take what comes: protocol and port.
fn listening(pid: u32) -> BTreeSet<(&'static str, u16)> {
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        if let Ok(target) = fs::read_link(entry.path())
            && let Some(inode) = target.to_str().and_then(|t| t.strip_prefix("socket:["))
        {
            own.insert(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut found = BTreeSet::new();
    for (protocol, table) in [("TCP", "tcp"), ("TCP", "tcp6"), ("UDP", "udp"), ("UDP", "udp6")] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields[1], fields[3], fields[9]);
            // Of TCP those that listen; of UDP each is open to all.
            if own.contains(inode) && (protocol == "UDP" || state == "0A") {
                let (_, port) = local.rsplit_once(':').unwrap();
                found.insert((protocol, u16::from_str_radix(port, 16).unwrap()));
            }
        }
    }
    found
}

/// The rows of the documentation's table of ports: setting and protocol.
fn documented() -> BTreeSet<(String, String)> {
    let text = include_str!("../../../docs/security.md");
    let table = text.split_once("## Ports\n").expect("the section Ports").1;
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| -> Vec<String> {
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    rows.map(cells).map(|cells| (cells[1].clone(), cells[2].clone())).collect()
}

/// Files of a directory with their sizes, but for those that only say who looks after it.
fn listing(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            // Written down by the node now and then, whatever comes from outside.
            if ["checkpoint", "producers"].iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if about.is_dir() {
                left.push(entry.path());
            }
            found.insert(entry.path(), about.len());
        }
    }
    found
}

#[test]
fn a_node_listens_where_the_documentation_says_and_nowhere_else() {
    let guarded = Guarded::new();
    let node = guarded.start();
    let port = |address: &str| address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let ports = [
        ("rpc.addr", "TCP", port(&node.rpc)),
        ("http.addr", "TCP", port(&node.http)),
        ("gossip.addr", "TCP", guarded.gossip),
        ("gossip.addr", "UDP", guarded.gossip),
    ];
    let expected: BTreeSet<_> =
        ports.iter().map(|(_, protocol, port)| (*protocol, *port)).collect();
    until("all ports are open", || (listening(node.pid()).len() >= 4).then_some(()));
    assert_eq!(listening(node.pid()), expected);
    let mut rows: BTreeSet<_> = ports
        .iter()
        .map(|(setting, protocol, _)| ((*setting).into(), (*protocol).into()))
        .collect();
    // Only with that setting.
    rows.insert(("gossip.multicast".into(), "UDP".into()));
    assert_eq!(documented(), rows);
    // The control: this process is seen to listen as soon as it does.
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = ("TCP", own.local_addr().unwrap().port());
    assert!(listening(std::process::id()).contains(&at));
}

#[test]
fn bytes_of_those_who_prove_nothing_change_nothing_on_any_port() {
    let guarded = Guarded::new();
    let node = guarded.start();
    let (ok, told) = guarded.run(&node.rpc, &["produce", "log"]);
    assert!(ok, "{told}");
    let state = || {
        let described = guarded.run(&node.rpc, &["describe", "log", "--json"]).1;
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        let offsets = described["partitions"][0]["high_watermark"].clone();
        let topics = guarded.run(&node.rpc, &["topic", "list", "--json"]).1;
        (offsets, topics, guarded.run(&node.rpc, &["acl", "list"]).1)
    };
    until("all ports are open", || (listening(node.pid()).len() >= 4).then_some(()));
    // Until what follows a start is done.
    let data_dir = guarded.data_dir();
    let mut last = (listing(&data_dir), 0);
    until("the directory rests", || {
        let now = listing(&data_dir);
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (last.1 > 600).then_some(())
    });
    let before = (listing(&data_dir), state());
    let gossip = format!("127.0.0.1:{}", guarded.gossip);
    let http = b"DELETE /v1/topics/log/records HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let post = b"POST /v1/topics/log/records HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n\
        {\"records\":[{}]}"
        .to_vec();
    let grpc = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut noise: Vec<u8> = Vec::new();
    let mut chance = 7u32;
    noise.resize_with(4096, || {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (chance >> 24) as u8
    });
    let mut hello = vec![22, 3, 1, 0, 200];
    hello.extend(&noise[..200]);
    for address in [node.rpc.clone(), node.http.clone(), gossip.clone()] {
        for bytes in [&http, &post, &grpc, &noise, &hello] {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            // It may be closed before all is sent, or not answered.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [1, 20, 200, 1400] {
        for start in 0..50 {
            socket.send_to(&noise[start..start + size], &gossip).unwrap();
        }
    }
    // As commands, without a certificate, and with one of another CA.
    let other = Guarded::new();
    for arguments in [
        &["produce", "log"][..],
        &["topic", "create", "others"],
        &["topic", "delete", "log"],
        &["acl", "off"],
        &["acl", "add", "mallory", "*", "*"],
        &["node", "leave", "n1"],
        &["log", "set", "trace"],
    ] {
        let plain = run(&[arguments, &["--rpc-addr", &node.rpc]].concat(), b"x\n");
        assert!(!plain.status.success(), "{arguments:?}");
        assert!(!other.run(&node.rpc, arguments).0, "{arguments:?}");
    }
    assert_eq!(state(), before.1);
    assert_eq!(listing(&data_dir), before.0);
    // The control: somebody known changes both.
    let (ok, told) = guarded.run(&node.rpc, &["topic", "create", "others"]);
    assert!(ok, "{told}");
    assert_ne!(state(), before.1);
    until("its files are there", || (listing(&data_dir) != before.0).then_some(()));
}

/// What a node may read beside its own: what any program on this machine does.
const SYSTEM: [&str; 8] =
    ["/lib", "/usr", "/etc", "/proc", "/sys", "/dev/null", "/dev/urandom", "/run/systemd"];

/// Calls of a trace that open or change a path: the path, and whether it is to be written.
fn opened(trace: &str) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for line in trace.lines().filter(|line| !line.contains("= -1 ")) {
        let calls = ["openat(", "open(", "creat(", "mkdir", "rename", "unlink", "link"];
        let Some(call) = calls.iter().find_map(|call| line.find(call)) else { continue };
        let rest = &line[call..];
        let is_open = rest.starts_with("open");
        let writes = !is_open
            || ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| rest.contains(flag));
        // Every quoted text of it is a path.
        for path in rest.split('"').skip(1).step_by(2) {
            found.push((PathBuf::from(path), writes));
        }
    }
    found
}

fn is_allowed(path: &Path, writes: bool, guarded: &Guarded) -> bool {
    let own = guarded.directory.path();
    if writes {
        // A thread's own name is written there.
        let own = [Path::new("/dev/null"), Path::new("/proc/thread-self/comm")];
        return path.starts_with(guarded.data_dir()) || own.contains(&path);
    }
    // What is relative was opened below a directory that was opened before.
    path.starts_with(own)
        || path.is_relative()
        || path == Path::new("/")
        || SYSTEM.iter().any(|system| path.starts_with(system))
        || Path::new(EXE).parent().is_some_and(|near| path.starts_with(near))
}

#[test]
fn a_node_writes_below_its_data_directory_only_and_reads_what_it_is_told_to() {
    let guarded = Guarded::new();
    let trace = guarded.directory.path().join("trace");
    let probe =
        Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!(
            "skipped: strace is not installed, or may not trace; what is open is looked at instead"
        );
        let node = guarded.start();
        assert!(guarded.run(&node.rpc, &["produce", "log"]).0);
        for entry in fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().flatten() {
            if let Ok(path) = fs::read_link(entry.path())
                && path.is_absolute()
            {
                let about =
                    fs::read_to_string(entry.path().to_str().unwrap().replace("/fd/", "/fdinfo/"));
                let flags = about.unwrap_or_default();
                let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
                let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
                let writes = flags.is_some_and(|flags| flags & 3 != 0);
                assert!(is_allowed(&path, writes, &guarded), "{}", path.display());
            }
        }
        return;
    }
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-s", "4096", "-o", trace.to_str().unwrap()])
        .args(["-e", "trace=open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat"])
        .args([EXE, "serve", "--data-dir", guarded.data_dir().to_str().unwrap()])
        .args(["--rpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .args(&guarded.flags)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (rpc, pid) = until("it is ready", || {
        let text = fs::read_to_string(guarded.data_dir().join("ports.json")).ok()?;
        let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some((ports["rpc"].as_str()?.to_owned(), ports["pid"].as_u64()? as u32))
    });
    for arguments in [
        &["produce", "log"][..],
        &["topic", "create", "others"],
        &["topic", "create", "../outside"],
        &["consume", "log", "--count", "1"],
        &["topic", "delete", "others"],
        &["acl", "add", "alice", "*", "*"],
    ] {
        guarded.run(&rpc, arguments);
    }
    signal_to(pid, "TERM");
    child.wait().unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    let all = opened(&text);
    let written = all.iter().filter(|(path, writes)| *writes && path.is_absolute()).count();
    assert!(all.len() > 50 && written > 10, "{} calls, {written} that write", all.len());
    let outside: Vec<_> =
        all.iter().filter(|(path, writes)| !is_allowed(path, *writes, &guarded)).collect();
    assert!(outside.is_empty(), "{outside:?}");
    // The control.
    let planted = opened("7 openat(AT_FDCWD, \"/tmp/x\", O_WRONLY|O_CREAT, 0666) = 3\n");
    assert!(!is_allowed(&planted[0].0, planted[0].1, &guarded));
    let elsewhere = opened("7 openat(AT_FDCWD, \"/root/secret\", O_RDONLY) = 3\n");
    assert!(!is_allowed(&elsewhere[0].0, elsewhere[0].1, &guarded));
}
