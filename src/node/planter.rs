//! Keeps the node's replicas what the catalogue says: a task on the control thread, supervised as
//! what serves a port is.

use super::FAREWELL;
use super::partitions::Partitions;
use crate::actors::control::ControlApi;
use crate::actors::frontend::{self, Draining, FrontendActor, Serve};
use crate::model::with_causes;
use crate::supervision::{Place, Supervisor};
use slog::{Logger, warn};
use std::sync::Arc;
use std::time::Duration;

/// When what could not be done is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Puts the planter below `root`.
pub(super) fn below(
    root: &Supervisor,
    partitions: Partitions,
    control: Arc<dyn ControlApi>,
    logger: Logger,
) {
    let serve = Serve::new(move |mut draining: Draining| {
        let follow = follow(partitions.clone(), Arc::clone(&control), logger.clone());
        Box::pin(async move {
            tokio::select! {
                () = follow => Ok(()),
                // An error says that the actor is gone, and with it this future.
                _ = draining.wait_for(|wanted| *wanted) => Ok(()),
            }
        })
    });
    let spec = frontend::spec("planter", FAREWELL);
    let _ =
        root.child(spec, Place::Control, move |_, seat| FrontendActor::new(seat, serve.clone()));
}

async fn follow(partitions: Partitions, control: Arc<dyn ControlApi>, logger: Logger) {
    let mut catalogues = control.watch();
    loop {
        let catalogue = catalogues.borrow_and_update().clone();
        let followed = match control.node() {
            Some(me) => partitions.follow(&catalogue, me).await,
            None => Ok(()),
        };
        let again = async {
            match &followed {
                Ok(()) => std::future::pending().await,
                Err(error) => {
                    warn!(logger, "the node's replicas are not yet what they are to be";
                        "error" => with_causes(error));
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        };
        tokio::select! {
            changed = catalogues.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}
