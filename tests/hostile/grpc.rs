//! Attacks on the gRPC port: HTTP/2 frames first, then gRPC within them, then its messages.

use crate::Deadline;
use crate::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, OF_NO_KIND, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, Windows, block, call, call_with, frame, greeted, lying,
    message, settings, settled, whole_call,
};
use crate::messages::{batch, bombs, corpus, fetch, is_permitted_harm, mutated_batch, produce};
use crate::mutate::{mutated, odd, pick, random};
use crate::node::{Target, speaking};
use crate::wire::Wire;
use duramen::testing::Chance;
use duramen::wire::pb::duramen::v1 as pb;
use std::io::{Result, Write};
use std::time::Duration;

const APPEND: &str = "/duramen.v1.Log/ProduceOnce";
const APPENDS: &str = "/duramen.v1.Log/Produce";
const FETCH: &str = "/duramen.v1.Log/Fetch";
/// How long an answer is listened to.
const MOMENT: Duration = Duration::from_millis(30);
/// How long what hangs is left hanging.
const HOLD: Duration = Duration::from_millis(700);
const HEARD_MAX: usize = 256 << 10;

type Attack = fn(&Target, &mut Chance) -> Result<()>;

/// Those that hold many connections or much memory come last, and less often.
const ATTACKS: [(&str, Attack); 26] = [
    ("random bytes", random_bytes),
    ("mutated conversation", mutated_conversation),
    ("mutated conversation", mutated_conversation),
    ("mutated messages", mutated_messages),
    ("mutated messages", mutated_messages),
    ("mutated batches", mutated_batches),
    ("mutated batches", mutated_batches),
    ("frames that lie", frames_that_lie),
    ("messages that lie", messages_that_lie),
    ("headers without end", headers_without_end),
    ("header bombs", header_bombs),
    ("rapid reset", rapid_reset),
    ("floods of control frames", control_floods),
    ("windows", windows),
    ("empty data", empty_data),
    ("priorities", priorities),
    ("odd calls", odd_calls),
    ("compression bombs", compression_bombs),
    ("never read", never_read),
    ("half-open streams", half_open_streams),
    ("unfinished messages", unfinished_messages),
    ("answers not taken", answers_not_taken),
    ("crumbs", crumbs),
    ("tiny frames", tiny_frames),
    ("byte by byte", byte_by_byte),
    ("connect and hang", connect_and_hang),
];
const HEAVY: usize = 8;

pub fn attack(target: &Target, chance: &mut Chance, _deadline: &Deadline) -> &'static str {
    let (name, attack) = crate::one_of(&ATTACKS, HEAVY, chance);
    match attack(target, chance) {
        Ok(()) => name,
        // All places are taken, by another of the flood.
        Err(_) => "turned away",
    }
}

