// The real binary as a process: started, asked, killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const EXE: &str = env!("CARGO_BIN_EXE_duramen");

/// A node in a process of its own. Killed when dropped.
pub struct Binary {
    child: Child,
    data_dir: PathBuf,
    pub rpc: String,
    pub http: String,
}

impl Binary {
    /// Starts a node on free ports and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, flags: &[&str]) -> Self {
        Self::start_logging_to(data_dir, flags, Stdio::null())
    }

    /// The same with a reader for what it logs.
    pub fn start_logging_to(data_dir: &Path, flags: &[&str], log: impl Into<Stdio>) -> Self {
        Self::start_as(data_dir, serve(data_dir, flags).stderr(log))
    }

    /// The same with more in its environment.
    pub fn start_in(data_dir: &Path, flags: &[&str], variable: (&str, &str)) -> Self {
        let (name, value) = variable;
        Self::start_as(data_dir, serve(data_dir, flags).stderr(Stdio::null()).env(name, value))
    }

    fn start_as(data_dir: &Path, command: &mut Command) -> Self {
        // A ports file of an earlier life says nothing about this one.
        let _ = std::fs::remove_file(data_dir.join("ports.json"));
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some((rpc, http)) = ports(data_dir) {
                return Self { child, data_dir: data_dir.to_path_buf(), rpc, http };
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the node ended with {status} before it was ready");
            }
            assert!(Instant::now() < deadline, "the node was not ready in time");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name and waits for the end.
    pub fn stop(mut self, signal: &str) -> std::process::ExitStatus {
        signal_to(self.pid(), signal);
        let status = self.child.wait().unwrap();
        assert!(!self.data_dir.join("ports.json").exists(), "ports.json is removed at a stop");
        status
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `duramen describe log --json`, the first partition.
    pub fn describe(&self) -> serde_json::Value {
        let output = run(&["describe", "log", "--json", "--rpc-addr", &self.rpc], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        all["partitions"][0].clone()
    }

    pub fn high_watermark(&self) -> u64 {
        self.describe()["high_watermark"].as_u64().unwrap()
    }

    /// An HTTP/1.1 request by hand; gives back status and body.
    pub fn http(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        http(&self.http, method, target, body)
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_to(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

pub fn serve(data_dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(EXE);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--rpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .args(["--gossip-addr", "127.0.0.1:0"])
        .args(flags)
        .stdin(Stdio::null());
    command
}

fn ports(data_dir: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(data_dir.join("ports.json")).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    let addr = |name: &str| ports[name].as_str().map(str::to_owned);
    Some((addr("rpc")?, addr("http")?))
}

/// Runs a subcommand to its end with bytes on standard input.
pub fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(EXE)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that ends early closes its side: that is for the test to judge, not for this.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

pub fn http(addr: &str, method: &str, target: &str, body: &str) -> (u16, String) {
    http_with(addr, method, target, "", body)
}

/// The same with further headers, each with its end of line.
pub fn http_with(
    addr: &str,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}
