//! How long a connection within TLS may stay: until its certificate expires, or is not good any more
//! since the node's files have changed. When the node shows another certificate itself, clients are
//! asked to connect anew, and have a while for it.

use super::drain::{Drain, DrainSwitch};
use super::handshake::Secured;
use crate::guards::tls::Generation;
use crate::model::{Caller, Timestamp};
use rustls::pki_types::CertificateDer;
use slog::{Logger, info, warn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// What a client has shown, and by what it was judged.
pub(super) struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    pub not_after: Timestamp,
    pub generation: Arc<Generation>,
}

/// Watches over one connection.
pub(super) struct Tenure {
    pub secured: Arc<Secured>,
    pub shown: Shown,
    pub peer: SocketAddr,
    pub caller: Caller,
    /// Asks the client to connect anew.
    pub farewell: DrainSwitch,
    pub logger: Logger,
}

impl Tenure {
    /// Ends the connection when its time is over. Ends itself with `ended`, whose other half the
    /// connection holds.
    pub async fn watch_over(
        mut self,
        connection: AbortHandle,
        ended: oneshot::Receiver<()>,
        drain: Drain,
    ) {
        let closed = tokio::select! {
            _ = ended => return,
            closed = self.until_its_time_is_over(drain) => closed,
        };
        connection.abort();
        let Self { peer, caller, logger, .. } = self;
        match closed {
            Closed::Unwanted(reason) => warn!(logger, "a client was put out";
                "peer" => %peer, "caller" => %caller, "reason" => reason),
            Closed::Replaced => {
                info!(logger, "a connection made with earlier certificates is closed";
                "peer" => %peer, "caller" => %caller)
            }
        }
    }

    async fn until_its_time_is_over(&mut self, drain: Drain) -> Closed {
        let wall = self.secured.clock.wall();
        let left = u64::try_from(self.shown.not_after.0.saturating_sub(wall.0)).unwrap_or(0);
        let mut expired = pin!(sleep(Duration::from_millis(left)));
        let mut drained = pin!(drain.begun());
        let mut is_drained = false;
        let mut changes = self.secured.tls.watch();
        let mut deadline: Option<Instant> = None;
        loop {
            let now = Arc::clone(&changes.borrow_and_update());
            if !Arc::ptr_eq(&now, &self.shown.generation) {
                if let Err(why) = now.lets_in(&self.shown.chain, self.secured.clock.wall()) {
                    return Closed::Unwanted(why);
                }
                if deadline.is_none() && !now.serves_as(&self.shown.generation) {
                    self.farewell.begin();
                    deadline = Some(Instant::now() + self.secured.rotation_grace);
                }
                self.shown.generation = now;
            }
            let replaced = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Closed::Replaced;
                },
                () = &mut expired => {
                    return Closed::Unwanted("its certificate has expired".into());
                }
                () = replaced => return Closed::Replaced,
                () = &mut drained, if !is_drained => {
                    is_drained = true;
                    self.farewell.begin();
                }
            }
        }
    }
}

enum Closed {
    Unwanted(String),
    Replaced,
}
