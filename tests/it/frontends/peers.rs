//! What nodes may rely on when they talk to each other: replicators on one side, the real gRPC front
//! end on the other, over loopback. Only the replicas behind them are scripted.

use super::peer_nodes::*;
use super::server::until;
use bytes::Bytes;
use duramen::actors::addresses::{Addresses, LocalIdentity, Standing, Whereabouts};
use duramen::actors::control::ControlApi;
use duramen::actors::peers::{Outgoing, PeerPost};
use duramen::actors::presence::{PresenceBoard, Present, Seen};
use duramen::actors::replicator::{OutboxLimits, ReplicatorOptions};
use duramen::cluster::NodeState;
use duramen::frontends::grpc::RpcLimits;
use duramen::log::batch::BatchBuilder;
use duramen::log::disk::RealDisk;
use duramen::log::{Entry, EntryPayload, Log, LogOptions};
use duramen::model::{
    GroupId, PeerEntry, PeerKind, PeerMessage, PeerPayload, RaftIndex, Record, ReplicaId,
    SystemClock, Term, Timestamp,
};
use duramen::raft::Membership;
use duramen::supervision::Fault;
use duramen::wire::client::ClientError;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::peer::{Denial, PeerClient};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

#[test]
fn messages_arrive_whole_and_in_order_and_so_does_who_leads() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let sender = Sender::start(&controller, quick(), N2).await;
        let me = ReplicaId::new(N1, 1);
        sender.leadership.leads_here(GroupId::LOG, Term(3), me, Arc::new(Membership::lone(me)));
        let sent: Vec<PeerMessage> = (0..300).map(append).collect();
        for message in &sent {
            sender.post(N2, message).await;
        }
        until("all arrived", || receiver.arrived.count() == sent.len()).await;
        assert_eq!(receiver.arrived.all(), sent);
        let leader = || receiver.leadership.of(GroupId::LOG).and_then(|known| known.leader);
        until("the leader is known", || leader() == Some(me)).await;
        let me = ReplicaId::new(N1, 9);
        sender.leadership.leads_here(GroupId::LOG, Term(4), me, Arc::new(Membership::lone(me)));
        until("the next one is, too", || leader() == Some(me)).await;
        until("nothing waits", || sender.reading("duramen_peer_queue_messages", N2) == 0).await;
        assert_eq!(sender.reading("duramen_peer_queue_bytes", N2), 0);
        assert!(!sender.peers.post(N3, vec![]), "nobody leads there");
    });
}

#[test]
fn the_heartbeats_of_a_thousand_groups_are_a_few_frames() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let sender = Sender::start(&controller, quick(), N2).await;
        sender.post(N2, &beat(0)).await;
        until("there is a connection", || receiver.arrived.count() == 1).await;
        let frames = || sender.reading("duramen_peer_frames_total", N2);
        let before = frames();
        for partition in 0..1000 {
            let messages = vec![Outgoing { message: beat(partition), log: None }];
            assert!(sender.peers.post(N2, messages));
        }
        until("all arrived", || receiver.arrived.count() == 1001).await;
        assert_eq!(sender.reading("duramen_peer_messages_total", N2), 1001);
        assert!(frames() - before <= 10, "{} frames", frames() - before);
        // Something that shows that the count can be another: with pauses each has its own.
        let before = frames();
        for partition in 0..20 {
            let count = receiver.arrived.count();
            sender.post(N2, &beat(partition)).await;
            until("it arrived", || receiver.arrived.count() > count).await;
        }
        assert_eq!(frames() - before, 20);
    });
}

