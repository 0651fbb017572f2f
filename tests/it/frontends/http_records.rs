//! Records as JSON: what goes in comes out, and errors say what to do.

use super::http_server::HttpServer;
use super::server::{NOW_MS, until};
use duramen::actors::partition::{ProduceError, ReadError};
use duramen::frontends::http::HttpLimits;
use duramen::model::Offset;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const RECORDS: &str = "/v1/topics/log/records";

#[tokio::test]
async fn records_come_back_as_they_were_sent() {
    let server = HttpServer::start().await;
    let body = json!({"records": [
        {"key": "k", "value": "text", "headers": [{"key": "h", "value": null}], "timestamp_ms": 5},
        {"value": {"base64": "/wA="}},
        {"key": null, "value": null},
    ]});
    let answer = server.send("POST", RECORDS, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.json(),
        json!({"base_offset": 0, "count": 3, "timestamp_ms": NOW_MS, "durability": "fsync"})
    );
    let answer = server.send("GET", &format!("{RECORDS}?offset=0"), "").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let first = json!({"offset": 0, "timestamp_ms": 5, "key": "k", "value": "text",
                       "headers": [{"key": "h", "value": null}]});
    let second = json!({"offset": 1, "timestamp_ms": NOW_MS, "key": null,
                        "value": {"base64": "/wA="}, "headers": []});
    let third = json!({"offset": 2, "timestamp_ms": NOW_MS, "key": null, "value": null,
                       "headers": []});
    assert_eq!(
        answer.json(),
        json!({"records": [first, second, third], "next_offset": 3, "high_watermark": 3})
    );
}

#[tokio::test]
async fn a_read_begins_at_an_offset_a_time_or_the_start_and_keeps_to_its_limits() {
    let server = HttpServer::start().await;
    server.partition.fill(&["aaaa", "bbbb", "cccc", "dddd"]);
    server.partition.forget_below(1);
    let cases = [
        ("", 1, 4),
        ("?offset=2", 2, 4),
        ("?time=3", 3, 4),
        ("?max_records=2", 1, 3),
        ("?max_bytes=8", 1, 3),
        ("?max_bytes=0", 1, 2),
        ("?max_records=0", 1, 2),
    ];
    for (query, first, next) in cases {
        let found = server.send("GET", &format!("{RECORDS}{query}"), "").await.json();
        assert_eq!(found["records"][0]["offset"], first, "{query}");
        assert_eq!((&found["next_offset"], &found["high_watermark"]), (&json!(next), &json!(4)));
    }
    let found = server.send("GET", &format!("{RECORDS}?offset=4"), "").await.json();
    assert_eq!(found, json!({"records": [], "next_offset": 4, "high_watermark": 4}));
}

