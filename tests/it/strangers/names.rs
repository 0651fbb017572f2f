// Names that would lead elsewhere if anybody took them for parts of a path: every way in which one
// comes, and what a node has opened by then.

use crate::harness::binary::{Binary, EXE, run, serve};
use duramen::testing::{TestNode, block_on, until};
use duramen::wire::client::{Client, ClientError, ClientOptions, Target};
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::peer::{PROTOCOL_MAX, PeerClient};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tonic::Code;

/// None of them is a name.
fn no_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        "..",
        ".",
        "../escaped",
        "a/../../escaped",
        "/etc/escaped",
        "a/b",
        "a\\b",
        "%2e%2e%2fescaped",
        "a\0b",
        "a\nb",
        "a\r\nx: y",
        "a b",
        " a",
        "a*",
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{212b}",
        "\u{ff0e}\u{ff0e}",
        "a\u{202e}b",
        "\u{1b}[2J",
    ]
    .map(String::from)
    .to_vec();
    names.extend([250, 256, 64 << 10].map(|len| "x".repeat(len)));
    names
}

/// Odd elsewhere, and names here: different ones, each a directory of its own.
const NAMES: [&str; 7] = ["CON", "con", "Con", "orders.", ".orders", "...", "nul.txt"];

fn shown(name: &str) -> String {
    format!("{:?} ({} bytes)", name.chars().take(30).collect::<String>(), name.len())
}

/// Every path below a directory, but for those below one of them.
fn listing(of: &Path, without: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path != without && path.is_dir() && !path.is_symlink() {
            found.extend(listing(&path, without));
        }
        found.insert(path);
    }
    found
}

fn code<T>(outcome: Result<T, ClientError>) -> Option<Code> {
    match outcome {
        Ok(_) => None,
        Err(ClientError::Refused(refusal)) => Some(refusal.code),
        Err(error) => panic!("neither taken nor refused: {error}"),
    }
}

fn create(name: &str) -> pb::CreateTopicRequest {
    let name = name.to_owned();
    pb::CreateTopicRequest { name, partitions: 1, replication_factor: 1, settings: None }
}

/// Every request over gRPC that a name is part of.
async fn by_grpc(address: &str, name: &str) {
    let client = Client::connect(address, ClientOptions::default()).await.unwrap();
    let mut admin = client.admin();
    let what = shown(name);
    assert_eq!(code(admin.create_topic(create(name)).await), Some(Code::InvalidArgument), "{what}");
    let batch = crate::access::batch("x");
    let target = Target::topic(name);
    let wanted = [Some(Code::InvalidArgument), Some(Code::NotFound)];
    // An empty name is the first topic's in these.
    if !name.is_empty() {
        let appended = code(client.clone().produce_once(&target, batch).await);
        assert!(wanted.contains(&appended), "append to {what}: {appended:?}");
        let described = code(client.clone().describe(name).await);
        assert!(wanted.contains(&described), "describe {what}: {described:?}");
    }
    let name = name.to_owned();
    let deleted = code(admin.delete_topic(pb::DeleteTopicRequest { name }).await);
    assert!(wanted.contains(&deleted), "delete {what}: {deleted:?}");
}

/// As a part of a path and of a query; in whole and escaped.
fn by_http(node: &str, name: &str) {
    let escaped: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut forms = vec![escaped];
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        forms.push(name.to_owned());
    }
    for form in forms.iter().filter(|form| form.len() < 60_000) {
        let target = format!("/v1/topics/{form}/records");
        for (method, body) in [("GET", ""), ("POST", "{\"records\":[]}")] {
            let (status, _) = crate::harness::binary::http(node, method, &target, body);
            assert!((400..500).contains(&status), "{method} {}: {status}", shown(&target));
        }
    }
}

/// By each command that takes one; none of them leaves anything behind.
fn by_commands(rpc: &str, work: &Path, name: &str) {
    // No program can be given it.
    if name.contains('\0') || name.is_empty() {
        return;
    }
    let tls = work.join("tls").display().to_string();
    let issuer = work.join("issuer.json").display().to_string();
    let data = work.join("other").display().to_string();
    let commands: [&[&str]; 7] = [
        &["topic", "create", name, "--rpc-addr", rpc],
        &["topic", "delete", name, "--yes", "--rpc-addr", rpc],
        &["produce", name, "--rpc-addr", rpc],
        &["describe", name, "--rpc-addr", rpc],
        &["tls", "client", name, "--dir", &tls],
        &["tls", "node", name, "--dir", &tls],
        &["serve", "--node-name", name, "--data-dir", &data],
    ];
    for arguments in commands {
        let output = run(arguments, b"x\n");
        assert!(!output.status.success(), "{arguments:.2?} {}", shown(name));
        assert!(!output.stderr.is_empty());
    }
    // Other texts than names of directories: what they may hold is checked where it is written.
    let token = run(&["token", "new", "--key", &issuer, "--subject", name], b"");
    let rule = run(&["acl", "add", name, "*", "produce", "--rpc-addr", rpc], b"");
    if name.contains(['\n', '\r', '\u{1b}']) || name.len() > 256 || name.trim() != name {
        assert!(!token.status.success() && !rule.status.success(), "{}", shown(name));
    }
}