fn random_bytes(target: &Target, chance: &mut Chance) -> Result<()> {
    let tls = target.as_client.as_ref().map(|config| speaking(config, b"h2"));
    let mut wire = Wire::connect(target.rpc, tls.as_ref())?;
    if chance.coin() {
        wire.send(PREFACE);
    }
    let count = chance.below(8 << 10) as usize;
    wire.send(&random(chance, count));
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Calls as they should be, changed in the bytes of their frames, in pieces of any size.
fn mutated_conversation(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut bytes = settings(&[]);
    for number in 0..1 + chance.below(8) as u32 {
        let (path, said) = pick(chance, corpus());
        bytes.extend(whole_call(2 * number + 1, path, &message(0, said)));
    }
    let bytes = mutated(&bytes, chance);
    let tls = target.as_client.as_ref().map(|config| speaking(config, b"h2"));
    let mut wire = Wire::connect(target.rpc, tls.as_ref())?;
    wire.send(PREFACE);
    wire.send_in_pieces(&bytes, 300, chance);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Calls whose frames are right, and whose messages are not.
fn mutated_messages(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    settled(&mut wire);
    for number in 0..1 + chance.below(40) as u32 {
        let (path, said) = pick(chance, corpus());
        // A message to another method is a mutation too.
        let said = if chance.below(8) == 0 { &pick(chance, corpus()).1 } else { said };
        let said = mutated(said, chance);
        if is_permitted_harm(path, &said) {
            continue;
        }
        wire.send(&whole_call(2 * number + 1, path, &message(0, &said)));
    }
    wire.hear(2 * MOMENT, HEARD_MAX);
    Ok(())
}

fn mutated_batches(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    settled(&mut wire);
    for number in 0..1 + chance.below(20) as u32 {
        let mut body = Vec::new();
        for _ in 0..1 + chance.below(3) {
            body.extend(message(0, &produce(mutated_batch(chance), Vec::new())));
        }
        let path = if chance.coin() { APPEND } else { APPENDS };
        wire.send(&whole_call(2 * number + 1, path, &body));
    }
    wire.hear(2 * MOMENT, HEARD_MAX);
    Ok(())
}

/// Frames of each kind whose lengths, streams and flags are wrong.
fn frames_that_lie(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    wire.send(&frame(HEADERS, END_HEADERS, 1, &call(APPENDS)));
    for _ in 0..1 + chance.below(6) {
        let kind = chance.below(12) as u8;
        let stream = *pick(chance, &[0, 1, 1, 2, 3, 5, 0x7fff_ffff, u32::MAX]);
        let length = *pick(chance, &[0, 1, 3, 4, 5, 6, 8, 9, 16_384, 262_144, 262_145, 0xff_ffff]);
        let there = if chance.coin() { length.min(32 << 10) } else { chance.below(64) as u32 };
        let payload = random(chance, there as usize);
        let flags = chance.next_u64() as u8;
        if !wire.send(&lying(kind, flags, stream, length, &payload)) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Messages whose prefix says other lengths than they have.
fn messages_that_lie(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    settled(&mut wire);
    for number in 0..50 {
        let (path, said) = pick(chance, corpus());
        let length = odd(chance) as u32;
        let mut body = vec![chance.below(3) as u8];
        body.extend(length.to_be_bytes());
        body.extend(said);
        wire.send(&whole_call(2 * number + 1, path, &body));
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// CONTINUATION after CONTINUATION, empty or full.
fn headers_without_end(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    wire.send(&frame(HEADERS, 0, 1, &call(APPEND)));
    let more = match chance.below(3) {
        0 => Vec::new(),
        1 => block(&[(b"x", b"y")], false),
        _ => block(&[(b"x", &vec![b'y'; 16_000])], false),
    };
    let piece = frame(CONTINUATION, 0, 1, &more);
    let many = piece.repeat(200.min((1 << 20) / piece.len()));
    for _ in 0..20 {
        if !wire.send(&many) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Few bytes that are many headers, and many that are one.
fn header_bombs(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[(1, 0xffff)])?;
    settled(&mut wire);
    let long = vec![b'v'; 4_000];
    let bomb = match chance.below(5) {
        // One entry into the decoder's table, and thousands of one-byte references to it.
        0 => [call(APPEND), block(&[(b"x", &long)], true), vec![0x80 | 62; 15_000]].concat(),
        1 => [call(APPEND), block(&[(b"x", b"y")], false).repeat(3_000)].concat(),
        2 => call_with(APPEND, &[(b"x", &vec![b'v'; 65_536])]),
        // Sizes of the table that nobody may ask for, and references to nothing.
        3 => [vec![0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f], call(APPEND), vec![0xff; 64]].concat(),
        _ => mutated(&call_with(APPEND, &[(b"x", &long)]), chance),
    };
    for number in 0..10 {
        let stream = 2 * number + 1;
        let mut pieces = bomb.chunks(16 << 10).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            wire.send(&frame(kind, flags, stream, piece));
            kind = CONTINUATION;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Calls that are taken back at once (CVE-2023-44487), and such that the node itself has to end
/// (CVE-2025-8671).
fn rapid_reset(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    settled(&mut wire);
    let is_own = chance.coin();
    for round in 0..20u32 {
        let mut bytes = Vec::new();
        for number in 0..200 {
            let stream = 2 * (200 * round + number) + 1;
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &call(APPEND)));
            bytes.extend(match is_own {
                true => frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
                false => frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes()),
            });
        }
        if !wire.send(&bytes) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Settings and pings that want answers, which nobody reads.
fn control_floods(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    let one = match chance.below(4) {
        0 => frame(PING, 0, 0, &[7; 8]),
        1 => settings(&[(4, odd(chance) as u32)]),
        2 => settings(&[(1, odd(chance) as u32), (3, 0), (5, 16_384)]),
        _ => frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
    };
    let many = one.repeat(1_000);
    for _ in 0..30 {
        if !wire.send(&many) {
            break;
        }
    }
    wire.hear(MOMENT, 1 << 10);
    Ok(())
}

/// Answers for which there is no room, and more room than there can be.
fn windows(target: &Target, chance: &mut Chance) -> Result<()> {
    let is_zero = chance.coin();
    let mut wire = greeted(target, &[(4, if is_zero { 0 } else { 0x7fff_ffff })])?;
    settled(&mut wire);
    for number in 0..100 {
        wire.send(&whole_call(2 * number + 1, FETCH, &message(0, &fetch(true))));
    }
    for number in 0..4 {
        let stream = if chance.coin() { 0 } else { 2 * number + 1 };
        wire.send(&frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes()));
    }
    wire.hear(MOMENT, 1 << 10);
    Ok(())
}

fn empty_data(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    wire.send(&frame(HEADERS, END_HEADERS, 1, &call(APPENDS)));
    let padded = frame(DATA, 8, 1, &[255; 256]);
    let many = if chance.coin() { frame(DATA, 0, 1, &[]) } else { padded }.repeat(500);
    for _ in 0..40 {
        if !wire.send(&many) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn priorities(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    let mut bytes = Vec::new();
    for number in 0..2_000u32 {
        let (stream, parent) = match chance.below(3) {
            0 => (1, 1),
            1 => (2 * number + 1, 2 * number + 3),
            _ => (odd(chance) as u32, odd(chance) as u32),
        };
        bytes.extend(frame(PRIORITY, 0, stream, &[&parent.to_be_bytes()[..], &[255]].concat()));
    }
    wire.send(&bytes);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Paths, methods and headers that no client of the port has.
fn odd_calls(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    settled(&mut wire);
    let long = format!("/{}", "a".repeat(8_000));
    let paths = ["", "/", "*", "//", "/a/b", "/duramen.v1.Log/", "/duramen.v1.Log/Nothing", &long];
    for number in 0..40 {
        let path = *pick(chance, &paths);
        let methods: [&[u8]; 5] = [b"POST", b"GET", b"CONNECT", b"OPTIONS", b""];
        let types: [&[u8]; 5] =
            [b"application/grpc", b"application/json", b"", b"application/grpc+json", b"\xff\0"];
        let more: [(&[u8], &[u8]); 8] = [
            (b"grpc-timeout", b"99999999999999999999S"),
            (b"grpc-timeout", b"0n"),
            (b"grpc-encoding", b"brotli"),
            (b"authorization", b"Bearer e30.e30.e30"),
            (b"duramen-forwarded", b"1"),
            (b"traceparent", b"00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-ff"),
            (b"content-length", b"-1"),
            (b"connection", b"upgrade"),
        ];
        let path = if chance.coin() { path } else { pick(chance, corpus()).0 };
        let headers = [
            (b":method".as_slice(), *pick(chance, &methods)),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", b"localhost"),
            (b"content-type", *pick(chance, &types)),
            *pick(chance, &more),
        ];
        let flags = if chance.coin() { END_HEADERS } else { END_HEADERS | END_STREAM };
        let stream = 2 * number + 1;
        wire.send(&frame(HEADERS, flags, stream, &block(&headers, false)));
        if flags == END_HEADERS {
            wire.send(&frame(DATA, END_STREAM, stream, &message(0, &pick(chance, corpus()).1)));
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// A message that is small as it comes and large as it is meant: of gRPC, and of record batches.
fn compression_bombs(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = greeted(target, &[])?;
    settled(&mut wire);
    for number in 0..4 {
        let stream = 2 * number + 1;
        if chance.coin() {
            let body = message(0, &produce(pick(chance, bombs()).clone(), Vec::new()));
            wire.send(&whole_call(stream, APPEND, &body));
            continue;
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&vec![0; 4 << 20])?;
        let head = call_with(APPEND, &[(b"grpc-encoding", b"gzip")]);
        wire.send(&frame(HEADERS, END_HEADERS, stream, &head));
        for piece in message(1, &packed.finish()?).chunks(16 << 10) {
            wire.send(&frame(DATA, 0, stream, piece));
        }
        wire.send(&frame(DATA, END_STREAM, stream, &[]));
    }
    wire.hear(4 * MOMENT, HEARD_MAX);
    Ok(())
}

/// Asks for all there is, again and again, with all the room there can be, and reads nothing.
fn never_read(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    for _ in 0..1 + chance.below(16) {
        let mut wire = greeted(target, &[(4, 0x7fff_ffff)])?;
        wire.send(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes()));
        for number in 0..200 {
            let said = match number % 4 {
                0 => whole_call(2 * number + 1, "/duramen.v1.Observe/Tree", &message(0, &[])),
                1 => {
                    let body = message(0, &produce(batch(), Vec::new())).repeat(20);
                    whole_call(2 * number + 1, APPENDS, &body)
                }
                _ => whole_call(2 * number + 1, FETCH, &message(0, &fetch(true))),
            };
            wire.send(&said);
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

/// Calls that are begun and go no further: ten thousand with those of the other hostile clients.
fn half_open_streams(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    let path = if chance.coin() { APPENDS } else { "/duramen.v1.Peer/Exchange" };
    for _ in 0..10 {
        let mut wire = greeted(target, &[])?;
        let calls = (0..250).map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &call(path)));
        wire.send(&calls.collect::<Vec<_>>().concat());
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

/// Messages that are all but complete, on as many connections and streams as there is room for.
fn unfinished_messages(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    let data = [0; 16 << 10];
    for _ in 0..4 + chance.below(12) {
        let mut wire = greeted(target, &[])?;
        let mut windows = Windows::settled(&mut wire);
        for number in 0..4 {
            let stream = 2 * number + 1;
            wire.send(&frame(HEADERS, END_HEADERS, stream, &call(APPENDS)));
            // As long as a message may be, or it were refused at once.
            let begun = [&[0][..], &(17u32 << 20).to_be_bytes()].concat();
            windows.send(&mut wire, stream, &begun);
            for _ in 0..255 {
                // What was pushed out gets no room any more.
                if !windows.send(&mut wire, stream, &data) {
                    break;
                }
            }
        }
        // The next frame has not come as a whole.
        let missing = 1 + chance.below(16 << 10) as usize;
        let last = frame(DATA, 0, 1, &data);
        wire.send(&last[..last.len() - missing]);
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

/// What comes among requests that are not taken.
#[derive(Clone, Copy)]
enum Among {
    Nothing,
    /// Frames of no kind, which count nowhere.
    Meaningless,
    /// Requests of another call, which takes its answers: a connection is never without something taken.
    Taken,
}

/// Requests of calls that take no answers, from the start or from some time on: as many as there is room
/// for.
fn answers_not_taken(target: &Target, chance: &mut Chance) -> Result<()> {
    requests(target, chance, 0, 16 << 10, Among::Nothing)
}

/// Requests a few bytes at a time, each among many others, which keep nothing themselves; answers are
/// taken or not.
fn crumbs(target: &Target, chance: &mut Chance) -> Result<()> {
    let (window, among) = match chance.below(3) {
        0 => (0, Among::Meaningless),
        1 => (1 << 20, Among::Meaningless),
        _ => (0, Among::Taken),
    };
    requests(target, chance, window, 256, among)
}

fn requests(
    target: &Target,
    chance: &mut Chance,
    window: u32,
    bytes: usize,
    among: Among,
) -> Result<()> {
    const TAKEN: u32 = 17;
    let mut wires = Vec::new();
    let whole = message(0, &produce(batch(), Vec::new()));
    let data = whole.repeat((16 << 10) / whole.len());
    let meaningless = frame(OF_NO_KIND, 0, 0, &[0; 16 << 10]);
    let large = pb::Record { value: Some(vec![0; 15 << 10].into()), ..Default::default() };
    let large = message(0, &produce(Vec::new(), vec![large]));
    for _ in 0..4 + chance.below(12) {
        let is_late = chance.coin();
        let wanted = [(4, window)];
        let mut wire = greeted(target, if is_late { &[] } else { &wanted })?;
        let mut windows = Windows::settled(&mut wire);
        let streams = || (0..8).map(|number| 2 * number + 1);
        for stream in streams() {
            wire.send(&frame(HEADERS, END_HEADERS, stream, &call(APPENDS)));
        }
        if matches!(among, Among::Taken) {
            wire.send(&frame(HEADERS, END_HEADERS, TAKEN, &call(APPENDS)));
            wire.send(&frame(WINDOW_UPDATE, 0, TAKEN, &(1u32 << 20).to_be_bytes()));
        }
        if is_late {
            for stream in streams() {
                windows.send(&mut wire, stream, &whole);
            }
            windows.hear(&mut wire, MOMENT);
            wire.send(&settings(&wanted));
        }
        // Of whom is kept too much nothing more is read.
        wire.tcp().set_write_timeout(Some(MOMENT))?;
        'all: for stream in streams() {
            for piece in data.chunks(bytes).cycle() {
                if !windows.send(&mut wire, stream, piece) {
                    break;
                }
                let goes_on = match among {
                    Among::Nothing => true,
                    Among::Meaningless => wire.send(&meaningless),
                    Among::Taken => (0..6).any(|_| windows.send(&mut wire, TAKEN, &large)),
                };
                if !goes_on {
                    break 'all;
                }
            }
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

/// A byte in each of thousands of frames, all at once, for calls that there are and are not: HTTP/2 has a
/// list of those that came, and keeps its room.
fn tiny_frames(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    let path = if chance.coin() { APPENDS } else { "/duramen.v1.Log/Nothing" };
    let body = message(0, &[0; 8 << 10]);
    let begun = &body[..body.len() - 1];
    let frames: Vec<_> = begun.iter().flat_map(|byte| frame(DATA, 0, 1, &[*byte])).collect();
    let burst = [frame(HEADERS, END_HEADERS, 1, &call(path)), frames].concat();
    for _ in 0..20 + chance.below(40) {
        let mut wire = greeted(target, &[])?;
        wire.tcp().set_write_timeout(Some(MOMENT))?;
        wire.send(&burst);
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

/// A byte at a time: of the preface, of a frame, of a message.
fn byte_by_byte(target: &Target, chance: &mut Chance) -> Result<()> {
    let tls = target.as_client.as_ref().map(|config| speaking(config, b"h2"));
    let body = message(0, &produce(batch(), Vec::new()));
    let all = [PREFACE, &settings(&[]), &whole_call(1, APPEND, &body)].concat();
    let mut wires = Vec::new();
    for _ in 0..50 {
        wires.push((Wire::connect(target.rpc, tls.as_ref())?, chance.below(all.len() as u64)));
    }
    for (wire, at) in &mut wires {
        wire.send(&all[..*at as usize]);
    }
    for step in 0..20 {
        std::thread::sleep(HOLD / 20);
        for (wire, at) in &mut wires {
            let at = *at as usize + step;
            wire.send(&all[at.min(all.len())..(at + 1).min(all.len())]);
        }
    }
    Ok(())
}

/// More connections than there are places for.
/// More than there are places, where no handshake makes each cost something.
fn connect_and_hang(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    let count = if target.as_client.is_some() { 300 } else { 1_200 };
    for number in 0..count {
        let mut wire = match number % 2 {
            0 => greeted(target, &[])?,
            _ => Wire::connect(target.rpc, None)?,
        };
        if chance.coin() {
            wire.send(&frame(SETTINGS, END_STREAM, 0, &[]));
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}
