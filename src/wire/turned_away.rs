//! Whether a client and a node do not let each other in: found in what TLS and HTTP/2 leave behind.
//! Unlike a connection that was lost, it does not pass by itself.

use crate::guards::tls::{in_words, is_final, is_told_by_other};
use h2::Reason;
use std::error::Error;
use std::io;

/// Begins the text of [`TurnedAway::Shown`], and of no other error.
const MARK: &str = "TLS: ";

/// Why a client and a node do not let each other in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// The client comes without TLS.
    #[error("the port there speaks TLS only, and this client comes without")]
    NeedsTls,
    /// The client comes within TLS.
    #[error("what answers there does not speak TLS, and this client comes within it")]
    NoTls,
    /// One of the two does not take what the other shows.
    #[error("{MARK}{0}")]
    Shown(String),
}

impl TurnedAway {
    /// From an error of TLS; `None`: the same may succeed the next time.
    pub fn by(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidMessage(_) => Some(Self::NoTls),
            error => is_final(error).then(|| Self::Shown(in_words(error))),
        }
    }

    /// Whether the other end has said so, and not this one.
    pub fn is_the_nodes_word(&self) -> bool {
        matches!(self, Self::Shown(why) if is_told_by_other(why))
    }

    /// An error of reading that says it by its text too: HTTP/2 keeps no more of it. What is no TLS in the
    /// midst of a connection was spoilt on its way: both ends do speak it.
    pub fn told(error: io::Error) -> io::Error {
        match Self::found_in(&error) {
            Some(found @ Self::Shown(_)) => io::Error::new(error.kind(), found),
            _ => error,
        }
    }

    /// Looks for one in an error and those below it.
    pub fn found_in(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = Self::is(error) {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    fn is(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(found) = error.downcast_ref::<Self>() {
            return Some(found.clone());
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.reason() {
                Some(Reason::INADEQUATE_SECURITY) => Some(Self::NeedsTls),
                _ => Self::of_io(error.get_io()?),
            };
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Self::by(error);
        }
        Self::of_io(error.downcast_ref()?)
    }

    /// What an I/O error was made of is not among those below it.
    fn of_io(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        if let Some(found) = inner.downcast_ref::<Self>() {
            return Some(found.clone());
        }
        match inner.downcast_ref() {
            Some(error) => Self::by(error),
            None => Some(Self::Shown(inner.to_string().strip_prefix(MARK)?.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::AlertDescription as Alert;

    fn within_io(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn what_will_not_pass_is_told_from_what_may() {
        let revoked = rustls::Error::AlertReceived(Alert::CertificateRevoked);
        let found = TurnedAway::found_in(&within_io(revoked)).unwrap();
        assert!(found.to_string().contains("shown to it is revoked"), "{found}");
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(TurnedAway::found_in(&within_io(untrusted)).is_some());
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(TurnedAway::found_in(&within_io(plain)), Some(TurnedAway::NoTls));
        assert_eq!(TurnedAway::found_in(&within_io(TurnedAway::NoTls)), Some(TurnedAway::NoTls));
        let asked = h2::Error::from(Reason::INADEQUATE_SECURITY);
        assert_eq!(TurnedAway::found_in(&asked), Some(TurnedAway::NeedsTls));

        let passing = [
            Alert::CloseNotify,
            Alert::UserCanceled,
            Alert::InternalError,
            Alert::BadRecordMac,
            Alert::DecodeError,
        ];
        for alert in passing {
            let error = rustls::Error::AlertReceived(alert);
            assert_eq!(TurnedAway::found_in(&within_io(error)), None, "{alert:?}");
        }
        let text = TurnedAway::told(within_io(rustls::Error::AlertReceived(Alert::UnknownCA)));
        let found = TurnedAway::found_in(&within_io(text.to_string())).unwrap();
        assert!(found.to_string().contains("a CA that it does not trust"), "{found}");
        let spoilt = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let spoilt = TurnedAway::told(within_io(spoilt)).to_string();
        assert_eq!(TurnedAway::found_in(&within_io(spoilt)), None, "in the midst of a connection");
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(TurnedAway::found_in(&reset), None);
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert_eq!(TurnedAway::found_in(&eof), None);
        assert_eq!(TurnedAway::found_in(&h2::Error::from(Reason::REFUSED_STREAM)), None);
    }

    #[test]
    fn what_the_other_end_says_is_told_from_what_this_one_does() {
        use rustls::{CertificateError as C, Error as E};
        for alert in [Alert::UnknownCA, Alert::AccessDenied, Alert::CertificateRevoked] {
            assert!(TurnedAway::by(&E::AlertReceived(alert)).unwrap().is_the_nodes_word());
        }
        for why in [C::UnknownIssuer, C::NotValidForName, C::Expired, C::Revoked] {
            assert!(!TurnedAway::by(&E::InvalidCertificate(why)).unwrap().is_the_nodes_word());
        }
        assert!(!TurnedAway::NeedsTls.is_the_nodes_word());
    }
}
