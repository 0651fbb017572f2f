//! What goes over the network: generated protobuf types, conversions to the model, the client.
//!
//! Generated code lives in [`pb`]; everything that turns it into words of the model lives beside it.

pub mod client;
pub mod codec;
pub mod convert;
pub mod dial;
mod leave;
pub mod peer;
pub mod read_ahead;
mod turned_away;

/// Generated from `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    /// The book's interface.
    pub mod log {
        /// `log.v1`
        pub mod v1 {
            tonic::include_proto!("log.v1");
        }
    }
    /// duramen's own interface.
    pub mod duramen {
        /// `duramen.v1`
        pub mod v1 {
            tonic::include_proto!("duramen.v1");
            include!(concat!(env!("OUT_DIR"), "/peer/duramen.v1.rs"));
        }
    }
    /// All of `proto/` as an encoded `FileDescriptorSet`, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
