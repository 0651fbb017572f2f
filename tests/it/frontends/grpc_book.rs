//! The book's clients find what the book's server gave them.

use super::raw_http2;
use super::server::{Server, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use duramen::actors::partition::ProduceError;
use duramen::wire::pb::log::v1 as pb;
use prost::Message;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn request(value: &'static str) -> pb::ProduceRequest {
    let record = pb::Record { value: Bytes::from_static(value.as_bytes()), ..Default::default() };
    pb::ProduceRequest { record: Some(record) }
}

#[tokio::test]
async fn produced_records_get_offsets_from_0_and_are_consumed_by_them() {
    let server = Server::start().await;
    let mut client = server.book().await;
    for (expected, value) in ["first", "second"].into_iter().enumerate() {
        let produced = client.produce(request(value)).await.unwrap().into_inner();
        assert_eq!(produced.offset, expected as u64);
    }
    let consumed = client.consume(pb::ConsumeRequest { offset: 1 }).await.unwrap().into_inner();
    let record = consumed.record.unwrap();
    assert_eq!((&record.value[..], record.offset), (&b"second"[..], 1));
    assert_eq!((record.term, record.r#type), (0, 0));
}

#[tokio::test]
async fn a_produce_request_without_a_record_appends_an_empty_one() {
    let server = Server::start().await;
    let mut client = server.book().await;
    let produced = client.produce(pb::ProduceRequest { record: None }).await.unwrap().into_inner();
    let asked = pb::ConsumeRequest { offset: produced.offset };
    let record = client.consume(asked).await.unwrap().into_inner().record.unwrap();
    assert!(record.value.is_empty());
}

fn assert_is_the_books_404(reply: &raw_http2::RawReply, offset: u64) {
    let one = |name: &str| {
        let mut values = reply.status.get_all(name).iter();
        let value = values.next().unwrap().to_str().unwrap().to_owned();
        assert!(values.next().is_none(), "{name} comes once");
        value
    };
    assert_eq!(one("grpc-status"), "404");
    assert_eq!(one("grpc-message"), format!("offset%20out%20of%20range:%20{offset}"));
    let details = STANDARD_NO_PAD.decode(one("grpc-status-details-bin").trim_end_matches('='));
    let status = tonic_types::pb::Status::decode(&details.unwrap()[..]).unwrap();
    assert_eq!((status.code, status.details.len()), (404, 1));
    assert_eq!(status.message, format!("offset out of range: {offset}"));
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.LocalizedMessage");
    let detail = tonic_types::pb::LocalizedMessage::decode(&status.details[0].value[..]).unwrap();
    assert_eq!(detail.locale, "en-US");
    assert_eq!(detail.message, format!("The requested offset is outside of the log: {offset}"));
    let private = reply.status.keys().filter(|name| name.as_str().contains("duramen"));
    assert_eq!(private.count(), 0, "what is private does not leave the process");
}

#[tokio::test]
async fn an_offset_past_the_end_is_status_404_on_the_wire_in_trailer_and_details() {
    let server = Server::start().await;
    server.partition.fill(&["only"]);
    let asked = pb::ConsumeRequest { offset: 1 };
    let reply = raw_http2::call(server.address, "/log.v1.Log/Consume", &asked).await;
    assert!(reply.body.is_empty());
    assert_is_the_books_404(&reply, 1);
}

#[tokio::test]
async fn a_stream_from_below_the_log_is_status_404_too() {
    let server = Server::start().await;
    server.partition.fill(&["a", "b", "c"]);
    server.partition.forget_below(2);
    let asked = pb::ConsumeRequest { offset: 1 };
    let reply = raw_http2::call(server.address, "/log.v1.Log/ConsumeStream", &asked).await;
    assert_is_the_books_404(&reply, 1);
}

#[tokio::test]
async fn status_404_also_comes_behind_messages() {
    let server = Server::start().await;
    server.partition.fill(&["a"]);
    let asked = pb::ConsumeRequest { offset: 0 };
    let address = server.address;
    let calling =
        tokio::spawn(
            async move { raw_http2::call(address, "/log.v1.Log/ConsumeStream", &asked).await },
        );
    let partition = server.partition.clone();
    // The follower is past the first record and waits: retention now overtakes it.
    until("the stream waits at the end", || server.counters.open() == 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    partition.forget_below(2);
    partition.fill(&["b", "c"]);
    let reply = calling.await.unwrap();
    assert!(!reply.trailers_only && !reply.body.is_empty(), "a message came first");
    assert_is_the_books_404(&reply, 1);
}

#[tokio::test]
async fn a_message_over_4_mib_is_resource_exhausted_as_in_other_grpc_servers() {
    let server = Server::start().await;
    let mut client = server.book().await;
    let at_limit = Bytes::from(vec![7; (4 << 20) - 32]);
    let over = Bytes::from(vec![7; 4 << 20]);
    let request =
        |value| pb::ProduceRequest { record: Some(pb::Record { value, ..Default::default() }) };
    client.produce(request(at_limit)).await.unwrap();
    for method in ["/log.v1.Log/Produce", "/log.v1.Log/ProduceStream"] {
        let reply = raw_http2::call(server.address, method, &request(over.clone())).await;
        assert_eq!(reply.status["grpc-status"], "8", "{method}");
    }
    assert_eq!(server.partition.proposals(), 1);
}

#[tokio::test]
async fn a_produce_stream_answers_in_order_and_ends_well_at_half_close() {
    let server = Server::start().await;
    let mut client = server.book().await;
    let requests = tokio_stream::iter((0..100).map(|_| request("x")));
    let responses = client.produce_stream(requests).await.unwrap().into_inner();
    let offsets: Vec<_> = responses.map(|response| response.unwrap().offset).collect().await;
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refusal_ends_a_produce_stream_behind_the_answers_before_it() {
    let server = Server::start().await;
    let mut client = server.book().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(request("good")).await.unwrap();
    let responses = client.produce_stream(ReceiverStream::new(receiver)).await.unwrap();
    let mut responses = responses.into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().offset, 0);
    server.partition.refuse_next(ProduceError::Quarantined { message: "disk is broken".into() });
    sender.send(request("refused")).await.unwrap();
    let status = responses.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "disk is broken"));
}

#[tokio::test]
async fn a_consume_stream_reads_on_and_waits_at_the_end_even_beyond_it() {
    let server = Server::start().await;
    server.partition.fill(&["a", "b"]);
    let mut client = server.book().await;
    let mut from = async |offset| {
        client.consume_stream(pb::ConsumeRequest { offset }).await.unwrap().into_inner()
    };
    let (mut all, mut later) = (from(0).await, from(3).await);
    let mut read = Vec::new();
    for _ in 0..2 {
        read.push(all.message().await.unwrap().unwrap().record.unwrap());
    }
    server.partition.fill(&["c", "d"]);
    for _ in 0..2 {
        read.push(all.message().await.unwrap().unwrap().record.unwrap());
    }
    let offsets: Vec<_> = read.iter().map(|record| record.offset).collect();
    let values: Vec<_> = read.iter().map(|record| &record.value[..]).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert_eq!(values, [b"a", b"b", b"c", b"d"]);
    assert_eq!(later.message().await.unwrap().unwrap().record.unwrap().offset, 3);
}

#[tokio::test]
async fn get_servers_names_this_node_as_leader_at_an_address_that_can_be_dialled() {
    let server = Server::start().await;
    let servers = server.book().await.get_servers(pb::GetServersRequest {}).await.unwrap();
    let servers = servers.into_inner().servers;
    assert_eq!(servers.len(), 1);
    assert!(servers[0].is_leader && servers[0].id == "node-under-test");
    tokio::net::TcpStream::connect(&servers[0].rpc_addr).await.unwrap();
}
