// Text of clients in lines, audit, metrics and on terminals: a line stays a line, nothing moves a cursor,
// and nobody makes series.

use super::{metric, start, until};
use crate::harness::Lines;
use crate::harness::binary::{Binary, EXE, http, run};
use duramen::model::SystemClock;
use duramen::ops::logger::start_on;
use duramen::ops::settings::LogFormat;
use duramen::testing::block_on;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::duramen::v1::log_client::LogClient;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tonic::transport::Channel;

/// What ends a line and begins one that nobody wrote, turns colours and titles, and turns the writing.
const NASTY: [&str; 6] = [
    "a\n{\"level\":\"critical\",\"msg\":\"FORGED\"}",
    "a\r\nts=0 level=critical msg=FORGED",
    "\x1b[31mred\x1b]0;title\x07\x08",
    "\u{9b}31m\u{85}",
    "\u{202e}txet\u{2066}\u{2028}",
    "\0\u{7f}\"} ,{\\",
];

/// What a terminal would act on.
fn acts_on_a_terminal(text: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().any(|c| c != '\n' && (c.is_control() || turns(c)))
}

#[test]
fn whatever_is_logged_a_line_is_one_line_in_every_format() {
    assert!(NASTY.iter().any(|text| acts_on_a_terminal(text)), "the check can fail");
    for format in [LogFormat::Text, LogFormat::Json, LogFormat::Logfmt] {
        let lines = Lines::default();
        let clock = Arc::new(SystemClock::new());
        let (logger, handle) = start_on(lines.clone(), format, "trace".parse().unwrap(), clock);
        for text in NASTY {
            let named = logger.new(slog::o!("actor" => text));
            slog::info!(named, "{text}"; "value" => text, "shown" => %text, "debug" => ?text);
        }
        drop(logger);
        drop(handle);
        let text = lines.text();
        assert_eq!(text.lines().count(), NASTY.len(), "{format:?}: {text}");
        assert!(
            !text.lines().any(|line| line.starts_with("{\"level\"") || line.starts_with("ts=0 "))
        );
        match format {
            LogFormat::Json => {
                for (line, text) in text.lines().zip(NASTY) {
                    let line: Value = serde_json::from_str(line).unwrap();
                    assert_eq!((&line["msg"], &line["value"]), (&text.into(), &text.into()));
                    assert_eq!(line["level"], "info");
                }
            }
            _ => assert!(!acts_on_a_terminal(&text), "{format:?}: {text:?}"),
        }
    }
}

/// A request as bytes; whatever is answered.
fn raw(address: &str, request: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    // A node may close before it has read all.
    let _ = stream.write_all(request);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
}

fn attack(node: &Binary) {
    block_on(async {
        let channel = Channel::from_shared(format!("http://{}", node.rpc)).unwrap();
        let channel = channel.connect().await.unwrap();
        for text in NASTY {
            let mut client = LogClient::new(channel.clone());
            let request = pb::ProduceRequest { topic: text.into(), ..Default::default() };
            let mut request = tonic::Request::new(request);
            if let Ok(value) = tonic::metadata::AsciiMetadataValue::try_from(text.as_bytes()) {
                request.metadata_mut().insert("client-id", value.clone());
                request.metadata_mut().insert("user-agent", value);
            }
            assert!(client.produce_once(request).await.is_err());
            let fetch = pb::FetchRequest { topic: text.into(), ..Default::default() };
            assert!(client.fetch_once(fetch).await.is_err());
        }
    });
    for text in NASTY {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for target in [
            format!("/v1/topics/{encoded}/records"),
            format!("/v1/topics/log/records?{encoded}=1"),
            format!("/v1/topics/log/records?consistency={encoded}"),
            format!("/observe/explain?place={encoded}"),
            format!("/{encoded}"),
        ] {
            let body = serde_json::json!({"records": [{"value": text, text: 1}]}).to_string();
            http(&node.http, "POST", &target, &body);
            http(&node.http, "GET", &target, "");
        }
        let head = [
            b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nuser-agent: ",
            text.as_bytes(),
            b"\r\n\r\n",
        ];
        raw(&node.http, &head.concat());
        raw(&node.http, &[text.as_bytes(), b" / HTTP/1.1\r\nhost: x\r\n\r\n"].concat());
        raw(&node.rpc, &[text.as_bytes(), b"\r\n\r\n"].concat());
    }
}