#[test]
fn a_peer_that_dies_and_comes_back_elsewhere_is_found_by_catalogue_and_by_gossip() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let sender = Sender::start(&controller, quick(), N2).await;
        sender.post(N2, &append(1)).await;
        until("it arrived", || receiver.arrived.count() == 1).await;
        receiver.die();
        until("the loss is told", || sender.lost.count() == 1).await;
        let receiver = Receiver::start(identity(N2), &controller);
        sender.bring(N2, &append(2), &receiver.arrived).await;
        assert_eq!(*sender.lost.0.lock().unwrap(), [N2], "told once, however often it was tried");

        // The catalogue has a wrong address from now on; gossip has seen where the node is.
        receiver.die();
        let receiver = Receiver::start(identity(N2), &controller);
        let address = receiver.server.address.to_string();
        controller.moved(N2, "127.0.0.1:1".parse().unwrap());
        let present = Present {
            uuid: uuid(N2),
            node: Some(N2),
            cluster_id: "birch".into(),
            name: "n2".into(),
            rpc_addr: address,
            gossip_addr: String::new(),
            protocol_max: 1,
            labels: Default::default(),
            told: Default::default(),
            seen: Seen::Alive,
            since: Duration::ZERO,
        };
        sender.presence.tell(BTreeMap::from([(uuid(N2), present)]));
        sender.bring(N2, &append(3), &receiver.arrived).await;
        assert!(sender.reading("duramen_peer_connections_total", N2) >= 3);
    });
}

#[test]
fn a_crash_of_a_replicator_costs_a_connection() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let sender = Sender::start(&controller, quick(), N2).await;
        sender.post(N2, &append(1)).await;
        until("it arrived", || receiver.arrived.count() == 1).await;
        let actor = sender.peers.actor(N2).unwrap();
        sender.tree.inject(actor.path(), Fault::Panic("test".into())).await.unwrap();
        until("it is back", || actor.generation() == 2).await;
        sender.bring(N2, &append(2), &receiver.arrived).await;
        assert_eq!(sender.reading("duramen_peer_connections_total", N2), 2);
    });
}

fn introduction() -> pb::Introduction {
    pb::Introduction {
        cluster_id: "birch".into(),
        node: 1,
        uuid: uuid(N1),
        to: 2,
        to_uuid: uuid(N2),
        protocol_min: 1,
        protocol_max: 1,
        version: "9.9.9".into(),
    }
}

/// Introduces itself to a node, as whoever the test says.
async fn introduce(
    address: SocketAddr,
    introduction: pb::Introduction,
) -> Result<(mpsc::Sender<pb::PeerFrame>, duramen::wire::peer::Notices), ClientError> {
    let mut client = PeerClient::connect(&address.to_string(), LONG, None).await.unwrap();
    let (frames, receiver) = mpsc::channel(1);
    client.exchange(introduction, receiver).await.map(|notices| (frames, notices))
}

#[test]
fn strangers_are_turned_away_and_told_why() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let address = receiver.server.address;
        assert!(introduce(address, introduction()).await.is_ok(), "a member is let in");
        type Alter = fn(&mut pb::Introduction);
        let cases: [(Alter, Denial, &str); 6] = [
            (
                |i| i.cluster_id = "oak".into(),
                Denial::Foreign,
                "n1 is a node of another cluster (oak)",
            ),
            (|i| i.uuid = "wiped".into(), Denial::Foreign, "a wiped directory must not vote"),
            (
                |i| i.to = 3,
                Denial::NotNow,
                "n1 looks for n3 with the directory uuid-of-n2, and this is n2",
            ),
            (
                |i| i.to_uuid = "old".into(),
                Denial::NotNow,
                "with the directory old, and this is n2",
            ),
            (
                |i| (i.protocol_min, i.protocol_max) = (3, 4),
                Denial::NotNow,
                "speaks protocols 3 to 4",
            ),
            (|i| i.node = 7, Denial::Unavailable, "does not know a node n7 yet"),
        ];
        for (alter, denial, text) in cases {
            let mut said = introduction();
            alter(&mut said);
            let Err(ClientError::Refused(refusal)) = introduce(address, said).await else {
                panic!("let in: {text}")
            };
            assert!(refusal.message.contains(text), "{} is not: {text}", refusal.message);
            assert_eq!(Denial::of(&refusal), denial, "{text}");
        }
        controller.alter(|c| c.nodes.get_mut(&N1).unwrap().state = NodeState::Removed);
        let Err(ClientError::Refused(refusal)) = introduce(address, introduction()).await else {
            panic!("a removed node was let in")
        };
        assert!(refusal.message.contains("n1 was removed from the cluster"), "{refusal}");
    });
}

