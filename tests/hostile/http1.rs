//! Attacks on the HTTP port: HTTP/1.1 first, then the JSON within it.

use crate::Deadline;
use crate::mutate::{mutated, odd, pick, random};
use crate::node::{HOSTILE, Target, speaking};
use crate::wire::Wire;
use duramen::testing::Chance;
use std::io::Result;
use std::time::Duration;

/// How long an answer is listened to.
const MOMENT: Duration = Duration::from_millis(30);
/// How long what hangs is left hanging.
const HOLD: Duration = Duration::from_millis(700);
const HEARD_MAX: usize = 1 << 20;

const ROUTES: [&str; 9] = [
    "/",
    "/metrics",
    "/livez",
    "/readyz",
    "/observe/tree",
    "/observe/explain",
    "/v1/topics/hostile/records",
    "/v1/topics/nobody/records",
    "/nowhere",
];
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PRI"];

type Attack = fn(&Target, &mut Chance) -> Result<()>;

/// Those that hold many connections or much memory come last, and less often.
const ATTACKS: [(&str, Attack); 15] = [
    ("random bytes", random_bytes),
    ("mutated conversation", mutated_conversation),
    ("mutated conversation", mutated_conversation),
    ("mutated bodies", mutated_bodies),
    ("mutated bodies", mutated_bodies),
    ("header bombs", header_bombs),
    ("chunks that lie", chunks_that_lie),
    ("lengths that lie", lengths_that_lie),
    ("pipelining", pipelining),
    ("odd targets", odd_targets),
    ("odd bodies", odd_bodies),
    ("never read", never_read),
    ("giant bodies", giant_bodies),
    ("byte by byte", byte_by_byte),
    ("connect and hang", connect_and_hang),
];
const HEAVY: usize = 4;

pub fn attack(target: &Target, chance: &mut Chance, _deadline: &Deadline) -> &'static str {
    let (name, attack) = crate::one_of(&ATTACKS, HEAVY, chance);
    match attack(target, chance) {
        Ok(()) => name,
        // All places are taken, by another of the flood.
        Err(_) => "turned away",
    }
}

