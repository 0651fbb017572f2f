//! Requests at a node that does not lead: passed on once to the one that does, or refused with its
//! address; reads that another node must answer.

use super::http_server::HttpServer;
use super::memory::MemoryPartition;
use super::server::{Server, until};
use bytes::Bytes;
use duramen::actors::partition::ProduceError;
use duramen::frontends::grpc::RpcLimits;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::log::v1 as book;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_types::StatusExt;

fn produce(topic: &str, partition: u32, correlation_id: u64) -> pb::ProduceRequest {
    let value = Some(Bytes::from(correlation_id.to_string()));
    let records = vec![pb::Record { value, ..Default::default() }];
    pb::ProduceRequest {
        topic: topic.into(),
        partition,
        correlation_id,
        records,
        ..Default::default()
    }
}

fn record(value: &'static str) -> book::ProduceRequest {
    let value = value.into();
    book::ProduceRequest { record: Some(book::Record { value, ..Default::default() }) }
}

/// Two nodes: the first follows, the second leads log/0.
async fn follower_and_leader(limits: RpcLimits) -> (Server, Server) {
    let (follower, leader) = (Server::start_with(limits).await, Server::start().await);
    follower.partition.follows();
    follower.topics.node(2, "two", &leader.address.to_string());
    follower.topics.led_by("log", 0, 2, &leader.address.to_string());
    (follower, leader)
}

fn no_forward() -> RpcLimits {
    RpcLimits { forward: false, ..RpcLimits::default() }
}

#[tokio::test]
async fn what_another_node_leads_is_passed_on_and_answered_in_order() {
    let (follower, leader) = follower_and_leader(RpcLimits::default()).await;
    let requests = tokio_stream::iter((0..100).map(|id| produce("log", 0, id)));
    let responses = follower.duramen().await.produce(requests).await.unwrap().into_inner();
    let told: Vec<_> = responses.map(|response| response.unwrap()).collect().await;
    let told: Vec<_> = told.iter().map(|r| (r.correlation_id, r.base_offset, &r.error)).collect();
    assert_eq!(told, (0..100).map(|id| (id, id, &None)).collect::<Vec<_>>());
    assert_eq!((follower.partition.proposals(), leader.partition.proposals()), (0, 100));
    let offset = follower.book().await.produce(record("x")).await.unwrap().into_inner().offset;
    assert_eq!((offset, leader.partition.proposals()), (100, 101));
    let stored = leader.partition.values();
    assert_eq!((stored[7].as_str(), stored[100].as_str()), ("7", "x"));
}

#[tokio::test]
async fn what_was_passed_on_is_never_passed_on_again() {
    let (first, second) = follower_and_leader(RpcLimits::default()).await;
    // Each takes the other for the leader.
    second.partition.follows();
    second.topics.led_by("log", 0, 1, &first.address.to_string());
    let status = first.duramen().await.produce_once(produce("log", 0, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["definite"].as_str()), ("NOT_LEADER", "true"));
    assert_eq!(
        info.metadata["leader_rpc_addr"],
        first.address.to_string(),
        "as the second sees it"
    );
    let connections = [&first, &second].map(|server| server.counters.accepted());
    assert_eq!(connections, [1, 1], "nobody came back to the first");
    assert_eq!((first.partition.proposals(), second.partition.proposals()), (0, 0));
}