#[test]
fn a_replicator_of_another_cluster_delivers_nothing_and_its_replicas_are_told() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let of_oak = LocalIdentity { cluster_id: "oak".into(), ..identity(N2) };
        let receiver = Receiver::start(of_oak, &controller);
        let sender = Sender::start(&controller, quick(), N2).await;
        until("the refusal is told", || sender.lost.count() == 1).await;
        assert_eq!(sender.reading("duramen_peer_connections_total", N2), 0);
        assert_eq!(receiver.arrived.count(), 0);
    });
}

#[test]
fn a_member_that_speaks_for_another_node_is_cut_off() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2, N3]);
        let receiver = Receiver::start(identity(N2), &controller);
        let frame = |from| pb::PeerFrame {
            messages: vec![pb::GroupMessage {
                kind: pb::PeerKind::Vote as i32,
                from: ReplicaId::new(from, 1).raw(),
                to: ReplicaId::new(N2, 2).raw(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let (frames, mut notices) =
            introduce(receiver.server.address, introduction()).await.unwrap();
        frames.send(frame(N1)).await.unwrap();
        assert_eq!(notices.next().await.unwrap(), Some(1), "its own word is taken");
        frames.send(frame(N3)).await.unwrap();
        let Err(ClientError::Refused(refusal)) = notices.next().await else { panic!("taken") };
        assert_eq!(refusal.message, "n1 sent a message from n3#1 to n2#2");
        assert_eq!(receiver.arrived.count(), 1);
    });
}

#[test]
fn what_waits_for_a_silent_peer_is_bounded_and_what_is_refused_is_counted() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        // It is connected to, and never speaks.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        controller.moved(N2, mute.local_addr().unwrap());
        let outbox = OutboxLimits { messages_max: 50, bytes_max: 20_000 };
        let options = ReplicatorOptions { outbox, ..quick() };
        let sender = Sender::start(&controller, options, N2).await;
        sender.post(N2, &beat(0)).await;
        let dropped = || sender.reading("duramen_peer_dropped_messages_total", N2);
        let before = dropped();
        let post = |message| sender.peers.post(N2, vec![Outgoing { message, log: None }]);
        let taken = (0..100).filter(|index| post(append(*index))).count();
        assert!((10..20).contains(&taken), "{taken} messages of 1000 bytes fit 20,000 bytes");
        assert_eq!(dropped() - before, 100 - taken as u64);
        assert!(sender.reading("duramen_peer_queue_bytes", N2) <= 20_000);
        assert!(sender.reading("duramen_peer_queue_messages", N2) <= 50);
    });
}

#[test]
fn a_peer_that_accepts_and_takes_nothing_is_given_up_and_tried_again() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        controller.moved(N2, listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = tonic::transport::Server::builder()
            .add_service(pb::peer_server::PeerServer::new(Listless))
            .serve_with_incoming(incoming);
        let serving = tokio::spawn(serving);
        let options = ReplicatorOptions { silence_max: Duration::from_millis(50), ..quick() };
        let sender = Sender::start(&controller, options, N2).await;
        sender.post(N2, &append(1)).await;
        until("it is given up", || sender.lost.count() >= 1).await;
        let connections = || sender.reading("duramen_peer_connections_total", N2);
        until("it is tried again", || connections() >= 2).await;
        serving.abort();
    });
}

/// Accepts every introduction, and takes no frame.
struct Listless;

#[tonic::async_trait]
impl pb::peer_server::Peer for Listless {
    type ExchangeStream = tokio_stream::Pending<Result<pb::PeerNotice, tonic::Status>>;

