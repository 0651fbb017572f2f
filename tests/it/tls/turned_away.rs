// Clients that no node lets in, or that let no node in, end and say why, and do not try until their time
// is over; where one node does, they go there.

use super::nodes::batch;
use super::{PATIENCE, Pki, Told, options};
use crate::harness::binary::{Binary, EXE, run};
use duramen::testing::block_on;
use duramen::wire::client::{ClusterClient, ClusterOptions, Place, ProducerOptions};
use std::process::Stdio;
use std::time::Instant;

/// What a command that ends with 69 says.
fn turned_away(arguments: &[&str]) -> String {
    let output = run(arguments, b"hello\n");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{arguments:?}: {told}");
    told
}

#[test]
fn whoever_is_let_in_nowhere_ends_with_the_reason_and_what_to_do() {
    let (pki, other) = (Pki::new(), Pki::new());
    let dir = pki.node("n1");
    let (gone, stranger) = (pki.client("gone"), other.client("ada"));
    pki.revoke(&gone, &dir);
    let data = tempfile::tempdir().unwrap();
    let flags = ["--tls-dir", dir.to_str().unwrap(), "--node-name", "n1"];
    let node = Binary::start_with(&data.path().join("n1"), &flags);
    let plain = Binary::start_with(&data.path().join("plain"), &[]);
    let gone = ["--tls-dir", gone.to_str().unwrap()];
    let stranger = ["--tls-dir", stranger.to_str().unwrap()];
    for (at, shown, why, advice) in [
        (&node, &[][..], "speaks TLS only", "duramen tls client NAME"),
        (&node, &gone, "the certificate shown to it is revoked", "duramen tls verify"),
        (&node, &stranger, "of a CA that is not trusted here", "where the node runs"),
        (&plain, &gone, "does not speak TLS", "leave --tls-dir"),
    ] {
        for command in [&["produce", "log"][..], &["consume", "log", "--follow"], &["ps"]] {
            let told = turned_away(&[command, &["--rpc-addr", &at.rpc], shown].concat());
            assert!(told.contains(why) && told.contains(advice), "{command:?}: {told}");
        }
    }
}

#[test]
fn a_reader_that_waits_ends_when_its_certificate_is_revoked() {
    let pki = Pki::new();
    let (dir, ada) = (pki.node("n1"), pki.client("ada"));
    let data = tempfile::tempdir().unwrap();
    let flags = ["--tls-dir", dir.to_str().unwrap(), "--node-name", "n1"];
    let node = Binary::start_with(data.path(), &flags);
    let shown = ["--rpc-addr", &node.rpc, "--tls-dir", ada.to_str().unwrap()];
    let produced = run(&[&["produce", "log"][..], &shown].concat(), b"hello\n");
    assert!(produced.status.success());
    let mut reader = std::process::Command::new(EXE)
        .args(["consume", "log", "--follow"])
        .args(shown)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut read = [0; 6];
    std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut read).unwrap();
    assert_eq!(&read, b"hello\n");
    pki.revoke(&ada, &dir);
    let deadline = Instant::now() + PATIENCE;
    while reader.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let _late = reader.kill();
    let ended = reader.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(69), "{told}");
    assert!(told.contains("the certificate shown to it is revoked"), "{told}");
}

#[test]
fn where_one_node_turns_a_client_away_and_another_lets_it_in_it_goes_there() {
    let pki = Pki::new();
    let (first, second, ada) = (pki.node("n1"), pki.node("n2"), pki.client("ada"));
    pki.revoke(&ada, &first);
    let nodes = [Told::start(&first, |_| {}), Told::start(&second, |_| {})];
    let addresses = nodes.each_ref().map(|told| told.node.rpc_addr().to_string());
    let at = |addresses: &[String]| {
        let options = ClusterOptions { client: options(&ada), ..ClusterOptions::default() };
        block_on(async {
            let cluster = ClusterClient::connect(addresses, options, None).await?;
            let mut producer = cluster.producer("log", ProducerOptions::default());
            let receipt = producer.send(Place::Partition(0), batch(b"hello")).await?;
            receipt.await.map(|delivered| delivered.ack.base_offset.0)
        })
    };
    assert_eq!(at(&addresses).unwrap(), 0);
    assert_eq!(at(&addresses[1..]).unwrap(), 1, "it is the second node's");
    let refused = at(&addresses[..1]).unwrap_err();
    assert!(refused.turned_away().is_some() && refused.is_definite(), "{refused:?}");
}
