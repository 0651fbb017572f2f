//! The node under attack: the real program in a process of its own, and what can be seen of it.

use duramen::guards::tls::{Authority, ClientTls, Issued, TlsFiles, Wanted};
use duramen::model::{Clock, SystemClock};
use duramen::testing::{block_on, until};
use duramen::wire::client::{Client, ClientOptions};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Its name, also in its certificate.
pub const NAME: &str = "n1";
/// The healthy client's, and the hostile one's, which may do nothing there.
pub const HEALTHY: &str = "healthy";
pub const HOSTILE: &str = "hostile";
/// The secret that nodes share; whoever attacks as a node knows it.
const GOSSIP_KEY: [u8; 32] = *b"a key that all of its nodes know";
/// Among flags: nodes share no secret.
pub const NO_KEY: &str = "no gossip key";
/// Among flags: it looks for others by multicast.
pub const DISCOVERS: &str = "discovers";
const READY_MAX: Duration = Duration::from_secs(60);

/// What hostile clients know of a node.
pub struct Target {
    pub rpc: SocketAddr,
    pub http: SocketAddr,
    pub gossip: SocketAddr,
    /// Where it looks for others, if it does.
    pub multicast: Option<SocketAddr>,
    /// What they show within TLS: the certificate of a client, and that of a node.
    pub as_client: Option<Arc<ClientConfig>>,
    pub as_node: Option<Arc<ClientConfig>>,
    /// The secret that nodes share.
    pub gossip_key: [u8; 32],
    pub cluster_id: String,
    pub uuid: String,
    /// The numbers of the two topics.
    pub healthy_topic: u32,
    pub hostile_topic: u32,
}

/// The program: what was built beside this one, or what `DURAMEN_HOSTILE_EXE` names.
pub fn program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_duramen").into();
    std::env::var_os("DURAMEN_HOSTILE_EXE").map_or_else(built, PathBuf::from)
}

pub struct Node {
    child: Child,
    data_dir: PathBuf,
    options: ClientOptions,
    target: Target,
}

/// A CA, and what it has signed, in a directory.
struct Pki {
    directory: PathBuf,
    authority: Authority,
    ca: Issued,
}

impl Pki {
    fn new(directory: PathBuf) -> Self {
        let now = SystemClock::new().wall();
        let (authority, ca) =
            Authority::new("the CA of a node under attack", now, 30).expect("a CA");
        Self { directory, authority, ca }
    }

    /// Puts a certificate into a directory of its own.
    fn issue(&self, name: &str, is_node: bool) -> PathBuf {
        let host = "127.0.0.1".parse().expect("an address");
        let (who, wanted) = match is_node {
            true => {
                ("node", Wanted::Node { name: name.into(), hosts: vec![host], also_client: false })
            }
            false => ("client", Wanted::Client { name: name.into() }),
        };
        let issued = self.authority.issue(&wanted, SystemClock::new().wall(), 30).expect("signed");
        let at = self.directory.join(name);
        std::fs::create_dir_all(&at).expect("a directory for a certificate");
        for (file, text) in [
            ("ca.pem".to_owned(), &self.ca.certificate),
            (format!("{who}-key.pem"), &issued.key),
            (format!("{who}.pem"), &issued.certificate),
        ] {
            std::fs::write(at.join(file), text).expect("a file can be written");
        }
        at
    }
}

/// What somebody connects with who holds such a directory, with any protocol or none.
fn shown(directory: &Path, who: &str) -> Arc<ClientConfig> {
    let file = |name: String| directory.join(name);
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(file("ca.pem".into())).expect("a certificate");
    roots.add(ca).expect("a CA");
    let chain = CertificateDer::from_pem_file(file(format!("{who}.pem"))).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file(format!("{who}-key.pem"))).expect("a key");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions are known")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![chain], key)
        .expect("they fit together");
    Arc::new(config)
}

