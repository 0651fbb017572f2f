// Whatever a node and its commands write, say, show or send, keys, tokens and records are not in it.

use super::until;
use crate::harness::Lines;
use crate::harness::binary::{Binary, EXE, run};
use crate::telemetry::collector::Collector;
use crate::tls::{Pki, issued};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use duramen::access::{TokenKeys, TokenTerms};
use duramen::guards::tls::{ClientTls, TlsFiles};
use duramen::model::SystemClock;
use duramen::ops::logger::start_on;
use duramen::ops::settings::{LogFormat, Settings, fields};
use duramen::supervision::Fault;
use duramen::testing::{TestNode, block_on};
use duramen::wire::client::Bearer;
use rustls::pki_types::ServerName;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

const PAYLOAD: &[u8] = b"a-record-that-is-nobody-elses-business";

/// What must not be seen, and in which forms it would be known.
#[derive(Clone)]
struct Marker {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Marker {
    /// Bytes: as they are, in hexadecimal, and in base64 wherever they begin within it.
    fn bytes(name: &'static str, bytes: &[u8]) -> Self {
        let mut forms = vec![bytes.to_vec(), hex(bytes).into(), hex(bytes).to_uppercase().into()];
        for before in 0..3 {
            let shifted = [vec![0; before], bytes.to_vec()].concat();
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                // Characters that depend on what is before or behind them do not count.
                let end = text.len() - usize::from(shifted.len() % 3 != 0);
                forms.push(text.as_bytes()[(before * 8).div_ceil(6)..end].to_vec());
            }
        }
        Self { name, forms }
    }

    /// The key in a file of PEM: as text, line by line, and what is within.
    fn pem(name: &'static str, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(lines.concat()).unwrap();
        let mut marker = Self::bytes(name, &der);
        // The number itself, as PKCS#8 has it of an elliptic curve: 32 bytes.
        if let Some(at) = der.windows(2).position(|pair| pair == [4, 32]) {
            marker.forms.extend(Self::bytes(name, &der[at + 2..at + 34]).forms);
        }
        marker.forms.extend(lines.iter().filter(|l| l.len() > 30).map(|l| l.as_bytes().to_vec()));
        marker
    }

    /// A token: its signature is what makes it one.
    fn token(name: &'static str, token: &str) -> Self {
        let signature = token.rsplit('.').next().unwrap();
        let mut marker = Self::bytes(name, signature.as_bytes());
        marker.forms.push(token.into());
        marker
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| bytes.windows(form.len()).any(|part| part == form))
    }
}

/// What came out, by where.
#[derive(Default)]
struct Outputs(Vec<(String, Vec<u8>)>);

impl Outputs {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// All files of a directory.
    fn add_files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add_files(&path);
            } else if let Ok(bytes) = fs::read(&path) {
                self.add(path.display().to_string(), bytes);
            }
        }
    }

    /// Where what is found.
    fn seen(&self, markers: &[Marker]) -> Vec<(&'static str, &str)> {
        let places = self.0.iter().flat_map(|(place, bytes)| {
            let found = markers.iter().filter(|marker| marker.is_in(bytes));
            found.map(|marker| (marker.name, place.as_str()))
        });
        places.collect()
    }

    /// Fails where something is found that is not to be there: records belong to the segments.
    fn assert_clean(&self, markers: &[Marker]) {
        let is_own = |(name, place): &(&str, &str)| {
            // Who sends what cannot be read is told, and nobody else.
            let is_answered = *place == "POST /v1/topics/log/records";
            *name == "record" && (place.ends_with(".store") || is_answered)
        };
        let seen: Vec<_> = self.seen(markers).into_iter().filter(|seen| !is_own(seen)).collect();
        assert!(seen.is_empty(), "{seen:?}");
        // The control: each is found where it is planted, in each of its forms.
        for marker in markers {
            for form in &marker.forms {
                let mut planted = Self::default();
                planted.add("stderr", [b"a line with ", form.as_slice(), b" in it"].concat());
                assert_eq!(planted.seen(markers)[0].1, "stderr", "{}", marker.name);
            }
        }
    }
}

/// Passes connections on to an address, and keeps what goes there.
fn wiretap(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let Ok(there) = TcpStream::connect(to) else { continue };
            let (mut back, mut answers) = (from.try_clone().unwrap(), there.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || pass_on(from, there, &kept));
        }
    });
    (address, heard)
}

