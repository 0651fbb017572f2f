//! What another node sends, looked through before memory is taken for it: a few bytes on the wire
//! can stand for many times as many in memory, and whoever sends them may be a stranger yet.

use super::convert::{ENTRIES_MAX, FRAME_BYTES_MAX};
use crate::wire::pb::duramen::v1 as pb;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// An introduction: the first frame of an exchange (unit: bytes).
const INTRODUCTION_BYTES_MAX: usize = 16 << 10;
/// What a node tells of itself that wants to join (unit: bytes).
const JOIN_BYTES_MAX: usize = 256 << 10;
/// A command for the catalogue, with who sends it (unit: bytes).
const CHANGE_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// What is told of frames taken (unit: bytes).
const NOTICE_BYTES_MAX: usize = 1 << 10;
/// Messages of one frame.
const MESSAGES_MAX: usize = 65_536;
/// Leaders told of in one frame.
const LEADS_MAX: usize = 65_536;
/// Entries of all messages of one frame.
const FRAME_ENTRIES_MAX: usize = 2 * ENTRIES_MAX;
/// The least that a group of record batches takes: the header of one (unit: bytes).
const DATA_BYTES_MIN: usize = 61;

/// Why a message is not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// It is longer than what its kind may be.
    #[error("{bytes} bytes where at most {bytes_max} are taken")]
    Bytes {
        /// What came.
        bytes: usize,
        /// What may.
        bytes_max: usize,
    },
    /// It has more parts of a kind than any node sends.
    #[error("more than {count_max} {what} in one frame")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many may come.
        count_max: usize,
    },
    /// A part is shorter than what it stands for can be.
    #[error("record batches of {bytes} bytes; one has at least {DATA_BYTES_MIN}")]
    Short {
        /// How long it is.
        bytes: usize,
    },
    /// It is no message at all.
    #[error("bytes that are no message")]
    Unreadable,
}

/// A message between nodes that is looked through before it is decoded.
pub trait Bounded: Message + Default + 'static {
    /// Whether it may be decoded; `first`: nothing came before it in this call.
    ///
    /// # Errors
    /// Why not.
    fn check(bytes: &[u8], first: bool) -> Result<(), Unbounded>;
}

fn at_most(bytes: &[u8], bytes_max: usize) -> Result<(), Unbounded> {
    let bytes = bytes.len();
    if bytes > bytes_max { Err(Unbounded::Bytes { bytes, bytes_max }) } else { Ok(()) }
}

fn count(counted: &mut usize, what: &'static str, count_max: usize) -> Result<(), Unbounded> {
    *counted += 1;
    if *counted > count_max { Err(Unbounded::Count { what, count_max }) } else { Ok(()) }
}

/// Visits the fields that have a length: their numbers and bytes.
fn fields<'b>(
    mut rest: &'b [u8],
    mut visit: impl FnMut(u32, &'b [u8]) -> Result<(), Unbounded>,
) -> Result<(), Unbounded> {
    let unreadable = |_| Unbounded::Unreadable;
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).map_err(unreadable)?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, number, &mut rest, DecodeContext::default()).map_err(unreadable)?;
            continue;
        }
        let len = decode_varint(&mut rest).map_err(unreadable)?;
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
        let (field, behind) = rest.split_at(len.ok_or(Unbounded::Unreadable)?);
        rest = behind;
        visit(number, field)?;
    }
    Ok(())
}

impl Bounded for pb::PeerFrame {
    /// The numbers are those of the fields in `peer.proto`.
    fn check(bytes: &[u8], first: bool) -> Result<(), Unbounded> {
        at_most(bytes, if first { INTRODUCTION_BYTES_MAX } else { FRAME_BYTES_MAX })?;
        let (mut messages, mut leads, mut entries) = (0, 0, 0);
        fields(bytes, |number, field| match number {
            2 => {
                count(&mut messages, "messages", MESSAGES_MAX)?;
                fields(field, |number, entry| {
                    if number != 15 {
                        return Ok(());
                    }
                    count(&mut entries, "entries", FRAME_ENTRIES_MAX)?;
                    fields(entry, |number, data| match number {
                        3 if data.len() < DATA_BYTES_MIN => {
                            Err(Unbounded::Short { bytes: data.len() })
                        }
                        _ => Ok(()),
                    })
                })
            }
            3 => count(&mut leads, "leaders", LEADS_MAX),
            _ => Ok(()),
        })
    }
}

impl Bounded for pb::JoinRequest {
    fn check(bytes: &[u8], _: bool) -> Result<(), Unbounded> {
        at_most(bytes, JOIN_BYTES_MAX)
    }
}

impl Bounded for pb::ChangeRequest {
    fn check(bytes: &[u8], _: bool) -> Result<(), Unbounded> {
        at_most(bytes, CHANGE_BYTES_MAX)
    }
}

impl Bounded for pb::PeerNotice {
    fn check(bytes: &[u8], _: bool) -> Result<(), Unbounded> {
        at_most(bytes, NOTICE_BYTES_MAX)
    }
}