    async fn exchange(
        &self,
        _: tonic::Request<tonic::Streaming<pb::PeerFrame>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }

    async fn join(
        &self,
        _: tonic::Request<pb::JoinRequest>,
    ) -> Result<tonic::Response<pb::JoinResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not part of the script"))
    }

    async fn change(
        &self,
        _: tonic::Request<pb::ChangeRequest>,
    ) -> Result<tonic::Response<pb::ChangeResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not part of the script"))
    }
}

/// A log of three entries in term 3: a no-op, and two with a record each.
fn a_log(directory: &std::path::Path) -> Log {
    let options = LogOptions::default();
    let (clock, disk) = (Arc::new(SystemClock::new()), Arc::new(RealDisk));
    let (mut log, _) = Log::open(disk, clock, directory, options, &mut |_, _| {}).unwrap();
    let entry = |index, payload| Entry { term: Term(3), index: RaftIndex(index), payload };
    let data = |text: &[u8]| {
        let mut builder = BatchBuilder::new();
        builder.push(&Record::of_value(text.to_vec(), Timestamp(1))).unwrap();
        EntryPayload::Data(vec![builder.finish().unwrap()])
    };
    let noop = EntryPayload::Internal(Bytes::from_static(b"noop"));
    log.append(&[entry(1, noop), entry(2, data(b"two")), entry(3, data(b"three"))]).unwrap();
    drop(log.sync().unwrap());
    log
}

#[test]
fn entries_that_only_lie_in_the_log_are_read_there_and_keep_their_order() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let sender = Sender::start(&controller, quick(), N2).await;
        let directory = tempfile::tempdir().unwrap();
        let log = a_log(directory.path());
        let view = log.view();
        let stored = |index: u64, term: u64| PeerEntry {
            term: Term(term),
            index: RaftIndex(index),
            payload: PeerPayload::Stored,
        };
        let mut pointing = message(GroupId::LOG, PeerKind::Append, 0);
        pointing.entries = vec![stored(1, 3), stored(2, 3), stored(3, 3)];
        // Of a term that the log does not have there: it was written anew since.
        let mut stale = message(GroupId::LOG, PeerKind::Append, 1);
        stale.entries = vec![stored(2, 2)];
        sender.post(N2, &beat(9)).await;
        until("there is a connection", || receiver.arrived.count() == 1).await;
        let dropped = || sender.reading("duramen_peer_dropped_messages_total", N2);
        let before = dropped();
        let log = || Some(Arc::clone(&view));
        assert!(sender.peers.post(
            N2,
            vec![
                Outgoing { message: pointing, log: log() },
                Outgoing { message: stale, log: log() },
                Outgoing { message: append(3), log: None },
            ]
        ));
        until("two arrived", || receiver.arrived.count() == 3).await;
        let arrived = receiver.arrived.all();
        let filled: Vec<_> = arrived[1].entries.iter().map(|entry| &entry.payload).collect();
        let PeerPayload::Internal(noop) = filled[0] else { panic!("{filled:?}") };
        assert_eq!(noop, &Bytes::from_static(b"noop"));
        for (payload, index) in filled[1..].iter().zip([2, 3]) {
            let PeerPayload::Data(groups) = payload else { panic!("{payload:?}") };
            assert_eq!(groups, &[view.entry(RaftIndex(index)).unwrap().payload]);
        }
        assert_eq!(arrived[2], append(3), "what was appended behind it came behind it");
        assert_eq!(dropped() - before, 1, "the stale one");
        until("nothing waits", || sender.reading("duramen_peer_queue_messages", N2) == 0).await;
    });
}

