//! What nodes of one cluster say to each other: words of the model to frames and back, and the
//! client side of the calls that carry them.

mod bounded;
mod connection;
mod convert;
mod proof;

pub use bounded::{Bounded, BoundedDecoder, PeerCodec, Unbounded};
pub use connection::{Denial, Notices, PeerClient};
pub use convert::{
    ENTRIES_MAX, FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, PeerWireError, message_from_pb, message_to_pb,
    wire_bytes,
};

pub use proof::PeerProof;

/// The oldest protocol between nodes that this program speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest protocol between nodes that this program speaks.
pub const PROTOCOL_MAX: u32 = 3;
