//! A node's certificates while it runs: read at the start, and again when they change. What cannot
//! be read changes nothing.

use super::credentials::{ClientTls, Credentials, Side, unix_time};
use super::files::{Stamp, TlsError, TlsFiles};
use super::reason::in_words;
use crate::model::Timestamp;
use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ServerConfig};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What a node shows and trusts, from when its files were read until they change.
pub struct Generation {
    served: Credentials,
    dialed: Option<Credentials>,
    verifier: Arc<dyn ClientCertVerifier>,
    server_verifier: Arc<WebPkiServerVerifier>,
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Generation {
    fn load(files: &Files) -> Result<Self, TlsError> {
        let served = files.served.load()?;
        let dialed = files.dialed.as_ref().map(TlsFiles::load).transpose()?;
        // Everything that rustls could find fault with was read: these tell of a provider without
        // what TLS needs.
        let unusable = |what: String| TlsError::content(&files.served.cert, what);
        let verifier = served.client_verifier().map_err(unusable)?;
        let grpc = served.server(&verifier, b"h2").map_err(unusable)?;
        let http = served.server(&verifier, b"http/1.1").map_err(unusable)?;
        let dials = dialed.as_ref().unwrap_or(&served);
        let server_verifier = dials.server_verifier().map_err(unusable)?;
        let client = dials.client(&server_verifier).map_err(unusable)?;
        Ok(Self { served, dialed, verifier, server_verifier, grpc, http, client })
    }

    /// What the gRPC port is served with.
    pub fn grpc(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.grpc)
    }

    /// What the HTTP port is served with.
    pub fn http(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.http)
    }

    /// What the node shows clients.
    pub fn served(&self) -> &Credentials {
        &self.served
    }

    /// What the node shows other nodes.
    pub fn dialed(&self) -> &Credentials {
        self.dialed.as_ref().unwrap_or(&self.served)
    }

    /// Whether somebody who has shown this chain is still let in.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn lets_in(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
        let Some((own, others)) = chain.split_first() else {
            return Err("it has shown no certificate".into());
        };
        let verified = self.verifier.verify_client_cert(own, others, unix_time(now));
        verified.map(|_| ()).map_err(|error| in_words(&error))
    }

    /// Whether a server that has shown this chain is still one to talk to.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn trusts(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        let Some((own, others)) = chain.split_first() else {
            return Err("it has shown no certificate".into());
        };
        let verified = self.server_verifier.verify_server_cert(own, others, name, &[], now);
        verified.map(|_| ()).map_err(|error| in_words(&error))
    }

    /// Whether a connection made now would be shown and asked for the same as one of `before`.
    pub fn serves_as(&self, before: &Self) -> bool {
        self.served.shows_the_same(&before.served)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({:?})", self.served)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    served: TlsFiles,
    /// Shown to other nodes, where that is not the same.
    dialed: Option<TlsFiles>,
}

type Stamps = ([Option<Stamp>; 4], Option<[Option<Stamp>; 4]>);

impl Files {
    fn stamps(&self) -> Stamps {
        (self.served.stamps(), self.dialed.as_ref().map(TlsFiles::stamps))
    }
}

/// What reading the files again came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// They are as they were when they were read last.
    Unchanged,
    /// They are in force.
    Changed,
}

/// What is amiss with certificates that can be used, each with the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// Why other nodes, and whoever believes in the same CAs as they, would not connect to the node.
    pub served: Vec<String>,
    /// Why other nodes would not let it in.
    pub dialed: Vec<String>,
    /// Keys that others than their owner may read.
    pub keys: Vec<String>,
}

/// See the module. Shared; callable from any thread.
pub struct Tls {
    files: Files,
    /// The files as they were when they were read last, well or not.
    seen: Mutex<Stamps>,
    now: watch::Sender<Arc<Generation>>,
    client: Arc<ArcSwap<ClientConfig>>,
}

impl Tls {
    /// Reads the files. `dialed`: what is shown to other nodes, where that is something else. Blocks
    /// shortly.
    ///
    /// # Errors
    /// Which file is not as it should be, and why.
    pub fn open(served: TlsFiles, dialed: Option<TlsFiles>) -> Result<Arc<Self>, TlsError> {
        let files = Files { served, dialed };
        // Before they are read: what changes meanwhile is read again.
        let stamps = files.stamps();
        let generation = Arc::new(Generation::load(&files)?);
        let client = Arc::new(ArcSwap::new(Arc::clone(&generation.client)));
        let (now, _) = watch::channel(generation);
        Ok(Arc::new(Self { files, seen: Mutex::new(stamps), now, client }))
    }

    /// What is in force.
    pub fn now(&self) -> Arc<Generation> {
        Arc::clone(&self.now.borrow())
    }

    /// What is in force, and will be.
    pub fn watch(&self) -> watch::Receiver<Arc<Generation>> {
        self.now.subscribe()
    }

    /// What this node makes connections with.
    pub fn client(&self) -> ClientTls {
        ClientTls::renewed(Arc::clone(&self.client), self.watch())
    }

    /// What is amiss at this time with what is in force, though it can be used: as nodes with the same
    /// settings see it, who judge what is served by what they connect with, and the other way round.
    /// Blocks shortly.
    pub fn faults(&self, now: Timestamp) -> Faults {
        let (generation, Files { served, dialed }) = (self.now(), &self.files);
        let dialed = dialed.as_ref().unwrap_or(served);
        let (own, other) = (generation.served(), generation.dialed());
        let named = |files: &TlsFiles, faults: Vec<String>| -> Vec<String> {
            faults.iter().map(|fault| format!("{}: {fault}", files.cert.display())).collect()
        };
        let mut keys: Vec<String> =
            [served, dialed].iter().filter_map(|files| files.open_key()).collect();
        keys.dedup();
        Faults {
            served: named(served, other.faults_of(own.chain(), now, Side::Server)),
            dialed: named(dialed, own.faults_of(other.chain(), now, Side::Client)),
            keys,
        }
    }

    /// Reads the files again if they have changed, or anyway. Blocks shortly.
    ///
    /// # Errors
    /// They are not as they should be: what was in force stays in force. Told once for each change.
    pub fn reload(&self, anyway: bool) -> Result<Reloaded, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if *seen == stamps && !anyway {
            return Ok(Reloaded::Unchanged);
        }
        *seen = stamps;
        let generation = Generation::load(&self.files)?;
        let before = self.now();
        for (files, now, before) in [
            (Some(&self.files.served), Some(&generation.served), Some(&before.served)),
            (self.files.dialed.as_ref(), generation.dialed.as_ref(), before.dialed.as_ref()),
        ] {
            let (Some(files), Some(now), Some(before)) = (files, now, before) else { continue };
            now.still_honours(before).map_err(|what| {
                let crl = files.crl.as_deref().unwrap_or(&files.ca);
                let advice = "bring it back, or restart the node without it";
                TlsError::content(crl, format!("{what}; {advice}"))
            })?;
        }
        self.client.store(Arc::clone(&generation.client));
        self.now.send_replace(Arc::new(generation));
        Ok(Reloaded::Changed)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.files.served)
    }
}
