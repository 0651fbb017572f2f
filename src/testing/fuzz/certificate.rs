//! Certificates and lists of revoked ones, as they come in a handshake or a file.

use crate::guards::tls::{Authority, Described, Host, Identity, Wanted, describe, revoked_in};
use crate::model::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const KINDS: u8 = 2;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = super::choice(bytes, KINDS) else { return };
    if kind == 1 {
        assert_eq!(revoked_in(bytes), revoked_in(bytes), "two looks at the same list");
        return;
    }
    let certificate = bytes.into();
    let identity = Identity::of(&certificate);
    let described = describe(&certificate);
    if let Ok(Identity { subject, peer }) = &identity {
        for name in subject.iter().chain(peer) {
            assert!((1..=256).contains(&name.len()), "a name that is none, or too long");
            assert!(!name.chars().any(char::is_control), "a name that moves a cursor");
        }
        let shown = identity.clone().map(|identity| identity.caller().to_string());
        assert!(!shown.is_ok_and(|shown| shown.chars().any(char::is_control)), "as it is shown");
    }
    if let Ok(Described { identity: told, .. }) = &described {
        let same = told.as_ref().ok() == identity.as_ref().ok();
        assert!(same || identity.is_err(), "told as it is believed");
        let role = described.as_ref().map(Described::role);
        assert!(!role.is_ok_and(|role| role.chars().any(char::is_control)), "as it is shown");
    }
    assert_eq!(described, describe(&certificate), "two looks at the same certificate");
}

/// Keys are drawn, so these differ each time they are made.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (authority, root) = Authority::new("fuzz", NOW, 30).expect("a key can be made");
    let wanted = [
        Wanted::Client { name: SUBJECT.into() },
        Wanted::Node {
            name: "n1".into(),
            hosts: vec![
                Host::Name("node-1.example.net".into()),
                Host::Address([127, 0, 0, 1].into()),
            ],
            also_client: true,
        },
    ];
    let issued = wanted.map(|wanted| authority.issue(&wanted, NOW, 30).expect("it can be issued"));
    let pems = issued.iter().map(|issued| &issued.certificate).chain([&root.certificate]);
    pems.map(|pem| super::of_kind(0, der(pem))).collect()
}

const SUBJECT: &str = "alice";

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    STANDARD.decode(lines.collect::<String>()).expect("what a PEM holds")
}