/// What a process has open, and where, but for the three that it was started with.
fn open_files(pid: u32) -> Vec<PathBuf> {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let own = all.filter(|entry| !["0", "1", "2"].iter().any(|it| entry.file_name() == *it));
    let links = own.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|path| path.is_absolute()).collect()
}

#[test]
fn what_is_no_name_is_refused_on_every_way_and_nothing_is_opened_for_it() {
    let outer = tempfile::tempdir().unwrap();
    let outer = outer.path().canonicalize().unwrap();
    let (data, work) = (outer.join("data"), outer.join("work"));
    std::fs::create_dir(&work).unwrap();
    let made = |arguments: &[&str]| {
        let output = run(arguments, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let tls = work.join("tls").display().to_string();
    made(&["tls", "init", "--node-name", "n1", "--dir", &tls]);
    made(&["token", "keys", "--new", &work.join("issuer.json").display().to_string()]);
    let node = Binary::start(&data);
    let ready = || node.describe()["state"] == "serving" || node.describe().is_object();
    until("it serves", ready);
    let before = listing(&outer, &data);
    for name in no_names() {
        block_on(by_grpc(&node.rpc, &name));
        by_http(&node.http, &name);
    }
    // Each is a process: of those that are refused for the same reason one will do.
    for name in no_names().iter().step_by(2).filter(|name| name.len() < 300) {
        by_commands(&node.rpc, &work, name);
    }
    assert_eq!(listing(&outer, &data), before, "nothing was made outside of the data directory");
    let topics = || {
        let all = std::fs::read_dir(data.join("partitions")).unwrap();
        all.map(|it| it.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(topics(), BTreeSet::from(["log".to_owned()]));
    // The control: what is a name is taken on the same ways, one directory for each.
    for name in NAMES {
        made(&["topic", "create", name, "--rpc-addr", &node.rpc]);
        until("it takes records", || {
            run(&["produce", name, "--rpc-addr", &node.rpc], name.as_bytes()).status.success()
        });
    }
    assert_eq!(topics(), NAMES.into_iter().chain(["log"]).map(String::from).collect());
    for name in NAMES {
        let read = run(&["consume", name, "--rpc-addr", &node.rpc], b"");
        assert_eq!(String::from_utf8_lossy(&read.stdout).lines().next(), Some(name));
    }
    for path in open_files(node.pid()) {
        let is_own =
            path.starts_with(&data) || path.starts_with("/dev") || path.starts_with("/proc");
        assert!(is_own, "{} is open", path.display());
    }
    let files = open_files(node.pid()).iter().filter(|path| path.starts_with(&data)).count();
    assert!(files > NAMES.len(), "the look at what is open sees files");
}

#[test]
fn no_call_of_the_system_leads_out_of_the_data_directory() {
    let outer = tempfile::tempdir().unwrap();
    let outer = outer.path().canonicalize().unwrap();
    let (data, trace) = (outer.join("data"), outer.join("trace"));
    let serve = serve(&data, &[]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o"]).arg(&trace);
    strace.arg(EXE).args(serve.get_args()).stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = strace.spawn() else {
        eprintln!("skipped: there is no strace here");
        return;
    };
    let ports = || {
        let text = std::fs::read_to_string(data.join("ports.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()
    };
    let mut ended = None;
    until("it serves, or cannot be traced", || {
        ended = child.try_wait().unwrap();
        ended.is_some() || ports().is_some()
    });
    if let Some(status) = ended {
        eprintln!("skipped: strace cannot be used here ({status})");
        return;
    }
    let ports = ports().unwrap();
    let (rpc, http) = (ports["rpc"].as_str().unwrap(), ports["http"].as_str().unwrap());
    for name in no_names() {
        block_on(by_grpc(rpc, &name));
        by_http(http, &name);
    }
    let fine = run(&["topic", "create", "orders", "--rpc-addr", rpc], b"");
    assert!(fine.status.success());
    until("the topic's directory is made", || data.join("partitions/orders/0/replica").exists());
    let pid = rustix::process::Pid::from_raw(ports["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();

    let text = std::fs::read_to_string(&trace).unwrap();
    let (mut inside, mut odd) = (0, Vec::new());
    for line in text.lines() {
        let Some(path) = line.split('"').nth(1).map(Path::new) else { continue };
        if path.starts_with(&data) {
            inside += 1;
            assert!(!path.to_string_lossy().contains(".."), "{line}");
            continue;
        }
        let changes = ["O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rename", "unlink", "link"];
        let is_change = changes.iter().any(|change| line.contains(change));
        if path.starts_with(&outer) && path != outer
            || is_change && !["/dev", "/proc"].iter().any(|it| path.starts_with(it))
        {
            odd.push(line);
        }
    }
    assert!(odd.is_empty(), "{odd:#?}");
    assert!(inside > 20, "the trace shows what the node opens");
}

#[test]
fn a_link_in_place_of_a_topics_directory_starts_nothing_and_wipes_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let (data, elsewhere) = (outer.path().join("data"), outer.path().join("elsewhere"));
    let log = || std::fs::File::options().append(true).create(true).open(outer.path().join("log"));
    let node = Binary::start_logging_to(&data, &[], log().unwrap());
    let command = |node: &Binary, arguments: &[&str]| {
        let output = run(&[arguments, &["--rpc-addr", &node.rpc]].concat(), b"one\n");
        output.status.success()
    };
    assert!(command(&node, &["topic", "create", "orders"]));
    until("it takes records", || command(&node, &["produce", "orders"]));
    node.stop("TERM");

    // The directory of a topic that is here, and of one that comes.
    std::fs::rename(data.join("partitions/orders"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, data.join("partitions/orders")).unwrap();
    let precious = outer.path().join("precious");
    std::fs::create_dir_all(precious.join("0")).unwrap();
    std::fs::write(precious.join("0/file"), "kept").unwrap();
    std::os::unix::fs::symlink(&precious, data.join("partitions/fresh")).unwrap();
    let contents = || {
        let files = listing(&elsewhere, Path::new("/"))
            .into_iter()
            .chain(listing(&precious, Path::new("/")));
        files
            .filter(|path| path.is_file())
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect::<Vec<_>>()
    };
    let before = contents();
    assert!(before.len() > 3);
    let node = Binary::start_logging_to(&data, &[], log().unwrap());
    let text = || std::fs::read_to_string(outer.path().join("log")).unwrap();
    until("it says why it does not start", || text().contains("orders is a symbolic link"));
    assert!(!command(&node, &["produce", "orders"]));
    until("the others serve", || command(&node, &["produce", "log"]));
    command(&node, &["topic", "create", "fresh"]);
    until("it says why it is not made", || text().contains("fresh is a symbolic link"));
    assert!(!command(&node, &["produce", "fresh"]));
    node.stop("TERM");
    assert!(contents() == before, "what links lead to is as it was");

    // The control: without the link it is there again.
    std::fs::remove_file(data.join("partitions/orders")).unwrap();
    std::fs::rename(&elsewhere, data.join("partitions/orders")).unwrap();
    let node = Binary::start(&data);
    until("it takes records again", || command(&node, &["produce", "orders"]));
}

#[test]
fn a_link_in_place_of_a_segment_is_not_written_through() {
    let outer = tempfile::tempdir().unwrap();
    let data = outer.path().join("data");
    let node = Binary::start(&data);
    until("it takes records", || {
        run(&["produce", "log", "--rpc-addr", &node.rpc], b"one\n").status.success()
    });
    node.stop("TERM");
    let directory = data.join("partitions/log/0");
    let store = listing(&directory, Path::new("/"));
    let store = store.into_iter().find(|path| path.extension().is_some_and(|it| it == "store"));
    let (store, precious) = (store.unwrap(), outer.path().join("precious"));
    std::fs::rename(&store, &precious).unwrap();
    // A torn end, which recovery would cut off.
    let mut bytes = std::fs::read(&precious).unwrap();
    bytes.extend_from_slice(b"torn");
    std::fs::write(&precious, &bytes).unwrap();
    std::os::unix::fs::symlink(&precious, &store).unwrap();
    let log = std::fs::File::create(outer.path().join("log")).unwrap();
    let node = Binary::start_logging_to(&data, &[], log);
    let text = || std::fs::read_to_string(outer.path().join("log")).unwrap();
    until("its log is not recovered", || text().contains("Too many levels of symbolic links"));
    assert!(!run(&["produce", "log", "--rpc-addr", &node.rpc], b"x\n").status.success());
    node.stop("TERM");
    assert_eq!(std::fs::read(&precious).unwrap(), bytes);
}

#[test]
fn a_node_with_such_a_name_becomes_no_member() {
    let node = TestNode::start();
    node.until("it has a cluster", |node| node.cluster().control.catalogue().nodes.len() == 1);
    let asked = |name: &str| pb::JoinRequest {
        uuid: "0b0e7c0a-0000-4000-8000-000000000000".into(),
        name: name.into(),
        rpc_addr: "127.0.0.1:1".into(),
        gossip_addr: "127.0.0.1:1".into(),
        version: "1".into(),
        protocol_min: 1,
        protocol_max: PROTOCOL_MAX,
        ..Default::default()
    };
    let address = node.rpc_addr().to_string();
    block_on(async {
        let long = Duration::from_secs(20);
        let mut client = PeerClient::connect(&address, long, None).await.unwrap();
        for name in no_names().into_iter().filter(|name| name.len() != 250) {
            let refused = code(client.join(asked(&name)).await);
            assert_eq!(refused, Some(Code::InvalidArgument), "{}", shown(&name));
        }
        let mut odd = asked("n2");
        odd.uuid = "../escaped".into();
        assert_eq!(code(client.join(odd).await), Some(Code::InvalidArgument));
        assert_eq!(node.cluster().control.catalogue().nodes.len(), 1);
        // The control.
        assert_eq!(code(client.join(asked("n2")).await), None);
    });
    assert_eq!(node.cluster().control.catalogue().nodes.len(), 2);
}
