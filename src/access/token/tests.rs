use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn token_of(secret: &Secret, terms: &TokenTerms) -> String {
    new_token(secret, "alice", terms, NOW, Duration::from_secs(60)).unwrap()
}

fn later(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1000)
}

#[test]
fn a_token_proves_its_subject_until_it_expires() {
    let terms = TokenTerms::default();
    for kind in [KeyKind::EdDsa, KeyKind::Hs256] {
        let secret = Secret::generate(kind, "k1").unwrap();
        let keys = TokenKeys::read(&secret.for_nodes(), terms.clone()).unwrap();
        let token = token_of(&secret, &terms);
        let proven = keys.verify(&token, NOW).unwrap();
        assert_eq!((&*proven.subject, proven.until), ("alice", later(90)));
        assert_eq!(keys.verify(&token, later(89)), Ok(proven));
        assert_eq!(keys.verify(&token, later(90)), Err(TokenError::Expired));
        assert_eq!(keys.verify(&token, later(-31)), Err(TokenError::TooEarly));
        assert!(!format!("{keys:?}").contains(&token));
        let again = Secret::read(&secret.text()).unwrap();
        assert!(keys.verify(&token_of(&again, &terms), NOW).is_ok());
    }
}

#[test]
fn keys_of_several_files_are_one_set_and_each_has_a_name_of_its_own() {
    let terms = TokenTerms::default();
    let secret = |kid: &str| Secret::generate(KeyKind::EdDsa, kid).unwrap();
    let (old, new) = (secret("old"), secret("new"));
    let tokens = [&old, &new].map(|secret| token_of(secret, &terms));
    let text = old.text();
    let both = Secret::together(vec![old, new]).unwrap();
    let keys = TokenKeys::read(&both.for_nodes(), terms.clone()).unwrap();
    for token in &tokens {
        keys.verify(token, NOW).unwrap();
    }
    assert!(keys.verify(&token_of(&both, &terms), NOW).is_ok(), "the last one signs");
    let twice = vec![Secret::read(&text).unwrap(), secret("old")];
    assert!(Secret::together(twice).is_err_and(|error| error.to_string().contains("\"old\"")));
    let many = (0..=KEYS_MAX).map(|number| secret(&number.to_string())).collect();
    assert!(Secret::together(many).is_err());
    for kid in ["", "a\nb", &"x".repeat(65)] {
        assert!(Secret::generate(KeyKind::EdDsa, kid).is_err(), "{kid:?}");
    }
}

#[test]
fn a_set_says_whether_who_reads_it_can_make_tokens() {
    let read = |text: &str| TokenKeys::read(text, TokenTerms::default()).unwrap();
    let (pair, shared) = (
        Secret::generate(KeyKind::EdDsa, "k1").unwrap(),
        Secret::generate(KeyKind::Hs256, "k2").unwrap(),
    );
    let can = |keys: TokenKeys| (keys.come_with_private_halves(), keys.hold_a_secret());
    assert_eq!(can(read(&pair.for_nodes())), (false, false));
    assert_eq!(can(read(&pair.text())), (true, false));
    assert_eq!(can(read(&shared.for_nodes())), (false, true));
}

#[test]
fn the_public_half_cannot_make_tokens() {
    let secret = Secret::generate(KeyKind::EdDsa, "k1").unwrap();
    let public = Secret::read(&secret.for_nodes()).unwrap();
    assert!(
        new_token(&public, "alice", &TokenTerms::default(), NOW, Duration::from_secs(60)).is_err()
    );
}

