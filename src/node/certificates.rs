//! The node's certificates: read at the start, looked at every second, and read again when they have
//! changed or somebody asks for it.

use super::NodeError;
use crate::guards::tls::{Described, Faults, Generation, Reloaded, Tls, TlsFiles, describe};
use crate::model::Clock;
use crate::observe::metrics::Counter;
use crate::ops::settings::{Settings, TlsSettings};
use crate::supervision::TreeHandle;
use slog::{Logger, error, info, warn};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A certificate is told of at the start when it expires within this time (unit: milliseconds).
const SOON: i64 = 14 * 86_400_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Certificates {
    pub tls: Arc<Tls>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// Times that changed files could not be used.
    pub failures: Counter,
    logger: Logger,
}

impl Certificates {
    /// Reads what the settings name, and tells of it; `None` where they name nothing. Blocks shortly.
    ///
    /// # Errors
    /// A file is not as it should be.
    pub fn open(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        logger: Logger,
    ) -> Result<Option<Arc<Self>>, NodeError> {
        let own = Self::read(settings, clock, logger)?;
        Ok(own.inspect(Self::tell).map(Arc::new))
    }

    /// Reads them as [`Certificates::open`] does, and tells only what is amiss. Returns why nobody
    /// would connect to a node that shows them, and why no node would let it in with what it has for
    /// nodes alone. Blocks shortly.
    ///
    /// # Errors
    /// As [`Certificates::open`].
    pub fn rehearse(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        logger: Logger,
    ) -> Result<Vec<String>, NodeError> {
        let Some(own) = Self::read(settings, clock, logger)? else { return Ok(Vec::new()) };
        let Faults { served, dialed, .. } = own.warn();
        let served = served.into_iter().map(|fault| format!("nobody would connect: {fault}"));
        // What is shown to clients too may be a server's certificate and no more: one node needs no other.
        let dialed = dialed.into_iter().filter(|_| settings.tls.peer_cert_file.is_some());
        let dialed = dialed.map(|fault| format!("no other node would let it in: {fault}"));
        Ok(served.chain(dialed).collect())
    }

    fn read(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        logger: Logger,
    ) -> Result<Option<Self>, NodeError> {
        if !settings.tls.is_on() {
            return Ok(None);
        }
        let (served, dialed) = files(&settings.tls);
        let (settings, clock) = (settings.clone(), Arc::clone(clock));
        let (tls, failures) = (Tls::open(served, dialed)?, Counter::default());
        Ok(Some(Self { tls, settings, clock, failures, logger }))
    }

    /// Tells what is in force, and what is amiss with it though it can be used.
    fn tell(&self) {
        let now = self.tls.now();
        if let Some(own) = shown(&now) {
            info!(self.logger, "certificates are in force"; "is" => own.role(),
                "fingerprint" => &own.fingerprint, "expires" => own.not_after.rfc3339(),
                "revocation_list" => now.served().has_crl());
        }
        self.warn();
    }

    fn warn(&self) -> Faults {
        let (now, wall, logger) = (self.tls.now(), self.clock.wall(), &self.logger);
        let faults = self.tls.faults(wall);
        for fault in &faults.served {
            warn!(logger, "nobody who believes in the same CAs will connect to this node: its certificate \
                is not one that they take"; "error" => fault,
                "advice" => "replace it: duramen tls node NAME");
        }
        // Told once where it is the same.
        for fault in faults.dialed.iter().filter(|fault| !faults.served.contains(fault)) {
            warn!(logger, "other nodes will not let this one in: what it shows them is not a \
                certificate that they take"; "error" => fault,
                "advice" => "replace it: duramen tls node NAME");
        }
        for key in &faults.keys {
            warn!(logger, "a key can be read by others on this machine"; "error" => key);
        }
        let Some(Described { not_after, .. }) = shown(&now) else { return faults };
        if (0..SOON).contains(&(not_after.0 - wall.0)) {
            warn!(logger, "this node's certificate expires soon: nobody will connect then";
                "expires" => not_after.rfc3339(), "advice" => "replace it: duramen tls node NAME");
        }
        let name = self.settings.node.shown_name();
        let said = now.dialed().identity().peer.clone();
        if said.as_deref() != Some(name.as_str()) {
            warn!(logger, "other nodes will not talk to this one: its certificate does not say \
                that it is this node"; "node_name" => &name, "certificate_says" => said.as_deref(),
                "advice" => format!("duramen tls node {name}, or --node-name"));
        }
        faults
    }

    /// Reads the files again, if they have changed or anyway; what is wrong with them is told, and
    /// changes nothing. Blocks shortly.
    pub fn reload(&self, anyway: bool) {
        match self.tls.reload(anyway) {
            Ok(Reloaded::Unchanged) => {}
            Ok(Reloaded::Changed) => self.tell(),
            Err(fault) => {
                self.failures.one();
                error!(self.logger, "certificates have changed and cannot be used; those \
                before stay in force"; "error" => %fault)
            }
        }
    }

    /// Looks after the files until the tree ends.
    pub async fn watch(self: Arc<Self>, tree: TreeHandle) {
        let look = async {
            let mut every = tokio::time::interval(LOOK_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                self.reload(false);
            }
        };
        tokio::select! {
            () = look => {}
            _ = tree.outcome() => {}
        }
    }
}

/// The certificate that clients are shown.
fn shown(now: &Generation) -> Option<Described> {
    now.served().chain().first().map(describe)?.ok()
}

fn files(tls: &TlsSettings) -> (TlsFiles, Option<TlsFiles>) {
    let dir = tls.dir.as_deref();
    // Without a directory the settings' rules have seen to it that all three are given.
    let mut served = TlsFiles::in_dir(dir.unwrap_or(Path::new("")), "node");
    let named = [
        (&mut served.ca, &tls.ca_file),
        (&mut served.cert, &tls.cert_file),
        (&mut served.key, &tls.key_file),
    ];
    for (file, named) in named {
        if let Some(named) = named {
            file.clone_from(named);
        }
    }
    served.crl_required = tls.crl_file.is_some();
    served.crl = tls.crl_file.clone().or(served.crl.filter(|_| dir.is_some()));
    let is_apart = tls.peer_ca_file.is_some() || tls.peer_cert_file.is_some();
    let dialed = is_apart.then(|| TlsFiles {
        ca: tls.peer_ca_file.clone().unwrap_or_else(|| served.ca.clone()),
        cert: tls.peer_cert_file.clone().unwrap_or_else(|| served.cert.clone()),
        key: tls.peer_key_file.clone().unwrap_or_else(|| served.key.clone()),
        ..served.clone()
    });
    (served, dialed)
}
