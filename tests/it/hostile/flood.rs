// Many clients that ask and do not read, begin and do not end, or send a byte now and then: each has a
// bound, and others are served meanwhile.

use super::{PATIENCE, Unread, framed, metric, resident, start, until};
use crate::harness::binary::{Binary, run};
use duramen::wire::pb::duramen::v1 as pb;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Has a client append, one after the other, while something else goes on.
fn while_others_are_served(node: &Binary, attack: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let healthy = scope.spawn(|| {
            // On a machine that has much else to do one of them may run out of its time.
            let (mut served, mut late) = (0, 0);
            while served < 3 || !is_over.load(Ordering::Acquire) {
                let out = run(&["produce", "log", "--rpc-addr", &node.rpc], b"healthy\n");
                if out.status.success() {
                    served += 1;
                    continue;
                }
                late += 1;
                assert!(late < 3, "{}", String::from_utf8_lossy(&out.stderr));
            }
        });
        let attacked = std::panic::catch_unwind(AssertUnwindSafe(attack));
        is_over.store(true, Ordering::Release);
        healthy.join().unwrap();
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The most that a node has in RAM within a time (unit: bytes).
fn highest_for(node: &Binary, time: Duration) -> u64 {
    let until = Instant::now() + time;
    let mut highest = resident(node.pid());
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        highest = highest.max(resident(node.pid()));
    }
    highest
}

#[test]
fn ten_thousand_calls_that_nobody_ends_are_ended_by_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(
        directory.path(),
        "[rpc]\nrequest_deadline = \"2s\"\ncalls_max = 20000\n\
        streams_max = 1000\n",
    );
    // The control: a stream of requests may rest between two of them.
    let mut resting = Unread::connect(&node.rpc);
    resting.begin(1, "/duramen.v1.Log/Produce");
    let record = pb::Record { value: Some("rests".into()), ..pb::Record::default() };
    let request = pb::ProduceRequest {
        topic: "log".into(),
        records: vec![record],
        ..pb::ProduceRequest::default()
    };
    resting.data(1, &framed(&request), false);
    until("it is stored", || (node.high_watermark() == 1).then_some(()));
    let late = || metric(&node, "duramen_incoming_refused_total{protocol=\"grpc\",reason=\"time\"");
    let before = resident(node.pid());
    let mut highest = before;
    let mut open = Vec::new();
    while_others_are_served(&node, || {
        for _ in 0..10 {
            let mut client = Unread::connect(&node.rpc);
            for number in 0..1_000 {
                client.begin(2 * number + 1, "/duramen.v1.Log/ProduceOnce");
                client.data(2 * number + 1, b"\0\0\0", false);
            }
            open.push(client);
        }
        until("each has had its time", || {
            highest = highest.max(resident(node.pid()));
            (late() >= 10_000.0).then_some(())
        });
    });
    let grown = (highest - before) >> 20;
    println!("ten thousand half-open calls: {grown} MiB more at most");
    assert!(grown < 192, "{grown} MiB more");
    let end = node.high_watermark();
    resting.data(1, &framed(&request), false);
    until("who rested goes on", || (node.high_watermark() == end + 1).then_some(()));
    assert_eq!(late(), 10_000.0);
}

#[test]
fn answers_by_http_that_nobody_reads_are_kept_as_far_as_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let value = "x".repeat(100 << 10);
    let record = pb::Record { value: Some(value.into()), ..pb::Record::default() };
    let records = pb::ProduceRequest {
        topic: "log".into(),
        records: vec![record; 40],
        ..pb::ProduceRequest::default()
    };
    let mut producer = Unread::connect(&node.rpc);
    producer.begin(1, "/duramen.v1.Log/ProduceOnce");
    producer.data(1, &framed(&records), true);
    until("they are stored", || (node.high_watermark() == 40).then_some(()));
    let before = resident(node.pid());
    let get = "GET /v1/topics/log/records?max_bytes=2097152 HTTP/1.1\r\nhost: x\r\n\r\n";
    // Some answers lie in the sockets' buffers; each would have another one behind it.
    let greedy: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut client = TcpStream::connect(&node.http).unwrap();
            client.write_all(get.repeat(8).as_bytes()).unwrap();
            client
        })
        .collect();
    let mut highest = before;
    while_others_are_served(&node, || {
        highest = highest_for(&node, Duration::from_secs(2));
    });
    let grown = (highest - before) >> 20;
    println!("answers that nobody reads: {grown} MiB more at most");
    assert!(grown < 64, "{grown} MiB more");
    drop(greedy);
    let (status, text) = node.http("GET", "/v1/topics/log/records", "");
    assert_eq!((status, text.contains("\"next_offset\":")), (200, true));
}

