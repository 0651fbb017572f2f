//! Conversions between generated protobuf types and words of the model. No bytes are copied.

use super::pb::duramen::v1 as duramen;
use super::pb::log::v1 as book;
use crate::model::{Durability, Header, Offset, Payload, Record, Timestamp};

/// Where a refusal's status names the leader: keys in the metadata of its `ErrorInfo`.
pub mod leader_keys {
    /// The leader's node, a number.
    pub const NODE: &str = "leader_node";
    /// Where it is reached.
    pub const RPC_ADDR: &str = "leader_rpc_addr";
    /// In which term it leads.
    pub const TERM: &str = "leader_term";
}

/// A record as a client sent it. `arrival` stands in where the client gave no timestamp (0).
#[must_use]
pub fn record_from_duramen(record: duramen::Record, arrival: Timestamp) -> Record {
    let headers = record
        .headers
        .into_iter()
        .map(|header| Header { key: header.key, value: header.value.map(Payload) })
        .collect();
    let timestamp = match record.timestamp_ms {
        0 => arrival,
        given => Timestamp(given),
    };
    Record { key: record.key.map(Payload), value: record.value.map(Payload), headers, timestamp }
}

/// A stored record with its offset, for an answer.
#[must_use]
pub fn record_to_duramen(offset: Offset, record: Record) -> duramen::Record {
    let headers = record
        .headers
        .into_iter()
        .map(|header| duramen::Header { key: header.key, value: header.value.map(|v| v.0) })
        .collect();
    duramen::Record {
        key: record.key.map(|key| key.0),
        value: record.value.map(|value| value.0),
        headers,
        timestamp_ms: record.timestamp.0,
        offset: offset.0,
    }
}

/// A record of the book's interface. An absent one is an empty record; its offset, term and type
/// are the server's to set and are ignored.
#[must_use]
pub fn record_from_book(record: Option<book::Record>, arrival: Timestamp) -> Record {
    Record::of_value(record.unwrap_or_default().value, arrival)
}

/// A stored record for the book's interface, which knows neither keys, headers nor null values.
#[must_use]
pub fn record_to_book(offset: Offset, record: Record) -> book::Record {
    let value = record.value.unwrap_or_default().0;
    book::Record { value, offset: offset.0, term: 0, r#type: 0 }
}

impl From<Durability> for duramen::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Os => Self::Os,
            Durability::Interval => Self::Interval,
            Durability::Fsync => Self::Fsync,
        }
    }
}

/// The durability that a number on the wire stands for; `None` where it is unspecified or unknown.
#[must_use]
pub fn durability_from_wire(number: i32) -> Option<Durability> {
    match duramen::Durability::try_from(number) {
        Ok(duramen::Durability::Os) => Some(Durability::Os),
        Ok(duramen::Durability::Interval) => Some(Durability::Interval),
        Ok(duramen::Durability::Fsync) => Some(Durability::Fsync),
        Ok(duramen::Durability::Unspecified) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_durability_survives_the_wire_and_an_unknown_number_is_none() {
        for durability in [Durability::Os, Durability::Interval, Durability::Fsync] {
            let number = duramen::Durability::from(durability) as i32;
            assert_eq!(durability_from_wire(number), Some(durability));
        }
        assert_eq!((durability_from_wire(0), durability_from_wire(9)), (None, None));
    }

    #[test]
    fn an_absent_record_of_the_book_is_an_empty_one_and_not_a_crash() {
        let record = record_from_book(None, Timestamp(5));
        assert_eq!(record, Record::of_value("", Timestamp(5)));
        let back = record_to_book(Offset(3), record);
        assert_eq!((back.value.len(), back.offset, back.term, back.r#type), (0, 3, 0, 0));
    }

    #[test]
    fn a_record_without_a_timestamp_gets_the_time_of_its_arrival() {
        let record = record_from_duramen(duramen::Record::default(), Timestamp(77));
        assert_eq!(record.timestamp, Timestamp(77));
    }

    fn payload() -> impl Strategy<Value = Option<Payload>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Payload::from))
    }

    proptest! {
        #[test]
        fn a_record_survives_the_wire(
            key in payload(),
            value in payload(),
            headers in proptest::collection::vec((".{0,8}", payload()), 0..4),
            timestamp in any::<i64>().prop_filter("0 means absent", |t| *t != 0),
            offset in any::<u64>(),
        ) {
            let headers = headers.into_iter().map(|(key, value)| Header { key, value }).collect();
            let record = Record { key, value, headers, timestamp: Timestamp(timestamp) };
            let wire = record_to_duramen(Offset(offset), record.clone());
            prop_assert_eq!(wire.offset, offset);
            prop_assert_eq!(record_from_duramen(wire, Timestamp(1)), record);
        }
    }
}
