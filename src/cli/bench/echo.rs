//! The floor of the network: a bare tonic server with the node's messages and wiring (one thread,
//! the same windows) and no log. It answers a produce at once and a fetch from memory.

use super::BenchError;
use crate::wire::pb::duramen::v1 as pb;
use bytes::Bytes;
use pb::fetch_request::Position;
use pb::log_server::{Log, LogServer};
use std::io::Write;
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

struct Echo;

fn answer(request: &pb::ProduceRequest) -> pb::ProduceResponse {
    pb::ProduceResponse {
        correlation_id: request.correlation_id,
        base_offset: 1 << 20,
        record_count: 1,
        timestamp_ms: 1_700_000_000_000,
        durability: pb::Durability::Os as i32,
        error: None,
    }
}

#[tonic::async_trait]
impl Log for Echo {
    type ProduceStream =
        Pin<Box<dyn Stream<Item = Result<pb::ProduceResponse, Status>> + Send + 'static>>;

    async fn produce(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let requests = request.into_inner();
        Ok(Response::new(Box::pin(requests.map(|request| Ok(answer(&request?))))))
    }

    async fn produce_once(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        Ok(Response::new(answer(&request.into_inner())))
    }

    type FetchStream =
        Pin<Box<dyn Stream<Item = Result<pb::FetchResponse, Status>> + Send + 'static>>;

    /// As many messages as `before_end` says, of `max_bytes` each.
    async fn fetch(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let Some(Position::BeforeEnd(messages)) = request.position else {
            return Err(Status::invalid_argument("the echo server counts messages by before_end"));
        };
        let batches = Bytes::from(vec![7; request.max_bytes as usize]);
        let message = move |at: u64| {
            let batches = batches.clone();
            let (base_offset, next_offset) = (at, at + 1);
            Ok(pb::FetchResponse { base_offset, next_offset, batches, ..Default::default() })
        };
        Ok(Response::new(Box::pin(tokio_stream::iter((0..messages).map(message)))))
    }

    async fn fetch_once(
        &self,
        _request: Request<pb::FetchRequest>,
    ) -> Result<Response<pb::FetchResponse>, Status> {
        Ok(Response::new(pb::FetchResponse::default()))
    }

    async fn describe(
        &self,
        _request: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        Ok(Response::new(pb::DescribeResponse::default()))
    }

    async fn metadata(
        &self,
        _request: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        Ok(Response::new(pb::MetadataResponse::default()))
    }
}

/// Serves on a free port, told on the first line of standard output, until it is killed.
pub async fn serve() -> Result<(), BenchError> {
    let listening = BenchError::io("the echo server cannot listen");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(listening)?;
    let addr = listener.local_addr().map_err(BenchError::io("the echo server has no address"))?;
    let mut stdout = std::io::stdout();
    let told = writeln!(stdout, "{addr}").and_then(|()| stdout.flush());
    told.map_err(BenchError::io("the echo server cannot tell its address"))?;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener).map(|accepted| {
        accepted.inspect(|stream| {
            // Without it the floor is only slower, never wrong.
            let _ = stream.set_nodelay(true);
        })
    });
    let service = LogServer::new(Echo).max_decoding_message_size(64 << 20);
    tonic::transport::Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(1024)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
        .map_err(|source| BenchError::Connect { addr: addr.to_string(), source: source.into() })
}
