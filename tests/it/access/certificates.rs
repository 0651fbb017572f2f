// Certificates and rights together: who a certificate is for is judged like whom a token names, and
// nodes are believed by their certificates alone.

use super::cluster::forwarded;
use super::ports::refusal;
use super::raw::{OPEN_TO_THE_KNOWN, methods};
use super::{Issuer, batch, change, code, raw};
use crate::tls::{Pki, Port, issued, options};
use duramen::guards::tls::{ClientTls, TlsFiles};
use duramen::model::FIRST_TOPIC;
use duramen::testing::{Cluster, TestNode, block_on, until};
use duramen::wire::client::{Admin, Bearer, Client, ClientOptions, Target};
use duramen::wire::pb::duramen::v1::change_access_request::Change;
use duramen::wire::peer::PeerProof;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

fn client(address: SocketAddr, options: ClientOptions) -> Client {
    block_on(Client::connect(&address.to_string(), options)).expect("the node answers")
}

fn tls(dir: &Path, who: &str) -> ClientTls {
    ClientTls::new(&TlsFiles::in_dir(dir, who).load().unwrap()).unwrap()
}

/// Puts this policy in force.
fn enforce(admin: &mut Admin, policy: &str) {
    change(admin, Change::Load(format!("p, root, *, *\n{policy}")));
}

/// A node within TLS that takes tokens as well, and denies what no rule permits.
fn node(pki: &Pki, issuer: &Issuer) -> TestNode {
    let dir = pki.node("n1");
    let builder = TestNode::builder().settings(|settings| {
        issuer.trusted()(settings);
        settings.tls.dir = Some(dir);
        settings.access.enabled = true;
    });
    builder.start()
}

/// What the canary is told: to do what to what.
fn lacking(path: &str) -> String {
    let (service, method) = path[1..].split_once('/').unwrap();
    let of = |action: &str, object: &str| format!("canary not permitted to {action} to {object}");
    match (service, method) {
        ("log.v1.Log", "Produce" | "ProduceStream") => of("produce", "*"),
        ("log.v1.Log", _) => of("consume", "*"),
        ("duramen.v1.Log", "Produce" | "ProduceOnce") => of("produce", "other"),
        ("duramen.v1.Log", "Describe") => of("describe", "other"),
        ("duramen.v1.Log", _) => of("consume", "other"),
        ("duramen.v1.Admin", "ClusterStatus") => of("describe", "*"),
        ("duramen.v1.Admin", method) => match method.strip_suffix("Topic") {
            Some(action) => of(&action.to_lowercase(), "other"),
            None => of("admin", "*"),
        },
        ("duramen.v1.Observe", "Command" | "SetLogLevels") => of("admin", "*"),
        ("duramen.v1.Observe", _) => of("observe", "*"),
        _ => "only nodes may call this, and the certificate is that of canary, no node's: it has to say \
              duramen://peer/NAME (duramen tls node NAME)"
            .into(),
    }
}

#[test]
fn a_certificate_without_rights_gets_nothing_by_any_method_and_one_with_them_does() {
    let (pki, issuer) = (Pki::new(), Issuer::new());
    let node = node(&pki, &issuer);
    let [root, canary] = ["root", "canary"].map(|name| pki.client(name));
    enforce(&mut client(node.rpc_addr(), options(&root)).admin(), "");
    let [root, canary] = [root, canary].map(|dir| tls(&dir, "client"));
    let told = |path: &str, tls| refusal(raw::secured(node.rpc_addr(), tls), path, None);
    for path in methods() {
        let expected = (!OPEN_TO_THE_KNOWN.contains(&&*path))
            .then(|| (Code::PermissionDenied, lacking(&path)));
        assert_eq!(told(&path, &canary), expected, "{path}");
        // The control; what it asks for makes no sense, and that is what it is told.
        if !path.starts_with("/duramen.v1.Peer/") && !path.ends_with("LeaveNode") {
            let told = told(&path, &root).map(|(code, _)| code);
            let refused = [Some(Code::PermissionDenied), Some(Code::Unauthenticated)];
            assert!(!refused.contains(&told), "{path}: {told:?}");
        }
    }
    assert_eq!(told("/grpc.health.v1.Health/Check", &canary), None);
}

