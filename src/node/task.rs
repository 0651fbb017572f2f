//! A task of the node that serves no port, supervised as what serves one is: started again when it
//! panics, ended when the node stops.

use super::FAREWELL;
use crate::actors::frontend::{self, Draining, FrontendActor, Serve};
use crate::supervision::{Place, Supervisor};
use std::future::Future;

/// Puts it below `root`, on the control thread; `work` is called at each start.
pub(super) fn below<F: Future<Output = ()> + 'static>(
    root: &Supervisor,
    name: &'static str,
    work: impl Fn() -> F + Send + Sync + 'static,
) {
    let serve = Serve::new(move |mut draining: Draining| {
        let work = work();
        Box::pin(async move {
            tokio::select! {
                () = work => Ok(()),
                // An error says that the actor is gone, and with it this future.
                _ = draining.wait_for(|wanted| *wanted) => Ok(()),
            }
        })
    });
    let spec = frontend::spec(name, FAREWELL);
    let _ =
        root.child(spec, Place::Control, move |_, seat| FrontendActor::new(seat, serve.clone()));
}
