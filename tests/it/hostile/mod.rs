// What becomes of requests, peers and sources that ask for too much, or for what is not theirs.

mod exposure;
mod flood;
mod injection;
mod limits;
mod secrets;

use crate::harness::binary::{Binary, http};
use std::collections::BTreeMap;
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

/// The frame of HTTP/2 that bodies are in.
const DATA: u8 = 0;
/// Frames of HTTP/2 that say how much may be sent.
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// The setting of how much may be sent of a stream that begins.
const STREAM_WINDOW: u16 = 4;
/// What every window is to begin with.
const WINDOW: usize = 65_535;

/// A connection of HTTP/2 by hand: what it is sent is read by nobody, but to learn how much it may send.
pub struct Unread {
    stream: TcpStream,
    /// What may be sent of all streams together, of each that has begun, and of a new one.
    of_all: usize,
    of_each: BTreeMap<u32, usize>,
    of_new: usize,
}

impl Unread {
    pub fn connect(address: &str) -> Self {
        Self::connect_with(address, &[])
    }

    /// One that takes no answers of any stream.
    pub fn taking_nothing(address: &str) -> Self {
        let no_window = [&STREAM_WINDOW.to_be_bytes()[..], &[0; 4]].concat();
        Self::connect_with(address, &no_window)
    }

    fn connect_with(address: &str, wishes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let of_each = BTreeMap::new();
        let mut client = Self { stream, of_all: WINDOW, of_each, of_new: WINDOW };
        client.frame(SETTINGS, 0, 0, wishes);
        // A node wants other windows, and says so first.
        while client.of_all == WINDOW || client.of_new == WINDOW {
            client.hear();
        }
        client.frame(SETTINGS, 1, 0, &[]);
        client
    }

    /// Reads a frame, and learns what may be sent; of what kind it is.
    fn hear(&mut self) -> u8 {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap();
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        match (kind, u32::from_be_bytes(stream)) {
            (SETTINGS, _) => {
                for setting in payload.chunks(6) {
                    if setting[..2] == STREAM_WINDOW.to_be_bytes() {
                        self.of_new = number(&setting[2..]) as usize;
                    }
                }
            }
            (WINDOW_UPDATE, 0) => self.of_all += number(&payload) as usize,
            (WINDOW_UPDATE, stream) => {
                *self.of_each.entry(stream).or_insert(self.of_new) += number(&payload) as usize;
            }
            _ => {}
        }
        kind
    }

    /// Whether what comes next is part of an answer.
    pub fn hears_an_answer(&mut self) -> bool {
        self.hear() == DATA
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = head(kind, flags, stream, payload.len() as u32);
        frame.extend(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Whether so many bytes may be sent of a stream now.
    fn has_room(&mut self, stream: u32, bytes: usize) -> bool {
        self.of_all.min(*self.of_each.entry(stream).or_insert(self.of_new)) >= bytes
    }

    /// Sends the same bytes of a call until there is no room for them; how many that were.
    pub fn fill(&mut self, stream: u32, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while self.has_room(stream, bytes.len()) {
            self.data(stream, bytes, false);
            sent += bytes.len();
        }
        sent
    }

    /// The same a few bytes at a time, each with a frame behind it of no kind that HTTP/2 knows: that is
    /// passed over, and in no window. How many bytes that were, of both.
    pub fn crumbs(&mut self, stream: u32, bytes: &[u8]) -> usize {
        let passed_over =
            [head(0xfa, 0, 0, FRAME_BYTES_MAX as u32), vec![0; FRAME_BYTES_MAX]].concat();
        let mut sent = 0;
        self.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        for crumb in bytes.chunks(256).cycle() {
            if !self.has_room(stream, crumb.len()) {
                break;
            }
            self.of_all -= crumb.len();
            *self.of_each.get_mut(&stream).unwrap() -= crumb.len();
            let crumb = [&head(0, 0, stream, crumb.len() as u32), crumb, &passed_over].concat();
            // Of whoever sends many no more is read.
            if self.stream.write_all(&crumb).is_err() {
                break;
            }
            sent += crumb.len();
        }
        sent
    }

    /// Takes answers from now on, if it took none before.
    pub fn take(&mut self) {
        let window = [&STREAM_WINDOW.to_be_bytes()[..], &(WINDOW as u32).to_be_bytes()].concat();
        self.frame(SETTINGS, 0, 0, &window);
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
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // Whoever says more than is allowed may find the connection closed.
        let _ = self.stream.write_all(&frame);
    }

    /// Sends bytes of a call, in as many frames as they need and as there is room for them, and ends it
    /// or not.
    pub fn data(&mut self, stream: u32, bytes: &[u8], is_end: bool) {
        let before_last = bytes.len().saturating_sub(1) / FRAME_BYTES_MAX * FRAME_BYTES_MAX;
        let (before, last) = bytes.split_at(before_last);
        for part in before.chunks(FRAME_BYTES_MAX) {
            self.part(stream, part, 0);
        }
        self.part(stream, last, u8::from(is_end));
    }

    fn part(&mut self, stream: u32, bytes: &[u8], flags: u8) {
        while !self.has_room(stream, bytes.len()) {
            self.hear();
        }
        self.of_all -= bytes.len();
        *self.of_each.get_mut(&stream).unwrap() -= bytes.len();
        self.frame(0, flags, stream, bytes);
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
