//! The processes that are measured: started or attached to, watched through `/proc`, killed.

use super::BenchError;
use crate::guards::tls::ClientTls;
use crate::model::{Clock, SystemClock};
use crate::wire::client::{Bearer, roomy};
use crate::wire::dial;
use crate::wire::pb::duramen::v1 as pb;
use pb::log_client::LogClient;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// Largest message either way: a batch of the largest size and its frame.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// How long a process may take to come up.
pub const READY_MAX: Duration = Duration::from_secs(120);
/// `/proc` counts processor time in hundredths of a second on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Its node's name, where it gossips, and whom it joins: nobody where it founds a cluster.
#[derive(Debug)]
pub struct Gossip {
    pub name: String,
    pub addr: String,
    pub join: Option<String>,
}

impl Gossip {
    fn alone() -> Self {
        Self { name: "bench".into(), addr: "127.0.0.1:0".into(), join: None }
    }
}

/// A connection of the benchmark.
pub type LogGrpc = LogClient<InterceptedService<Channel, Bearer>>;

/// Where a server is, and how it is reached.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    pub addr: String,
    /// Connections are within TLS.
    pub tls: Option<ClientTls>,
    /// Shown with each call.
    pub token: Bearer,
}

/// What a node is started with beyond what all are, and how it is reached then.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    pub arguments: Vec<OsString>,
    pub tls: Option<ClientTls>,
    pub token: Bearer,
}

/// A server under load. A process that was started for the benchmark dies with this value.
#[derive(Debug)]
pub struct Target {
    pub reach: Reach,
    pid: Option<u32>,
    child: Option<Child>,
    /// Its data directory, where it is ours.
    home: Option<TempDir>,
}

impl Target {
    /// A node that somebody else runs.
    pub fn attached(reach: Reach, pid: Option<u32>) -> Self {
        Self { reach, pid, child: None, home: None }
    }

    /// A node of this very program on an empty directory below `parent`.
    pub async fn start(parent: &Path, durability: &str) -> Result<Self, BenchError> {
        Self::start_member(parent, durability, &Gossip::alone()).await
    }

    /// The same with more arguments.
    pub async fn start_extra(
        parent: &Path,
        durability: &str,
        extra: Extra,
    ) -> Result<Self, BenchError> {
        Self::start_with(empty_home(parent)?, durability, &Gossip::alone(), extra).await
    }

    /// A node of a cluster, on an empty directory below `parent`.
    pub async fn start_member(
        parent: &Path,
        durability: &str,
        gossip: &Gossip,
    ) -> Result<Self, BenchError> {
        Self::start_with(empty_home(parent)?, durability, gossip, Extra::default()).await
    }

    /// A node on a directory that may hold data.
    pub async fn start_on(home: TempDir, durability: &str) -> Result<Self, BenchError> {
        Self::start_with(home, durability, &Gossip::alone(), Extra::default()).await
    }

    async fn start_with(
        home: TempDir,
        durability: &str,
        gossip: &Gossip,
        extra: Extra,
    ) -> Result<Self, BenchError> {
        let Extra { arguments, tls, token } = extra;
        let data_dir = home.path().join("data");
        let ports = data_dir.join("ports.json");
        remove_stale(&ports);
        let diagnostics = home.path().join("node.log");
        let child = serve(&data_dir, durability, gossip, &arguments, &diagnostics)?;
        let pid = Some(child.id());
        let reach = Reach { addr: String::new(), tls, token };
        let mut target = Self { reach, pid, child: Some(child), home: Some(home) };
        target.reach.addr = target.await_ports(&ports, &diagnostics).await?;
        Ok(target)
    }