/// The same, to speak a protocol.
pub fn speaking(config: &Arc<ClientConfig>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// A group that nobody else on this machine speaks to.
fn free_group() -> SocketAddr {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    SocketAddr::from(([239, 255, 84, 1], free.expect("a free port").port()))
}

/// Runs a node until it is a cluster of its own.
fn found(command: &mut Command, log: &Path) {
    let mut child = command.spawn().expect("the node's program starts");
    until("it founds a cluster", || {
        std::fs::read_to_string(log).is_ok_and(|text| text.contains("\"a cluster of one\""))
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
    child.wait().expect("it is ours");
    // What it said of its ports is not so any more.
    File::create(log).expect("a log file");
}

/// Where a node gossips, which took a free port, by its log.
fn gossips_at(log: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("\"gossips\""))?;
    serde_json::from_str::<serde_json::Value>(line).ok()?["addr"].as_str()?.parse().ok()
}

impl Node {
    /// Starts one on free ports, waits until it serves, and makes the topics of both clients.
    pub fn start(directory: &Path, is_tls: bool, flags: &[&str]) -> Self {
        let data_dir = directory.join("data");
        let log = directory.join("node.log");
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        let key = directory.join("gossip.key");
        std::fs::write(&key, hex(&GOSSIP_KEY)).expect("a key file");
        let mut command = Command::new(program());
        command.args(["serve", "--node-name", NAME, "--log-format", "json"]);
        command.args(["--rpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        command.args(["--gossip-addr", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(&data_dir);
        if !flags.contains(&NO_KEY) {
            command.arg("--gossip-key-file").arg(&key);
        }
        let multicast = flags.contains(&DISCOVERS).then(free_group);
        command.args(flags.iter().filter(|flag| ![NO_KEY, DISCOVERS].contains(flag)));
        let mut options = ClientOptions::default();
        let (mut as_client, mut as_node) = (None, None);
        let pki = is_tls.then(|| Pki::new(directory.join("tls")));
        if let Some(pki) = &pki {
            command.arg("--tls-dir").arg(pki.issue(NAME, true));
            command.env("DURAMEN_ACCESS_ENABLED", "true").env("DURAMEN_ACCESS_ADMINS", HEALTHY);
            let healthy = TlsFiles::in_dir(&pki.issue(HEALTHY, false), "client").load();
            let healthy = ClientTls::new(&healthy.expect("just made")).expect("a client's");
            options.tls = Some(healthy);
            as_client = Some(shown(&pki.issue(HOSTILE, false), "client"));
            as_node = Some(shown(&pki.issue("n2", true), "node"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(group) = multicast {
            // Who looks for others founds no cluster.
            found(&mut command, &directory.join("node.log"));
            command.env("DURAMEN_GOSSIP_MULTICAST", group.to_string());
        }
        let mut child = command.spawn().expect("the node's program starts");
        let deadline = Instant::now() + READY_MAX;
        let [rpc, http] = loop {
            if let Some(ports) = ports(&data_dir) {
                break ports;
            }
            let ended = child.try_wait().expect("it is ours");
            let log = directory.join("node.log");
            assert!(ended.is_none(), "the node ended before it served: {}", log.display());
            assert!(Instant::now() < deadline, "the node does not serve: {}", log.display());
            std::thread::sleep(Duration::from_millis(10));
        };
        let (cluster_id, uuid) = (String::new(), String::new());
        // The node tells where that is, once it can be asked.
        let gossip = rpc;
        let gossip_key = GOSSIP_KEY;
        let target = Target {
            rpc,
            http,
            gossip,
            multicast,
            as_client,
            as_node,
            gossip_key,
            cluster_id,
            uuid,
            healthy_topic: 0,
            hostile_topic: 0,
        };
        let mut node = Self { child, data_dir, options, target };
        node.make_topics(is_tls);
        let log = directory.join("node.log");
        until("it tells where it gossips", || match gossips_at(&log) {
            Some(at) => {
                node.target.gossip = at;
                true
            }
            None => false,
        });
        let is_heard = |group: &SocketAddr| crate::multicast::is_heard(*group, &log);
        node.target.multicast = multicast.filter(is_heard);
        node
    }

    fn make_topics(&mut self, is_tls: bool) {
        use duramen::wire::pb::duramen::v1 as pb;
        let small = [("retention_bytes", "40MiB"), ("segment_bytes_max", "17MiB")];
        let values = small.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let small = pb::TopicSettings { values: values.collect() };
        let status = block_on(async {
            let client = self.client().await;
            let mut admin = client.admin();
            for (name, settings) in [(HEALTHY, None), (HOSTILE, Some(small.clone()))] {
                let name = name.to_owned();
                let wanted =
                    pb::CreateTopicRequest { name, partitions: 1, replication_factor: 1, settings };
                // For a moment yet the node has no cluster.
                let until = Instant::now() + READY_MAX;
                while let Err(error) = admin.create_topic(wanted.clone()).await {
                    assert!(Instant::now() < until, "no topic can be made: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            if is_tls {
                for action in ["produce", "consume", "describe"] {
                    let rule = format!("p, {HOSTILE}, {HOSTILE}*, {action}, allow");
                    let change = Some(pb::change_access_request::Change::Add(rule));
                    let change = pb::ChangeAccessRequest { change };
                    admin.change_access(change).await.expect("a rule can be added");
                }
            }
            admin
                .cluster_status(pb::ClusterStatusRequest {})
                .await
                .expect("it tells of its cluster")
        });
        let own = &status.nodes[0];
        self.target.uuid = own.uuid.clone();
        let number = |name| status.topics.iter().find(|it| it.name == name).expect("just made").id;
        self.target.healthy_topic = number(HEALTHY);
        self.target.hostile_topic = number(HOSTILE);
        self.target.cluster_id = status.cluster_id;
    }

    /// A connection of the healthy client.
    pub async fn client(&self) -> Client {
        let address = self.target.rpc.to_string();
        Client::connect(&address, self.options.clone()).await.expect("the node answers")
    }

    pub fn options(&self) -> ClientOptions {
        self.options.clone()
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }

    /// Its sockets that are open now.
    pub fn sockets(&self) -> usize {
        let Ok(all) = std::fs::read_dir(format!("/proc/{}/fd", self.pid())) else { return 0 };
        let links = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// Its memory now (unit: bytes); from now on the most is kept anew.
    pub fn memory_from_now_on(&self) -> u64 {
        let reset = std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
        reset.expect("the kernel keeps the most memory of a process");
        self.memory("VmRSS:")
    }

    /// The most memory that it had since (unit: bytes).
    pub fn memory_most(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    pub fn crash_reports(&self) -> Vec<String> {
        let Ok(all) = std::fs::read_dir(self.data_dir.join("crash")) else { return Vec::new() };
        all.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Parts that did not live through it, or live no more.
    pub fn restarts(&self) -> Vec<String> {
        block_on(async {
            let tree =
                self.client().await.observer().tree("**").await.expect("it tells of its parts");
            assert!(tree.places.len() > 10, "a node has more than {} parts", tree.places.len());
            let broken = tree.places.into_iter().filter(|place| {
                place.restarts > 0 || !matches!(place.state.as_str(), "running" | "idle")
            });
            broken.map(|it| format!("{} ({}, {} times)", it.path, it.state, it.restarts)).collect()
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The addresses of gRPC and HTTP, from when the node serves.
fn ports(data_dir: &Path) -> Option<[SocketAddr; 2]> {
    let text = std::fs::read_to_string(data_dir.join("ports.json")).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = |name: &str| ports[name].as_str()?.parse().ok();
    Some([address("rpc")?, address("http")?])
}
