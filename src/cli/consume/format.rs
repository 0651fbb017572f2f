//! What a record looks like on standard output. Pure.

use crate::model::{Offset, Payload, Record};
use crate::ops::logger::rfc3339;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::io::Write;
use std::str::FromStr;

/// What a record looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// The value and a newline; on a terminal, what could garble it is escaped.
    Text,
    /// The value and a newline, byte for byte.
    Raw,
    /// One JSON object a line.
    Json,
    /// As a template says.
    Template(Vec<Piece>),
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands there.
    Literal(Vec<u8>),
    /// `%o`
    Offset,
    /// `%k`
    Key,
    /// `%v`
    Value,
    /// `%t`
    TimestampMs,
    /// `%T`
    TimestampText,
    /// `%h`
    Headers,
    /// `%s`
    ValueBytes,
    /// `%K`
    KeyBytes,
}

/// Why a format was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is no name, and no template either.
    #[error("\"{text}\" is not a format; write text, raw, json, or a template such as '%o %v%n'")]
    UnknownName {
        /// What was given.
        text: String,
    },
    /// A template holds a letter behind `%` that means nothing.
    #[error(
        "\"%{letter}\" means nothing; there are %o offset, %k key, %v value, %t timestamp (ms), \
         %T timestamp (text), %h headers, %s size of the value, %K size of the key, %n newline, %%"
    )]
    UnknownLetter {
        /// What stands behind the percent sign; nothing at the end.
        letter: String,
    },
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "text" => Ok(Self::Text),
            "raw" => Ok(Self::Raw),
            "json" => Ok(Self::Json),
            template if template.contains('%') => parse_template(template).map(Self::Template),
            _ => Err(FormatError::UnknownName { text: text.into() }),
        }
    }
}