fn connect(target: &Target) -> Result<Wire> {
    let tls = target.as_client.as_ref().map(|config| speaking(config, b"http/1.1"));
    Wire::connect(target.http, tls.as_ref())
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Valid requests to each route.
fn corpus() -> Vec<Vec<u8>> {
    let records = format!("/v1/topics/{HOSTILE}/records");
    let append = br#"{"records":[{"key":"k","value":"v","headers":[{"key":"a","value":{"base64":"AA=="}}],"timestamp_ms":1}]}"#;
    let json = "content-type: application/json\r\n";
    let mut all = vec![
        request("POST", "/", "", br#"{"record":{"value":"aG9zdGlsZQ==","offset":0}}"#),
        request("GET", "/", "", br#"{"offset":0}"#),
        request("POST", &records, json, append),
        request("POST", &format!("{records}?partition=0&forward=true"), json, append),
        request("GET", &format!("{records}?offset=0&max_records=10&max_bytes=1000"), "", b""),
        request("GET", &format!("{records}?time=0&wait_ms=5&consistency=linearizable"), "", b""),
    ];
    all.extend(ROUTES.iter().map(|route| request("GET", route, "", b"")));
    all
}

fn random_bytes(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = connect(target)?;
    let count = chance.below(8 << 10) as usize;
    wire.send(&random(chance, count));
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn mutated_conversation(target: &Target, chance: &mut Chance) -> Result<()> {
    let corpus = corpus();
    let bytes: Vec<u8> =
        (0..1 + chance.below(4)).flat_map(|_| pick(chance, &corpus).clone()).collect();
    let bytes = mutated(&bytes, chance);
    let mut wire = connect(target)?;
    wire.send_in_pieces(&bytes, 100, chance);
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// Requests whose heads are right, and whose JSON is not.
fn mutated_bodies(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = connect(target)?;
    let bodies: [&[u8]; 4] = [
        br#"{"record":{"value":"aG9zdGlsZQ==","offset":0}}"#,
        br#"{"offset":0}"#,
        br#"{"records":[{"key":"k","value":"v","headers":[{"key":"a","value":null}],"timestamp_ms":1}]}"#,
        br#"{"records":[{"key":{"base64":"AAAA"},"value":{"base64":"////"}},{}]}"#,
    ];
    for _ in 0..20 {
        let body = *pick(chance, &bodies);
        let body = mutated(body, chance);
        let path = *pick(chance, &["/", "/v1/topics/hostile/records"]);
        let method = if chance.coin() { "POST" } else { "GET" };
        wire.send(&request(method, path, "", &body));
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn header_bombs(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = connect(target)?;
    let headers = match chance.below(5) {
        0 => format!("x: {}\r\n", "v".repeat(65_536)),
        1 => (0..10_000).map(|number| format!("x{number}: y\r\n")).collect(),
        2 => "x: y\r\n".repeat(90),
        3 => "\r\n".repeat(1_000),
        _ => format!(" folded\r\n{}: v\r\n", "n".repeat(70_000)),
    };
    let path = *pick(chance, &ROUTES);
    wire.send(&request("GET", path, &headers, b""));
    // And without an end.
    wire.send(b"GET / HTTP/1.1\r\n");
    for _ in 0..100 {
        if !wire.send(&[b'h'; 16 << 10]) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn chunks_that_lie(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = connect(target)?;
    let path = pick(chance, &ROUTES);
    wire.send(
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n").as_bytes(),
    );
    let more: [&str; 4] =
        ["\r\n", "content-length: 5\r\n\r\n", "transfer-encoding: gzip\r\n\r\n", "te: x\r\n\r\n"];
    wire.send(pick(chance, &more).as_bytes());
    for _ in 0..50 {
        let size = odd(chance);
        let chunk = match chance.below(7) {
            0 => format!("{size:x}\r\n"),
            1 => format!("{size:x};{}\r\n", "e".repeat(20_000)),
            2 => format!("-{size}\r\n\r\n"),
            3 => format!("{}1\r\nx\r\n", "0".repeat(1_000)),
            4 => "1\r\nx\r\n".repeat(1_000),
            5 => format!("0\r\n{}", "trailer: y\r\n".repeat(1_000)),
            _ => "5\r\nhello\r\n".to_owned(),
        };
        if !wire.send(chunk.as_bytes()) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn lengths_that_lie(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = connect(target)?;
    let lengths =
        ["-1", "18446744073709551616", "9223372036854775807", "5, 6", "+5", "0x5", "", "1e3"];
    for _ in 0..5 {
        let (path, length) = (pick(chance, &ROUTES), pick(chance, &lengths));
        let twice = if chance.coin() { "content-length: 3\r\n" } else { "" };
        let expect = if chance.coin() { "expect: 100-continue\r\n" } else { "" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{twice}{expect}\r\nabc"
        );
        if !wire.send(head.as_bytes()) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

fn pipelining(target: &Target, chance: &mut Chance) -> Result<()> {
    let corpus = corpus();
    let mut wire = connect(target)?;
    for _ in 0..300 {
        let one = pick(chance, &corpus);
        if !wire.send(one) {
            break;
        }
    }
    wire.hear(2 * MOMENT, HEARD_MAX);
    Ok(())
}

fn odd_targets(target: &Target, chance: &mut Chance) -> Result<()> {
    let long = format!("/{}", "a".repeat(60_000));
    let deep = "/..".repeat(5_000);
    let query = format!("/v1/topics/hostile/records?{}", "offset=1&".repeat(3_000));
    let targets = [
        "*",
        "//",
        "/%00",
        "/%",
        "/v1/topics/%00/records",
        "/v1/topics/%2e%2e%2f%2e%2e/records",
        "/v1/topics/%ff%fe/records",
        "/v1/topics/../records",
        "/v1/topics/hostile/records?offset=-1",
        "/v1/topics/hostile/records?offset=18446744073709551615",
        "/v1/topics/hostile/records?offset=99999999999999999999999",
        "/v1/topics/hostile/records?partition=4294967295",
        "/v1/topics/hostile/records?time=-9223372036854775808",
        "/v1/topics/hostile/records?max_bytes=18446744073709551615&max_records=18446744073709551615",
        "/v1/topics/hostile/records?wait_ms=18446744073709551615&offset=0",
        "/v1/topics/hostile/records?%00=%00",
        "/observe/explain?partition=hostile/4294967295",
        "/observe/explain?actor=%00",
        "/observe/tree?pattern=**/**/**/**/**/**/**/**",
        "http://[::1]:99999/",
        "http://user:pass@x/",
        &long,
        &deep,
        &query,
    ];
    let mut wire = connect(target)?;
    for _ in 0..10 {
        let method = pick(chance, &METHODS);
        let upgrade = "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
        let headers = if chance.below(4) == 0 { upgrade } else { "" };
        let path = *pick(chance, &targets);
        if !wire.send(&request(method, path, headers, b"")) {
            break;
        }
    }
    wire.hear(MOMENT, HEARD_MAX);
    Ok(())
}

/// JSON that is deep, long, or no text at all.
fn odd_bodies(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wire = connect(target)?;
    let body: Vec<u8> = match chance.below(8) {
        0 => "[".repeat(100_000).into(),
        1 => r#"{"records":"#.repeat(50_000).into(),
        2 => format!(r#"{{"offset":{}}}"#, "9".repeat(100_000)).into(),
        3 => br#"{"offset":1e99999999}"#.to_vec(),
        4 => [br#"{"records":[{"value":""#.as_slice(), &[0xff; 1000], br#""}]}"#].concat(),
        5 => format!(r#"{{"records":[{}{{}}]}}"#, "{},".repeat(50_000)).into(),
        6 => format!(r#"{{"records":[{{"value":"{}"}}]}}"#, r"\ud800".repeat(10_000)).into(),
        _ => format!(
            r#"{{"records":[{{"headers":[{}{{"key":""}}]}}]}}"#,
            r#"{"key":"a","value":null},"#.repeat(20_000)
        )
        .into(),
    };
    let path = pick(chance, &["/", "/v1/topics/hostile/records"]);
    wire.send(&request("POST", path, "", &body));
    wire.hear(4 * MOMENT, HEARD_MAX);
    Ok(())
}

/// Asks for the largest answers and reads none.
fn never_read(target: &Target, chance: &mut Chance) -> Result<()> {
    let largest = "/v1/topics/hostile/records?max_bytes=8388608&max_records=10000";
    let mut wires = Vec::new();
    for _ in 0..1 + chance.below(16) {
        let mut wire = connect(target)?;
        let path = *pick(chance, &[largest, "/observe/tree", "/metrics"]);
        wire.send(&request("GET", path, "", b"").repeat(20));
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

/// Bodies that are all but complete, on as many connections as there are places.
fn giant_bodies(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    for _ in 0..4 + chance.below(12) {
        let mut wire = connect(target)?;
        let path = pick(chance, &["/", "/v1/topics/hostile/records"]);
        let head = match chance.coin() {
            true => "content-length: 16777216\r\n\r\n",
            false => "transfer-encoding: chunked\r\n\r\nffffff\r\n",
        };
        wire.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\n{head}").as_bytes());
        for _ in 0..250 {
            if !wire.send(&[b' '; 64 << 10]) {
                break;
            }
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

fn byte_by_byte(target: &Target, chance: &mut Chance) -> Result<()> {
    let corpus = corpus();
    let mut wires = Vec::new();
    for _ in 0..50 {
        wires.push((connect(target)?, pick(chance, &corpus)));
    }
    for at in 0..20 {
        std::thread::sleep(HOLD / 20);
        for (wire, said) in &mut wires {
            wire.send(&said[at.min(said.len())..(at + 1).min(said.len())]);
        }
    }
    Ok(())
}

/// More connections than there are places for.
/// More than there are places.
fn connect_and_hang(target: &Target, chance: &mut Chance) -> Result<()> {
    let mut wires = Vec::new();
    for number in 0..300 {
        let mut wire = match number % 2 {
            0 => connect(target)?,
            _ => Wire::connect(target.http, None)?,
        };
        if chance.coin() {
            wire.send(b"GET / HTTP/1.1\r\n");
        }
        wires.push(wire);
    }
    std::thread::sleep(HOLD);
    Ok(())
}
