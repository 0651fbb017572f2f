// Where handshakes are made: not on the thread that serves.

use super::{Pki, Port, Told, issued};
use duramen::actors::partition::PartitionApi;
use duramen::model::{Record, Timestamp};
use duramen::observe::{Mishap, Outcome};
use duramen::testing::block_on;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const RAFT: &str = "node/partitions/log/0/raft";
/// Longer than a handshake takes on any machine.
const HANG: Duration = Duration::from_secs(10);

/// Goal: handshakes take no time of a partition's thread. Method: that thread sleeps within a message,
/// and clients shake hands meanwhile; the message is still in hand when they are through. A client is
/// through when the node has shown and signed its certificate.
#[test]
fn clients_shake_hands_while_the_thread_that_serves_hangs() {
    let pki = Pki::new();
    let dir = pki.node("n1");
    let told = Told::start(&dir, |settings| settings.supervision.hang_after = 6 * HANG);
    told.node.ready();
    let ada = issued(&pki.client("ada"), "client");
    let shake = || async {
        let config = pki.config(Some(&ada), Port::Grpc.protocol());
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tcp = TcpStream::connect(told.node.rpc_addr()).await.unwrap();
        TlsConnector::from(config).connect(name, tcp).await.unwrap()
    };
    // The port is served.
    block_on(shake());
    told.node.on_message(RAFT, "Propose", 1, Mishap::Delay(HANG));
    let pending = told.node.log().propose_records(vec![Record::of_value("held up", Timestamp(0))]);
    told.node.await_message(RAFT, "Propose", Outcome::Handling);
    block_on(async {
        for _ in 0..3 {
            shake().await;
        }
    });
    let in_hand = told.node.recorder(RAFT).ring();
    let hangs =
        |entry: &_| matches!(entry, duramen::observe::Entry { outcome: Outcome::Handling, .. });
    assert!(in_hand.iter().any(hangs), "the thread hangs still: {in_hand:?}");
    block_on(pending.unwrap()).unwrap();
}
