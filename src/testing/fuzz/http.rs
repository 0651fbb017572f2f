//! Bodies and queries of the HTTP port.

use crate::frontends::http::hostile::{book, queries, records, shown};
use crate::model::{Offset, Timestamp};
use ::http::Uri;
use serde_json::{Value, json};

const KINDS: u8 = 3;
const ARRIVAL: Timestamp = Timestamp(1_700_000_000_000);

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = super::choice(bytes, KINDS) else { return };
    match kind {
        0 => append(bytes),
        1 => {
            let read = book(bytes);
            assert_eq!(read, book(bytes), "two looks at the same body");
        }
        _ => query(bytes),
    }
}

/// What was stored is shown as something that stores the same.
fn append(bytes: &[u8]) {
    let taken = records(bytes, ARRIVAL);
    assert_eq!(taken, records(bytes, ARRIVAL), "two looks at the same body");
    let Ok(taken) = taken else { return };
    let shown: Vec<Value> = taken
        .iter()
        .enumerate()
        .map(|(at, record)| {
            let mut shown = shown(Offset(at as u64), record.clone());
            let offset = shown.as_object_mut().and_then(|record| record.remove("offset"));
            assert_eq!(offset, Some(json!(at)), "its place");
            shown
        })
        .collect();
    let body = serde_json::to_vec(&json!({ "records": shown })).expect("plain values");
    assert_eq!(records(&body, Timestamp(0)), Ok(taken), "stored again as it was shown");
}

fn query(bytes: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/v1/topics/log/records?", bytes].concat()) else { return };
    assert_eq!(queries(&uri), queries(&uri), "two looks at the same query");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts: [(u8, &str); 11] = [
        (
            0,
            r#"{"records":[{"value":"one"},{"key":"k","value":{"base64":"/w=="},"timestamp_ms":5}]}"#,
        ),
        (
            0,
            r#"{"records":[{"key":null,"value":null,"headers":[{"key":"h","value":"x"},{"key":"n"}]}]}"#,
        ),
        (0, r#"{"records":[{"value":{"base64":"?"}}]}"#),
        (0, r#"{"records":[]}"#),
        (0, r#"[[[[[[[[[[[[[[[[[[[["#),
        (1, r#"{"record":{"value":"SGVsbG8=","offset":3}}"#),
        (1, r#"{"Record":{"Value":"SGVs\nbG8="}} and more"#),
        (1, r#"{"offset":18446744073709551615}"#),
        (2, "partition=3&forward=false"),
        (2, "offset=7&max_records=10&max_bytes=1000&wait_ms=5&consistency=linearizable"),
        (2, "time=-1&partition=%30"),
    ];
    texts.map(|(kind, text)| super::of_kind(kind, text)).to_vec()
}
