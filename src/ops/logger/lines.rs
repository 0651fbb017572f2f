//! What a line of diagnostics looks like: text for people, JSON and logfmt for machines.
//!
//! Each line is one line whatever the values hold: control characters are escaped.

use crate::model::Timestamp;
use crate::model::escape::{is_odd, one_line};
use slog::{
    Drain, FnValue, KV, Key, OwnedKVList, PushFnValue, PushFnValueSerializer, Record, Serializer, o,
};
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// When a line was written, the first thing in it.
pub const TIME_KEY: &str = "ts";

/// When a line was written: its tag, in milliseconds.
fn time_of(record: &Record<'_>) -> String {
    record.tag().parse().map(|ms| rfc3339(Timestamp(ms))).unwrap_or_default()
}

/// A time as RFC 3339 in UTC with milliseconds; the bare number where no calendar reaches.
pub fn rfc3339(time: Timestamp) -> String {
    time.rfc3339()
}

/// One JSON object a line: `ts`, `level`, `msg`, then the values.
pub fn json<W: Write + Send>(writer: W) -> slog_json::Json<W> {
    slog_json::Json::new(writer)
        .add_key_value(o!(
            "msg" => PushFnValue(|record: &Record<'_>, serializer: PushFnValueSerializer<'_>| {
                serializer.emit(record.msg())
            }),
            "level" => FnValue(|record: &Record<'_>| {
                record.level().as_str().to_ascii_lowercase()
            }),
            TIME_KEY => FnValue(time_of),
        ))
        .build()
}

/// For people: `2026-11-21T10:00:00.000Z INFO  message  key=value`.
#[derive(Debug)]
pub struct Text<W>(RefCell<W>);

impl<W: Write> Text<W> {
    /// Lines on `writer`.
    pub fn new(writer: W) -> Self {
        Self(RefCell::new(writer))
    }
}

impl<W: Write> Drain for Text<W> {
    type Ok = ();
    type Err = io::Error;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> io::Result<()> {
        let (time, pairs) = (time_of(record), Line::collect(record, values).pairs);
        let level = record.level().as_short_str();
        let mut line = format!("{time} {level} ");
        line.push_str(&one_line(&record.msg().to_string()));
        if !pairs.is_empty() {
            line.push(' ');
        }
        push_pairs(&mut line, &pairs);
        line.push('\n');
        self.0.borrow_mut().write_all(line.as_bytes())
    }
}

/// `ts=… level=… msg="…" key=value`.
#[derive(Debug)]
pub struct Logfmt<W>(RefCell<W>);

impl<W: Write> Logfmt<W> {
    /// Lines on `writer`.
    pub fn new(writer: W) -> Self {
        Self(RefCell::new(writer))
    }
}

impl<W: Write> Drain for Logfmt<W> {
    type Ok = ();
    type Err = io::Error;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> io::Result<()> {
        let (time, pairs) = (time_of(record), Line::collect(record, values).pairs);
        let level = record.level().as_str().to_ascii_lowercase();
        let mut line = format!("ts={time} level={level} msg=");
        push_value(&mut line, &record.msg().to_string());
        push_pairs(&mut line, &pairs);
        line.push('\n');
        self.0.borrow_mut().write_all(line.as_bytes())
    }
}

fn push_pairs(line: &mut String, pairs: &[(Key, String)]) {
    for (key, value) in pairs {
        line.push(' ');
        line.push_str(key);
        line.push('=');
        push_value(line, value);
    }
}

/// Writes a value bare where it can be told from what follows, else in quotes.
fn push_value(line: &mut String, value: &str) {
    let plain = |c: char| !c.is_whitespace() && !is_odd(c) && c != '"' && c != '=';
    if !value.is_empty() && value.chars().all(plain) {
        line.push_str(value);
    } else {
        write!(line, "{value:?}").expect("a string takes any text");
    }
}

/// A line's values in the order in which they were written, the outermost logger's first.
#[derive(Default)]
struct Line {
    pairs: Vec<(Key, String)>,
}

impl Line {
    fn collect(record: &Record<'_>, values: &OwnedKVList) -> Self {
        let mut line = Self::default();
        // slog hands both out last first. Collecting text cannot fail.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        line.pairs.reverse();
        line
    }
}

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.pairs.push((key, value.to_string()));
        Ok(())
    }
}
