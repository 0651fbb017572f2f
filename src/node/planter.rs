//! Keeps the node's replicas what the catalogue says: a task on the control thread, supervised as
//! what serves a port is.

use super::partitions::Partitions;
use super::task;
use crate::actors::control::ControlApi;
use crate::model::with_causes;
use crate::supervision::Supervisor;
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
    task::below(root, "planter", move || {
        follow(partitions.clone(), Arc::clone(&control), logger.clone())
    });
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
