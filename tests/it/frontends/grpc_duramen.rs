//! `duramen.v1`: produce with flow control and typed refusals, fetch from anywhere.

use super::memory::fake_batch;
use super::raw_http2;
use super::server::{NOW_MS, Server, until};
use bytes::Bytes;
use duramen::actors::partition::{PartitionState, ProduceError, ReadError};
use duramen::frontends::grpc::RpcLimits;
use duramen::observe::metrics::{Method, Outcome};
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::log::v1 as book;
use pb::fetch_request::Position;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

fn produce(correlation_id: u64, values: &[&'static str]) -> pb::ProduceRequest {
    let value = |value: &&'static str| Some(Bytes::from_static(value.as_bytes()));
    let records = values.iter().map(|v| pb::Record { value: value(v), ..Default::default() });
    let records = records.collect();
    pb::ProduceRequest { topic: "log".into(), correlation_id, records, ..Default::default() }
}

fn fetch(position: Position) -> pb::FetchRequest {
    pb::FetchRequest { topic: "log".into(), position: Some(position), ..Default::default() }
}

#[tokio::test]
async fn a_stream_goes_on_behind_a_refused_request_and_every_answer_has_its_correlation_id() {
    let server = Server::start().await;
    let mut client = server.duramen().await;
    let refusal = ProduceError::DiskFull { message: "8 MiB are free".into() };
    let unknown_topic = pb::ProduceRequest { topic: "orders".into(), ..produce(12, &["x"]) };
    let (sender, receiver) = mpsc::channel(8);
    sender.send(produce(10, &["a", "b"])).await.unwrap();
    let responses = client.produce(ReceiverStream::new(receiver)).await.unwrap();
    let mut responses = responses.into_inner();
    let first = responses.message().await.unwrap().unwrap();
    server.partition.refuse_next(refusal);
    for request in [produce(11, &["refused"]), unknown_topic, produce(13, &["c"])] {
        sender.send(request).await.unwrap();
    }
    drop(sender);
    let rest: Vec<_> = responses.map(|response| response.unwrap()).collect().await;

    assert_eq!((first.correlation_id, first.base_offset, first.record_count), (10, 0, 2));
    assert_eq!((first.timestamp_ms, first.durability()), (NOW_MS, pb::Durability::Fsync));
    let errors: Vec<_> = rest.iter().map(|response| response.error.as_ref()).collect();
    let ids: Vec<_> = rest.iter().map(|response| response.correlation_id).collect();
    assert_eq!(ids, [11, 12, 13]);
    let full = errors[0].unwrap();
    assert_eq!((full.code, full.retry_after_ms, full.definite), (8, 0, true));
    let unknown = errors[1].unwrap();
    assert_eq!(unknown.code, Code::NotFound as i32);
    assert!(unknown.message.contains("there are \"log\""), "{}", unknown.message);
    assert!(errors[2].is_none() && rest[2].base_offset == 2);
}

#[tokio::test]
async fn a_stream_stops_reading_when_enough_is_outstanding_and_reads_on_when_it_is_not() {
    let limits = RpcLimits { outstanding_batches_max: 3, ..RpcLimits::default() };
    let server = Server::start_with(limits).await;
    server.partition.hold();
    let mut client = server.duramen().await;
    let requests = tokio_stream::iter((0..10).map(|id| produce(id, &["x"])));
    let mut responses = client.produce(requests).await.unwrap().into_inner();
    until("three are outstanding", || server.partition.proposals() == 3).await;
    // The negative space: had it read on, a whole round trip would have shown it.
    server.duramen().await.describe(pb::DescribeRequest { topic: "log".into() }).await.unwrap();
    assert_eq!(server.partition.proposals(), 3);
    for id in 0..10 {
        until("one is held", || server.partition.release()).await;
        assert_eq!(responses.message().await.unwrap().unwrap().correlation_id, id);
    }
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn an_acknowledgement_that_never_came_is_an_unknown_outcome() {
    let server = Server::start().await;
    server.partition.hold();
    let mut client = server.duramen().await;
    let (sender, receiver) = mpsc::channel(1);
    sender.send(produce(7, &["x"])).await.unwrap();
    let responses = client.produce(ReceiverStream::new(receiver)).await.unwrap();
    until("it is proposed", || server.partition.proposals() == 1).await;
    server.partition.lose();
    let response = responses.into_inner().message().await.unwrap().unwrap();
    let error = response.error.unwrap();
    assert_eq!((error.code, error.definite), (Code::Unknown as i32, false));
}

#[tokio::test]
async fn a_unary_produce_is_refused_by_the_calls_status_with_a_time_to_retry() {
    let server = Server::start().await;
    let mut client = server.duramen().await;
    let retry_after = Duration::from_millis(40);
    let cases = [
        (ProduceError::Invalid { message: "crc".into() }, Code::InvalidArgument, None),
        (ProduceError::TooLarge { message: "8 MiB".into() }, Code::InvalidArgument, None),
        (
            ProduceError::Overloaded { message: "full".into(), retry_after },
            Code::ResourceExhausted,
            Some(retry_after),
        ),
        (
            ProduceError::Restarting { message: "soon".into(), retry_after },
            Code::Unavailable,
            Some(retry_after),
        ),
        (ProduceError::Quarantined { message: "disk".into() }, Code::Unavailable, None),
        (ProduceError::Stopped { message: "bye".into() }, Code::Unavailable, None),
        (ProduceError::DiskFull { message: "full".into() }, Code::ResourceExhausted, None),
    ];
    for (error, code, retry) in cases {
        server.partition.refuse_next(error.clone());
        let status = client.produce_once(produce(1, &["x"])).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay, retry, "{error:?}");
    }
}

#[tokio::test]
async fn a_request_must_hold_records_or_batches_and_name_the_one_partition() {
    let server = Server::start().await;
    let mut client = server.duramen().await;
    let both = pb::ProduceRequest { batch: fake_batch(1, &[]), ..produce(1, &["x"]) };
    let other_partition = pb::ProduceRequest { partition: 3, ..produce(1, &["x"]) };
    let bad_name = pb::ProduceRequest { topic: "../log".into(), ..produce(1, &["x"]) };
    let cases = [
        (produce(1, &[]), Code::InvalidArgument),
        (both, Code::InvalidArgument),
        (other_partition, Code::NotFound),
        (bad_name, Code::InvalidArgument),
    ];
    for (request, code) in cases {
        assert_eq!(client.produce_once(request).await.unwrap_err().code(), code);
    }
    assert_eq!(server.partition.proposals(), 0);
}

#[tokio::test]
async fn a_deadline_that_passes_before_the_acknowledgement_is_told_as_such() {
    let server = Server::start().await;
    server.partition.hold();
    let path = "/duramen.v1.Log/ProduceOnce";
    let reply = raw_http2::call_within(server.address, path, &produce(1, &["x"]), "20m").await;
    assert_eq!(reply.status["grpc-status"], "4");
}

#[tokio::test]
async fn records_keep_key_headers_and_timestamp_and_come_back_exactly_from_the_position() {
    let server = Server::start().await;
    server.partition.fill(&["a", "b", "c"]);
    let mut client = server.duramen().await;
    let header = pb::Header { key: "h".into(), value: None };
    let record = pb::Record {
        key: Some("k".into()),
        value: None,
        headers: vec![header],
        timestamp_ms: -5,
        offset: 99,
    };
    let request = pb::ProduceRequest { records: vec![record.clone()], ..produce(1, &[]) };
    client.produce_once(request).await.unwrap();
    let got = client.fetch_once(fetch(Position::Offset(2))).await.unwrap().into_inner();
    assert_eq!((got.base_offset, got.next_offset, got.high_watermark), (2, 4, 4));
    assert_eq!(got.records[0].value.as_deref(), Some(&b"c"[..]));
    assert_eq!(got.records[1], pb::Record { offset: 3, ..record });
}

#[tokio::test]
async fn every_kind_of_position_is_found() {
    let server = Server::start().await;
    server.partition.fill(&["a", "b", "c", "d"]);
    server.partition.forget_below(1);
    let mut client = server.duramen().await;
    let cases = [
        (None, 1),
        (Some(Position::Start(true)), 1),
        (Some(Position::End(true)), 4),
        (Some(Position::BeforeEnd(2)), 2),
        (Some(Position::BeforeEnd(100)), 1),
        (Some(Position::TimestampMs(3)), 3),
        (Some(Position::TimestampMs(1_000)), 4),
        (Some(Position::Offset(4)), 4),
    ];
    for (position, base) in cases {
        let request = pb::FetchRequest { position, ..fetch(Position::Start(true)) };
        let got = client.fetch_once(request).await.unwrap().into_inner();
        assert_eq!(got.base_offset, base, "{position:?}");
        assert_eq!(got.next_offset, 4);
    }
    for outside in [0, 5] {
        let status = client.fetch_once(fetch(Position::Offset(outside))).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains("[1, 4)"), "{}", status.message());
    }
}

