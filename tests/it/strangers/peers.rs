// The service that is for nodes, called by somebody who is none: with all that nodes say to each
// other in his hands, but not with what proves that he is one.

use super::{KEY, standing, with_key};
use crate::tls::Pki;
use duramen::cluster::{CatalogueRecord, Command, TopicSettings};
use duramen::guards::tls::{ClientTls, TlsFiles};
use duramen::model::{FIRST_TOPIC, GroupId, NodeId, TopicName};
use duramen::testing::{Cluster, LoadPlan, block_on};
use duramen::wire::client::ClientError;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::peer::{PROTOCOL_MAX, PeerClient, PeerProof};
use pb::PeerKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Code;

const LONG: Duration = Duration::from_secs(20);
const LOAD: LoadPlan = LoadPlan { producers: 4, consumers: 1, records: 1, value_bytes: 100 };

/// Somebody who reaches a port.
#[derive(Clone, Default)]
struct Caller {
    proof: PeerProof,
    tls: Option<ClientTls>,
}

fn shows(directory: &Path, who: &str) -> Caller {
    let tls = ClientTls::new(&TlsFiles::in_dir(directory, who).load().unwrap()).unwrap();
    Caller { tls: Some(tls), ..Caller::default() }
}

impl Caller {
    async fn at(&self, cluster: &Cluster, number: usize) -> PeerClient {
        let address = cluster.node(number).rpc_addr().to_string();
        let connected = PeerClient::connect(&address, LONG, self.tls.as_ref()).await;
        connected.unwrap().proving(&self.proof)
    }
}

/// Node 2, as it introduces itself to node 1, with nothing of it wrong.
fn introduction(cluster: &Cluster, from: usize, to: usize) -> pb::Introduction {
    let catalogue = cluster.node(to).cluster().control.catalogue();
    let uuid = |number: usize| catalogue.nodes[&NodeId(number as u32)].uuid.clone();
    pb::Introduction {
        cluster_id: catalogue.cluster_id.clone(),
        node: from as u32,
        uuid: uuid(from),
        to: to as u32,
        to_uuid: uuid(to),
        protocol_min: 1,
        protocol_max: PROTOCOL_MAX,
        version: "9.9.9".into(),
    }
}

/// What would shake a group: each kind that carries a term, in the highest there is.
fn shaking(cluster: &Cluster, from: usize, to: usize, term: u64) -> pb::PeerFrame {
    let group = cluster.group(FIRST_TOPIC, 0);
    let replicas = cluster.node(to).cluster().control.catalogue();
    let replica = |number: usize, group: GroupId| {
        let of_log = replicas.topics.values().flat_map(|topic| &topic.partitions);
        let ids: Vec<_> = match group {
            GroupId::CONTROLLER => replicas.controller.voters.to_vec(),
            _ => of_log.flat_map(|it| it.replicas.iter().map(|it| it.id)).collect(),
        };
        let of_node = ids.into_iter().find(|id| id.node() == NodeId(number as u32));
        of_node.expect("it has a replica").raw()
    };
    let kinds = [
        PeerKind::Append,
        PeerKind::Vote,
        PeerKind::PreVote,
        PeerKind::Heartbeat,
        PeerKind::Snapshot,
        PeerKind::TimeoutNow,
        PeerKind::TransferLeader,
        PeerKind::Quiesce,
    ];
    let messages = [GroupId::CONTROLLER, group].into_iter().flat_map(|group| {
        kinds.map(|kind| pb::GroupMessage {
            group: group.raw(),
            kind: kind as i32,
            from: replica(from, group),
            to: replica(to, group),
            term,
            log_term: term,
            index: 1,
            snapshot: (kind == PeerKind::Snapshot).then(|| pb::GroupSnapshot {
                index: u64::MAX,
                term,
                ..Default::default()
            }),
            ..Default::default()
        })
    });
    pb::PeerFrame { messages: messages.collect(), ..Default::default() }
}

