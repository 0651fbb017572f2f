//! The token that a client shows with each call, where it has one.

use std::fmt;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A token, or none. Nobody sees it but the node.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bearer(Option<AsciiMetadataValue>);

/// A connection on which a token is shown.
pub(super) type Bearing = InterceptedService<Channel, Bearer>;

impl Bearer {
    /// Shows this token; `None` where it is a text that no header can hold.
    pub fn new(token: &str) -> Option<Self> {
        let mut value: AsciiMetadataValue = format!("Bearer {}", token.trim()).parse().ok()?;
        value.set_sensitive(true);
        Some(Self(Some(value)))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bearer").field(&self.0.is_some()).finish()
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