/// From a node that this one has chosen to ask.
macro_rules! answers {
    ($($answer:ty),+) => {
        $(impl Bounded for $answer {
            fn check(bytes: &[u8], _: bool) -> Result<(), Unbounded> {
                at_most(bytes, FRAME_BYTES_MAX)
            }
        })+
    };
}

answers!(pb::JoinResponse, pb::ChangeResponse);

/// The codec of `duramen.v1.Peer`: as any other, but that it looks first.
#[derive(Debug)]
pub struct PeerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for PeerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Bounded> Codec for PeerCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder { is_first: true, kind: PhantomData }
    }
}

/// See [`PeerCodec`]; one for each call.
#[derive(Debug)]
pub struct BoundedDecoder<U> {
    is_first: bool,
    kind: PhantomData<U>,
}

impl<U: Bounded> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let invalid = |why: String| Status::invalid_argument(format!("a node sent {why}"));
        let is_first = std::mem::take(&mut self.is_first);
        // A view of what was received, which the message then shares.
        let bytes = bytes::Buf::copy_to_bytes(buffer, bytes::Buf::remaining(buffer));
        U::check(&bytes, is_first).map_err(|why| invalid(why.to_string()))?;
        U::decode(bytes).map(Some).map_err(|_| invalid(Unbounded::Unreadable.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;

    fn check(frame: &pb::PeerFrame, first: bool) -> Result<(), Unbounded> {
        pb::PeerFrame::check(&frame.encode_to_vec(), first)
    }

    fn of_entries(entries: Vec<pb::GroupEntry>) -> pb::PeerFrame {
        let message = pb::GroupMessage { entries, ..Default::default() };
        pb::PeerFrame { messages: vec![message], ..Default::default() }
    }

    #[test]
    fn what_nodes_send_each_other_is_let_through() {
        let data = vec![Bytes::from(vec![7; 61]), Bytes::from(vec![8; 1 << 20])];
        let stored = pb::GroupEntry { term: 1, index: 2, data, ..Default::default() };
        let internal = pb::GroupEntry { is_internal: true, ..Default::default() };
        let mut frame = of_entries([vec![stored; 3], vec![internal; 1000]].concat());
        frame.leads = vec![pb::Leads { group: 1, term: 2, replica: 3 }; 10_000];
        assert_eq!(check(&frame, false), Ok(()));
        let introduction = pb::Introduction { uuid: "u".repeat(1024), ..Default::default() };
        let first = pb::PeerFrame { introduction: Some(introduction), ..Default::default() };
        assert_eq!(check(&first, true), Ok(()));
    }

    #[test]
    fn an_introduction_is_short() {
        let bytes_max = INTRODUCTION_BYTES_MAX;
        let frame = of_entries(vec![pb::GroupEntry::default(); bytes_max]);
        let refused = check(&frame, true).unwrap_err();
        assert!(matches!(refused, Unbounded::Bytes { .. }), "{refused}");
    }

    #[test]
    fn parts_without_content_are_counted_before_they_take_memory() {
        let messages = vec![pb::GroupMessage::default(); MESSAGES_MAX + 1];
        let frame = pb::PeerFrame { messages, ..Default::default() };
        let count_max = MESSAGES_MAX;
        assert_eq!(check(&frame, false), Err(Unbounded::Count { what: "messages", count_max }));
        let message = of_entries(vec![pb::GroupEntry::default(); ENTRIES_MAX]).messages.remove(0);
        let mut frame = pb::PeerFrame { messages: vec![message; 2], ..Default::default() };
        assert_eq!(check(&frame, false), Ok(()));
        frame.messages.extend(of_entries(vec![pb::GroupEntry::default()]).messages);
        let count_max = FRAME_ENTRIES_MAX;
        assert_eq!(check(&frame, false), Err(Unbounded::Count { what: "entries", count_max }));
        let leads = vec![pb::Leads::default(); LEADS_MAX + 1];
        let frame = pb::PeerFrame { leads, ..Default::default() };
        let count_max = LEADS_MAX;
        assert_eq!(check(&frame, false), Err(Unbounded::Count { what: "leaders", count_max }));
        let data = vec![Bytes::from_static(b""); 10];
        let frame = of_entries(vec![pb::GroupEntry { data, ..Default::default() }]);
        assert_eq!(check(&frame, false), Err(Unbounded::Short { bytes: 0 }));
    }

    #[test]
    fn calls_have_limits_of_their_own() {
        let asked = pb::JoinRequest { name: "n".repeat(JOIN_BYTES_MAX), ..Default::default() };
        let refused = pb::JoinRequest::check(&asked.encode_to_vec(), true).unwrap_err();
        assert!(matches!(refused, Unbounded::Bytes { .. }), "{refused}");
        let command = Bytes::from(vec![0; CHANGE_BYTES_MAX]);
        let asked = pb::ChangeRequest { command, ..Default::default() };
        assert!(pb::ChangeRequest::check(&asked.encode_to_vec(), true).is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_let_through_can_be_looked_through_to_its_end(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let looked = pb::PeerFrame::check(&bytes, false);
            // What the decoder takes is never called unreadable: the two read alike.
            if pb::PeerFrame::decode(&bytes[..]).is_ok() {
                proptest::prop_assert_ne!(looked, Err(Unbounded::Unreadable));
            }
        }
    }
}
