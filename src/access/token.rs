//! Tokens: a signed statement of who somebody is, until when. JWT with EdDSA (Ed25519) or HS256; the
//! algorithm is the key's, never the token's own choice, and the key is named by the token (`kid`), so
//! that keys are changed by adding the new one before the old one goes.

mod provider;

use super::policy::is_subject;
use crate::model::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 4 << 10;
/// Keys in one set.
const KEYS_MAX: usize = 64;
/// A secret of HS256 has at least as many bytes as its hash.
const SECRET_BYTES: usize = 32;
const KEYS_BYTES_MAX: usize = 64 << 10;
const KID_CHARS_MAX: usize = 64;

/// Whom tokens are taken from, and for whom they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTerms {
    /// Who issues them (`iss`).
    pub issuer: String,
    /// For whom they are (`aud`).
    pub audience: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl Default for TokenTerms {
    fn default() -> Self {
        let (issuer, audience) = ("duramen".into(), "duramen".into());
        Self { issuer, audience, leeway: Duration::from_secs(30) }
    }
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Who.
    pub subject: Arc<str>,
    /// From then on it proves nothing.
    pub until: Timestamp,
    /// The key that it was signed with.
    pub key: KeyMark,
}

/// Which key it is, in any set that holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyMark([u8; 32]);

impl KeyMark {
    fn of(kid: &str, algorithm: Algorithm, key: &[u8]) -> Self {
        // A name has no zero byte before the second one.
        let marked = [kid.as_bytes(), &[0, algorithm as u8], key].concat();
        let mut mark = [0; 32];
        mark.copy_from_slice(digest(&SHA256, &marked).as_ref());
        Self(mark)
    }
}

/// What is made of a secret is nobody's to see.
impl fmt::Debug for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMark")
    }
}

/// Why a token proves nothing. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none.
    #[error("the token cannot be read")]
    Unreadable,
    /// Its key is not one of ours, or it names none.
    #[error("the token's key (kid) is not one that this node trusts")]
    UnknownKey,
    /// Its algorithm is not its key's.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// Its signature is not that of the key.
    #[error("the token's signature does not match")]
    Signature,
    /// It is somebody else's, or for somebody else.
    #[error("the token is of another issuer, or for another audience")]
    Foreign,
    /// Its time is over.
    #[error("the token has expired: get a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    TooEarly,
    /// Its subject cannot be one.
    #[error("the token's subject cannot be anybody's name")]
    Subject,
}

/// Why a file of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the keys of tokens cannot be used: {0}")]
pub struct TokenKeysError(String);

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519: nodes hold only the public half.
    EdDsa,
    /// A secret that issuer and nodes share.
    Hs256,
}

/// A key as JSON Web Keys write it.
#[derive(Clone, Serialize, Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

struct Key {
    kid: String,
    algorithm: Algorithm,
    key: DecodingKey,
    mark: KeyMark,
}

/// The keys that tokens are checked with.
pub struct TokenKeys {
    keys: Vec<Key>,
    terms: TokenTerms,
    /// Whether private halves were read beside.
    with_private: bool,
}

/// Secrets are nobody's to see.
impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.iter().map(|key| key.kid.as_str()).collect();
        f.debug_struct("TokenKeys").field("kids", &names).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    aud: String,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
}

fn odd(message: impl Into<String>) -> TokenKeysError {
    TokenKeysError(message.into())
}

fn bytes(kid: &str, text: Option<&String>) -> Result<Vec<u8>, TokenKeysError> {
    let decoded = text.and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok());
    decoded.ok_or_else(|| odd(format!("key {kid:?} is incomplete, or not base64url")))
}

fn read_set(text: &str) -> Result<Vec<Jwk>, TokenKeysError> {
    if text.len() > KEYS_BYTES_MAX {
        return Err(odd(format!("over {KEYS_BYTES_MAX} bytes")));
    }
    // The place only: what serde says may quote a secret.
    let JwkSet { keys } = serde_json::from_str(text).map_err(|error| {
        odd(format!("no set of JSON Web Keys (line {}, column {})", error.line(), error.column()))
    })?;
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(odd(format!("a set has 1 to {KEYS_MAX} keys")));
    }
    Ok(keys)
}

