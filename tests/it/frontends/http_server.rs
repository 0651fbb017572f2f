//! An HTTP front end over the partition in memory, and a client that sends just the bytes given.

use super::memory::MemoryPartition;
use super::server::NOW_MS;
use super::topics::MemoryTopics;
use duramen::actors::readiness::{Condition, NodeInfo, Readiness, SubsystemStatus};
use duramen::frontends::access::Door;
use duramen::frontends::drain::{Drain, DrainSwitch};
use duramen::frontends::http::{HttpFrontend, HttpLimits};
use duramen::frontends::listener::ConnectionCounters;
use duramen::model::{ManualClock, Timestamp};
use duramen::observe::metrics::Metrics;
use duramen::observe::{Complaints, Instruments};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A node whose condition the test chooses.
#[derive(Default)]
pub struct ReportedReadiness(Mutex<Vec<SubsystemStatus>>);

impl ReportedReadiness {
    pub fn report(&self, subsystem: &str, condition: Condition, reason: &str) {
        let (subsystem, reason) = (subsystem.to_owned(), reason.to_owned());
        self.0.lock().unwrap().push(SubsystemStatus { subsystem, condition, reason });
    }
}

impl Readiness for ReportedReadiness {
    fn readiness(&self) -> Vec<SubsystemStatus> {
        self.0.lock().unwrap().clone()
    }
}

pub struct HttpServer {
    pub partition: MemoryPartition,
    pub topics: MemoryTopics,
    pub address: SocketAddr,
    pub readiness: Arc<ReportedReadiness>,
    pub counters: Arc<ConnectionCounters>,
    pub metrics: Arc<Metrics>,
    pub drain: DrainSwitch,
    pub serving: JoinHandle<std::io::Result<()>>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl HttpServer {
    pub async fn start() -> Self {
        Self::start_with(HttpLimits::default()).await
    }

    pub async fn start_with(limits: HttpLimits) -> Self {
        let partition = MemoryPartition::new();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let readiness = Arc::<ReportedReadiness>::default();
        let counters = Arc::<ConnectionCounters>::default();
        let (drain_switch, drain) = Drain::channel();
        let instruments = Instruments::default();
        let metrics = Arc::clone(&instruments.metrics);
        let (node_id, rpc_addr) = ("node-under-test".to_owned(), String::new());
        let topics = MemoryTopics::of_one(&partition, &node_id, &address.to_string());
        let frontend = HttpFrontend {
            topics: topics.clone(),
            node: Arc::new(NodeInfo { node_id, rpc_addr, version: "1.2.3".into() }),
            readiness: Arc::clone(&readiness) as Arc<dyn Readiness>,
            clock: Arc::new(ManualClock::at(Timestamp(NOW_MS))),
            limits,
            counters: Arc::clone(&counters),
            complaints: Complaints::new(
                Arc::new(ManualClock::at(Timestamp(NOW_MS))),
                slog::Logger::root(slog::Discard, slog::o!()),
            ),
            observer: None,
            door: Door::open(Arc::new(ManualClock::at(Timestamp(NOW_MS)))),
            instruments,
            measure: Arc::<Metrics>::default(),
            tls: None,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
        };
        let serving = tokio::spawn(frontend.serve(socket, drain));
        let drain = drain_switch;
        Self { partition, topics, address, readiness, counters, metrics, drain, serving }
    }

    /// Sends a request as curl does with `-d`: with its content type, whatever the method.
    pub async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n",
            self.address,
            body.len()
        );
        self.send_bytes(format!("{head}{body}").as_bytes()).await
    }

    /// Sends bytes and reads until the server closes.
    pub async fn send_bytes(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        read_answer(stream).await
    }
}

/// Reads an answer until the server closes.
pub async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
