//! What the fuzz target `http` reaches of this room: bodies and queries, read as the handlers do.

use super::book;
use super::json::OutRecord;
use super::records::{Append, AppendTo, Read};
use crate::model::{Offset, Record, Timestamp};
use axum::extract::Query;
use http::Uri;
use serde_json::Value;

/// The records of a body of POST, `/v1/topics/{topic}/records`.
pub(crate) fn records(body: &[u8], arrival: Timestamp) -> Result<Vec<Record>, String> {
    let request: Append = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(request.records.into_iter().map(|record| record.into_record(arrival)).collect())
}

/// A record as a client gets it.
pub(crate) fn shown(offset: Offset, record: Record) -> Value {
    serde_json::to_value(OutRecord::new(offset, record)).expect("numbers and strings")
}

/// Whether the queries of POST and GET are understood.
pub(crate) fn queries(uri: &Uri) -> [bool; 2] {
    [Query::<AppendTo>::try_from_uri(uri).is_ok(), Query::<Read>::try_from_uri(uri).is_ok()]
}

/// What the book's two requests say: the value to store, the offset to read.
pub(crate) fn book(body: &[u8]) -> (Option<Vec<u8>>, Option<u64>) {
    (book::value_in(body).ok(), book::offset_in(body).ok())
}
