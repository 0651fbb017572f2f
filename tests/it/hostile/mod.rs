// What becomes of requests, peers and sources that ask for too much, or for what is not theirs.

mod exposure;
mod flood;
mod injection;
mod limits;
mod secrets;

use crate::harness::binary::{Binary, http};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is there.
pub fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {PATIENCE:?}, and still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node with these lines of settings.
pub fn start(directory: &Path, toml: &str) -> Binary {
    let file = directory.join("node.toml");
    std::fs::write(&file, toml).unwrap();
    Binary::start_with(&directory.join("data"), &["--config", file.to_str().unwrap()])
}

/// The sum over all series of a metric that have these labels, as `name{label="value",other="value"`.
pub fn metric(node: &Binary, wanted: &str) -> f64 {
    let (status, text) = http(&node.http, "GET", "/metrics", "");
    assert_eq!(status, 200);
    let (name, labels) = wanted.split_once('{').unwrap_or((wanted, ""));
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| labels.trim_end_matches('}').split(',').all(|l| rest.contains(l)))
    };
    let values = text.lines().filter(is_it).map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<f64>().unwrap()).fold(0.0, |sum, value| sum + value)
}

/// What a process has in RAM (unit: bytes).
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What a node takes in one frame of HTTP/2.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// A connection of HTTP/2 by hand: what it is sent is read by nobody.
pub struct Unread(TcpStream);

impl Unread {
    pub fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        // The preface, then settings without a wish.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // How much may be sent is known once the node has said it, for streams and for all.
        let mut kinds = Vec::new();
        while !(kinds.contains(&4) && kinds.contains(&8)) {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize]).unwrap();
            kinds.push(head[3]);
        }
        let mut client = Self(stream);
        client.frame(4, 1, 0, &[]);
        client
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = head(kind, flags, stream, payload.len() as u32);
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    /// Begins a call.
    pub fn begin(&mut self, stream: u32, path: &str) {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "node"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal that is not remembered, neither part shortened.
            block.extend([0, name.len() as u8]);
            block.extend(name.bytes());
            block.push(value.len() as u8);
            block.extend(value.bytes());
        }
        self.frame(1, 4, stream, &block);
    }

    /// Begins a frame of so many bytes and sends all but its last ones, as far as they are taken.
    pub fn unfinished(&mut self, stream: u32, length: u32) {
        let mut frame = head(0, 0, stream, length);
        frame.resize(length as usize, b'x');
        self.0.set_write_timeout(Some(PATIENCE)).unwrap();
        // Whoever says more than is allowed may find the connection closed.
        let _ = self.0.write_all(&frame);
    }

    /// Sends bytes of a call, in as many frames as they need, and ends it or not.
    pub fn data(&mut self, stream: u32, bytes: &[u8], is_end: bool) {
        let before_last = bytes.len().saturating_sub(1) / FRAME_BYTES_MAX * FRAME_BYTES_MAX;
        let (before, last) = bytes.split_at(before_last);
        for part in before.chunks(FRAME_BYTES_MAX) {
            self.frame(0, 0, stream, part);
        }
        self.frame(0, u8::from(is_end), stream, last);
    }
}

/// What a frame of HTTP/2 begins with.
fn head(kind: u8, flags: u8, stream: u32, length: u32) -> Vec<u8> {
    let mut head = length.to_be_bytes()[1..].to_vec();
    head.extend([kind, flags]);
    head.extend(stream.to_be_bytes());
    head
}

/// A message with what gRPC puts before it.
pub fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}