    /// The bare server of the baseline.
    pub async fn start_echo() -> Result<Self, BenchError> {
        let mut child = Command::new(own_program()?)
            .args(["bench", "echo-server"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::io("cannot start the echo server"))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (reach, pid) = (Reach::default(), Some(child.id()));
        let mut target = Self { reach, pid, child: Some(child), home: None };
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        read.map_err(BenchError::io("cannot read the echo server's address"))?;
        target.reach.addr = line.trim().to_owned();
        if target.reach.addr.is_empty() {
            let why = "it ended without telling its address".into();
            return Err(BenchError::NotReady { what: "echo server", why });
        }
        Ok(target)
    }

    async fn await_ports(
        &mut self,
        ports: &Path,
        diagnostics: &Path,
    ) -> Result<String, BenchError> {
        let clock = SystemClock::new();
        loop {
            if let Some(addr) = read_rpc_addr(ports) {
                return Ok(addr);
            }
            let child = self.child.as_mut().expect("the node was started here");
            let ended = child.try_wait().map_err(BenchError::io("cannot watch the node"))?;
            if ended.is_some() || clock.monotonic() > READY_MAX {
                let why = read_text(diagnostics).unwrap_or_else(|| "it said nothing".into());
                return Err(BenchError::NotReady { what: "node", why: why.trim().to_owned() });
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// A connection of its own, with windows as large as the server's.
    pub async fn connect(&self) -> Result<LogGrpc, BenchError> {
        connect(&self.reach).await
    }

    /// The state of the partition.
    pub async fn describe(&self) -> Result<pb::Partition, BenchError> {
        let request = pb::DescribeRequest { topic: "log".into() };
        let described = self.connect().await?.describe(request).await?.into_inner();
        let message = "it describes no partition".to_owned();
        described.partitions.into_iter().next().ok_or(BenchError::Refused { message })
    }

    /// Processor seconds used so far, user and system.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = read_text(Path::new(&format!("/proc/{}/stat", self.pid?)))?;
        // The second field, a name in parentheses, may itself hold blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = read_text(Path::new(&format!("/proc/{}/status", self.pid?)))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    }

    /// Bytes of disk blocks below the data directory.
    pub fn disk_bytes(&self) -> u64 {
        self.home.as_ref().map_or(0, |home| blocks_below(&home.path().join("data")))
    }

    /// `kill -9`; gives the data directory back.
    pub fn kill(mut self) -> TempDir {
        self.end();
        self.home.take().expect("only a node that was started here is killed")
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it is dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.end();
    }
}

/// Connects to a server.
pub async fn connect(reach: &Reach) -> Result<LogGrpc, BenchError> {
    let Reach { addr, tls, token } = reach;
    let failed = |source| BenchError::Connect { addr: addr.clone(), source };
    let endpoint = Endpoint::from_shared(format!("http://{addr}"));
    let endpoint = roomy(endpoint.map_err(|source| failed(source.into()))?);
    let channel = dial::connect(endpoint, addr, tls.as_ref()).await.map_err(failed)?;
    Ok(LogClient::new(InterceptedService::new(channel, token.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// A directory below `parent` that goes when it is no longer held.
pub fn empty_home(parent: &Path) -> Result<TempDir, BenchError> {
    let home = tempfile::Builder::new().prefix(".duramen-bench-").tempdir_in(parent);
    home.map_err(BenchError::io(format!(
        "cannot make a temporary directory in {}",
        parent.display()
    )))
}

fn own_program() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(BenchError::io("cannot find this program's own file"))
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's own files, not the log's")]
fn serve(
    data_dir: &Path,
    durability: &str,
    gossip: &Gossip,
    arguments: &[OsString],
    diagnostics: &Path,
) -> Result<Child, BenchError> {
    let diagnostics = std::fs::File::create(diagnostics)
        .map_err(BenchError::io(format!("cannot create {}", diagnostics.display())))?;
    Command::new(own_program()?)
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--rpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .args(["--node-name", &gossip.name, "--gossip-addr", &gossip.addr])
        .args(gossip.join.iter().flat_map(|seed| ["--join", seed]))
        .args(["--durability", durability])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(diagnostics)
        .spawn()
        .map_err(BenchError::io("cannot start a node"))
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's own files, not the log's")]
fn remove_stale(ports: &Path) {
    // A killed node leaves its ports file behind; absent is as good.
    let _ = std::fs::remove_file(ports);
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's own files, not the log's")]
fn read_text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn read_rpc_addr(ports: &Path) -> Option<String> {
    let ports: serde_json::Value = serde_json::from_str(&read_text(ports)?).ok()?;
    Some(ports.get("rpc")?.as_str()?.to_owned())
}

fn blocks_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => blocks_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}