#[test]
fn a_node_asks_to_join_and_to_change_and_learns_what_kind_of_no_it_gets() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let receiver = Receiver::start(identity(N2), &controller);
        let address = receiver.server.address.to_string();
        let mut client = PeerClient::connect(&address, LONG, None).await.unwrap();
        let mut stranger = PeerClient::connect(&address, LONG, None).await.unwrap();
        let asked = pb::JoinRequest {
            name: "n3".into(),
            labels: [("rack".to_owned(), "a".to_owned())].into(),
            ..Default::default()
        };
        let joined = client.join(asked).await.unwrap();
        assert_eq!((joined.node, joined.members[0].rpc_addr.as_str()), (3, "n3 of a"));
        let mut change = async |command: &'static str, cluster_id: &str| {
            let command = Bytes::from_static(command.as_bytes());
            let cluster_id = cluster_id.to_owned();
            client.change(pb::ChangeRequest { cluster_id, from: 1, command }).await
        };
        assert_eq!(change("do", "birch").await.unwrap().outcome, Bytes::from_static(b"do"));
        assert_eq!(change(">", "birch").await.unwrap().ask_addr, "there:1");
        let command = Bytes::from_static(b"do");
        let of_nobody = pb::ChangeRequest { cluster_id: "birch".into(), from: 9, command };
        let refused = stranger.change(of_nobody).await;
        let Err(ClientError::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert!(refusal.message.contains("does not know a node n9"), "{refusal}");
        for (command, cluster, denial, definite) in [
            ("no", "birch", Denial::NotNow, true),
            ("?", "birch", Denial::Unknown, false),
            ("do", "oak", Denial::Foreign, true),
        ] {
            let Err(ClientError::Refused(refusal)) = change(command, cluster).await else {
                panic!("{command} was done")
            };
            assert_eq!((Denial::of(&refusal), refusal.definite), (denial, definite), "{refusal}");
        }
    });
}

#[test]
fn clients_however_many_lock_no_node_out() {
    on_system(async {
        let controller = Controller::of_nodes(&[N1, N2]);
        let limits = RpcLimits { connections_max: 1, ..RpcLimits::default() };
        let receiver = Receiver::start_with(identity(N2), &controller, limits);
        let describe = pb::DescribeRequest { topic: "log".into() };
        let mut first = receiver.server.duramen().await;
        first.describe(describe.clone()).await.unwrap();
        for _ in 0..200 {
            let mut one_too_many = receiver.server.duramen().await;
            let refused = one_too_many.describe(describe.clone()).await.unwrap_err();
            assert!(refused.message().contains("too many connections"), "{refused}");
        }
        assert!(introduce(receiver.server.address, introduction()).await.is_ok());
        first.describe(describe).await.unwrap();
    });
}

#[test]
fn whom_the_catalogue_does_not_know_yet_a_node_knows_as_it_was_told() {
    let controller = Controller(Arc::new(watch::Sender::default()));
    let addresses = Addresses::new(Arc::new(controller.clone()), PresenceBoard::default());
    assert!(addresses.members().is_empty() && addresses.of(N1).is_none());
    let place = |node| Whereabouts {
        uuid: uuid(node),
        rpc_addr: format!("host-{node}:1"),
        name: String::new(),
    };
    addresses.told([N1, N2].map(|node| (node, place(node))));
    assert_eq!(addresses.of(N1), Some(place(N1)));
    assert_eq!(addresses.standing(N1), Standing::Member { uuid: uuid(N1) });
    assert_eq!(addresses.standing(N3), Standing::Unknown);
    // The beginning of the catalogue, as it is read again after a start.
    let catalogue = Controller::of_nodes(&[N2]).catalogue();
    controller.alter(|known| *known = (*catalogue).clone());
    controller.moved(N2, "127.0.0.1:7".parse().unwrap());
    assert_eq!(addresses.of(N2).unwrap().rpc_addr, "127.0.0.1:7", "what it says is the last word");
    assert_eq!(addresses.of(N1), Some(place(N1)));
    let catalogue = Controller::of_nodes(&[N1, N2]).catalogue();
    controller.alter(|known| *known = (*catalogue).clone());
    controller.alter(|known| known.nodes.get_mut(&N1).unwrap().state = NodeState::Removed);
    assert_eq!((addresses.of(N1), addresses.standing(N1)), (None, Standing::Removed));
}