/// Introduces itself as `from` and sends a frame; how that was refused, where it was.
async fn exchange(
    caller: &Caller,
    cluster: &Cluster,
    (from, to): (usize, usize),
    frame: pb::PeerFrame,
) -> Option<Code> {
    let mut client = caller.at(cluster, to).await;
    let (frames, receiver) = mpsc::channel(2);
    let said = introduction(cluster, from, to);
    frames.send(frame).await.unwrap();
    match client.exchange(said, receiver).await {
        Ok(mut notices) => {
            drop(frames);
            // What it says to the frame, or that it has taken it.
            refused_with(&notices.next().await)
        }
        Err(error) => refused_with::<()>(&Err(error)),
    }
}

fn refused_with<T>(outcome: &Result<T, ClientError>) -> Option<Code> {
    match outcome {
        Ok(_) => None,
        Err(ClientError::Refused(refusal)) => Some(refusal.code),
        Err(error) => panic!("neither taken nor refused: {error}"),
    }
}

async fn join(caller: &Caller, cluster: &Cluster, to: usize) -> Option<Code> {
    let asked = pb::JoinRequest {
        uuid: "0b0e7c0a-0000-4000-8000-000000000000".into(),
        name: "ghost".into(),
        rpc_addr: "127.0.0.1:1".into(),
        gossip_addr: "127.0.0.1:1".into(),
        version: "9.9.9".into(),
        protocol_min: 1,
        protocol_max: PROTOCOL_MAX,
        ..Default::default()
    };
    refused_with(&caller.at(cluster, to).await.join(asked).await)
}

async fn change(caller: &Caller, cluster: &Cluster, to: usize, command: &Command) -> Option<Code> {
    let cluster_id = cluster.node(to).cluster().control.catalogue().cluster_id.clone();
    let command =
        CatalogueRecord::Command { command: command.clone(), absent: Vec::new(), by: None };
    let command = command.encode();
    let asked = pb::ChangeRequest { cluster_id, from: 2, command };
    refused_with(&caller.at(cluster, to).await.change(asked).await)
}

/// Plays all of it against every node; everything is refused with this code.
fn plays_everything(caller: &Caller, cluster: &Cluster, wanted: Code) {
    let numbers: Vec<usize> = cluster.nodes().map(|(number, _)| number).collect();
    for &to in &numbers {
        let from = if to == 2 { 3 } else { 2 };
        block_on(async {
            for _ in 0..3 {
                let frame = shaking(cluster, from, to, u64::MAX);
                let refused = exchange(caller, cluster, (from, to), frame).await;
                assert_eq!(refused, Some(wanted), "messages of groups, at {to}");
                assert_eq!(join(caller, cluster, to).await, Some(wanted), "a join, at {to}");
                for command in [
                    Command::Remove { node: NodeId(3) },
                    Command::Leave { node: NodeId(2) },
                    Command::RaiseProtocol { protocol: u32::MAX },
                ] {
                    let refused = change(caller, cluster, to, &command).await;
                    assert_eq!(refused, Some(wanted), "{command:?}, at {to}");
                }
            }
        });
    }
}

/// Shows that nothing has moved while strangers played.
fn moves_nothing(cluster: &Cluster, callers: &[(&Caller, Code)]) {
    cluster.until_healthy();
    let before = standing(cluster);
    for (caller, wanted) in callers {
        plays_everything(caller, cluster, *wanted);
    }
    assert_eq!(standing(cluster), before);
}

/// The control: who is believed to be node 2 moves a group to another term with one message.
fn a_node_moves_a_term(cluster: &Cluster, node: &Caller) {
    let before = standing(cluster).terms[1].1;
    let to = 1;
    let mut frame = shaking(cluster, 2, to, before.0 + 10);
    frame.messages.retain(|message| {
        message.kind == PeerKind::Heartbeat as i32 && message.group != GroupId::CONTROLLER.raw()
    });
    assert_eq!(block_on(exchange(node, cluster, (2, to), frame)), None);
    cluster.until("the group is in a later term", |cluster| {
        standing(cluster).terms[1].1.0 >= before.0 + 10
    });
    cluster.until_healthy();
    let topic = TopicName::new("made-by-a-node").unwrap();
    let (name, settings) = (topic.clone(), TopicSettings::default());
    let make = Command::CreateTopic { name, partitions: 1, replication_factor: 1, settings };
    for number in 1..=3 {
        // Whoever does not lead says who does.
        assert_eq!(block_on(change(node, cluster, number, &make)), None);
    }
    cluster.until("its command is carried out", |cluster| {
        cluster.node(1).cluster().control.catalogue().topics.contains_key(&topic)
    });
}