#[tokio::test]
async fn a_request_that_must_not_be_passed_on_is_told_who_leads() {
    let (follower, leader) = follower_and_leader(RpcLimits::default()).await;
    let request = pb::ProduceRequest { no_forward: true, ..produce("log", 0, 5) };
    let requests = tokio_stream::iter([request]);
    let mut responses = follower.duramen().await.produce(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let error = response.error.unwrap();
    assert_eq!((response.correlation_id, error.code), (5, Code::Unavailable as i32));
    assert!(error.definite && error.retry_after_ms > 0);
    let hint = error.leader.unwrap();
    assert_eq!((hint.node, hint.rpc_addr, hint.term), (2, leader.address.to_string(), 4));
    assert_eq!(leader.partition.proposals(), 0);
}

#[tokio::test]
async fn with_forwarding_off_the_book_s_clients_are_told_what_the_book_s_server_says() {
    let (follower, leader) = follower_and_leader(no_forward()).await;
    let mut client = follower.book().await;
    let unary = client.produce(record("x")).await.unwrap_err();
    let responses = client.produce_stream(tokio_stream::iter([record("x")])).await.unwrap();
    let streamed = responses.into_inner().message().await.unwrap_err();
    for status in [unary, streamed] {
        assert_eq!((status.code(), status.message()), (Code::Unknown, "node is not the leader"));
    }
    assert_eq!(leader.partition.proposals(), 0);
}

#[tokio::test]
async fn a_leader_that_is_gone_is_a_definite_refusal_and_one_that_goes_is_an_unknown_outcome() {
    let (follower, leader) = follower_and_leader(RpcLimits::default()).await;
    let mut client = follower.duramen().await;
    leader.partition.hold();
    let asking = {
        let mut client = client.clone();
        tokio::spawn(async move { client.produce_once(produce("log", 0, 1)).await })
    };
    until("it is at the leader", || leader.partition.proposals() == 1).await;
    leader.serving.abort();
    let unknown = asking.await.unwrap().unwrap_err();
    assert_eq!(unknown.code(), Code::Unknown, "{unknown:?}");
    let told = async || client.clone().produce_once(produce("log", 0, 2)).await.unwrap_err();
    let mut gone = told().await;
    // The old connection may take one more before it is known to be gone.
    while gone.code() == Code::Unknown {
        gone = told().await;
    }
    let info = gone.get_details_error_info().unwrap();
    assert_eq!((gone.code(), &*info.metadata["definite"]), (Code::Unavailable, "true"));
    assert!(gone.message().contains("n2 at"), "{}", gone.message());
    follower.topics.led_by_nobody("log", 0);
    let nobody = client.produce_once(produce("log", 0, 3)).await.unwrap_err();
    assert!(nobody.message().contains("no node is known to lead log/0"), "{}", nobody.message());
}

#[tokio::test]
async fn a_refusal_of_the_leader_comes_back_in_its_own_words() {
    let (follower, leader) = follower_and_leader(RpcLimits::default()).await;
    let mut client = follower.duramen().await;
    let (message, retry_after) = ("slow down".to_owned(), Duration::from_millis(7));
    for (error, code) in [
        (ProduceError::Invalid { message: message.clone() }, Code::InvalidArgument),
        (
            ProduceError::Overloaded { message: message.clone(), retry_after },
            Code::ResourceExhausted,
        ),
        (ProduceError::DiskFull { message: message.clone() }, Code::ResourceExhausted),
        (ProduceError::Quarantined { message: message.clone() }, Code::Unavailable),
        (ProduceError::Unknown { message: message.clone() }, Code::Unknown),
    ] {
        leader.partition.refuse_next(error.clone());
        let status = client.produce_once(produce("log", 0, 1)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, "slow down"));
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["definite"], error.is_definite().to_string());
        let pause = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(pause, error.retry_after());
        // The leader's stream refuses what follows until its pause is over.
        tokio::time::sleep(pause.unwrap_or_default()).await;
    }
}

#[tokio::test]
async fn one_stream_carries_several_partitions_and_a_pause_of_one_holds_up_no_other() {
    let server = Server::start().await;
    let orders = MemoryPartition::new();
    server.topics.put("orders", 3, Some(&orders));
    let (message, retry_after) = ("full".to_owned(), Duration::from_secs(60));
    server.partition.refuse_next(ProduceError::Overloaded { message, retry_after });
    let requests = [("log", 0), ("orders", 3), ("log", 0), ("orders", 3)];
    let requests = requests.into_iter().zip(0..).map(|((t, p), id)| produce(t, p, id));
    let requests: Vec<_> = requests.collect();
    let responses = server.duramen().await.produce(tokio_stream::iter(requests)).await.unwrap();
    let told: Vec<_> = responses.into_inner().map(|response| response.unwrap()).collect().await;
    let told: Vec<_> = told.iter().map(|r| (r.correlation_id, r.error.is_none())).collect();
    assert_eq!(told, [(0, false), (1, true), (2, false), (3, true)]);
    assert_eq!((server.partition.proposals(), orders.proposals()), (1, 2));
}

