//! Why a handshake failed, in words that say what to do about it.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, PeerMisbehaved};
use std::io;

/// Why a handshake failed, from what was read or written on the way.
pub fn failed_handshake(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(inner) => in_words(inner),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection during the handshake".into()
        }
        None => error.to_string(),
    }
}

/// An error of rustls, said of the other end.
pub fn in_words(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it shows no certificate".into(),
        Error::InvalidCertificate(reason) => certificate(reason),
        Error::InvalidMessage(_) => "what it says is not TLS".into(),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Both have it; what is older does not.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => "it speaks neither TLS 1.3 nor 1.2".into(),
        Error::PeerIncompatible(reason) => {
            format!("it and this end have no way in common ({reason:?})")
        }
        Error::NoApplicationProtocol => "it wants another protocol than this port speaks".into(),
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec) => {
            "what it says is not TLS".into()
        }
        other => other.to_string(),
    }
}

/// Whether the next try would fail as this one has: what one end shows, or how it speaks, is not what the
/// other takes. What may be a moment's trouble of either, or of the way between, is left out.
pub fn is_final(error: &Error) -> bool {
    use AlertDescription as A;
    matches!(
        error,
        Error::AlertReceived(
            A::AccessDenied
                | A::BadCertificate
                | A::CertificateExpired
                | A::CertificateRequired
                | A::CertificateRevoked
                | A::CertificateUnknown
                | A::HandshakeFailure
                | A::InsufficientSecurity
                | A::NoApplicationProtocol
                | A::NoCertificate
                | A::ProtocolVersion
                | A::UnknownCA
                | A::UnrecognisedName
                | A::UnsupportedCertificate
        ) | Error::InvalidCertificate(_)
            | Error::InvalidMessage(_)
            | Error::NoApplicationProtocol
            | Error::NoCertificatesPresented
            | Error::PeerIncompatible(_)
    )
}

fn certificate(reason: &CertificateError) -> String {
    use CertificateError as C;
    match reason {
        C::Expired | C::ExpiredContext { .. } => "its certificate has expired".into(),
        C::NotValidYet | C::NotValidYetContext { .. } => "its certificate is not valid yet".into(),
        C::Revoked => "its certificate is revoked".into(),
        C::UnknownIssuer => "its certificate is of a CA that is not trusted here".into(),
        C::BadSignature => "its certificate was not signed by the CA that it names".into(),
        C::UnknownRevocationStatus => {
            "no list of revoked certificates speaks for the CA of its certificate".into()
        }
        C::NotValidForName => "its certificate is for another host".into(),
        C::NotValidForNameContext { expected, presented } => {
            let hosts: Vec<&str> = presented.iter().filter_map(|name| host(name)).collect();
            let for_whom = if hosts.is_empty() { "no host".to_owned() } else { hosts.join(", ") };
            format!("its certificate is not for {} but for {for_whom}", expected.to_str())
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "its certificate is not for this side of a connection (extended key usage)".into()
        }
        other => format!("its certificate is not valid: {other}"),
    }
}

/// The host of one of a certificate's names, which rustls gives with their kind: `DnsName("localhost")`.
fn host(presented: &str) -> Option<&str> {
    let dns = presented.strip_prefix("DnsName(\"").and_then(|rest| rest.strip_suffix("\")"));
    let ip = presented.strip_prefix("IpAddress(").and_then(|rest| rest.strip_suffix(')'));
    dns.or(ip)
}

/// Begin what the other end says of this one, and nothing that this end says of it.
const REFUSES: &str = "it refuses the connection";
const ENDED: &str = "it ended the handshake";

/// Whether words of [`in_words`] are what the other end has said. By the words, as HTTP/2 keeps no more.
pub fn is_told_by_other(words: &str) -> bool {
    words.starts_with(REFUSES) || words.starts_with(ENDED)
}

/// What the other end says of this one.
fn alert_received(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let why = match alert {
        A::CertificateRequired => "no certificate was shown to it",
        A::CertificateExpired => "the certificate shown to it has expired, or is not valid yet",
        A::CertificateRevoked => "the certificate shown to it is revoked",
        A::UnknownCA => "the certificate shown to it is of a CA that it does not trust",
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            "the certificate shown to it is not one that it takes"
        }
        A::ProtocolVersion => "it speaks neither TLS 1.3 nor 1.2",
        other => return format!("{ENDED} ({other:?})"),
    };
    format!("{REFUSES}: {why}")
}