fn pass_on(mut from: TcpStream, mut there: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut part = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut part) {
        kept.lock().unwrap().extend(&part[..read]);
        if there.write_all(&part[..read]).is_err() {
            return;
        }
    }
}

/// Whoever is told to be a node that gossips: keeps what it is sent, by UDP and TCP.
fn gossiper() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            break (tcp, udp);
        }
    };
    let address = tcp.local_addr().unwrap();
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut part = [0; 64 << 10];
        while let Ok((read, _)) = udp.recv_from(&mut part) {
            kept.lock().unwrap().extend(&part[..read]);
        }
    });
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut part = [0; 16 << 10];
            while let Ok(read @ 1..) = stream.read(&mut part) {
                kept.lock().unwrap().extend(&part[..read]);
            }
        }
    });
    (address, heard)
}

/// All that a node is trusted with.
struct Secrets {
    pki: Pki,
    node: PathBuf,
    client: PathBuf,
    token: String,
    bad_token: String,
    gossip_key: [u8; 32],
    markers: Vec<Marker>,
}

impl Secrets {
    fn new() -> Self {
        let pki = Pki::new();
        let (node, client) = (pki.node("n1"), pki.client("root"));
        let path = |name: &str| pki.dir.path().join(name).to_str().unwrap().to_owned();
        let keys = |file: &str, kid: &str| {
            let made =
                run(&["token", "keys", "--new", &path(file), "--kid", kid, "--kind", "hs256"], b"");
            assert!(made.status.success(), "{made:?}");
            let new = ["token", "new", "--key", &path(file), "--subject", "root"];
            String::from_utf8(run(&new, b"").stdout).unwrap().trim().to_owned()
        };
        let (token, bad_token) = (keys("keys.json", "k1"), keys("others.json", "k1"));
        let text = fs::read_to_string(path("keys.json")).unwrap();
        let text: serde_json::Value = serde_json::from_str(&text).unwrap();
        let secret = URL_SAFE_NO_PAD.decode(text["keys"][0]["k"].as_str().unwrap()).unwrap();
        let gossip_key: [u8; 32] = std::array::from_fn(|at| (at * 7 + 11) as u8);
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let markers = vec![
            Marker::pem("the node's key", &read(&node.join("node-key.pem"))),
            Marker::pem("the client's key", &read(&client.join("client-key.pem"))),
            Marker::pem("the CA's key", &pki.ca.key),
            Marker::bytes("the secret of tokens", &secret),
            Marker::bytes("the key of gossip", &gossip_key),
            Marker::token("the token", &token),
            Marker::token("a bad token", &bad_token),
            Marker::bytes("record", PAYLOAD),
        ];
        Self { pki, node, client, token, bad_token, gossip_key, markers }
    }

    fn keys_file(&self) -> PathBuf {
        self.pki.dir.path().join("keys.json")
    }

    fn settings(&self, settings: &mut Settings) {
        settings.tls.dir = Some(self.node.clone());
        settings.node.name = Some("n1".into());
        settings.access.enabled = true;
        settings.access.admins = vec!["root".into()];
        settings.access.token_keys_file = Some(self.keys_file());
        let key = fields::find("gossip.key").unwrap();
        assert!((key.set)(settings, &STANDARD.encode(self.gossip_key)));
    }

