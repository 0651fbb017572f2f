//! Records as JSON. Bytes are a string where they are UTF-8, else `{"base64": "…"}`; both forms
//! are taken, and `null` is a null key or value.

use crate::model::{Header, Offset, Payload, Record, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Bytes in one of their two forms.
#[derive(Debug, PartialEq, Eq)]
pub struct Text(pub Payload);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(&*self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        decoder.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a string or {"base64": "…"}"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.as_bytes().to_vec().into()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(text.into_bytes().into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let (Some((key, encoded)), None) =
            (map.next_entry::<String, String>()?, map.next_key::<String>()?)
        else {
            return Err(A::Error::custom(r#"bytes are an object of one field, "base64""#));
        };
        if key != "base64" {
            return Err(A::Error::unknown_field(&key, &["base64"]));
        }
        let bytes = STANDARD.decode(encoded).map_err(A::Error::custom)?;
        Ok(Text(bytes.into()))
    }
}

/// A header of a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonHeader {
    key: String,
    value: Option<Text>,
}

/// A record as a client sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InRecord {
    key: Option<Text>,
    value: Option<Text>,
    #[serde(default)]
    headers: Vec<JsonHeader>,
    timestamp_ms: Option<i64>,
}

impl InRecord {
    /// The record meant; `arrival` stands in where the client gives no timestamp.
    pub fn into_record(self, arrival: Timestamp) -> Record {
        let header = |header: JsonHeader| Header {
            key: header.key,
            value: header.value.map(|value| value.0),
        };
        Record {
            key: self.key.map(|key| key.0),
            value: self.value.map(|value| value.0),
            headers: self.headers.into_iter().map(header).collect(),
            timestamp: self.timestamp_ms.map_or(arrival, Timestamp),
        }
    }
}

/// A record as a client gets it.
#[derive(Debug, Serialize)]
pub struct OutRecord {
    offset: u64,
    timestamp_ms: i64,
    key: Option<Text>,
    value: Option<Text>,
    headers: Vec<JsonHeader>,
}

impl OutRecord {
    /// A stored record.
    pub fn new(offset: Offset, record: Record) -> Self {
        let header = |header: Header| JsonHeader { key: header.key, value: header.value.map(Text) };
        Self {
            offset: offset.0,
            timestamp_ms: record.timestamp.0,
            key: record.key.map(Text),
            value: record.value.map(Text),
            headers: record.headers.into_iter().map(header).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_survive_json(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = Text(bytes.into());
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
        }
    }

    #[test]
    fn other_forms_are_refused_with_a_hint() {
        for json in [r#"7"#, r#"{}"#, r#"{"hex":"00"}"#, r#"{"base64":"?"}"#, r#"["a"]"#] {
            let error = serde_json::from_str::<Text>(json).unwrap_err().to_string();
            assert!(error.contains("base64") || error.contains("symbol"), "{json}: {error}");
        }
    }
}