#[test]
fn what_clients_send_forges_no_line_of_a_nodes_log_or_audit() {
    for format in ["text", "logfmt", "json"] {
        let directory = tempfile::tempdir().unwrap();
        let (data_dir, log) = (directory.path().join("data"), directory.path().join("log"));
        let (keys, public) = (directory.path().join("k.json"), directory.path().join("p.json"));
        let made = run(&["token", "keys", "--new", keys.to_str().unwrap()], b"");
        assert!(made.status.success());
        let public_keys = run(&["token", "keys", "--public", keys.to_str().unwrap()], b"").stdout;
        std::fs::write(&public, public_keys).unwrap();
        let config = directory.path().join("node.toml");
        std::fs::write(&config, "[access]\nenabled = true\n").unwrap();
        let flags = [
            ["--config", config.to_str().unwrap()],
            ["--token-keys-file", public.to_str().unwrap()],
            ["--log-format", format],
            ["--log", "debug"],
        ]
        .concat();
        let node = Binary::start_logging_to(&data_dir, &flags, File::create(&log).unwrap());
        attack(&node);
        until("denials are noted", || audited(&data_dir).contains("POST ").then_some(()));
        let tail =
            run(&["audit", "tail", "-n", "1000", "--data-dir", data_dir.to_str().unwrap()], b"");
        let tail = String::from_utf8(tail.stdout).unwrap();
        assert!(tail.lines().count() > 3 && !acts_on_a_terminal(&tail), "{tail:?}");
        for line in audited(&data_dir).lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["entry"]["number"].is_u64(), "{line}");
        }
        assert!(node.stop("TERM").success());
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.lines().count() > 5, "{text}");
        let forged = |line: &&str| line.starts_with("{\"level\"") || line.starts_with("ts=0 ");
        assert_eq!(text.lines().filter(forged).count(), 0, "{text}");
        match format {
            "json" => text.lines().for_each(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_ne!(line["level"], "critical", "{line}");
            }),
            _ => assert!(!acts_on_a_terminal(&text), "{format}: {text:?}"),
        }
    }
}

fn audited(data_dir: &Path) -> String {
    std::fs::read_to_string(data_dir.join("audit/current.jsonl")).unwrap_or_default()
}

#[test]
fn commands_print_nothing_of_others_that_a_terminal_acts_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    // Arguments hold no NUL.
    for text in &NASTY[..5] {
        for arguments in [
            &["produce", text][..],
            &["consume", text],
            &["describe", text],
            &["topic", "describe", text],
            &["topic", "create", text],
            &["topic", "create", "t", "--set", text],
            &["explain", "partition", text],
            &["explain", "actor", text],
            &["actor", "restart", text],
            &["ps", text],
            &["node", "leave", text],
            &["acl", "add", text, "*", "produce"],
            &["acl", "test", text, "*", "produce"],
            &["log", "set", text],
        ] {
            let out = Command::new(EXE).args(arguments).env("DURAMEN_RPC_ADDR", &node.rpc).output();
            let out = out.unwrap();
            for bytes in [out.stdout, out.stderr] {
                let told = String::from_utf8(bytes).unwrap();
                assert!(!acts_on_a_terminal(&told), "{arguments:?}: {told:?}");
            }
        }
    }
}

#[test]
fn names_that_clients_make_up_make_no_series() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let series = || {
        let (_, text) = http(&node.http, "GET", "/metrics", "");
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let ask = |number: usize| {
        block_on(async {
            let channel = Channel::from_shared(format!("http://{}", node.rpc)).unwrap();
            let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
            grpc.ready().await.unwrap();
            let path = format!("/made.up.Service{number}/Method{number}").parse().unwrap();
            let mut request = tonic::Request::new(pb::DescribeRequest::default());
            let name = format!("client-{number}").parse().unwrap();
            request.metadata_mut().insert("client-id", name);
            let codec = tonic_prost::ProstCodec::<_, pb::DescribeResponse>::default();
            let answered: Result<tonic::Response<pb::DescribeResponse>, _> =
                grpc.unary(request, path, codec).await;
            assert_eq!(answered.unwrap_err().code(), tonic::Code::Unimplemented);
        });
        for target in [format!("/made-up-{number}"), format!("/v1/topics/made-up-{number}/records")]
        {
            let agent = format!("user-agent: agent-{number}\r\n");
            crate::harness::binary::http_with(&node.http, "GET", &target, &agent, "");
        }
        http(&node.http, &format!("METHOD{number}"), "/", "");
    };
    ask(0);
    // Looking makes some of its own.
    let _ = series();
    let before = series();
    (1..200).for_each(ask);
    let after = series();
    // Parts that had nothing to do before may have by now; two hundred names would be many more.
    assert!(after <= before + 60, "{before} series, then {after}");
    assert!(metric(&node, "duramen_requests_total{method=\"other\"") >= 200.0, "they are counted");
    // The control: what is there has series of its own.
    let created = run(&["topic", "create", "of-its-own", "--rpc-addr", &node.rpc], b"");
    assert!(created.status.success(), "{created:?}");
    until("it has series", || (series() > after + 10).then_some(()));
}
