//! How a node shows that it is one where connections prove nothing: it knows the secret that all nodes
//! share, the key of gossip. What is sent is made from it; the key itself stays.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::HeaderMap;
use ring::hmac;
use std::fmt;
use tonic::metadata::AsciiMetadataValue;

/// Among a call's metadata.
const HEADER: &str = "duramen-peer-proof";
/// What the proof is made for: no other use of the key gives the same.
const PURPOSE: &[u8] = b"duramen.v1 peer";

/// See the module; the default proves nothing, and nobody can prove anything to it.
#[derive(Clone, Default)]
pub struct PeerProof(Option<(hmac::Key, AsciiMetadataValue)>);

/// Never the proof itself.
impl fmt::Debug for PeerProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerProof").field(&self.0.is_some()).finish()
    }
}

impl PartialEq for PeerProof {
    fn eq(&self, other: &Self) -> bool {
        let value = |proof: &Self| proof.0.as_ref().map(|(_, value)| value.clone());
        value(self) == value(other)
    }
}

impl PeerProof {
    /// Made from the secret that the nodes share.
    pub fn of(key: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let tag = STANDARD_NO_PAD.encode(hmac::sign(&key, PURPOSE));
        Self(tag.parse().ok().map(|tag| (key, tag)))
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Puts it into a call.
    pub fn show<T>(&self, request: &mut tonic::Request<T>) {
        if let Some((_, proof)) = &self.0 {
            let mut proof = proof.clone();
            proof.set_sensitive(true);
            request.metadata_mut().insert(HEADER, proof);
        }
    }

    /// Whether a call shows the same.
    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        let (Some((key, _)), Some(shown)) = (&self.0, headers.get(HEADER)) else { return false };
        let tag = STANDARD_NO_PAD.decode(shown.as_bytes());
        tag.is_ok_and(|tag| hmac::verify(key, PURPOSE, &tag).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_key_is_believed_and_the_key_is_not_sent() {
        let (own, same, other) =
            (PeerProof::of(&[7; 32]), PeerProof::of(&[7; 32]), PeerProof::of(&[8; 32]));
        let headers = |proof: &PeerProof| {
            let mut request = tonic::Request::new(());
            proof.show(&mut request);
            request.metadata().clone().into_headers()
        };
        assert!(own.is_shown(&headers(&same)));
        assert!(!own.is_shown(&headers(&other)));
        assert!(!own.is_shown(&HeaderMap::new()));
        assert!(!PeerProof::default().is_shown(&headers(&own)), "no key: nobody is believed");
        let (_, secret) = own.0.as_ref().unwrap();
        assert!(!format!("{own:?} {:?}", headers(&own)).contains(secret.to_str().unwrap()));
    }
}
