// What tests share that `duramen::testing` does not give: the real binary, and a node on the actix
// system of the test itself, for those that look at what it is started with.

#![allow(dead_code, reason = "each test takes what it needs")]

pub mod binary;

use duramen::node::Node;
use duramen::ops::settings::Settings;
use duramen::wire::pb::duramen::v1::log_client::LogClient;
use duramen::wire::pb::duramen::v1::{ProduceRequest, Record};
use slog::{Logger, o};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// How long a condition may take to come true before a test gives up. Not a promise of speed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn silent() -> Logger {
    Logger::root(slog::Discard, o!())
}

/// Settings of a node on free ports of the loopback.
pub fn settings(data_dir: &Path) -> Settings {
    let mut settings = Settings { data_dir: data_dir.to_path_buf(), ..Settings::default() };
    settings.rpc.addr = "127.0.0.1:0".parse().unwrap();
    settings.http.addr = "127.0.0.1:0".parse().unwrap();
    settings.gossip.addr = "127.0.0.1:0".parse().unwrap();
    settings.shutdown.grace = Duration::from_secs(2);
    settings
}

/// Runs a test on an actix system, where nodes live.
pub fn on_a_system<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {PATIENCE:?}, and still not: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub async fn client(node: &Node) -> LogClient<Channel> {
    LogClient::connect(format!("http://{}", node.rpc_addr())).await.unwrap()
}

pub fn one_record(value: impl Into<Vec<u8>>) -> ProduceRequest {
    let record = Record { value: Some(value.into().into()), ..Record::default() };
    ProduceRequest { topic: "log".into(), records: vec![record], ..ProduceRequest::default() }
}

/// What a logger wrote.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
