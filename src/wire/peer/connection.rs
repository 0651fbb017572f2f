//! The client side of `duramen.v1.Peer`: one node's way to another.

use super::convert::FRAME_BYTES_MAX;
use super::proof::PeerProof;
use crate::guards::tls::ClientTls;
use crate::wire::client::{ClientError, Refusal};
use crate::wire::dial;
use crate::wire::pb::duramen::v1 as pb;
use pb::peer_client::PeerClient as Grpc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

/// Room for one stream's data on its way (unit: bytes).
const STREAM_WINDOW: u32 = 4 << 20;
/// Room for one connection's data on its way (unit: bytes).
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest HTTP/2 frame read (unit: bytes).
const HTTP_FRAME_BYTES_MAX: u32 = 256 << 10;

/// How often the transport asks whether the other node is there, and how long an answer may take: a
/// link that is cut without a word is noticed within their sum, also where nobody has anything to say.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(400);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(600);

/// A connection to another node.
#[derive(Debug, Clone)]
pub struct PeerClient {
    address: String,
    timeout: Duration,
    grpc: Grpc<Channel>,
    proof: PeerProof,
}

/// What a node tells back while it takes frames.
#[derive(Debug)]
pub struct Notices {
    address: String,
    notices: Streaming<pb::PeerNotice>,
}

/// What kind of no a node's refusal of [`PeerClient::join`] or [`PeerClient::change`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// There is such a thing already.
    Exists,
    /// There is no such thing.
    NotFound,
    /// The request makes no sense.
    Invalid,
    /// The state of the cluster does not allow it.
    NotNow,
    /// It is somebody else's: another cluster, another directory, another protocol.
    Foreign,
    /// Nobody can answer now: nothing was changed.
    Unavailable,
    /// It is not known whether anything was changed.
    Unknown,
}

impl Denial {
    /// Which one a refusal is.
    pub fn of(refusal: &Refusal) -> Self {
        match refusal.code {
            Code::AlreadyExists => Self::Exists,
            Code::NotFound => Self::NotFound,
            Code::InvalidArgument => Self::Invalid,
            Code::FailedPrecondition => Self::NotNow,
            Code::PermissionDenied => Self::Foreign,
            Code::Unavailable | Code::Unimplemented => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl PeerClient {
    /// Connects to `address`, `host:port`; within TLS where that is given, to whom it expects. The
    /// timeout is that of the connection, and of each call until it is answered.
    ///
    /// # Errors
    /// [`ClientError::Address`], or [`ClientError::Unavailable`] when nothing answers there in time.
    pub async fn connect(
        address: &str,
        timeout: Duration,
        tls: Option<&ClientTls>,
    ) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| ClientError::Address { address: address.into() })?
            .connect_timeout(timeout)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP_FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .tcp_nodelay(true);
        let unavailable = |source| ClientError::Unavailable { address: address.into(), source };
        // The timeout of the endpoint does not cover names that nobody resolves.
        let connecting = dial::connect(endpoint, address, tls);
        let channel = match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected.map_err(unavailable)?,
            Err(_) => return Err(unavailable(format!("no answer within {timeout:?}").into())),
        };
        let grpc = Grpc::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        Ok(Self { address: address.into(), timeout, grpc, proof: PeerProof::default() })
    }

    /// Shows with each call that this is a node.
    #[must_use]
    pub fn proving(self, proof: &PeerProof) -> Self {
        Self { proof: proof.clone(), ..self }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.proof.show(&mut request);
        request
    }

    /// Where the node is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks to become a member.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: see [`Denial`]; [`ClientError::Lost`]: it is unknown.
    pub async fn join(&mut self, asked: pb::JoinRequest) -> Result<pb::JoinResponse, ClientError> {
        let call = self.request(asked);
        let call = self.grpc.join(call);
        Ok(answered(self.timeout, &self.address, call).await?.into_inner())
    }

    /// Hands on a command for the catalogue.
    ///
    /// # Errors
    /// As [`PeerClient::join`].
    pub async fn change(
        &mut self,
        asked: pb::ChangeRequest,
    ) -> Result<pb::ChangeResponse, ClientError> {
        let call = self.request(asked);
        let call = self.grpc.change(call);
        Ok(answered(self.timeout, &self.address, call).await?.into_inner())
    }

    /// Introduces this node, and sends frames as they come. Resolves once the other node accepted
    /// the introduction; the exchange ends with `frames`.
    ///
    /// # Errors
    /// The other node does not talk to this one, and says why; or it does not answer.
    pub async fn exchange(
        &mut self,
        introduction: pb::Introduction,
        frames: mpsc::Receiver<pb::PeerFrame>,
    ) -> Result<Notices, ClientError> {
        let first = pb::PeerFrame { introduction: Some(introduction), ..Default::default() };
        let frames = tokio_stream::once(first).chain(ReceiverStream::new(frames));
        let call = self.request(frames);
        let call = self.grpc.exchange(call);
        let notices = answered(self.timeout, &self.address, call).await?.into_inner();
        Ok(Notices { address: self.address.clone(), notices })
    }
}

async fn answered<T>(
    timeout: Duration,
    address: &str,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(outcome) => outcome.map_err(|status| ClientError::of(status, address)),
        Err(_) => {
            let source = format!("no answer within {timeout:?}").into();
            Err(ClientError::Lost { address: address.into(), source })
        }
    }
}

impl Notices {
    /// How many frames the other node has taken; `None` when it ended the exchange in peace.
    ///
    /// # Errors
    /// The connection broke, or the other node ended the exchange and says why.
    pub async fn next(&mut self) -> Result<Option<u64>, ClientError> {
        let notice = self.notices.message().await;
        let notice = notice.map_err(|status| ClientError::of(status, &self.address))?;
        Ok(notice.map(|notice| notice.frames))
    }
}