#[tokio::test]
async fn a_reader_at_a_node_without_a_replica_is_told_who_has_one() {
    let server = Server::start().await;
    server.topics.node(2, "two", "10.0.0.2:8400");
    server.topics.put("orders", 0, None);
    let request = pb::FetchRequest { topic: "orders".into(), ..Default::default() };
    let status = server.duramen().await.fetch_once(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let told = "this node has no replica of orders/0: ask n2 (10.0.0.2:8400)";
    assert_eq!(status.message(), told);
    let described = pb::DescribeRequest { topic: "orders".into() };
    let described = server.duramen().await.describe(described).await.unwrap().into_inner();
    assert_eq!(described.partitions, []);
}

#[tokio::test]
async fn a_linearizable_read_waits_until_the_replica_has_what_was_acknowledged() {
    let server = Server::start().await;
    server.partition.fill(&["a"]);
    server.partition.read_index_is(2);
    let request = pb::FetchRequest {
        topic: "log".into(),
        consistency: pb::Consistency::Linearizable as i32,
        ..Default::default()
    };
    let mut client = server.duramen().await;
    let reading = tokio::spawn(async move { client.fetch_once(request).await });
    let stale = pb::FetchRequest { topic: "log".into(), ..Default::default() };
    let stale = server.duramen().await.fetch_once(stale).await.unwrap().into_inner();
    assert_eq!(stale.high_watermark, 1, "who does not ask for it reads what is here");
    assert!(!reading.is_finished());
    server.partition.fill(&["b"]);
    let read = reading.await.unwrap().unwrap().into_inner();
    assert_eq!((read.records.len(), read.high_watermark), (2, 2));
}

#[tokio::test]
async fn a_linearizable_read_that_cannot_be_told_in_time_is_an_error_and_not_a_stale_answer() {
    let limits = RpcLimits { request_deadline: Duration::from_millis(20), ..RpcLimits::default() };
    let server = Server::start_with(limits).await;
    server.partition.read_index_is(1);
    let request = pb::FetchRequest {
        topic: "log".into(),
        consistency: pb::Consistency::Linearizable as i32,
        ..Default::default()
    };
    let status = server.duramen().await.fetch_once(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("linearizable"), "{}", status.message());
}

#[tokio::test]
async fn all_nodes_are_told_with_the_leader_of_the_first_partition() {
    let (follower, leader) = follower_and_leader(RpcLimits::default()).await;
    let servers = follower.book().await.get_servers(book::GetServersRequest {}).await.unwrap();
    let servers = servers.into_inner().servers;
    let told: Vec<_> = servers.iter().map(|s| (s.id.as_str(), s.is_leader)).collect();
    assert_eq!(told, [("node-under-test", false), ("two", true)]);
    assert_eq!(servers[1].rpc_addr, leader.address.to_string());

    follower.topics.put("orders", 0, None);
    let mut client = follower.duramen().await;
    let all = client.metadata(pb::MetadataRequest::default()).await.unwrap().into_inner();
    let topics: Vec<_> = all.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(
        (all.cluster_id.as_str(), all.nodes.len(), topics),
        ("c1", 2, vec!["log", "orders"])
    );
    let log = &all.topics[0].partitions[0];
    assert_eq!((log.leader, log.term, &*log.replicas), (2, 4, &[1, 2][..]));
    assert_eq!(all.topics[1].partitions[0].leader, 0, "nobody is known to lead it");
    let asked = pb::MetadataRequest { topics: vec!["orders".into(), "nothing".into()] };
    let some = client.metadata(asked).await.unwrap().into_inner();
    assert_eq!(some.topics.len(), 1);
}

#[tokio::test]
async fn http_passes_on_as_well_and_knows_partitions() {
    let leader = Server::start().await;
    let http = HttpServer::start().await;
    http.partition.follows();
    http.topics.led_by("log", 0, 2, &leader.address.to_string());
    let body = r#"{"records":[{"value":"x"}]}"#;
    let answer = http.send("POST", "/v1/topics/log/records", body).await;
    assert_eq!((answer.status, leader.partition.proposals()), (200, 1), "{}", answer.body);
    let refused = http.send("POST", "/v1/topics/log/records?forward=false", body).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &"not_leader".into()));
    let chapter_1 = r#"{"record":{"value":"eA=="}}"#;
    assert_eq!(http.send("POST", "/", chapter_1).await.body, "{\"offset\":1}\n");

    let orders = MemoryPartition::new();
    orders.fill(&["seven"]);
    http.topics.put("orders", 7, Some(&orders));
    http.topics.put("orders", 8, None);
    let read = async |query: &str| {
        http.send("GET", &format!("/v1/topics/orders/records?{query}"), "").await
    };
    assert_eq!(read("partition=7&consistency=linearizable").await.json()["high_watermark"], 1);
    let elsewhere = read("partition=8").await;
    assert_eq!((elsewhere.status, &elsewhere.json()["error"]["code"]), (421, &"elsewhere".into()));
    assert_eq!(read("partition=9").await.status, 404);
    assert_eq!(read("partition=7&consistency=strong").await.status, 400);
}
