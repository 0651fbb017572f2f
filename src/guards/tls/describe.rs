//! What a certificate, or a list of revoked ones, says, for people.

use super::credentials::parts;
use super::files::{TlsError, read};
use super::identity::Identity;
use crate::model::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Whom it is for; what is unclear about that otherwise.
    pub identity: Result<Identity, String>,
    /// It may sign others.
    pub is_ca: bool,
    /// Its whole subject, as in `CN=root`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Host names, addresses and URIs that it is good for.
    pub names: Vec<String>,
    /// What for: `client`, `server`; empty: it does not say.
    pub usages: Vec<&'static str>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The same as it is in the certificate.
    pub serial_bytes: Vec<u8>,
    /// What kind of key it has.
    pub key: String,
    /// SHA-256 of all of it, in hexadecimal.
    pub fingerprint: String,
}

impl Described {
    /// What it may be used as: `node n1`, `client root`, `CA`.
    pub fn role(&self) -> String {
        let Ok(Identity { subject, peer }) = &self.identity else { return "unclear".into() };
        let named = |what: &str, name: &str| format!("{what} {}", name.escape_debug());
        match (self.is_ca, peer, subject) {
            (true, ..) => "CA".into(),
            (_, Some(peer), None) => named("node", peer),
            (_, Some(peer), Some(subject)) => {
                format!("{}, {}", named("node", peer), named("client", subject))
            }
            (_, None, Some(subject)) => named("client", subject),
            (_, None, None) => "nobody".into(),
        }
    }
}

/// The certificates of a PEM file, in its order.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parts((file, &read(file)?), "a certificate")
}

/// Reads a certificate.
///
/// # Errors
/// It is none.
pub fn describe(certificate: &CertificateDer<'_>) -> Result<Described, String> {
    let (_, read) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("it is not a certificate: {error}"))?;
    let names = read.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names).map(name).collect();
    let usage = read.extended_key_usage().ok().flatten();
    let usages = usage.map_or_else(Vec::new, |usage| {
        let known = [(usage.value.client_auth, "client"), (usage.value.server_auth, "server")];
        known.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect()
    });
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    Ok(Described {
        identity: Identity::of_parsed(&read).map_err(|error| error.to_string()),
        is_ca: read.is_ca(),
        subject: read.subject().to_string(),
        issuer: read.issuer().to_string(),
        names,
        usages,
        not_before: Timestamp(read.validity().not_before.timestamp() * 1000),
        not_after: Timestamp(read.validity().not_after.timestamp() * 1000),
        serial: hex(read.raw_serial()),
        serial_bytes: read.raw_serial().to_vec(),
        key: key(&read),
        fingerprint: hex(digest.as_ref()),
    })
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(host) => (*host).to_owned(),
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).map_or_else(|_| hex(bytes), |address| address.to_string())
        }
        other => other.to_string(),
    }
}

fn key(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    let algorithm = &info.algorithm;
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        // The modulus is what the parsed key holds first.
        return match info.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
            _ => "RSA".into(),
        };
    }
    if algorithm.algorithm == OID_SIG_ED25519 {
        return "Ed25519".into();
    }
    let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match curve {
        Some(curve) if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY => {
            if curve == OID_EC_P256 {
                "ECDSA P-256".into()
            } else if curve == OID_NIST_EC_P384 {
                "ECDSA P-384".into()
            } else {
                format!("ECDSA {curve}")
            }
        }
        _ => algorithm.algorithm.to_string(),
    }
}

/// A list of revoked certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevokedList {
    /// Who signed it; empty where nobody has yet.
    pub issuer: String,
    /// The list's own number: each is one more than that before it.
    pub number: u128,
    /// When it is to be renewed, where it says so.
    pub next_update: Option<Timestamp>,
    /// Serial numbers, and since when.
    pub serials: BTreeMap<Vec<u8>, Timestamp>,
}

/// The lists of revoked certificates of a PEM file, in its order.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn lists_in(file: &Path) -> Result<Vec<RevokedList>, TlsError> {
    let lists = parts::<CertificateRevocationListDer>(
        (file, &read(file)?),
        "a list of revoked certificates",
    )?;
    let described = lists.iter().map(|list| revoked_in(list));
    described.map(|list| list.map_err(|error| TlsError::content(file, error))).collect()
}

/// Reads a list of revoked certificates.
///
/// # Errors
/// It is none.
pub fn revoked_in(list: &[u8]) -> Result<RevokedList, String> {
    let (_, read) = x509_parser::parse_x509_crl(list)
        .map_err(|error| format!("it is not a list of revoked certificates: {error}"))?;
    // Of up to twenty bytes: beyond sixteen lists count as equally new.
    let number = |digits: Vec<u32>| {
        digits.iter().rev().try_fold(0_u128, |number, digit| {
            Some(number.checked_mul(1 << 32)? + u128::from(*digit))
        })
    };
    let digits = read.crl_number().map(|number| number.to_u32_digits());
    let at = |time: x509_parser::time::ASN1Time| Timestamp(time.timestamp() * 1000);
    Ok(RevokedList {
        issuer: read.issuer().to_string(),
        number: digits.map_or(0, |digits| number(digits).unwrap_or(u128::MAX)),
        next_update: read.next_update().map(at),
        serials: read
            .iter_revoked_certificates()
            .map(|revoked| (revoked.raw_serial().to_vec(), at(revoked.revocation_date)))
            .collect(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