impl TokenKeys {
    /// Reads a set of JSON Web Keys (`{"keys": [...]}`): `OKP` with curve `Ed25519`, or `oct`.
    ///
    /// # Errors
    /// [`TokenKeysError`]: none of it is used.
    pub fn read(text: &str, terms: TokenTerms) -> Result<Self, TokenKeysError> {
        provider::install();
        let mut keys: Vec<Key> = Vec::new();
        let mut with_private = false;
        for jwk in read_set(text)? {
            with_private |= jwk.d.is_some();
            let kid =
                jwk.kid.chars().filter(|c| !c.is_control()).take(KID_CHARS_MAX).collect::<String>();
            let (algorithm, bytes, key) =
                match (jwk.kty.as_str(), jwk.alg.as_str(), jwk.crv.as_deref()) {
                    ("OKP", "EdDSA", Some("Ed25519")) => {
                        let public = bytes(&kid, jwk.x.as_ref())?;
                        if public.len() != 32 {
                            return Err(odd(format!("key {kid:?} does not have 32 bytes")));
                        }
                        let key = DecodingKey::from_ed_der(&public);
                        (Algorithm::EdDSA, public, key)
                    }
                    ("oct", "HS256", None) => {
                        let secret = bytes(&kid, jwk.k.as_ref())?;
                        if secret.len() < SECRET_BYTES {
                            return Err(odd(format!(
                                "key {kid:?} has less than {SECRET_BYTES} bytes"
                            )));
                        }
                        let key = DecodingKey::from_secret(&secret);
                        (Algorithm::HS256, secret, key)
                    }
                    _ => return Err(odd(format!("key {kid:?} is neither Ed25519 nor HS256"))),
                };
            if kid.is_empty() || keys.iter().any(|known| known.kid == jwk.kid) {
                return Err(odd("each key needs a name (kid) of its own"));
            }
            let mark = KeyMark::of(&jwk.kid, algorithm, &bytes);
            keys.push(Key { kid: jwk.kid, algorithm, key, mark });
        }
        Ok(Self { keys, terms, with_private })
    }

    /// Whether they were read together with private halves, which only who makes tokens needs.
    pub fn come_with_private_halves(&self) -> bool {
        self.with_private
    }

    /// Whether one of them makes tokens as well as it checks them.
    pub fn hold_a_secret(&self) -> bool {
        self.keys.iter().any(|key| key.algorithm == Algorithm::HS256)
    }

    /// Whether this key is one of them.
    pub fn hold(&self, key: &KeyMark) -> bool {
        self.keys.iter().any(|known| known.mark == *key)
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// [`TokenError`]: nobody, as far as it goes.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Proven, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Unreadable);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Unreadable)?;
        let known = self.keys.iter().find(|key| Some(&key.kid) == header.kid.as_ref());
        let Key { algorithm, key, mark, .. } = known.ok_or(TokenError::UnknownKey)?;
        if header.alg != *algorithm {
            return Err(TokenError::Algorithm);
        }
        let mut validation = Validation::new(*algorithm);
        validation.set_issuer(&[&self.terms.issuer]);
        validation.set_audience(&[&self.terms.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are compared below: the clock is an argument here.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let read = jsonwebtoken::decode::<Claims>(token, key, &validation);
        let Claims { sub, exp, nbf, .. } = read.map_err(|error| told(&error))?.claims;
        let leeway = i64::try_from(self.terms.leeway.as_millis()).unwrap_or(i64::MAX);
        let at = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        let until = at(exp).saturating_add(leeway);
        if now.0 >= until {
            return Err(TokenError::Expired);
        }
        if nbf.is_some_and(|from| now.0.saturating_add(leeway) < at(from)) {
            return Err(TokenError::TooEarly);
        }
        if !is_subject(&sub) {
            return Err(TokenError::Subject);
        }
        Ok(Proven { subject: sub.into(), until: Timestamp(until), key: *mark })
    }
}

fn told(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => TokenError::Foreign,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        _ => TokenError::Unreadable,
    }
}

/// A set of keys that tokens are made with. Never shown.
pub struct Secret(Vec<Jwk>);

impl Secret {
    /// A new key, under this name.
    ///
    /// # Errors
    /// The name cannot be one; the machine gives no random numbers.
    pub fn generate(kind: KeyKind, kid: &str) -> Result<Self, TokenKeysError> {
        if !(1..=KID_CHARS_MAX).contains(&kid.chars().count()) || kid.chars().any(char::is_control)
        {
            return Err(odd(format!("a key's name (kid) has 1 to {KID_CHARS_MAX} characters")));
        }
        let mut seed = [0; 32];
        let filled = SystemRandom::new().fill(&mut seed);
        filled.map_err(|_| odd("the machine gives no random numbers"))?;
        let kid = kid.to_owned();
        let text = URL_SAFE_NO_PAD.encode(seed);
        let jwk = match kind {
            KeyKind::Hs256 => Jwk {
                kid,
                kty: "oct".into(),
                alg: "HS256".into(),
                crv: None,
                k: Some(text),
                x: None,
                d: None,
            },
            KeyKind::EdDsa => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
                let pair = pair.map_err(|_| odd("the key cannot be made"))?;
                let public = URL_SAFE_NO_PAD.encode(pair.public_key());
                Jwk {
                    kid,
                    kty: "OKP".into(),
                    alg: "EdDSA".into(),
                    crv: Some("Ed25519".into()),
                    k: None,
                    x: Some(public),
                    d: Some(text),
                }
            }
        };
        Ok(Self(vec![jwk]))
    }