#[test]
fn without_the_key_nobody_moves_a_term_a_leader_or_a_member() {
    let cluster = Cluster::start_with(3, with_key);
    let (stranger, guesses) =
        (Caller::default(), Caller { proof: PeerProof::of(&[8; 32]), ..Caller::default() });
    let wanted = Code::Unauthenticated;
    cluster.until_healthy();
    let load = cluster.load(FIRST_TOPIC, LOAD);
    load.await_acknowledged(20);
    moves_nothing(&cluster, &[(&stranger, wanted), (&guesses, wanted)]);
    load.await_acknowledged(20);
    load.finish().assert_kept();
    let node = Caller { proof: PeerProof::of(&KEY), ..Caller::default() };
    a_node_moves_a_term(&cluster, &node);
}

#[test]
fn within_tls_a_client_is_no_node_and_a_node_no_other() {
    let pki = Rc::new(Pki::new());
    let cluster = {
        let pki = Rc::clone(&pki);
        Cluster::start_with(3, move |settings| {
            let name = settings.node.name.clone().unwrap();
            settings.tls.dir = Some(pki.node(&name));
        })
    };
    let mut client = shows(&pki.client("mallory"), "client");
    // The key of gossip counts for nothing within TLS.
    client.proof = PeerProof::of(&KEY);
    moves_nothing(&cluster, &[(&client, Code::PermissionDenied)]);
    let (before, other) = (standing(&cluster), shows(&pki.node("n7"), "node"));
    block_on(async {
        for to in 1..=3 {
            let from = if to == 2 { 3 } else { 2 };
            let frame = shaking(&cluster, from, to, u64::MAX);
            let refused = exchange(&other, &cluster, (from, to), frame).await;
            assert_eq!(refused, Some(Code::PermissionDenied), "it is not {from}");
            assert_eq!(join(&other, &cluster, to).await, Some(Code::PermissionDenied), "ghost");
            let leave = Command::Leave { node: NodeId(3) };
            let refused = change(&other, &cluster, to, &leave).await;
            assert_eq!(refused, Some(Code::PermissionDenied), "it is not n2");
        }
    });
    assert_eq!(standing(&cluster), before);
    a_node_moves_a_term(&cluster, &shows(&pki.node("n2"), "node"));
}

#[test]
fn without_key_and_tls_a_member_must_be_known_to_be_posed_as() {
    let cluster = Cluster::start(3);
    let before = standing(&cluster);
    type Alter = fn(&mut pb::Introduction);
    let cases: [(Alter, Code); 5] = [
        (|said| said.cluster_id = "another".into(), Code::PermissionDenied),
        (|said| said.uuid = "guessed".into(), Code::PermissionDenied),
        (|said| said.to_uuid = "guessed".into(), Code::FailedPrecondition),
        (|said| said.node = 77, Code::Unavailable),
        (|said| said.to = 3, Code::FailedPrecondition),
    ];
    for (alter, wanted) in cases {
        let mut said = introduction(&cluster, 2, 1);
        alter(&mut said);
        let outcome = block_on(async {
            let (_frames, receiver) = mpsc::channel(1);
            Caller::default().at(&cluster, 1).await.exchange(said, receiver).await
        });
        assert_eq!(refused_with(&outcome), Some(wanted));
    }
    assert_eq!(standing(&cluster), before);
    // docs/security.md says it: whoever knows all of it is believed.
    a_node_moves_a_term(&cluster, &Caller::default());
}
