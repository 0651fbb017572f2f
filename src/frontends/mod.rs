//! Protocols in, asks out.

pub mod grpc;
pub mod http;