fn parse_template(template: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut rest = template.chars();
    while let Some(c) = rest.next() {
        let piece = match c {
            '%' => match rest.next() {
                Some('o') => Piece::Offset,
                Some('k') => Piece::Key,
                Some('v') => Piece::Value,
                Some('t') => Piece::TimestampMs,
                Some('T') => Piece::TimestampText,
                Some('h') => Piece::Headers,
                Some('s') => Piece::ValueBytes,
                Some('K') => Piece::KeyBytes,
                Some('n') => {
                    literal.push(b'\n');
                    continue;
                }
                Some('%') => {
                    literal.push(b'%');
                    continue;
                }
                other => {
                    let letter = other.map(String::from).unwrap_or_default();
                    return Err(FormatError::UnknownLetter { letter });
                }
            },
            '\\' => {
                literal.extend_from_slice(escape(&mut rest).as_bytes());
                continue;
            }
            c => {
                literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(piece);
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// What a backslash and the next character stand for; themselves where they are no escape.
fn escape(rest: &mut std::str::Chars<'_>) -> String {
    match rest.next() {
        Some('n') => "\n".into(),
        Some('t') => "\t".into(),
        Some('r') => "\r".into(),
        Some('0') => "\0".into(),
        Some('\\') => "\\".into(),
        Some(other) => format!("\\{other}"),
        None => "\\".into(),
    }
}

impl Format {
    /// Writes one record. `for_terminal`: escape what could garble one, in [`Format::Text`].
    pub fn write(&self, output: &mut Vec<u8>, offset: Offset, record: &Record, for_terminal: bool) {
        match self {
            Self::Text if for_terminal => {
                push_printable(output, bytes_of(&record.value));
                output.push(b'\n');
            }
            Self::Text | Self::Raw => {
                output.extend_from_slice(bytes_of(&record.value));
                output.push(b'\n');
            }
            Self::Json => {
                let line = Line::of(offset, record);
                serde_json::to_writer(&mut *output, &line).expect("a vector takes any JSON");
                output.push(b'\n');
            }
            Self::Template(pieces) => {
                for piece in pieces {
                    piece.write(output, offset, record);
                }
            }
        }
    }
}

impl Piece {
    fn write(&self, output: &mut Vec<u8>, offset: Offset, record: &Record) {
        let number = |output: &mut Vec<u8>, number: i128| {
            write!(output, "{number}").expect("a vector takes any bytes");
        };
        match self {
            Self::Literal(bytes) => output.extend_from_slice(bytes),
            Self::Offset => number(output, offset.0.into()),
            Self::Key => output.extend_from_slice(bytes_of(&record.key)),
            Self::Value => output.extend_from_slice(bytes_of(&record.value)),
            Self::TimestampMs => number(output, record.timestamp.0.into()),
            Self::TimestampText => output.extend_from_slice(rfc3339(record.timestamp).as_bytes()),
            Self::ValueBytes => number(output, bytes_of(&record.value).len() as i128),
            Self::KeyBytes => number(output, bytes_of(&record.key).len() as i128),
            Self::Headers => {
                for (position, header) in record.headers.iter().enumerate() {
                    if position > 0 {
                        output.push(b',');
                    }
                    output.extend_from_slice(header.key.as_bytes());
                    output.push(b'=');
                    output.extend_from_slice(bytes_of(&header.value));
                }
            }
        }
    }
}

fn bytes_of(payload: &Option<Payload>) -> &[u8] {
    payload.as_deref().unwrap_or_default()
}

/// Writes text as it is, and what moves a cursor or is no text as `\xNN`.
fn push_printable(output: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && c != '\t' {
                let code = u32::from(c);
                write!(output, "\\x{code:02x}").expect("a vector takes any bytes");
            } else {
                output.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for byte in chunk.invalid() {
            write!(output, "\\x{byte:02x}").expect("a vector takes any bytes");
        }
    }
}

/// A record as JSON. Bytes that are UTF-8 are a string; others are base64 under another name.
#[derive(Serialize)]
struct Line<'r> {
    offset: u64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'r str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'r str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderLine<'r>>,
}

#[derive(Serialize)]
struct HeaderLine<'r> {
    key: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'r str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Text, as text or null; or base64.
fn text_or_base64(payload: &Option<Payload>) -> (Option<Option<&str>>, Option<String>) {
    match payload {
        None => (Some(None), None),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => (Some(Some(text)), None),
            Err(_) => (None, Some(STANDARD.encode(&**bytes))),
        },
    }
}

impl<'r> Line<'r> {
    fn of(offset: Offset, record: &'r Record) -> Self {
        let (key, key_base64) = text_or_base64(&record.key);
        let (value, value_base64) = text_or_base64(&record.value);
        let headers = record.headers.iter().map(|header| {
            let (value, value_base64) = text_or_base64(&header.value);
            HeaderLine { key: &header.key, value, value_base64 }
        });
        Self {
            offset: offset.0,
            timestamp: record.timestamp.0,
            key,
            key_base64,
            value,
            value_base64,
            headers: headers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Header, Timestamp};

    fn record() -> Record {
        Record {
            key: Some("k".into()),
            value: Some("a value".into()),
            headers: vec![
                Header { key: "h".into(), value: Some("1".into()) },
                Header { key: "n".into(), value: None },
            ],
            timestamp: Timestamp(1_795_255_200_123),
        }
    }

    fn shown(format: &str, record: &Record) -> Vec<u8> {
        let mut output = Vec::new();
        format.parse::<Format>().unwrap().write(&mut output, Offset(7), record, false);
        output
    }

    #[test]
    fn a_template_holds_every_part_of_a_record() {
        let text = shown("%o|%k|%v|%t|%T|%h|%s|%K|%%\\t%n", &record());
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "7|k|a value|1795255200123|2026-11-21T10:00:00.123Z|h=1,n=|7|1|%\t\n"
        );
    }

    #[test]
    fn a_template_with_an_unknown_letter_is_refused_with_those_there_are() {
        let refused = "%o %q".parse::<Format>().unwrap_err();
        assert!(
            refused.to_string().contains("\"%q\"") && refused.to_string().contains("%o offset")
        );
        assert!("%".parse::<Format>().is_err());
        assert!("yaml".parse::<Format>().is_err());
    }

    #[test]
    fn raw_is_the_value_and_a_newline_byte_for_byte() {
        let bytes: Vec<u8> = (0..=255).collect();
        let record = Record::of_value(bytes.clone(), Timestamp(0));
        assert_eq!(shown("raw", &record), [&bytes[..], b"\n"].concat());
        assert_eq!(shown("text", &record), [&bytes[..], b"\n"].concat());
    }

    #[test]
    fn on_a_terminal_text_moves_no_cursor() {
        let record = Record::of_value(b"\x1b[2J \xff \xc3\xa9\t\r".to_vec(), Timestamp(0));
        let mut output = Vec::new();
        Format::Text.write(&mut output, Offset(0), &record, true);
        assert_eq!(String::from_utf8(output).unwrap(), "\\x1b[2J \\xff é\t\\x0d\n");
    }

    #[test]
    fn json_has_text_as_text_other_bytes_as_base64_and_null_as_null() {
        let line: serde_json::Value = serde_json::from_slice(&shown("json", &record())).unwrap();
        assert_eq!((&line["offset"], &line["key"]), (&7.into(), &"k".into()));
        assert_eq!(line["headers"][1], serde_json::json!({"key": "n", "value": null}));
        let bytes = Record::of_value(vec![0xff, 0x00], Timestamp(0));
        let line: serde_json::Value = serde_json::from_slice(&shown("json", &bytes)).unwrap();
        assert_eq!((&line["value_base64"], line.get("value")), (&"/wA=".into(), None));
        assert_eq!(line["key"], serde_json::Value::Null);
    }
}