#[test]
fn a_frame_that_is_never_whole_takes_little_memory_whatever_it_says_it_will_be() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let before = resident(node.pid());
    let mut highest = before;
    let mut open = Vec::new();
    while_others_are_served(&node, || {
        for length in [16 << 10, 256 << 10] {
            for _ in 0..200 {
                let mut client = Unread::connect(&node.rpc);
                client.begin(1, "/duramen.v1.Log/Produce");
                client.unfinished(1, length);
                open.push(client);
            }
            highest = highest.max(resident(node.pid()));
        }
        highest = highest.max(highest_for(&node, Duration::from_secs(1)));
    });
    let grown = (highest - before) >> 20;
    println!("frames that are never whole: {grown} MiB more at most");
    // What a connection costs in itself, and a frame of 16 KiB.
    assert!(grown < 24, "{grown} MiB more");
}

/// A request to append one record of so many bytes, with what gRPC puts before it.
fn request_of(bytes: usize) -> Vec<u8> {
    let record = pb::Record { value: Some(vec![7; bytes].into()), ..pb::Record::default() };
    let (topic, records) = ("log".into(), vec![record]);
    framed(&pb::ProduceRequest { topic, records, ..pb::ProduceRequest::default() })
}

#[test]
fn requests_of_clients_that_take_no_answers_are_kept_as_far_as_there_is_room() {
    const CALLS: usize = 400;
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let request = request_of(4_000);
    // The control: who has room for answers may rest.
    let mut resting = Unread::connect(&node.rpc);
    resting.begin(1, "/duramen.v1.Log/Produce");
    resting.data(1, &request, false);
    until("it is stored", || (node.high_watermark() == 1).then_some(()));
    let gave_way = || metric(&node, "duramen_connections_gave_way_total");
    let before = resident(node.pid());
    let mut highest = before;
    let mut sent = 0;
    let mut open = Vec::new();
    while_others_are_served(&node, || {
        for _ in 0..CALLS / 8 {
            let mut client = Unread::taking_nothing(&node.rpc);
            for number in 0..8 {
                client.begin(2 * number + 1, "/duramen.v1.Log/Produce");
                sent += client.fill(2 * number + 1, &request);
            }
            open.push(client);
            highest = highest.max(resident(node.pid()));
        }
        until("the others are gone", || {
            highest = highest.max(resident(node.pid()));
            (metric(&node, "duramen_calls_open") < 40.0).then_some(())
        });
        highest = highest.max(highest_for(&node, Duration::from_secs(1)));
    });
    assert!(gave_way() > 0.0);
    let (grown, sent) = ((highest - before) >> 20, sent >> 20);
    println!("requests of clients that take no answers: {sent} MiB sent, {grown} MiB more at most");
    assert!(sent > 80, "{sent} MiB sent");
    // 32 calls with a window of 256 KiB each, and what comes until the others are gone.
    assert!(grown < 64, "{grown} MiB more");
    drop(open);
    let mut end = 0;
    until("nobody else appends any more", || {
        let before = std::mem::replace(&mut end, node.high_watermark());
        std::thread::sleep(Duration::from_millis(300));
        (before == end).then_some(())
    });
    resting.data(1, &request, false);
    until("who rested goes on", || (node.high_watermark() == end + 1).then_some(()));
}

