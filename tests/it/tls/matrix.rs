// Everybody who is not to be let in, on every port: refused, told in the log, and without harm to
// who comes after.

use super::{Odd, PATIENCE, Pki, Port, Told, issued, knock, now, options, until_closed};
use duramen::guards::tls::{Issued, Wanted};
use duramen::testing::block_on;
use duramen::wire::client::{Client, ClientError, ClientOptions};
use duramen::wire::peer::PeerClient;
use rcgen::ExtendedKeyUsagePurpose;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// A greeting in an old version of TLS, with nothing newer offered.
fn old_greeting(version: u8) -> Vec<u8> {
    let mut hello = vec![3, version];
    hello.extend([7; 32]);
    hello.push(0);
    // Suites: ECDHE-RSA-AES128-SHA, RSA-AES128-SHA.
    hello.extend([0, 4, 0xc0, 0x13, 0, 0x2f]);
    hello.extend([1, 0]);
    // Groups and point formats.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0];
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

/// Says these bytes, and gives back what is answered until the connection is closed.
async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = read.expect("the connection is closed");
    answer
}

async fn refused(told: &Told, port: Port, pki: &Pki, shown: Option<&Issued>, reason: &str) {
    let before = told.count(reason);
    let config = pki.config(shown, port.protocol());
    let knocked = knock(port, port.of(&told.node), config).await;
    assert!(knocked.is_err(), "{port:?}: {reason}");
    told.tells(reason, before).await;
}

#[test]
fn whoever_is_not_to_be_let_in_is_refused_on_every_port_and_told_in_the_log() {
    let (pki, other) = (Pki::new(), Pki::new());
    let dir = pki.node("n1");
    let gone = pki.client("gone");
    pki.revoke(&gone, &dir);
    let told = Told::start(&dir, |_| {});
    let impostor = pki.impostor().issue(&Wanted::Client { name: "ada".into() }, now(), 30).unwrap();
    let (good, gone) = (issued(&pki.client("ada"), "client"), issued(&gone, "client"));
    let stranger = issued(&other.client("ada"), "client");
    let odd = |odd: Odd| pki.odd(&odd);
    let named = || Odd { common: Some("ada"), ..Odd::default() };
    let server_only = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cases = [
        (None, "it shows no certificate"),
        (Some(stranger), "of a CA that is not trusted here"),
        (Some(impostor), "was not signed by the CA that it names"),
        (Some(odd(Odd { self_signed: true, ..named() })), "of a CA that is not trusted here"),
        (Some(odd(Odd { valid: Some((-3, -1)), ..named() })), "its certificate has expired"),
        (Some(odd(Odd { valid: Some((1, 3)), ..named() })), "its certificate is not valid yet"),
        (Some(odd(Odd { usages: Some(server_only), ..named() })), "not for this side"),
        (Some(gone), "its certificate is revoked"),
        (Some(odd(Odd { common: Some("ada\nroot"), ..Odd::default() })), "control characters"),
        (
            Some(odd(Odd { uris: &["duramen://ada", "duramen://root"], ..Odd::default() })),
            "more than one name of a client",
        ),
    ];
    block_on(async {
        for port in Port::ALL {
            let address = port.of(&told.node);
            for (shown, reason) in &cases {
                refused(&told, port, &pki, shown.as_ref(), reason).await;
            }
            for version in [1, 2] {
                let before = told.count("neither TLS 1.3 nor 1.2");
                let answer = say(address, &old_greeting(version)).await;
                assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
                told.tells("neither TLS 1.3 nor 1.2", before).await;
            }
            let plain = "it speaks without TLS on a TLS port";
            for (bytes, answered) in [
                (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "this port speaks TLS only"),
                (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "this port speaks TLS only"),
                (b"\x80\x2e\x01\x03\x01nonsense", ""),
            ] {
                let before = told.count(plain);
                let answer = String::from_utf8_lossy(&say(address, bytes).await).into_owned();
                assert!(answer.contains(answered), "{answer}");
                told.tells(plain, before).await;
            }
            let before = told.count("what it says is not TLS");
            say(address, b"\x16nonsense that is no record of TLS").await;
            told.tells("what it says is not TLS", before).await;
            let before = told.count("another protocol");
            let config = pki.config(Some(&good), b"smtp");
            assert!(knock(port, address, config).await.is_err());
            told.tells("another protocol", before).await;
            // What shows that all that was refused for what it is.
            knock(port, address, pki.config(Some(&good), port.protocol())).await.unwrap();
        }
    });
    assert!(told.count("\"level\":\"CRIT\"") == 0 && told.count("panic") == 0);
}

#[test]
fn a_client_without_tls_and_one_with_the_wrong_host_or_ca_find_out_themselves() {
    let (pki, other) = (Pki::new(), Pki::new());
    let told = Told::start(&pki.node("n1"), |_| {});
    let address = told.node.rpc_addr().to_string();
    let ada = pki.client("ada");
    block_on(async {
        let mut plain = Client::connect(&address, ClientOptions::default()).await.unwrap();
        let error = plain.describe("log").await.unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }), "{error}");
        let stranger = Client::connect(&address, options(&other.client("ada"))).await.unwrap_err();
        let text = format!("{:?}", stranger);
        assert!(text.contains("not trusted here"), "{text}");
        let elsewhere = address.replace("127.0.0.1", "127.0.0.2");
        let elsewhere = Client::connect(&elsewhere, options(&ada)).await;
        assert!(elsewhere.is_err(), "nobody is there, or not whom the certificate names");
        let mut good = Client::connect(&address, options(&ada)).await.unwrap();
        good.describe("log").await.unwrap();
    });
}

