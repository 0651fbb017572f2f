//! Finds the service that a call's path names. The two log services are reached without a box
//! or a routing table; the others are not on a hot path.

use super::reply::{ReplyBody, rewritten};
use crate::observe::Complaints;
use crate::wire::pb::duramen::v1::log_server as duramen;
use crate::wire::pb::log::v1::log_server as book;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

type Call = http::Request<Incoming>;
type Reply = http::Response<tonic::body::Body>;
type NamedServices = Vec<(&'static str, BoxCloneSyncService<Call, Reply, Infallible>)>;

/// All services of the port, as one service of a connection.
pub struct Dispatch<B: book::Log, D: duramen::Log> {
    book: book::LogServer<B>,
    duramen: duramen::LogServer<D>,
    others: Arc<NamedServices>,
    /// Whose connection this is, and where its mistakes are noted.
    caller: Option<Caller>,
}

/// A client, and where its mistakes are noted.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub peer: SocketAddr,
    /// Where.
    pub complaints: Arc<Complaints>,
}

impl<B: book::Log, D: duramen::Log> Clone for Dispatch<B, D> {
    fn clone(&self) -> Self {
        Self {
            book: self.book.clone(),
            duramen: self.duramen.clone(),
            others: Arc::clone(&self.others),
            caller: self.caller.clone(),
        }
    }
}

impl<B: book::Log, D: duramen::Log> Dispatch<B, D> {
    /// The two log services.
    pub fn new(book: book::LogServer<B>, duramen: duramen::LogServer<D>) -> Self {
        Self { book, duramen, others: Arc::default(), caller: None }
    }

    /// The same services for one client.
    #[must_use]
    pub fn of(&self, caller: Caller) -> Self {
        Self { caller: Some(caller), ..self.clone() }
    }

    /// Adds a service that is called now and then.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Call, Response = Reply, Error = Infallible> + NamedService,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let service = BoxCloneSyncService::new(service);
        Arc::make_mut(&mut self.others).push((S::NAME, service));
        self
    }
}

impl<B: book::Log, D: duramen::Log> hyper::service::Service<Call> for Dispatch<B, D> {
    type Response = http::Response<ReplyBody>;
    type Error = Infallible;
    type Future = Replying;

    fn call(&self, mut call: Call) -> Replying {
        if let Some(caller) = &self.caller {
            call.extensions_mut().insert(caller.clone());
        }
        let service = call.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let reply = match service.map(|(name, _)| name) {
            Some(<duramen::LogServer<D> as NamedService>::NAME) => self.duramen.clone().call(call),
            Some(<book::LogServer<B> as NamedService>::NAME) => self.book.clone().call(call),
            Some(name) => match self.others.iter().find(|(known, _)| *known == name) {
                Some((_, service)) => Box::pin(service.clone().oneshot(call)),
                None => unimplemented(),
            },
            None => unimplemented(),
        };
        Replying { reply, caller: self.caller.clone() }
    }
}

fn unimplemented() -> BoxFuture<Reply, Infallible> {
    let message = "this port has no such service; ask its reflection service for the list";
    Box::pin(std::future::ready(Ok(tonic::Status::unimplemented(message).into_http())))
}

/// A reply on its way through [`rewritten`].
pub struct Replying {
    reply: BoxFuture<Reply, Infallible>,
    caller: Option<Caller>,
}

impl Future for Replying {
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.reply.as_mut().poll(cx).map(|reply| reply.map(|reply| rewritten(reply, &this.caller)))
    }
}