    /// Reads what [`Secret::text`] wrote.
    ///
    /// # Errors
    /// [`TokenKeysError`].
    pub fn read(text: &str) -> Result<Self, TokenKeysError> {
        read_set(text).map(Self)
    }

    /// Several as one set, those of the last behind.
    ///
    /// # Errors
    /// Two keys have one name; or there are too many.
    pub fn together(sets: Vec<Self>) -> Result<Self, TokenKeysError> {
        let all: Vec<Jwk> = sets.into_iter().flat_map(|set| set.0).collect();
        if all.len() > KEYS_MAX {
            return Err(odd(format!("a set has 1 to {KEYS_MAX} keys")));
        }
        let mut names = BTreeSet::new();
        match all.iter().find(|jwk| !names.insert(&jwk.kid)) {
            Some(jwk) => Err(odd(format!("two keys have the name (kid) {:?}", jwk.kid))),
            None => Ok(Self(all)),
        }
    }

    /// All of it, for the issuer's eyes only.
    pub fn text(&self) -> String {
        let set = JwkSet { keys: self.0.clone() };
        serde_json::to_string_pretty(&set).expect("texts only")
    }

    /// What nodes are to have: public halves, and shared secrets.
    pub fn for_nodes(&self) -> String {
        let keys = self.0.iter().cloned().map(|jwk| Jwk { d: None, ..jwk }).collect();
        serde_json::to_string_pretty(&JwkSet { keys }).expect("texts only")
    }
}

/// Makes a token with the last key of a set.
///
/// # Errors
/// The key cannot sign, or the subject cannot be one.
pub fn new_token(
    secret: &Secret,
    subject: &str,
    terms: &TokenTerms,
    now: Timestamp,
    lifetime: Duration,
) -> Result<String, TokenKeysError> {
    provider::install();
    if !is_subject(subject) {
        return Err(odd("the subject cannot be anybody's name"));
    }
    let jwk = secret.0.last().ok_or_else(|| odd("there is none"))?;
    let (algorithm, key) = match jwk.kty.as_str() {
        "oct" => (Algorithm::HS256, EncodingKey::from_secret(&bytes(&jwk.kid, jwk.k.as_ref())?)),
        "OKP" => (Algorithm::EdDSA, EncodingKey::from_ed_der(&bytes(&jwk.kid, jwk.d.as_ref())?)),
        _ => return Err(odd("the last key is neither Ed25519 nor HS256")),
    };
    let now = u64::try_from(now.0 / 1000).unwrap_or(0);
    let claims = Claims {
        sub: subject.into(),
        iss: terms.issuer.clone(),
        aud: terms.audience.clone(),
        exp: now.saturating_add(lifetime.as_secs()),
        nbf: Some(now),
    };
    let header = Header { kid: Some(jwk.kid.clone()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, &key).map_err(|error| odd(error.to_string()))
}

#[cfg(test)]
mod tests;