/// One request within TLS.
fn https(
    pki: &Pki,
    node: &TestNode,
    who: &Path,
    request: (&str, &str, &str),
    token: Option<&str>,
) -> (u16, String) {
    let config = pki.config(Some(&issued(who, "client")), Port::Http.protocol());
    let (method, path, body) = request;
    let header = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    let text = block_on(async {
        let tcp = TcpStream::connect(node.http_addr()).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    });
    let text = text.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn the_http_port_judges_certificates_and_the_tokens_that_come_with_them() {
    let (pki, issuer) = (Pki::new(), Issuer::new());
    let node = node(&pki, &issuer);
    let [root, canary, alice] = ["root", "canary", "alice"].map(|name| pki.client(name));
    let policy = "p, alice, log, produce\np, alice, log, consume\np, alice, *, observe";
    enforce(&mut client(node.rpc_addr(), options(&root)).admin(), policy);
    let record = r#"{"records":[{"value":"aGk="}]}"#;
    let requests = [
        (("POST", "/", r#"{"record":{"value":"aGk="}}"#), "produce to *"),
        (("GET", "/", r#"{"offset":0}"#), "consume to *"),
        (("POST", "/v1/topics/log/records", record), "produce to log"),
        (("GET", "/v1/topics/log/records", ""), "consume to log"),
        (("GET", "/metrics", ""), "observe to *"),
        (("GET", "/observe/tree", ""), "observe to *"),
        (("GET", "/observe/explain", ""), "observe to *"),
    ];
    let of_alice = issuer.token("alice");
    for (request, lacks) in requests {
        let (status, text) = https(&pki, &node, &canary, request, None);
        assert_eq!(status, 403, "{request:?}: {text}");
        assert!(text.contains(&format!("canary not permitted to {lacks}")), "{request:?}: {text}");
        let (status, text) = https(&pki, &node, &alice, request, None);
        assert_eq!(status, 200, "{request:?}: {text}");
        // A token says who asks, whose connection it is does not matter; a damaged one names nobody.
        let (status, text) = https(&pki, &node, &canary, request, Some(&of_alice));
        assert_eq!(status, 200, "{request:?}: {text}");
        let (status, text) = https(&pki, &node, &alice, request, Some("nonsense"));
        assert_eq!(status, 401, "{request:?}: {text}");
    }
    assert_eq!(https(&pki, &node, &canary, ("GET", "/livez", ""), None).0, 200);
}

#[test]
fn a_token_within_tls_says_who_asks() {
    let (pki, issuer) = (Pki::new(), Issuer::new());
    let node = node(&pki, &issuer);
    let canary = options(&pki.client("canary"));
    let root = options(&pki.client("root"));
    enforce(&mut client(node.rpc_addr(), root).admin(), "p, alice, log, produce");
    let mut without = client(node.rpc_addr(), canary.clone());
    let log = Target::topic(FIRST_TOPIC);
    let refused = block_on(without.produce_once(&log, batch("x")));
    assert_eq!(code(&refused), Some(Code::PermissionDenied), "{refused:?}");
    let token = Bearer::new(&issuer.token("alice")).unwrap();
    let mut alice = client(node.rpc_addr(), ClientOptions { token, ..canary.clone() });
    block_on(alice.produce_once(&log, batch("alice"))).unwrap();
    let token = Bearer::new("made.up.token").unwrap();
    let mut nobody = client(node.rpc_addr(), ClientOptions { token, ..canary });
    let refused = block_on(nobody.produce_once(&log, batch("x")));
    assert_eq!(code(&refused), Some(Code::Unauthenticated), "{refused:?}");
    // Who comes as a node is none the less no client for a token.
    let token = Bearer::new(&issuer.token("alice")).unwrap();
    let as_node = Some(tls(&pki.node("n2"), "node"));
    let as_node = ClientOptions { tls: as_node, token, ..ClientOptions::default() };
    let refused = block_on(client(node.rpc_addr(), as_node).produce_once(&log, batch("x")));
    assert_eq!(code(&refused), Some(Code::PermissionDenied), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("is a node's"));
    assert_eq!(node.values().unwrap(), [b"alice"]);
}

#[test]
fn a_node_joins_by_its_certificate_and_is_believed_for_whom_it_passes_on() {
    let (pki, issuer) = (Rc::new(Pki::new()), Issuer::new());
    let of_nodes = Rc::clone(&pki);
    let trusted = issuer.trusted();
    let mut cluster = Cluster::start_with(2, move |settings| {
        trusted(settings);
        settings.tls.dir = Some(of_nodes.node(settings.node.name.as_ref().unwrap()));
        settings.access.enabled = true;
    });
    let [root, canary, alice] = ["root", "canary", "alice"].map(|name| pki.client(name));
    let mut admin = client(cluster.node(1).rpc_addr(), options(&root)).admin();
    enforce(&mut admin, "p, alice, log, *");
    let log = Target::topic(FIRST_TOPIC);

    // No key of gossip is anywhere: what proves the node is its certificate.
    let joining = cluster.builder().start();
    let mut early = client(joining.rpc_addr(), options(&canary));
    assert!(block_on(early.produce_once(&log, batch("early"))).is_err(), "from its first moment");
    cluster.admit(joining);
    cluster.until_healthy();

    let leader = cluster.leader_of(FIRST_TOPIC, 0);
    let mut passed_on = 0;
    for (number, node) in cluster.nodes() {
        let mut alice = client(node.rpc_addr(), options(&alice));
        until("alice may", || block_on(alice.produce_once(&log, batch("alice"))).is_ok());
        let mut canary = client(node.rpc_addr(), options(&canary));
        let refused = block_on(canary.produce_once(&log, batch("canary")));
        let text = format!("canary not permitted to produce to {FIRST_TOPIC}");
        assert!(refused.unwrap_err().to_string().contains(&text), "{number}");
        passed_on += u32::from(number != leader);
    }
    assert_eq!(passed_on, 2, "of the nodes that alice asked, as many pass on");

    let aim = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).rpc_addr();
    let header = ("duramen-forwarded", "1".to_owned());
    let forge = |tls: ClientTls, metadata| async move {
        forwarded(raw::secured(aim, &tls).await, metadata).await
    };
    let forged = block_on(forge(tls(&canary, "client"), vec![header.clone()]));
    let forged = forged.unwrap().unwrap();
    assert_eq!(forged.code, Code::PermissionDenied as i32);
    assert!(forged.message.starts_with("canary not permitted"), "{}", forged.message);
    // The control: a node is believed for whom it asks.
    let believed = block_on(forge(tls(&pki.node("n9"), "node"), vec![header.clone()]));
    assert_eq!(believed.unwrap(), None);
    let stored = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).values().unwrap();
    assert!(stored.iter().all(|value| value == b"alice" || value == b"forged"), "{stored:?}");
}

#[test]
fn within_tls_the_key_of_gossip_makes_nobody_a_node() {
    let pki = Pki::new();
    let key: Vec<u8> = (0..32).collect();
    let dir = pki.node("n1");
    let node = TestNode::builder().settings(|settings| {
        settings.tls.dir = Some(dir);
        settings.access.enabled = true;
        settings.access.admins = vec!["root".into()];
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        settings.gossip.key = duramen::ops::settings::Value::read(&hex).expect("a key");
    });
    let node = node.start();
    let root = options(&pki.client("root"));
    enforce(&mut client(node.rpc_addr(), root).admin(), "p, alice, log, produce");
    let mut request = tonic::Request::new(());
    PeerProof::of(&key).show(&mut request);
    let proof = request.metadata().get("duramen-peer-proof").unwrap().to_str().unwrap().to_owned();
    let metadata = vec![("duramen-forwarded", "1".to_owned()), ("duramen-peer-proof", proof)];
    let try_as = |dir: &Path, who: &str| {
        let tls = tls(dir, who);
        let channel = raw::secured(node.rpc_addr(), &tls);
        block_on(async { forwarded(channel.await, metadata.clone()).await })
    };
    let forged = try_as(&pki.client("canary"), "client").unwrap().unwrap();
    assert!(forged.message.starts_with("canary not permitted"), "{}", forged.message);
    assert_eq!(try_as(&pki.node("n2"), "node").unwrap(), None);
}
