//! The actor that hosts a front end: gRPC on the shard, HTTP on the control thread. It owns the
//! front end's lifetime, the protocol owns everything else.
//!
//! The listening socket outlives the actor, so that a restart loses no client in its backlog. A
//! panic in a connection is the end of that connection only; a crash of this actor closes them all,
//! and clients come back to its successor.

use crate::model::Disposition;
use crate::supervision::{Backoff, ChildSpec, Restart, Seat};
use actix::prelude::*;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Restart policy of a front end: always. It holds no state, so a restart costs nothing; ports
/// that cannot be served at all end the node by escalation.
pub fn spec(name: &'static str, drain: Duration) -> ChildSpec {
    ChildSpec {
        restart: Restart::Permanent,
        backoff: Backoff {
            min: Duration::from_millis(10),
            max: Duration::from_secs(2),
            jitter: 0.2,
        },
        shutdown_grace: drain,
        ..ChildSpec::new(name)
    }
}

/// Becomes true when the front end is to take no more connections and let the open ones finish.
pub type Draining = watch::Receiver<bool>;
/// A front end at work: ends when it has drained, or with the reason why it cannot go on.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// How a front end is set to work, again at each restart.
#[derive(Clone)]
pub struct Serve {
    serve: Arc<dyn Fn(Draining) -> Serving + Send + Sync>,
    at_failure: Disposition,
}

impl Serve {
    /// Wraps the function that serves. It is called on the thread where the actor lives.
    pub fn new(serve: impl Fn(Draining) -> Serving + Send + Sync + 'static) -> Self {
        Self { serve: Arc::new(serve), at_failure: Disposition::RebuildActor }
    }

    /// As [`Serve::new`], where a failure is one that a person must see to: it is not tried again.
    pub fn or_out_of_service(serve: impl Fn(Draining) -> Serving + Send + Sync + 'static) -> Self {
        Self { serve: Arc::new(serve), at_failure: Disposition::Quarantine }
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serve")
    }
}

/// The actor.
#[derive(Debug)]
pub struct FrontendActor {
    seat: Seat<Self>,
    serve: Serve,
    drain: watch::Sender<bool>,
    finished: bool,
}

impl FrontendActor {
    /// The factory.
    pub fn new(seat: Seat<Self>, serve: Serve) -> Self {
        Self { seat, serve, drain: watch::channel(false).0, finished: false }
    }
}

impl Actor for FrontendActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let serving = (self.serve.serve)(self.drain.subscribe()).into_actor(self);
        context.spawn(serving.map(|outcome, actor, context: &mut Context<Self>| {
            actor.finished = true;
            if let Err(reason) = outcome {
                actor.seat.fail(reason, actor.serve.at_failure);
            }
            context.stop();
        }));
    }

    /// A stop begins the drain; the end of the drain is the stop.
    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        if self.finished {
            return Running::Stop;
        }
        self.drain.send_replace(true);
        Running::Continue
    }
}