#[test]
fn a_node_is_no_client_and_a_client_is_no_node() {
    let pki = Pki::new();
    let dir = pki.node("n1");
    let told = Told::start(&dir, |_| {});
    let address = told.node.rpc_addr().to_string();
    let as_client = |dir: &std::path::Path, who: &str| {
        let files = duramen::guards::tls::TlsFiles::in_dir(dir, who);
        duramen::guards::tls::ClientTls::new(&files.load().unwrap()).unwrap()
    };
    let (ada, n2) = (pki.client("ada"), pki.node("n2"));
    let code = |error: ClientError| match error {
        ClientError::Refused(refusal) => (refusal.code, refusal.message),
        other => panic!("{other}"),
    };
    block_on(async {
        let node = ClientOptions { tls: Some(as_client(&n2, "node")), ..ClientOptions::default() };
        let mut node = Client::connect(&address, node).await.unwrap();
        let (refused, why) = code(node.describe("log").await.unwrap_err());
        assert_eq!(refused, Code::PermissionDenied);
        assert!(why.contains("is a node's"), "{why}");
        let config = pki.config(Some(&issued(&n2, "node")), Port::Http.protocol());
        // A probe is answered, records are not.
        let mut http = knock(Port::Http, told.node.http_addr(), config).await.unwrap();
        http.write_all(b"GET /v1/topics/log/records HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        http.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 403");
        let servers = node.servers().await.unwrap_err();
        assert_eq!(code(servers).0, Code::PermissionDenied);

        let join = |name: &str| duramen::wire::pb::duramen::v1::JoinRequest {
            name: name.into(),
            ..Default::default()
        };
        let (as_ada, as_n2) = (as_client(&ada, "client"), as_client(&n2, "node"));
        for (tls, name, expected) in [
            (&as_ada, "n2", "only nodes may call this"),
            (&as_n2, "n3", "the certificate is that of the node n2"),
        ] {
            let mut peer = PeerClient::connect(&address, PATIENCE, Some(tls)).await.unwrap();
            let (refused, why) = code(peer.join(join(name)).await.unwrap_err());
            assert_eq!(refused, Code::PermissionDenied);
            assert!(why.contains(expected), "{why}");
        }
        let mut peer = PeerClient::connect(&address, PATIENCE, Some(&as_ada)).await.unwrap();
        let change = code(peer.change(Default::default()).await.unwrap_err());
        let (_frames, receiver) = tokio::sync::mpsc::channel(1);
        let exchange = code(peer.exchange(Default::default(), receiver).await.unwrap_err());
        for (refused, why) in [change, exchange] {
            assert_eq!(refused, Code::PermissionDenied);
            assert!(why.contains("only nodes may call this"), "{why}");
        }
        // What shows that those are refused for who they are: this one is heard, and wrong otherwise.
        let mut peer = PeerClient::connect(&address, PATIENCE, Some(&as_n2)).await.unwrap();
        let heard = peer.join(join("n2")).await;
        if let Err(error) = heard {
            let (_, why) = code(error);
            assert!(!why.contains("certificate"), "{why}");
        }
    });
}

#[test]
fn five_thousand_that_only_hold_a_place_keep_nobody_out() {
    let pki = Pki::new();
    let told = Told::start(&pki.node("n1"), |_| {});
    let good = issued(&pki.client("ada"), "client");
    block_on(async {
        for port in Port::ALL {
            let address = port.of(&told.node);
            let mut held = Vec::new();
            for number in 0..5000 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // The first half of a greeting.
                let _ = stream.write_all(&old_greeting(3)[..20]).await;
                held.push(stream);
                if held.len() > 900 {
                    held.drain(..300);
                }
                if number % 1000 == 999 {
                    let config = pki.config(Some(&good), port.protocol());
                    knock(port, address, config).await.unwrap();
                }
            }
            told.tells("gave way to newer ones", 0).await;
            drop(held);
            let config = pki.config(Some(&good), port.protocol());
            until_closed_after(knock(port, address, config).await.unwrap()).await;
        }
    });
    let warned = told.count("a client was not let in");
    assert!(warned < 200, "{warned} lines of 10,000 are more than anybody reads");
}

#[test]
fn half_a_greeting_is_waited_for_and_not_for_ever() {
    let pki = Pki::new();
    let told = Told::start(&pki.node("n1"), |_| {});
    block_on(async {
        let mut held = Vec::new();
        for port in Port::ALL {
            let mut stream = TcpStream::connect(port.of(&told.node)).await.unwrap();
            stream.write_all(&old_greeting(3)[..20]).await.unwrap();
            held.push(stream);
        }
        told.tells("it did not finish within 10s", 1).await;
        for mut stream in held {
            // A reset is an end too.
            assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)), "it is closed");
        }
    });
}

/// Ends a connection from this side.
async fn until_closed_after(mut stream: tokio_rustls::client::TlsStream<TcpStream>) {
    stream.shutdown().await.unwrap();
    until_closed(stream).await;
}
