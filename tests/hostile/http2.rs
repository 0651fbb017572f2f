//! HTTP/2 as bytes: frames that no library would send.

use crate::node::{Target, speaking};
use crate::wire::Wire;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::io::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// HTTP/2 knows of none such, and says that it is to be passed over.
pub const OF_NO_KIND: u8 = 0xfa;

/// Also the acknowledgement of settings and pings.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame with the length that it has.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    lying(kind, flags, stream, payload.len() as u32, payload)
}

/// A frame with the length that it says it has.
pub fn lying(kind: u8, flags: u8, stream: u32, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload = pairs.iter().flat_map(|(name, value)| {
        name.to_be_bytes().into_iter().chain(value.to_be_bytes()).collect::<Vec<u8>>()
    });
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

/// Headers that stay in no table; with `is_kept` they go into the decoder's.
pub fn block(headers: &[(&[u8], &[u8])], is_kept: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(if is_kept { 0x40 } else { 0 });
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(*text);
        }
    }
    bytes
}

/// A length without Huffman coding, in a prefix of seven bits (RFC 7541, 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The headers of a gRPC call.
pub fn call_with(path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut headers: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.as_bytes()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ];
    headers.extend(more);
    block(&headers, false)
}

pub fn call(path: &str) -> Vec<u8> {
    call_with(path, &[])
}

/// A message as gRPC frames it.
pub fn message(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![flag];
    framed.extend((bytes.len() as u32).to_be_bytes());
    framed.extend(bytes);
    framed
}

/// A whole call on a stream: headers, messages, the end.
pub fn whole_call(stream: u32, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(path));
    for piece in body.chunks(16 << 10) {
        bytes.extend(frame(DATA, 0, stream, piece));
    }
    bytes.extend(frame(DATA, END_STREAM, stream, &[]));
    bytes
}

/// A connection to the gRPC port that has said the preface and these settings.
pub fn greeted(target: &Target, pairs: &[(u16, u32)]) -> Result<Wire> {
    greeted_as(target, target.as_client.as_ref(), pairs)
}

/// The same, as whoever has this to show.
pub fn greeted_as(
    target: &Target,
    shown: Option<&Arc<ClientConfig>>,
    pairs: &[(u16, u32)],
) -> Result<Wire> {
    let tls = shown.map(|config| speaking(config, b"h2"));
    let mut wire = Wire::connect(target.rpc, tls.as_ref())?;
    wire.send(&[PREFACE, &settings(pairs)].concat());
    Ok(wire)
}

/// What every window is to begin with.
const WINDOW: usize = 65_535;

/// How much a node takes of each call, as far as it has said.
#[derive(Default)]
pub struct Windows {
    unread: Vec<u8>,
    of_all: usize,
    of_each: BTreeMap<u32, usize>,
    of_new: usize,
}

impl Windows {
    /// Hears what the node says first, and acknowledges its settings.
    pub fn settled(wire: &mut Wire) -> Self {
        let mut windows = Self { of_all: WINDOW, of_new: WINDOW, ..Self::default() };
        let until = Instant::now() + Duration::from_secs(1);
        while (windows.of_all == WINDOW || windows.of_new == WINDOW) && Instant::now() < until {
            windows.hear(wire, Duration::from_millis(20));
        }
        wire.send(&frame(SETTINGS, END_STREAM, 0, &[]));
        windows
    }

    /// Sends a frame of a call where there is room for it, or will be in a moment; whether it went.
    pub fn send(&mut self, wire: &mut Wire, stream: u32, data: &[u8]) -> bool {
        let until = Instant::now() + Duration::from_millis(5);
        loop {
            let of_one = self.of_each.entry(stream).or_insert(self.of_new);
            if self.of_all.min(*of_one) >= data.len() {
                self.of_all -= data.len();
                *of_one -= data.len();
                return wire.send(&frame(DATA, 0, stream, data));
            }
            if Instant::now() > until {
                return false;
            }
            self.hear(wire, Duration::from_millis(5));
        }
    }

    /// Hears something, or nothing for so long.
    pub fn hear(&mut self, wire: &mut Wire, time: Duration) {
        self.unread.extend(wire.hear(time, 1));
        while let Some((head, rest)) = self.unread.split_at_checked(9) {
            let number =
                |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let Some(payload) = rest.get(..number(&head[..3])) else { return };
            match (head[3], number(&head[5..]) as u32) {
                (SETTINGS, _) => {
                    let wanted = payload.chunks_exact(6).find(|setting| setting[..2] == [0, 4]);
                    self.of_new = wanted.map_or(self.of_new, |setting| number(&setting[2..]));
                }
                (WINDOW_UPDATE, 0) => self.of_all += number(payload),
                (WINDOW_UPDATE, stream) => {
                    *self.of_each.entry(stream).or_insert(self.of_new) += number(payload);
                }
                _ => {}
            }
            let whole = 9 + payload.len();
            self.unread.drain(..whole);
        }
    }
}

/// Answers a moment's worth of what the node says, with the acknowledgement of its settings.
pub fn settled(wire: &mut Wire) {
    wire.hear(Duration::from_millis(20), 1 << 10);
    wire.send(&frame(SETTINGS, END_STREAM, 0, &[]));
}