    /// As a command of a client that shows this token.
    fn command(&self, rpc: &str, token: &str, arguments: &[&str]) -> (bool, Vec<u8>) {
        let mut child = Command::new(EXE)
            .args(arguments)
            .env("DURAMEN_RPC_ADDR", rpc)
            .env("DURAMEN_TLS_DIR", &self.client)
            .env("DURAMEN_TOKEN", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that takes no records may have ended.
        let _ = child.stdin.take().unwrap().write_all(PAYLOAD);
        let out = child.wait_with_output().unwrap();
        (out.status.success(), [out.stdout, out.stderr].concat())
    }

    fn https(&self, address: &str, request: (&str, &str), token: &str, body: &str) -> String {
        let shown = issued(&self.client, "client");
        let config = self.pki.config(Some(&shown), b"http/1.1");
        let answer = block_on(async {
            let tcp = tokio::net::TcpStream::connect(address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
            let (method, path) = request;
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer \
                 {token}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        });
        String::from_utf8_lossy(&answer.unwrap()).into_owned()
    }

    /// What clients and operators do in a node's life, with what they are told.
    fn use_it(&self, rpc: &str, http: &str, data_dir: &str, outputs: &mut Outputs) {
        let (ok, told) = self.command(rpc, &self.token, &["produce", "log", "--verbose"]);
        assert!(ok, "{}", String::from_utf8_lossy(&told));
        outputs.add("produce", told);
        for arguments in [
            &["ps", "--json"][..],
            &["describe", "log"],
            &["topic", "create", "orders", "--verbose"],
            &["topic", "list"],
            &["topic", "describe", "nothing", "--verbose"],
            &["cluster", "status"],
            &["acl", "list"],
            &["acl", "add", "alice", "*", "consume"],
            &["explain", "node"],
            &["explain", "partition", "log/0"],
            &["explain", "actor", "node/access"],
            &["log", "show"],
            &["getservers"],
            &["actor", "restart", "node/partitions/log/0/raft"],
            &["crash", "list", "--data-dir", data_dir],
            &["crash", "show", "--data-dir", data_dir],
            &["audit", "tail", "--data-dir", data_dir],
            &["audit", "verify", "--data-dir", data_dir],
        ] {
            outputs.add(arguments.join(" "), self.command(rpc, &self.token, arguments).1);
            if !data_dir.is_empty() && arguments[0] != "crash" && arguments[0] != "audit" {
                let (ok, told) = self.command(rpc, &self.bad_token, arguments);
                assert!(!ok, "{arguments:?}");
                outputs.add(format!("{} with a bad token", arguments.join(" ")), told);
            }
        }
        let body = format!(r#"{{"records":[{{"value":"{}"}}]}}"#, STANDARD.encode(PAYLOAD));
        let broken = format!(r#"{{"records":[{{"{}":1}}]}}"#, String::from_utf8_lossy(PAYLOAD));
        for (token, is_good) in [(&self.token, true), (&self.bad_token, false)] {
            for (method, path, body) in [
                ("POST", "/v1/topics/log/records", &*body),
                ("POST", "/v1/topics/log/records", &*broken),
                ("GET", "/metrics", ""),
                ("GET", "/observe/tree", ""),
                ("GET", "/observe/explain?place=node", ""),
                ("GET", "/readyz?verbose", ""),
            ] {
                let answer = self.https(http, (method, path), token, body);
                // Who fails often is not listened to for a while.
                let is_let_in = !["HTTP/1.1 401", "HTTP/1.1 429"]
                    .iter()
                    .any(|refusal| answer.starts_with(refusal));
                assert_eq!(is_let_in, is_good || path.starts_with("/readyz"), "{path}: {answer}");
                outputs.add(format!("{method} {path}"), answer);
            }
        }
    }
}

#[test]
fn a_nodes_life_leaves_its_secrets_in_no_output() {
    let secrets = Secrets::new();
    let mut outputs = Outputs::default();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let collector = Collector::start();
    let there = collector.endpoint.trim_start_matches("http://").parse().unwrap();
    let (otlp, exported) = wiretap(there);
    fs::write(
        path("node.toml"),
        format!(
            "[access]\nenabled = true\nadmins = [\"root\"]\n[gossip]\nkey = \"{}\"\n\
             [telemetry]\notlp_endpoint = \"http://{otlp}\"\ntraces_ratio = 1.0\n\
             metrics_interval = \"200ms\"\n",
            STANDARD.encode(secrets.gossip_key)
        ),
    )
    .unwrap();
    let (err, config, keys) = (path("stderr"), path("node.toml"), secrets.keys_file());
    let flags = [
        ["--config", config.as_str()],
        ["--tls-dir", secrets.node.to_str().unwrap()],
        ["--token-keys-file", keys.to_str().unwrap()],
        ["--node-name", "n1"],
        ["--log", "trace,library:trace"],
    ]
    .concat();
    let data_dir = path("data");
    let node = Binary::start_logging_to(data_dir.as_ref(), &flags, fs::File::create(&err).unwrap());
    // What is handled while somebody looks.
    let tap = {
        let (rpc, token) = (node.rpc.clone(), secrets.token.clone());
        let mut command = Command::new(EXE);
        command.args(["tap", "node/**", "--count", "50", "--json"]);
        command.env("DURAMEN_RPC_ADDR", rpc).env("DURAMEN_TOKEN", token);
        command.env("DURAMEN_TLS_DIR", &secrets.client).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    secrets.use_it(&node.rpc, &node.http, &data_dir, &mut outputs);
    let tapped = tap.wait_with_output().unwrap();
    assert!(tapped.stdout.len() > 1000, "{}", String::from_utf8_lossy(&tapped.stderr));
    outputs.add("tap", [tapped.stdout, tapped.stderr].concat());
    until("it is exported", || (exported.lock().unwrap().len() > 10_000).then_some(()));
    assert!(node.stop("TERM").success());
    let logged = fs::read(&err).unwrap();
    assert!(
        String::from_utf8_lossy(&logged).contains("\"level\":\"trace\""),
        "messages are logged"
    );
    outputs.add("stderr", logged);
    outputs.add("OTLP", exported.lock().unwrap().clone());
    outputs.add_files(Path::new(&data_dir));
    for arguments in [
        &["config", "show", "--origin", "--config", &path("node.toml")][..],
        &["config", "check", &path("node.toml")],
        &["tls", "show", secrets.node.to_str().unwrap()],
        &["tls", "show", secrets.node.join("node-key.pem").to_str().unwrap()],
        &["tls", "verify", secrets.node.to_str().unwrap()],
    ] {
        let shown = run(arguments, b"");
        outputs.add(arguments[..2].join(" "), [shown.stdout, shown.stderr].concat());
    }
    outputs.assert_clean(&secrets.markers);
    // The control: records are where they are stored.
    let stored = outputs.seen(&secrets.markers);
    assert!(stored.iter().any(|(name, place)| *name == "record" && place.ends_with(".store")));
}

#[test]
fn faults_of_keys_tokens_and_files_are_told_without_what_is_in_them() {
    let secrets = Secrets::new();
    let mut outputs = Outputs::default();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let key = fs::read_to_string(secrets.node.join("node-key.pem")).unwrap();
    let certificate = fs::read_to_string(secrets.node.join("node.pem")).unwrap();
    let token_keys = fs::read_to_string(secrets.keys_file()).unwrap();
    let gossip = STANDARD.encode(secrets.gossip_key);
    let broken = |name: &str, files: [(&str, &str); 3]| {
        let dir = directory.path().join(name);
        fs::create_dir(&dir).unwrap();
        for (file, text) in files {
            fs::write(dir.join(file), text).unwrap();
        }
        dir.to_str().unwrap().to_owned()
    };
    let ca = &secrets.pki.ca.certificate;
    let swapped =
        broken("swapped", [("ca.pem", ca), ("node.pem", &key), ("node-key.pem", &certificate)]);
    let cut = broken(
        "cut",
        [("ca.pem", ca), ("node.pem", &certificate), ("node-key.pem", &key[..key.len() / 2])],
    );
    let as_ca =
        broken("as-ca", [("ca.pem", &key), ("node.pem", &certificate), ("node-key.pem", &key)]);
    fs::write(path("gossip"), format!("{gossip}{gossip}")).unwrap();
    fs::write(path("keys"), &token_keys[..token_keys.len() - 3]).unwrap();
    for (name, text) in [
        ("number.toml", format!("[gossip]\nkey = [\"{gossip}\"]\n")),
        ("open.toml", format!("[gossip]\nkey = \"{gossip}\n")),
        ("unknown.toml", format!("[gossip]\nkeys = \"{gossip}\"\n")),
        ("twice.toml", format!("[gossip]\nkey = \"{gossip}\"\nkey = \"{gossip}\"\n")),
        ("open.yaml", format!("gossip:\n  key: [\"{gossip}\n")),
    ] {
        fs::write(path(name), text).unwrap();
        let told = run(&["config", "check", &path(name)], b"");
        assert!(!told.status.success(), "{name}");
        outputs.add(name, [told.stdout, told.stderr].concat());
        let told = run(&["serve", "--dry-run", "--config", &path(name)], b"");
        assert!(!told.status.success(), "{name}");
        outputs.add(name, [told.stdout, told.stderr].concat());
    }
    let data = path("data");
    let serve = |flags: &[&str]| {
        let ports = ["--rpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
        let all =
            [&["serve", "--data-dir", &data, "--gossip-addr", "127.0.0.1:0"][..], &ports, flags];
        let all = all.concat();
        run(&all, b"")
    };
    for flags in [
        ["--tls-dir", &swapped],
        ["--tls-dir", &cut],
        ["--tls-dir", &as_ca],
        ["--gossip-key-file", &path("gossip")],
        ["--config", secrets.keys_file().to_str().unwrap()],
    ] {
        let told = serve(&flags);
        assert!(!told.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&told.stderr));
        outputs.add(flags.join(" "), [told.stdout, told.stderr].concat());
    }
    // Of files that are read while it runs it tells in its log.
    let (log, keys) = (path("log"), path("keys"));
    let flags = ["--token-keys-file", &keys];
    let node = Binary::start_logging_to(data.as_ref(), &flags, fs::File::create(&log).unwrap());
    until("it has read them", || {
        fs::read_to_string(&log).unwrap().contains("no token is taken").then_some(())
    });
    for token in [&secrets.token, &secrets.bad_token, &"not a token at all".to_owned()] {
        for arguments in [
            &["token", "new", "--subject", "x", "--key", &keys][..],
            &["token", "keys", "--public", &keys],
            &["token", "keys", "--public", &swapped],
            &["tls", "verify", &cut],
            &["tls", "verify", &swapped],
            &["tls", "show", &swapped],
            &["describe", "log", "--tls-dir", &cut],
            &["describe", "log", "--token", token, "--tls-dir", "/nowhere"],
            &["describe", "log", "--token", token, "--rpc-addr", "127.0.0.1:1"],
            &["describe", "log", "--token-file", &keys, "--rpc-addr", "127.0.0.1:1"],
            &["mirror", "--from", "127.0.0.1:1", "--token", token, "--token-file", &keys],
        ] {
            let told = run(arguments, b"");
            let shows = arguments[1] == "show";
            assert!(shows || !told.status.success(), "{arguments:?}");
            outputs.add(
                arguments.join(" ").replace(token.as_str(), "TOKEN"),
                [told.stdout, told.stderr].concat(),
            );
        }
    }
    drop(node);
    outputs.add("log", fs::read(&log).unwrap());
    outputs.assert_clean(&secrets.markers);
}

#[test]
fn crashes_of_all_parts_and_the_debug_forms_of_settings_hold_no_secret() {
    let secrets = Secrets::new();
    let mut outputs = Outputs::default();
    let lines = Lines::default();
    let clock = Arc::new(SystemClock::new());
    let (logger, handle) =
        start_on(lines.clone(), LogFormat::Json, "trace".parse().unwrap(), clock);
    let (gossiper, heard) = gossiper();
    let node = TestNode::builder()
        .logger(logger)
        .settings(|settings| {
            secrets.settings(settings);
            settings.supervision.restarts_max = 100;
        })
        .start();
    outputs.add("Debug of settings", format!("{:?}", node.settings()));
    let (rpc, http) = (node.rpc_addr().to_string(), node.http_addr().to_string());
    let (ok, told) = secrets.command(&rpc, &secrets.token, &["produce", "log"]);
    assert!(ok, "{}", String::from_utf8_lossy(&told));
    for actor in node.actors() {
        let path = actor.to_string();
        let life = node.generation(&path);
        node.inject(&path, Fault::Panic("on purpose".into()));
        node.await_life_after(&path, life);
    }
    node.ready();
    let reports = node.data_dir().join("crash");
    let data_dir = node.data_dir().to_str().unwrap().to_owned();
    secrets.use_it(&rpc, &http, &data_dir, &mut outputs);
    until("reports are written", || {
        let found = fs::read_dir(&reports).map(|entries| entries.count()).unwrap_or(0);
        (found >= 5).then_some(())
    });
    outputs.add_files(node.data_dir());
    drop(node);
    // One that looks for others tells them who it is, with the key.
    let seeking = TestNode::builder().settings(|settings| {
        secrets.settings(settings);
        let join = fields::find("gossip.join").unwrap();
        assert!((join.set)(settings, &gossiper.to_string()));
    });
    let seeking = seeking.start();
    until("it gossips", || (heard.lock().unwrap().len() > 50).then_some(()));
    outputs.add("gossip", heard.lock().unwrap().clone());
    drop(seeking);
    drop(handle);
    outputs.add("log", lines.text());
    let client = TlsFiles::in_dir(&secrets.client, "client").load().unwrap();
    outputs.add("Debug of credentials", format!("{client:?}"));
    outputs.add("Debug of a client", format!("{:?}", ClientTls::new(&client).unwrap()));
    outputs.add("Debug of a bearer", format!("{:?}", Bearer::new(&secrets.token)));
    let text = fs::read_to_string(secrets.keys_file()).unwrap();
    let keys = TokenKeys::read(&text, TokenTerms::default()).unwrap();
    // What signs tokens has no such form.
    outputs.add("Debug of keys", format!("{keys:?}"));
    outputs.add("Debug of what is issued", format!("{:?}", secrets.pki.ca));
    outputs.assert_clean(&secrets.markers);
}