#[tokio::test]
async fn a_read_at_the_end_waits_as_long_as_it_was_told_to() {
    let server = Arc::new(HttpServer::start().await);
    let empty = server.send("GET", &format!("{RECORDS}?offset=0&wait_ms=1"), "").await.json();
    assert_eq!(empty["records"], json!([]));
    let reader = Arc::clone(&server);
    let waiting = tokio::spawn(async move {
        reader.send("GET", &format!("{RECORDS}?offset=0&wait_ms=20000"), "").await
    });
    until("the reader is connected", || server.counters.accepted() == 2).await;
    server.partition.fill(&["late"]);
    assert_eq!(waiting.await.unwrap().json()["records"][0]["value"], "late");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_json_and_stores_nothing() {
    let server = HttpServer::start().await;
    let post = [
        (RECORDS, "", 400, "invalid"),
        (RECORDS, "{", 400, "invalid"),
        (RECORDS, r#"{"records":[]}"#, 400, "invalid"),
        (RECORDS, r#"{"records":[{"vaule":"typo"}]}"#, 400, "invalid"),
        (RECORDS, r#"{"records":[{"value":7}]}"#, 400, "invalid"),
        (RECORDS, r#"{"records":[{"value":{"base64":"?"}}]}"#, 400, "invalid"),
        (RECORDS, r#"{"records":[{"value":"a"}]} trailing"#, 400, "invalid"),
        ("/v1/topics/orders/records", r#"{"records":[{}]}"#, 404, "unknown_topic"),
        ("/v1/topics/%2e%2e/records", r#"{"records":[{}]}"#, 400, "invalid_name"),
        ("/v1/nothing", "{}", 404, "no_such_path"),
    ];
    for (path, body, status, code) in post {
        let answer = server.send("POST", path, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert_eq!(answer.json()["error"]["code"], code, "{path} {body}");
        assert_eq!(answer.json()["error"]["retry_after_ms"], json!(null));
    }
    for query in ["?offset=x", "?offset=-1", "?offset=0&time=0", "?ofset=0"] {
        let answer = server.send("GET", &format!("{RECORDS}{query}"), "").await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("invalid")));
    }
    let answer = server.send("DELETE", RECORDS, "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD,POST")));
    assert_eq!(server.partition.proposals(), 0);
}

#[tokio::test]
async fn refusals_say_whether_and_when_to_try_again() {
    let server = HttpServer::start().await;
    let retry_after = Duration::from_millis(1500);
    let message = || "because".to_owned();
    let cases = [
        (
            ProduceError::Overloaded { message: message(), retry_after },
            429,
            "overloaded",
            Some("2"),
        ),
        (
            ProduceError::Restarting { message: message(), retry_after },
            503,
            "restarting",
            Some("2"),
        ),
        (ProduceError::Quarantined { message: message() }, 503, "quarantined", None),
        (ProduceError::Stopped { message: message() }, 503, "stopped", None),
        (ProduceError::TooLarge { message: message() }, 413, "too_large", None),
        (ProduceError::Invalid { message: message() }, 400, "invalid", None),
        (ProduceError::DiskFull { message: message() }, 507, "disk_full", None),
        (ProduceError::Unknown { message: message() }, 500, "outcome_unknown", None),
    ];
    for (error, status, code, retry_seconds) in cases {
        server.partition.refuse_next(error);
        let answer = server.send("POST", RECORDS, r#"{"records":[{"value":"a"}]}"#).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["error"]["code"]), (status, &json!(code)));
        assert_eq!(body["error"]["message"], "because");
        assert_eq!(answer.header("retry-after"), retry_seconds, "{code}");
        let millis = if retry_seconds.is_some() { json!(1500) } else { json!(null) };
        assert_eq!(body["error"]["retry_after_ms"], millis, "{code}");
    }
}

#[tokio::test]
async fn a_read_outside_the_log_or_of_damaged_data_says_so() {
    let server = HttpServer::start().await;
    let answer = server.send("GET", &format!("{RECORDS}?offset=1&wait_ms=20000"), "").await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("out_of_range")));
    let damaged = ReadError::Corrupt { message: "frame 7 is damaged".into() };
    server.partition.fail_next_read(damaged);
    let answer = server.send("GET", &format!("{RECORDS}?offset=0"), "").await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (500, &json!("corrupt")));
    let (start, end) = (Offset(2), Offset(3));
    server.partition.fail_next_read(ReadError::OutOfRange { offset: Offset(1), start, end });
    let answer = server.send("GET", &format!("{RECORDS}?offset=1"), "").await;
    assert_eq!(answer.json()["error"]["message"], "offset 1 is outside the log [2, 3)");
}

#[tokio::test]
async fn an_acknowledgement_that_does_not_come_in_time_is_a_gateway_timeout() {
    let limits =
        HttpLimits { request_deadline: Duration::from_millis(30), ..HttpLimits::default() };
    let server = HttpServer::start_with(limits).await;
    server.partition.hold();
    let answer = server.send("POST", RECORDS, r#"{"records":[{"value":"a"}]}"#).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (504, &json!("deadline")));
}

#[tokio::test]
async fn a_log_that_cannot_be_read_yet_is_unavailable_and_not_empty() {
    let server = HttpServer::start().await;
    let retry_after = Duration::from_millis(100);
    let message = "the partition is being recovered".to_owned();
    server.partition.is_unreadable(ReadError::Unavailable { message, retry_after });
    for query in ["", "?offset=7", "?time=7", "?wait_ms=20000"] {
        let answer = server.send("GET", &format!("{RECORDS}{query}"), "").await;
        assert_eq!(answer.status, 503, "{query}");
        assert_eq!(answer.json()["error"]["retry_after_ms"], 100, "{query}");
    }
    let answer = server.send("GET", "/", r#"{"offset":0}"#).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.body, "the partition is being recovered\n");
}