#[test]
fn crumbs_of_requests_keep_little_of_what_comes_along_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let (large, small) = (request_of(4_000), request_of(10));
    // The control: who takes no answers either, and sends nothing else, goes on when there is room.
    let mut standing = Unread::taking_nothing(&node.rpc);
    standing.begin(1, "/duramen.v1.Log/Produce");
    standing.fill(1, &large);
    let before = resident(node.pid());
    let mut highest = before;
    let mut sent = 0;
    let mut open = Vec::new();
    while_others_are_served(&node, || {
        // Whether their answers are not taken, or there are more requests than the node has time for.
        for (connect, request) in
            [(Unread::taking_nothing as fn(&str) -> _, &large), (Unread::connect, &small)]
        {
            for _ in 0..12 {
                let mut client = connect(&node.rpc);
                client.begin(1, "/duramen.v1.Log/Produce");
                sent += client.crumbs(1, request);
                highest = highest.max(resident(node.pid()));
                open.push(client);
            }
        }
        highest = highest.max(highest_for(&node, Duration::from_secs(1)));
        standing.take();
        while !standing.hears_an_answer() {}
    });
    let (grown, sent) = ((highest - before) >> 20, sent >> 20);
    println!("crumbs of requests: {sent} MiB sent, {grown} MiB more at most");
    assert!(sent > 24, "{sent} MiB sent");
    assert!(grown < 40, "{grown} MiB more");
}

#[test]
fn a_byte_now_and_then_holds_neither_port_longer_than_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "[rpc]\nrequest_deadline = \"1s\"\n");
    while_others_are_served(&node, || {
        // A body by HTTP.
        let mut http = TcpStream::connect(&node.http).unwrap();
        let head =
            "POST /v1/topics/log/records HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
        http.write_all(head.as_bytes()).unwrap();
        http.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (mut answer, begun) = (Vec::new(), Instant::now());
        while !answer.starts_with(b"HTTP/1.1 408") {
            assert!(begun.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&answer));
            // It is closed once it was answered.
            if http.write_all(b" ").is_err() {
                break;
            }
            let mut part = [0; 512];
            if let Ok(read) = http.read(&mut part) {
                answer.extend(&part[..read]);
            }
        }
        assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
        // A message by gRPC, alone and within a stream.
        let late =
            || metric(&node, "duramen_incoming_refused_total{protocol=\"grpc\",reason=\"time\"");
        for (path, count) in
            [("/duramen.v1.Log/ProduceOnce", 1.0), ("/duramen.v1.Log/Produce", 2.0)]
        {
            let mut client = Unread::connect(&node.rpc);
            client.begin(1, path);
            client.data(1, b"\0\0\0\x03\xe8", false);
            until("it is given up", || {
                if late() < count {
                    client.data(1, b"x", false);
                }
                (late() == count).then_some(())
            });
        }
    });
}

#[test]
fn readers_that_do_not_read_take_a_bounded_part_of_memory_and_nobodys_place() {
    const READERS: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let value = "v".repeat(1000);
    let lines = vec![value; 16 << 10].join("\n");
    let out = run(&["produce", "log", "--rpc-addr", &node.rpc], lines.as_bytes());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let before = resident(node.pid());
    let mut highest = before;
    let mut readers = Vec::new();
    while_others_are_served(&node, || {
        for _ in 0..READERS {
            let mut reader = Unread::connect(&node.rpc);
            reader.begin(1, "/duramen.v1.Log/Fetch");
            let request = pb::FetchRequest {
                topic: "log".into(),
                max_bytes: u32::MAX,
                follow: true,
                ..pb::FetchRequest::default()
            };
            reader.data(1, &framed(&request), true);
            readers.push(reader);
        }
        let sent = || metric(&node, "duramen_network_sent_bytes_total{protocol=\"grpc\"}");
        let mut last = (sent(), 0);
        // Until nothing more fits anywhere.
        until("they are stuck", || {
            highest = highest.max(resident(node.pid()));
            let now = sent();
            // The healthy client's few bytes go on.
            last = if now - last.0 < 65_536.0 { (now, last.1 + 1) } else { (now, 0) };
            (last.1 > 20).then_some(())
        });
    });
    let grown = (highest - before) >> 20;
    println!("{READERS} readers that do not read: {grown} MiB more at most");
    // An answer or two of 2 MiB each, and what its connection has on its way.
    assert!(grown < 6 * READERS as u64, "{grown} MiB more");
    let open = || metric(&node, "duramen_connections_open{protocol=\"grpc\"}");
    assert!(open() >= READERS as f64);
    drop(readers);
    until("their places are free", || (open() < 3.0).then_some(()));
}
