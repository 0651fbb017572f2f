//! What the client promises, held against a server that answers as the request's bytes tell it to.

use super::*;
use crate::model::{Durability, Offset};
use crate::wire::pb::duramen::v1 as pb;
use pb::log_server::{Log, LogServer};
use std::net::SocketAddr;
use std::pin::Pin;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

struct Scripted;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// `ok`: stored. `no`: refused. `later`: refused for now. `swap`: answered as another. `cut`: the
/// stream ends in an error.
fn answer(request: &pb::ProduceRequest) -> Result<pb::ProduceResponse, Status> {
    let id = request.correlation_id;
    let stored = pb::ProduceResponse {
        correlation_id: id,
        base_offset: id * 10,
        record_count: 10,
        durability: pb::Durability::Fsync.into(),
        ..Default::default()
    };
    let refused = |code: Code, retry_after_ms| pb::ProduceResponse {
        correlation_id: id,
        error: Some(pb::Error {
            code: code.into(),
            message: "no".into(),
            retry_after_ms,
            definite: true,
            leader: None,
        }),
        ..Default::default()
    };
    match request.batch.as_ref() {
        b"ok" => Ok(stored),
        b"no" => Ok(refused(Code::InvalidArgument, 0)),
        b"later" => Ok(refused(Code::ResourceExhausted, 25)),
        b"swap" => Ok(pb::ProduceResponse { correlation_id: id + 1, ..stored }),
        _ => Err(Status::out_of_range("cut")),
    }
}

#[tonic::async_trait]
impl Log for Scripted {
    type ProduceStream = Answers<pb::ProduceResponse>;
    type FetchStream = Answers<pb::FetchResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let answers = request.into_inner().map(|request| answer(&request?));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn produce_once(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        answer(&request.into_inner()).map(Response::new)
    }

    async fn fetch(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let bases = match request.into_inner().max_records {
            0 => vec![0, 5, 10],
            _ => vec![0, 6],
        };
        let chunks = bases.into_iter().map(|base| {
            Ok(pb::FetchResponse {
                base_offset: base,
                next_offset: base + 5,
                batches: Bytes::from_static(b"bytes"),
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn fetch_once(
        &self,
        _: Request<pb::FetchRequest>,
    ) -> Result<Response<pb::FetchResponse>, Status> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn describe(
        &self,
        request: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        Err(Status::not_found(request.into_inner().topic))
    }

    async fn metadata(
        &self,
        _: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        Ok(Response::new(pb::MetadataResponse::default()))
    }
}

/// Runs a test with a client of a scripted server.
fn with_client<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(LogServer::new(Scripted))
            .serve_with_incoming(incoming);
        let address = address.to_string();
        let client = Client::connect(&address, ClientOptions::default());
        tokio::select! {
            ended = server => panic!("the server ended: {ended:?}"),
            () = async { test(client.await.unwrap()).await } => {}
        }
    });
}

fn log() -> Target {
    Target::topic("log")
}

#[test]
fn answers_come_in_order_and_a_refusal_does_not_end_the_stream() {
    with_client(|mut client| async move {
        let (mut sink, mut acks) = client.produce_stream(log(), 4).await.unwrap();
        for batches in ["ok", "later", "ok"] {
            sink.send(Bytes::from_static(batches.as_bytes())).await.unwrap();
        }
        drop(sink);
        let Some(Answer::Ack(first)) = acks.next().await.unwrap() else { panic!("it was stored") };
        assert_eq!((first.base_offset, first.record_count), (Offset(0), 10));
        assert_eq!(first.durability, Durability::Fsync);
        let Some(Answer::Refused { correlation_id: 1, refusal }) = acks.next().await.unwrap()
        else {
            panic!("it was refused")
        };
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(25)));
        assert!(refusal.definite && refusal.code == Code::ResourceExhausted);
        let Some(Answer::Ack(third)) = acks.next().await.unwrap() else { panic!("it was stored") };
        assert_eq!(third.base_offset, Offset(20));
        assert_eq!(acks.next().await.unwrap(), None);
    });
}

#[test]
fn no_more_than_the_bound_is_ever_unanswered() {
    with_client(|mut client| async move {
        let (mut sink, mut acks) = client.produce_stream(log(), 2).await.unwrap();
        for _ in 0..2 {
            sink.send(Bytes::from_static(b"ok")).await.unwrap();
        }
        let mut third = Box::pin(sink.send(Bytes::from_static(b"ok")));
        assert!(futures_util::poll!(third.as_mut()).is_pending(), "two are unanswered");
        acks.next().await.unwrap();
        assert_eq!(third.await.unwrap(), 2);
    });
}

#[test]
fn when_the_stream_breaks_the_answers_say_so_and_the_sink_does_not_hang() {
    with_client(|mut client| async move {
        let (mut sink, mut acks) = client.produce_stream(log(), 1).await.unwrap();
        sink.send(Bytes::from_static(b"cut")).await.unwrap();
        let error = acks.next().await.unwrap_err();
        assert!(matches!(error, ClientError::Refused(Refusal { code: Code::OutOfRange, .. })));
        let error = sink.send(Bytes::from_static(b"ok")).await.unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }), "{error}");
    });
}

#[test]
fn an_answer_to_another_request_is_a_breach_of_protocol() {
    with_client(|mut client| async move {
        let (mut sink, mut acks) = client.produce_stream(log(), 1).await.unwrap();
        sink.send(Bytes::from_static(b"swap")).await.unwrap();
        let error = acks.next().await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    });
}

#[test]
fn a_single_append_is_acknowledged_or_refused() {
    with_client(|mut client| async move {
        let ack = client.produce_once(&log(), Bytes::from_static(b"ok")).await.unwrap();
        assert_eq!(ack.base_offset, Offset(10));
        let error = client.produce_once(&log(), Bytes::from_static(b"no")).await.unwrap_err();
        assert!(error.to_string().contains("refused: no (InvalidArgument)"), "{error}");
    });
}

#[test]
fn chunks_join_and_a_gap_is_a_breach_of_protocol() {
    let options = |records_max| FetchOptions {
        position: Position::Start,
        chunk_bytes_max: 0,
        records_max,
        follow: false,
        consistency: Consistency::Committed,
    };
    with_client(|mut client| async move {
        let mut chunks = client.fetch(&log(), options(None)).await.unwrap();
        let mut bases = Vec::new();
        while let Some(chunk) = chunks.next().await.unwrap() {
            bases.push(chunk.base.0);
        }
        assert_eq!(bases, [0, 5, 10]);
        let mut chunks = client.fetch(&log(), options(Some(1))).await.unwrap();
        chunks.next().await.unwrap();
        assert!(matches!(chunks.next().await, Err(ClientError::Protocol { .. })));
    });
}

#[test]
fn what_the_node_does_not_have_is_refused_for_certain() {
    with_client(|mut client| async move {
        let error = client.describe("nothing").await.unwrap_err();
        let ClientError::Refused(refusal) = error else { panic!("{error}") };
        assert_eq!((refusal.code, refusal.definite), (Code::NotFound, true));
    });
}

#[test]
fn where_nobody_listens_the_node_is_unavailable() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Client::connect(&address, ClientOptions::default()).await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
        let error = Client::connect("not an address", ClientOptions::default()).await.unwrap_err();
        assert!(matches!(error, ClientError::Address { .. }), "{error}");
    });
}
