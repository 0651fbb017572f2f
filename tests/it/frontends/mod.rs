//! What clients may rely on at the network's edge, over real sockets, against a partition in
//! memory whose failures and pauses the test chooses.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod forwarding;
mod grpc_book;
mod grpc_duramen;
mod grpc_port;
mod http_book;
mod http_port;
mod http_records;
mod http_server;
mod memory;
mod peer_nodes;
mod peers;
mod raw_http2;
mod server;
mod topics;
mod unfinished;
