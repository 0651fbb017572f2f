//! The inside of a node, as an operator asks for it.

use super::bearer::Bearing;
use super::{Client, ClientError};
use crate::wire::pb::duramen::v1 as pb;
use pb::observe_client::ObserveClient;
use tonic::{Response, Status, Streaming};

/// Asks `duramen.v1.Observe`. Shares the connection of the client that it was made from.
#[derive(Debug, Clone)]
pub struct Observer {
    address: String,
    grpc: ObserveClient<Bearing>,
}

/// What a tap tells, as it happens.
#[derive(Debug)]
pub struct Tapped {
    address: String,
    responses: Streaming<pb::TapResponse>,
}

impl Client {
    /// The same connection, for looking inside.
    pub fn observer(&self) -> Observer {
        let grpc = ObserveClient::new(self.channel.clone())
            .max_decoding_message_size(self.message_bytes_max);
        Observer { address: self.address.clone(), grpc }
    }
}

impl Observer {
    /// Where the node is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The places that a pattern covers; all of them for an empty one.
    ///
    /// # Errors
    /// The pattern covers nothing, or the node is gone.
    pub async fn tree(&mut self, pattern: &str) -> Result<pb::TreeResponse, ClientError> {
        let request = pb::TreeRequest { pattern: pattern.into() };
        let answered = self.grpc.tree(request).await;
        self.read(answered)
    }

    /// Opens a tap.
    ///
    /// # Errors
    /// The pattern covers nobody, there are too many taps, or the node is gone.
    pub async fn tap(&mut self, request: pb::TapRequest) -> Result<Tapped, ClientError> {
        let answered = self.grpc.tap(request).await;
        Ok(Tapped { address: self.address.clone(), responses: self.read(answered)? })
    }

    /// Asks why something waits.
    ///
    /// # Errors
    /// There is no such thing, or the node is gone.
    pub async fn explain(
        &mut self,
        subject: pb::explain_request::Subject,
    ) -> Result<pb::Explanation, ClientError> {
        let answered = self.grpc.explain(pb::ExplainRequest { subject: Some(subject) }).await;
        self.read(answered)
    }

    /// Acts on a place.
    ///
    /// # Errors
    /// There is no such place, it is not one that this can be done to, or the node is gone.
    pub async fn act(
        &mut self,
        action: pb::Action,
        path: &str,
        reason: &str,
    ) -> Result<pb::CommandResponse, ClientError> {
        let (path, reason) = (path.into(), reason.into());
        let request = pb::CommandRequest { action: action.into(), path, reason };
        let answered = self.grpc.command(request).await;
        self.read(answered)
    }

    /// Asks which lines of diagnostics are written.
    ///
    /// # Errors
    /// The node does not decide that, or is gone.
    pub async fn log_levels(&mut self) -> Result<pb::LogLevels, ClientError> {
        let answered = self.grpc.get_log_levels(pb::GetLogLevelsRequest {}).await;
        self.read(answered)
    }

    /// Changes which lines of diagnostics are written.
    ///
    /// # Errors
    /// The text is no specification, the node does not decide that, or is gone.
    pub async fn set_log_levels(&mut self, spec: &str) -> Result<pb::LogLevels, ClientError> {
        let answered =
            self.grpc.set_log_levels(pb::SetLogLevelsRequest { spec: spec.into() }).await;
        self.read(answered)
    }

    fn read<T>(&self, answered: Result<Response<T>, Status>) -> Result<T, ClientError> {
        answered.map(Response::into_inner).map_err(|status| ClientError::of(status, &self.address))
    }
}

impl Tapped {
    /// What was told next; `None` where the node has no more to tell.
    ///
    /// # Errors
    /// The tap was cut off.
    pub async fn next(&mut self) -> Result<Option<pb::TapResponse>, ClientError> {
        let told = self.responses.message().await;
        told.map_err(|status| ClientError::of(status, &self.address))
    }
}