#[tokio::test]
async fn a_fetch_ends_at_the_limit_or_at_the_end_and_responses_keep_to_the_size_asked_for() {
    let server = Server::start().await;
    server.partition.fill(&["aaaa"; 10]);
    let mut client = server.duramen().await;
    let sizes = async |responses: tonic::Streaming<pb::FetchResponse>| -> Vec<usize> {
        responses.map(|response| response.unwrap().records.len()).collect().await
    };
    let request = pb::FetchRequest { max_bytes: 16, ..fetch(Position::Start(true)) };
    let responses = client.fetch(request).await.unwrap().into_inner();
    assert_eq!(sizes(responses).await, [4, 4, 2]);
    let request = pb::FetchRequest { max_records: 7, follow: true, ..fetch(Position::Offset(2)) };
    let responses = client.fetch(request).await.unwrap().into_inner();
    assert_eq!(sizes(responses).await, [7]);
    let responses = client.fetch(fetch(Position::End(true))).await.unwrap().into_inner();
    assert_eq!(sizes(responses).await, [0; 0]);
}

#[tokio::test]
async fn a_following_fetch_waits_for_records_and_gets_them_as_they_come() {
    let server = Server::start().await;
    let mut client = server.duramen().await;
    let request = pb::FetchRequest { follow: true, ..fetch(Position::End(true)) };
    let mut responses = client.fetch(request.clone()).await.unwrap().into_inner();
    let mut once_client = client.clone();
    let once = tokio::spawn(async move { once_client.fetch_once(request).await });
    until("the unary call waits too", || server.counters.open() == 1).await;
    for (base, value) in ["a", "b", "c"].into_iter().enumerate() {
        server.partition.fill(&[value]);
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(response.base_offset, base as u64);
        assert_eq!(response.records[0].value.as_deref(), Some(value.as_bytes()));
    }
    let once = once.await.unwrap().unwrap().into_inner();
    assert!(!once.records.is_empty());
}

