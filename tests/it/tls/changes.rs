// Certificates change while a node runs: new ones are shown to whoever comes, old connections have a
// while, and whoever is revoked goes at once.

use super::{PATIENCE, Pki, Port, Told, issued, knock, options, replace, until_closed};
use duramen::guards::tls::{Reloaded, Tls, TlsFiles};
use duramen::testing::block_on;
use duramen::wire::client::{
    Client, ClientError, ClientOptions, Consistency, FetchOptions, Position, Target,
};
use std::time::Duration;

/// Waits for records.
const FOLLOW: FetchOptions = FetchOptions {
    position: Position::End,
    chunk_bytes_max: 0,
    records_max: None,
    follow: true,
    consistency: Consistency::Committed,
};

#[test]
fn whoever_is_revoked_is_put_out_at_once_and_comes_back_by_no_door() {
    let pki = Pki::new();
    let dir = pki.node("n1");
    let (ada, bob) = (pki.client("ada"), pki.client("bob"));
    let told = Told::start(&dir, |_| {});
    let address = told.node.rpc_addr().to_string();
    block_on(async {
        let mut streams = Vec::new();
        for port in Port::ALL {
            let config = pki.config(Some(&issued(&ada, "client")), port.protocol());
            // The same configuration keeps what a server gives out for a later resumption.
            let stream = knock(port, port.of(&told.node), config.clone()).await.unwrap();
            streams.push((port, config, stream));
        }
        // An open stream of each, which waits for records.
        let mut follower = Client::connect(&address, options(&ada)).await.unwrap();
        let mut chunks = follower.fetch(&Target::topic("log"), FOLLOW).await.unwrap();
        let mut other = Client::connect(&address, options(&bob)).await.unwrap();
        other.describe("log").await.unwrap();

        pki.revoke(&ada, &dir);
        let lost = tokio::time::timeout(PATIENCE, chunks.next()).await.expect("it is put out");
        assert!(matches!(lost, Err(ClientError::Lost { .. })), "{lost:?}");
        for (port, config, stream) in streams {
            until_closed(stream).await;
            assert!(knock(port, port.of(&told.node), config).await.is_err(), "{port:?}");
        }
        told.tells("a client was put out", 2).await;
        other.describe("log").await.expect("nobody else is touched");
    });
    assert_eq!(told.count("a connection made with earlier certificates is closed"), 0);
}

#[test]
fn a_server_that_is_revoked_is_left_by_whoever_reads_its_files_again() {
    let pki = Pki::new();
    let dir = pki.node("n1");
    let (ada, bob) = (pki.client("ada"), pki.client("bob"));
    let told = Told::start(&dir, |_| {});
    let address = told.node.rpc_addr().to_string();
    let tls = Tls::open(TlsFiles::in_dir(&ada, "client"), None).unwrap();
    let renewed = ClientOptions { tls: Some(tls.client()), ..ClientOptions::default() };
    block_on(async {
        let mut client = Client::connect(&address, renewed).await.unwrap();
        let mut once = Client::connect(&address, options(&ada)).await.unwrap();
        let mut chunks = client.fetch(&Target::topic("log"), FOLLOW).await.unwrap();
        pki.revoke(&bob, &ada);
        assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
        let waited = tokio::time::timeout(Duration::from_millis(300), chunks.next()).await;
        assert!(waited.is_err(), "a list without it changes nothing: {waited:?}");

        pki.revoke_file(&dir.join("node.pem"), &ada);
        assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
        let lost = tokio::time::timeout(PATIENCE, chunks.next()).await.expect("it is left");
        assert!(matches!(lost, Err(ClientError::Lost { .. })), "{lost:?}");
        let again = client.describe("log").await.unwrap_err();
        assert!(duramen::model::with_causes(&again).contains("revoked"), "{again:?}");
        once.describe("log").await.expect("who reads them once goes on");
    });
}

#[test]
fn a_new_certificate_is_shown_to_whoever_comes_and_old_connections_have_a_while() {
    let pki = Pki::new();
    let dir = pki.node("n1");
    let ada = pki.client("ada");
    let told = Told::start(&dir, |settings| {
        settings.tls.rotation_grace = Duration::from_millis(300);
    });
    let shown = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    block_on(async {
        for port in Port::ALL {
            let connect = async || {
                let config = pki.config(Some(&issued(&ada, "client")), port.protocol());
                knock(port, port.of(&told.node), config).await.unwrap()
            };
            let old = connect().await;
            let before = shown(&old);
            let in_force = told.count("certificates are in force");
            pki.node("n1");
            told.tells("certificates are in force", in_force).await;
            let new = connect().await;
            assert_ne!(shown(&new), before);
            until_closed(old).await;
        }
    });
}

#[test]
fn what_cannot_be_used_is_told_and_changes_nothing() {
    let pki = Pki::new();
    let dir = pki.node("n1");
    let ada = pki.client("ada");
    let told = Told::start(&dir, |_| {});
    let address = told.node.rpc_addr().to_string();
    block_on(async {
        let mut client = Client::connect(&address, options(&ada)).await.unwrap();
        replace(&dir.join("node.pem"), "half a fi");
        told.tells("those before stay in force", 0).await;
        client.describe("log").await.expect("old connections go on");
        let mut another = Client::connect(&address, options(&ada)).await.unwrap();
        another.describe("log").await.expect("new ones too");
    });
}