#[test]
fn tokens_of_others_for_others_or_changed_prove_nothing() {
    let terms = TokenTerms::default();
    let secret = Secret::generate(KeyKind::EdDsa, "k1").unwrap();
    let keys = TokenKeys::read(&secret.for_nodes(), terms.clone()).unwrap();
    let other = Secret::generate(KeyKind::EdDsa, "k1").unwrap();
    assert_eq!(keys.verify(&token_of(&other, &terms), NOW), Err(TokenError::Signature));
    let renamed = Secret::generate(KeyKind::EdDsa, "k2").unwrap();
    assert_eq!(keys.verify(&token_of(&renamed, &terms), NOW), Err(TokenError::UnknownKey));
    let theirs = TokenTerms { issuer: "mallory".into(), ..terms.clone() };
    assert_eq!(keys.verify(&token_of(&secret, &theirs), NOW), Err(TokenError::Foreign));
    let theirs = TokenTerms { audience: "another".into(), ..terms.clone() };
    assert_eq!(keys.verify(&token_of(&secret, &theirs), NOW), Err(TokenError::Foreign));
    let token = token_of(&secret, &terms);
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        // The last letter of a part may hold bits that mean nothing.
        if let Ok(proven) = keys.verify(&changed, NOW) {
            assert_eq!(&*proven.subject, "alice");
        }
    }
    for odd in ["", ".", "..", "a.b.c", &"x".repeat(10_000)] {
        assert!(keys.verify(odd, NOW).is_err());
    }
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    use base64::Engine;
    let b64 = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let terms = TokenTerms::default();
    let secret = Secret::generate(KeyKind::EdDsa, "k1").unwrap();
    let keys = TokenKeys::read(&secret.for_nodes(), terms.clone()).unwrap();
    let claims = token_of(&secret, &terms).split('.').nth(1).unwrap().to_owned();
    let none = format!("{}.{claims}.", b64(r#"{"alg":"none","kid":"k1"}"#));
    assert!(keys.verify(&none, NOW).is_err());
    // Signed with the public key as if it were a shared secret.
    let public: serde_json::Value = serde_json::from_str(&secret.for_nodes()).unwrap();
    let x = public["keys"][0]["x"].as_str().unwrap();
    let confused = format!(r#"{{"keys":[{{"kid":"k1","kty":"oct","alg":"HS256","k":"{x}"}}]}}"#);
    let confused = token_of(&Secret::read(&confused).unwrap(), &terms);
    assert_eq!(keys.verify(&confused, NOW), Err(TokenError::Algorithm));
    let no_kid = format!("{}.{claims}.AAAA", b64(r#"{"alg":"EdDSA"}"#));
    assert_eq!(keys.verify(&no_kid, NOW), Err(TokenError::UnknownKey));
}

#[test]
fn keys_are_changed_by_adding_the_new_one_first() {
    let terms = TokenTerms::default();
    let (old, new) = (
        Secret::generate(KeyKind::EdDsa, "old").unwrap(),
        Secret::generate(KeyKind::Hs256, "new").unwrap(),
    );
    let key = |secret: &Secret| {
        let set: serde_json::Value = serde_json::from_str(&secret.for_nodes()).unwrap();
        set["keys"][0].to_string()
    };
    let both = format!(r#"{{"keys":[{},{}]}}"#, key(&old), key(&new));
    let both = TokenKeys::read(&both, terms.clone()).unwrap();
    assert!(both.verify(&token_of(&old, &terms), NOW).is_ok());
    assert!(both.verify(&token_of(&new, &terms), NOW).is_ok());
    let only_new = TokenKeys::read(&new.for_nodes(), terms.clone()).unwrap();
    assert_eq!(only_new.verify(&token_of(&old, &terms), NOW), Err(TokenError::UnknownKey));
    // What was proven before: as long as the key is held that did.
    let proven = [&old, &new].map(|by| both.verify(&token_of(by, &terms), NOW).unwrap().key);
    assert_eq!(proven.map(|key| both.hold(&key)), [true, true]);
    assert_eq!(proven.map(|key| only_new.hold(&key)), [false, true]);
    let renewed = Secret::generate(KeyKind::Hs256, "new").unwrap();
    let renewed = TokenKeys::read(&renewed.for_nodes(), terms.clone()).unwrap();
    assert!(!renewed.hold(&proven[1]), "another key of the same name");
    for odd in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kid":"a","kty":"oct","alg":"HS256","k":"AAAA"}]}"#,
    ] {
        assert!(TokenKeys::read(odd, terms.clone()).is_err(), "{odd}");
    }
}