#[tokio::test]
async fn stored_batches_are_given_out_as_they_are() {
    let server = Server::start().await;
    let mut client = server.duramen().await;
    let (first, second) = (fake_batch(3, &[]), fake_batch(2, &[]));
    for batch in [first.clone(), second.clone()] {
        let request = pb::ProduceRequest { batch, ..produce(1, &[]) };
        client.produce_once(request).await.unwrap();
    }
    let request =
        pb::FetchRequest { format: pb::FetchFormat::Batches as i32, ..fetch(Position::Offset(1)) };
    let got = client.fetch_once(request).await.unwrap().into_inner();
    assert_eq!((got.base_offset, got.next_offset), (0, 5));
    assert_eq!(got.batches, [first, second].concat());
    let unknown = pb::FetchRequest { format: 9, ..fetch(Position::Start(true)) };
    let status = client.fetch_once(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn damaged_data_is_data_loss_and_says_which() {
    let server = Server::start().await;
    server.partition.fill(&["a"]);
    server.partition.fail_next_read(ReadError::Corrupt { message: "frame 7 is damaged".into() });
    let mut client = server.duramen().await;
    let status = client.fetch_once(fetch(Position::Start(true))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "frame 7 is damaged"));
}

#[tokio::test]
async fn describe_tells_the_partitions_state_and_its_reason() {
    let server = Server::start().await;
    server.partition.fill(&["a", "b"]);
    server.partition.report(PartitionState::Quarantined, "fdatasync failed");
    let mut client = server.duramen().await;
    let told = client.describe(pb::DescribeRequest { topic: "log".into() }).await.unwrap();
    let told = told.into_inner();
    assert_eq!((told.node_id.as_str(), told.version.as_str()), ("node-under-test", "1.2.3"));
    let partition = &told.partitions[0];
    let state = (partition.state.as_str(), partition.reason.as_str());
    assert_eq!(state, ("quarantined", "fdatasync failed"));
    assert_eq!((partition.high_watermark, partition.durability()), (2, pb::Durability::Fsync));
    let unknown = client.describe(pb::DescribeRequest { topic: "orders".into() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_yet_is_unavailable_and_not_empty() {
    let server = Server::start().await;
    let retry_after = Duration::from_millis(100);
    let message = "the partition is being recovered".to_owned();
    server.partition.is_unreadable(ReadError::Unavailable { message, retry_after });
    let mut client = server.duramen().await;
    let mut book = server.book().await;
    let asked = duramen::wire::pb::log::v1::ConsumeRequest { offset: 0 };
    let refused = [
        client.fetch(fetch(Position::Start(true))).await.map(|_| ()),
        client.fetch(fetch(Position::Offset(7))).await.map(|_| ()),
        client.fetch_once(fetch(Position::End(true))).await.map(|_| ()),
        book.consume(asked).await.map(|_| ()),
        book.consume_stream(asked).await.map(|_| ()),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{at}");
        let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay, Some(retry_after), "{at}");
    }
}

#[tokio::test]
async fn a_unary_produce_waits_no_longer_than_the_node_allows() {
    let request_deadline = Duration::from_millis(30);
    let server = Server::start_with(RpcLimits { request_deadline, ..RpcLimits::default() }).await;
    server.partition.hold();
    let status = server.duramen().await.produce_once(produce(1, &["x"])).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let request = duramen::wire::pb::log::v1::ProduceRequest { record: None };
    let status = server.book().await.produce(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn what_was_pipelined_behind_a_refusal_for_now_does_not_overtake_it() {
    let server = Server::start().await;
    server.partition.hold();
    let mut client = server.duramen().await;
    let (sender, receiver) = mpsc::channel(8);
    sender.send(produce(1, &["first"])).await.unwrap();
    let mut responses = client.produce(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    until("it is proposed", || server.partition.proposals() == 1).await;
    let retry_after = Duration::from_millis(40);
    let message = "64 MiB wait".to_owned();
    server.partition.refuse_next(ProduceError::Overloaded { message, retry_after });
    for id in [2, 3, 4] {
        sender.send(produce(id, &["x"])).await.unwrap();
    }
    until("the second is refused", || server.partition.proposals() == 2).await;
    assert!(server.partition.release());
    assert!(responses.message().await.unwrap().unwrap().error.is_none());
    for id in [2, 3, 4] {
        let response = responses.message().await.unwrap().unwrap();
        let error = response.error.unwrap();
        assert_eq!((response.correlation_id, error.code, error.retry_after_ms), (id, 8, 40));
    }
    assert_eq!(server.partition.proposals(), 2, "what followed never reached the partition");
    tokio::time::sleep(retry_after).await;
    sender.send(produce(5, &["again"])).await.unwrap();
    until("it is taken again", || server.partition.release()).await;
    let response = responses.message().await.unwrap().unwrap();
    assert!(response.error.is_none() && response.base_offset == 1);
}

#[tokio::test]
async fn what_its_client_does_not_wait_for_is_counted_as_cancelled() {
    let server = Server::start().await;
    server.partition.hold();
    let cancelled = |method| server.metrics.requests(method, Outcome::Cancelled).get();
    let mut client = server.duramen().await;

    let mut waiting = client.clone();
    let call = tokio::spawn(async move { waiting.produce_once(produce(0, &["a"])).await });
    until("it is proposed", || server.partition.proposals() == 1).await;
    assert_eq!(cancelled(Method::ProduceOnce), 0);
    call.abort();
    until("the call is counted", || cancelled(Method::ProduceOnce) == 1).await;

    let (sender, receiver) = mpsc::channel(8);
    for id in 1..=2 {
        sender.send(produce(id, &["b"])).await.unwrap();
    }
    let responses = client.produce(ReceiverStream::new(receiver)).await.unwrap();
    until("both are proposed", || server.partition.proposals() == 3).await;
    assert_eq!(cancelled(Method::Produce), 0);
    drop((responses, sender));
    until("each request of the stream is counted", || cancelled(Method::Produce) == 2).await;
    assert_eq!(server.metrics.requests(Method::Produce, Outcome::Ok).get(), 0);
}

#[tokio::test]
async fn an_offset_past_the_end_is_counted_as_invalid_whichever_interface_is_asked() {
    let server = Server::start().await;
    let invalid = |method| server.metrics.requests(method, Outcome::Invalid).get();
    server.book().await.consume(book::ConsumeRequest { offset: 9 }).await.unwrap_err();
    assert_eq!(invalid(Method::BookConsume), 1);
    server.duramen().await.fetch(fetch(Position::Offset(9))).await.unwrap_err();
    assert_eq!(invalid(Method::Fetch), 1);
}
