//! Tokens, and the files of keys that they are checked with.

use crate::access::{Proven, Secret, TokenError, TokenKeys, TokenTerms, is_subject, new_token};
use crate::model::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;
use std::sync::OnceLock;
use std::time::Duration;

const KINDS: u8 = 3;
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LIFE: Duration = Duration::from_secs(3600);
const SECRET: [u8; 32] = *b"a secret that only this file has";
const SIGNED_FOR: &str = "alice";

/// An HS256 and an Ed25519 key, the same each time.
fn secret() -> &'static Secret {
    static KEYS: OnceLock<Secret> = OnceLock::new();
    KEYS.get_or_init(|| Secret::read(&keys_text()).expect("a set of keys"))
}

fn keys_text() -> String {
    let k = URL_SAFE_NO_PAD.encode(SECRET);
    // Of RFC 8037, appendix A.
    let (d, x) = (
        "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    );
    format!(
        r#"{{"keys":[{{"kid":"e1","kty":"OKP","alg":"EdDSA","crv":"Ed25519","x":"{x}","d":"{d}"}},
        {{"kid":"k1","kty":"oct","alg":"HS256","k":"{k}"}}]}}"#
    )
}

fn keys() -> &'static TokenKeys {
    static KEYS: OnceLock<TokenKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        TokenKeys::read(&secret().for_nodes(), TokenTerms::default()).expect("a set of keys")
    })
}

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = super::choice(bytes, KINDS) else { return };
    match kind {
        0 => forged(bytes),
        1 => signed(bytes),
        _ => keys_file(bytes),
    }
}

fn verified(token: &str) -> Result<Proven, TokenError> {
    let verified = keys().verify(token, NOW);
    assert_eq!(verified, keys().verify(token, NOW), "two looks at the same token");
    if let Ok(Proven { subject, until, .. }) = &verified {
        assert!(is_subject(subject), "a name that nobody can have");
        assert!(NOW < *until, "its time is over");
        assert_eq!(keys().verify(token, *until), Err(TokenError::Expired), "until then");
    }
    verified
}

/// Whoever has no key proves nothing: what is taken was signed, and for one name only.
fn forged(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(proven) = verified(text) {
        assert_eq!(&*proven.subject, SIGNED_FOR, "nobody signed that");
    }
}

/// Claims, signed whatever they are: what counts in them is still looked at.
fn signed(bytes: &[u8]) {
    let header = r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let content = format!("{}.{}", encode(header.as_bytes()), encode(bytes));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    let token = format!("{content}.{}", encode(hmac::sign(&key, content.as_bytes()).as_ref()));
    let Ok(Proven { subject, until, .. }) = verified(&token) else { return };
    let claims: Value = serde_json::from_slice(bytes).expect("what was taken are claims");
    let terms = TokenTerms::default();
    assert_eq!(claims["sub"].as_str(), Some(&*subject), "the name that it has");
    assert_eq!(claims["iss"].as_str(), Some(terms.issuer.as_str()), "of the issuer");
    assert_eq!(claims["aud"].as_str(), Some(terms.audience.as_str()), "for the audience");
    let expires = claims["exp"].as_u64().expect("a number of seconds");
    let expires = i64::try_from(expires).unwrap_or(i64::MAX).saturating_mul(1000);
    assert_eq!(until.0, expires.saturating_add(30_000), "and no longer");
}

fn keys_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = TokenKeys::read(text, TokenTerms::default());
    let again = TokenKeys::read(text, TokenTerms::default());
    let told = |read: Result<TokenKeys, _>| {
        read.map(|keys| format!("{keys:?}")).map_err(|error| format!("{error}"))
    };
    let told_first = told(read);
    assert_eq!(told_first, told(again), "two looks at the same keys");
    if let Ok(secret) = Secret::read(text) {
        let again = Secret::read(&secret.text()).expect("written by us");
        assert_eq!(again.text(), secret.text(), "written and read again");
        // A key that signs is told to nobody.
        let private = |text: &str| text.contains("\"d\":");
        assert!(!private(&secret.for_nodes()), "nodes have public halves only");
        let _ = new_token(&secret, SIGNED_FOR, &TokenTerms::default(), NOW, LIFE);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let terms = TokenTerms::default();
    let token =
        |keys: &Secret| new_token(keys, SIGNED_FOR, &terms, NOW, LIFE).expect("a key and a name");
    let set: Value = serde_json::from_str(&keys_text()).expect("JSON");
    let edwards = serde_json::json!({ "keys": [set["keys"][0]] }).to_string();
    let edwards = token(&Secret::read(&edwards).expect("a key"));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"k1"}"#);
    let claims = |exp: u64, sub: &str| {
        format!(r#"{{"sub":"{sub}","iss":"duramen","aud":"duramen","exp":{exp}}}"#)
    };
    let texts = [
        (0, token(secret())),
        (0, edwards.clone()),
        (0, format!("{none}.{}.", edwards.split('.').nth(1).expect("three parts"))),
        (1, claims(1_700_000_100, "alice")),
        (1, claims(1_600_000_000, "alice")),
        (1, claims(u64::MAX, "role:w")),
        (1, r#"{"sub":"a","iss":["duramen"],"aud":["duramen"],"exp":1.8e9,"nbf":1}"#.to_owned()),
        (2, keys_text()),
        (2, secret().for_nodes()),
    ];
    texts.map(|(kind, text)| super::of_kind(kind, text)).to_vec()
}
