//! Who asks: what the other end of a connection, or a token that it showed, has proved.

use std::fmt;
use std::sync::Arc;

/// By what a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Proof {
    /// By nothing: a connection without TLS, and no token.
    #[default]
    None,
    /// By a certificate of the CA that this node trusts.
    Certificate,
    /// By a token that this node trusts.
    Token,
}

/// Whoever makes a request. Travels in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Caller {
    /// The name that was proved; `None` for somebody who proved nothing.
    pub subject: Option<Arc<str>>,
    /// By what.
    pub proof: Proof,
    /// The node whose peer role the certificate carries.
    pub peer: Option<Arc<str>>,
}

impl Caller {
    /// Somebody who proved nothing.
    pub fn nobody() -> Self {
        Self::default()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name comes from outside: no control character of it may reach a terminal or a log.
        match &self.subject {
            Some(subject) => write!(f, "{}", subject.escape_debug()),
            None => f.write_str("nobody"),
        }
    }
}
