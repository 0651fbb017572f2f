//! Whom a certificate is for.
//!
//! `duramen://NAME` among its alternative names is a client's name; without one, and without a peer
//! role, it is the common name. `duramen://peer/NODENAME` makes it the certificate of a node: it may
//! do what nodes do among each other, and nothing that clients do unless it also has a client's name.

use crate::model::{Caller, Proof};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use x509_parser::prelude::{GeneralName, X509Certificate};

/// What a client's URI begins with.
pub(super) const CLIENT: &str = "duramen://";
/// What a node's URI begins with.
pub(super) const PEER: &str = "duramen://peer/";
/// The longest name taken from a certificate.
const NAME_BYTES_MAX: usize = 256;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The client that it is for.
    pub subject: Option<Arc<str>>,
    /// The node that it is for.
    pub peer: Option<Arc<str>>,
}

/// Why a certificate, though it may be genuine, is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read.
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has more than one name of a kind.
    #[error("its certificate has more than one {0}; one was to be chosen, and none is")]
    Ambiguous(&'static str),
    /// A name holds what could be taken for something else, or is too long, or is empty.
    #[error(
        "its certificate has a {0} that is empty, longer than 256 bytes, or holds control characters"
    )]
    Unsound(&'static str),
}

impl Identity {
    /// Reads whom a certificate is for.
    ///
    /// # Errors
    /// It is unclear.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let unreadable =
            |error: &dyn std::fmt::Display| IdentityError::Unreadable(error.to_string());
        let (_, read) =
            x509_parser::parse_x509_certificate(certificate).map_err(|error| unreadable(&error))?;
        Self::of_parsed(&read)
    }

    pub(super) fn of_parsed(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let (mut clients, mut peers) = (Vec::new(), Vec::new());
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            let GeneralName::URI(uri) = name else { continue };
            if let Some(node) = uri.strip_prefix(PEER) {
                peers.push(node);
            } else if let Some(client) = uri.strip_prefix(CLIENT) {
                clients.push(client);
            }
        }
        let peer = only(&peers, "name of a node")?;
        let subject = match only(&clients, "name of a client")? {
            None if peer.is_none() => {
                let common = certificate.subject().iter_common_name();
                let common: Result<Vec<&str>, _> = common.map(|name| name.as_str()).collect();
                let common =
                    common.map_err(|error| IdentityError::Unreadable(error.to_string()))?;
                only(&common, "common name")?
            }
            named => named,
        };
        Ok(Self { subject, peer })
    }

    /// Whoever shows the certificate, as a caller.
    pub fn caller(&self) -> Caller {
        let Self { subject, peer } = self.clone();
        Caller { subject, proof: Proof::Certificate, peer }
    }
}

fn only(names: &[&str], what: &'static str) -> Result<Option<Arc<str>>, IdentityError> {
    match names {
        [] => Ok(None),
        [name] => {
            let is_sound =
                (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
            if is_sound { Ok(Some((*name).into())) } else { Err(IdentityError::Unsound(what)) }
        }
        _ => Err(IdentityError::Ambiguous(what)),
    }
}
