//! Certificates: what a node or a client shows, whom it trusts, and as whom it takes the other end.
//!
//! PEM in, configurations of rustls out, always with ring, by name: a second provider in the same
//! program would make rustls panic. TLS 1.3 and 1.2. There is no resumption, neither by tickets nor
//! by sessions: whoever was revoked has nothing to come back with.
//!
//! A certificate says who it is for by URIs among its alternative names ([`Identity`]).

mod authority;
mod credentials;
mod describe;
mod files;
mod identity;
mod live;
mod reason;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Host, IssueError, Issued, Wanted, is_name};
pub use credentials::{ClientTls, Credentials, ExpectedServer, Side};
pub use describe::{Described, RevokedList, certificates_in, describe, lists_in, revoked_in};
pub use files::{TlsError, TlsFiles};
pub use identity::{Identity, IdentityError};
pub use live::{Faults, Generation, Reloaded, Tls};
pub use reason::{failed_handshake, in_words, is_final, is_told_by_other};
