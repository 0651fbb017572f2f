//! The book's first chapter, typed into curl.

use super::http_server::HttpServer;
use duramen::actors::partition::ProduceError;
use duramen::observe::metrics::{Method, Outcome};
use std::time::Duration;

#[tokio::test]
async fn the_six_curl_commands_of_the_book_answer_byte_for_byte() {
    let server = HttpServer::start().await;
    let values = ["TGV0J3MgR28gIzEK", "TGV0J3MgR28gIzIK", "TGV0J3MgR28gIzMK"];
    for (offset, value) in values.iter().enumerate() {
        let body = format!(r#"{{"record":{{"value":"{value}"}}}}"#);
        let answer = server.send("POST", "/", &body).await;
        assert_eq!((answer.status, answer.body), (200, format!("{{\"offset\":{offset}}}\n")));
    }
    for (offset, value) in values.iter().enumerate() {
        let answer = server.send("GET", "/", &format!(r#"{{"offset":{offset}}}"#)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        let expected = format!("{{\"record\":{{\"value\":\"{value}\",\"offset\":{offset}}}}}\n");
        assert_eq!(answer.body, expected);
    }
}

#[tokio::test]
async fn an_offset_past_the_end_is_not_found() {
    let server = HttpServer::start().await;
    server.partition.fill(&["only"]);
    for offset in [1, 2, u64::MAX] {
        let answer = server.send("GET", "/", &format!(r#"{{"offset":{offset}}}"#)).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, "offset not found\n"));
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_bad_request_with_the_decoders_words() {
    let server = HttpServer::start().await;
    let cases = [
        ("POST", ""),
        ("GET", ""),
        ("POST", "{"),
        ("POST", r#"{"record":{"value":"?"}}"#),
        ("POST", r#"{"record":{"value":7}}"#),
        ("GET", r#"{"offset":-1}"#),
        ("GET", r#"{"offset":"0"}"#),
    ];
    for (method, body) in cases {
        let answer = server.send(method, "/", body).await;
        assert_eq!(answer.status, 400, "{method} {body}: {}", answer.body);
        assert!(answer.body.len() > 1 && answer.body.ends_with('\n'), "{:?}", answer.body);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    assert_eq!(server.partition.proposals(), 0);
}

#[tokio::test]
async fn unknown_fields_and_the_clients_offset_are_ignored_and_an_absent_record_is_empty() {
    let server = HttpServer::start().await;
    let bodies =
        [r#"{"record":{"value":"YQ==","offset":99,"x":1},"y":2}"#, "{}", r#"{"record":null}"#];
    for (offset, body) in bodies.into_iter().enumerate() {
        let answer = server.send("POST", "/", body).await;
        assert_eq!(answer.body, format!("{{\"offset\":{offset}}}\n"), "{body}");
    }
    let answer = server.send("GET", "/", r#"{"offset":1}"#).await;
    assert_eq!(answer.body, "{\"record\":{\"value\":\"\",\"offset\":1}}\n");
}

#[tokio::test]
async fn other_methods_are_not_allowed_other_paths_not_found_other_failures_500() {
    let server = HttpServer::start().await;
    for method in ["PUT", "DELETE", "HEAD", "PATCH", "BREW"] {
        assert_eq!(server.send(method, "/", "{}").await.status, 405, "{method}");
    }
    let answer = server.send("GET", "/nothing", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"));
    server.partition.refuse_next(ProduceError::DiskFull { message: "disk is full".into() });
    let answer = server.send("POST", "/", "{}").await;
    assert_eq!((answer.status, answer.body.as_str()), (500, "disk is full\n"));
}

#[tokio::test]
async fn what_is_refused_for_now_is_counted_as_that_though_the_book_knows_one_status() {
    let server = HttpServer::start().await;
    let counted =
        || Outcome::ALL.map(|outcome| server.metrics.requests(Method::Book, outcome).get());
    let (message, retry_after) = ("not now".to_owned(), Duration::from_millis(5));
    for error in [
        ProduceError::Overloaded { message: message.clone(), retry_after },
        ProduceError::Restarting { message: message.clone(), retry_after },
        ProduceError::Quarantined { message: message.clone() },
    ] {
        server.partition.refuse_next(error);
        assert_eq!(server.send("POST", "/", "{}").await.status, 500);
    }
    server.partition.refuse_next(ProduceError::Unknown { message });
    assert_eq!(server.send("POST", "/", "{}").await.status, 500);
    let [ok, invalid, refused, failed, cancelled] = counted();
    assert_eq!((ok, invalid, refused, failed, cancelled), (0, 0, 3, 1, 0));
}
