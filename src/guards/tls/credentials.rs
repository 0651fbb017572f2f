//! What one end of a connection shows and trusts, read and found to belong together.

use super::describe::{describe, revoked_in};
use super::files::TlsError;
use super::identity::Identity;
use super::live::Generation;
use super::reason::in_words;
use crate::model::Timestamp;
use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// A file and what it holds.
type Named<'a> = (&'a Path, &'a [u8]);

/// See the module.
pub struct Credentials {
    roots: Arc<RootCertStore>,
    authorities: Vec<CertificateDer<'static>>,
    own: Arc<CertifiedKey>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    identity: Identity,
}

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

pub(super) fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(time.0).unwrap_or(0)))
}

/// All parts of one kind in a PEM file; at least one.
pub(super) fn parts<T: PemObject>((file, pem): Named<'_>, what: &str) -> Result<Vec<T>, TlsError> {
    let parts: Result<Vec<T>, _> = T::pem_slice_iter(pem).collect();
    let parts = parts.map_err(|error| {
        TlsError::content(file, format!("it is not sound PEM text: {error}; expected {what}"))
    })?;
    if parts.is_empty() {
        return Err(TlsError::content(file, format!("it does not hold {what} in PEM")));
    }
    Ok(parts)
}

/// The lists of a file, of each CA the newest first: that one counts.
fn lists(file: Named<'_>) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut lists = parts(file, "a list of revoked certificates")?;
    // Where one cannot be read, making a verifier of them tells it.
    lists.sort_by_cached_key(|list: &CertificateRevocationListDer<'_>| {
        Reverse(revoked_in(list).map_or(0, |list| list.number))
    });
    Ok(lists)
}

/// Lists of revoked certificates are found by their CA's name: of two CAs called alike, the
/// certificates of one would all be refused.
fn told_apart(file: &Path, authorities: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    let mut keys = BTreeMap::new();
    for authority in authorities {
        let (_, read) = x509_parser::parse_x509_certificate(authority)
            .map_err(|error| TlsError::content(file, error))?;
        let (name, key) = (read.subject().as_raw().to_vec(), read.public_key().raw.to_vec());
        if *keys.entry(name).or_insert_with(|| key.clone()) != key {
            let what = format!(
                "it holds two CAs of the name {}, and a list of revoked certificates cannot tell \
                 which it is of; take one of them out, or the list (crl.pem)",
                read.subject()
            );
            return Err(TlsError::content(file, what));
        }
    }
    Ok(())
}

/// A side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who connects.
    Client,
    /// Who is connected to.
    Server,
}

/// What is wrong with the own certificate, on one side of a connection.
fn of_own(error: &rustls::Error, side: &str) -> String {
    use rustls::{CertificateError as C, Error::InvalidCertificate};
    match error {
        InvalidCertificate(C::InvalidPurpose | C::InvalidPurposeContext { .. }) => {
            format!("its extended key usage lacks {side}Auth")
        }
        InvalidCertificate(C::UnknownIssuer) => "it is of a CA that is not in the CA's file".into(),
        other => in_words(other),
    }
}

impl Credentials {
    /// Reads PEM text, each with the file that it is from.
    ///
    /// # Errors
    /// Which file does not hold what it should, or does not belong to the others.
    pub fn read(
        ca: Named<'_>,
        cert: Named<'_>,
        key: Named<'_>,
        crl: Option<Named<'_>>,
    ) -> Result<Self, TlsError> {
        let authorities: Vec<CertificateDer<'static>> = parts(ca, "certificates of a CA")?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|error| {
                TlsError::content(
                    ca.0,
                    format!("it holds a certificate that is none of a CA: {error}"),
                )
            })?;
        }
        let chain: Vec<CertificateDer<'static>> = parts(cert, "a certificate")?;
        let identity = Identity::of(&chain[0]).map_err(|error| TlsError::content(cert.0, error))?;
        let private = PrivateKeyDer::from_pem_slice(key.1).map_err(|_| {
            // Nothing of the text is repeated: it may be a key all the same.
            TlsError::content(key.0, "it does not hold a private key in PEM without a password")
        })?;
        let own = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
            use rustls::{Error, InconsistentKeys::KeyMismatch};
            let what = match error {
                Error::InconsistentKeys(KeyMismatch) => {
                    format!("it is not the key of {}", cert.0.display())
                }
                other => format!("it cannot be used: {other}"),
            };
            TlsError::content(key.0, what)
        })?;
        let crls = match crl {
            Some(crl) => {
                told_apart(ca.0, &authorities)?;
                lists(crl)?
            }
            None => Vec::new(),
        };
        let read = Self { roots: Arc::new(roots), authorities, own: Arc::new(own), crls, identity };
        if let Some((file, _)) = crl {
            // The lists are read when a verifier is made of them.
            read.client_verifier().map_err(|error| TlsError::content(file, error))?;
        }
        Ok(read)
    }

    /// Whom the own certificate is for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The own certificate, intermediate ones behind it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.own.cert
    }

    /// Whether a list of revoked certificates is honoured.
    pub fn has_crl(&self) -> bool {
        !self.crls.is_empty()
    }

    /// Whether lists that were honoured `before` still are, or newer ones of the same CAs. Those of a CA
    /// in the CA's file may go with it; that of an intermediate one, which stands in no file, when all
    /// CAs that were there are gone.
    ///
    /// # Errors
    /// Which is gone or older, in words.
    pub(super) fn still_honours(&self, before: &Self) -> Result<(), String> {
        let numbers = |of: &Self| {
            let lists = of.crls.iter().rev().filter_map(|list| revoked_in(list).ok());
            // The newest stands first, and counts.
            lists.map(|list| (list.issuer, list.number)).collect::<BTreeMap<_, _>>()
        };
        let trusted = |of: &Self| -> BTreeSet<String> {
            of.authorities.iter().filter_map(|ca| Some(describe(ca).ok()?.subject)).collect()
        };
        let (roots, roots_before) = (trusted(self), trusted(before));
        let are_all_new = roots.is_disjoint(&roots_before);
        let now = numbers(self);
        for (issuer, number) in numbers(before) {
            match now.get(&issuer) {
                Some(newer) if *newer >= number => {}
                Some(older) => {
                    return Err(format!(
                        "its list of {issuer} is older (number {older}) than the one in force \
                         ({number}): whoever was revoked since would be let in again"
                    ));
                }
                None if are_all_new => {}
                None if roots_before.contains(&issuer) && !roots.contains(&issuer) => {}
                None => {
                    return Err(format!(
                        "the list of {issuer} was honoured and is gone: whoever is on it would be \
                         let in again"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Why the own certificate would not be taken by others of the same CA at this time, on these
    /// sides of a connection; empty: it would.
    pub fn faults(&self, now: Timestamp, sides: &[Side]) -> Vec<String> {
        let of = |side: &Side| self.faults_of(self.chain(), now, *side);
        let mut faults: Vec<String> = sides.iter().flat_map(of).collect();
        faults.dedup();
        faults
    }

    /// Why a certificate, intermediate ones behind it, would not be taken by whoever trusts as this end
    /// does, at this time and on this side of a connection; empty: it would.
    pub(super) fn faults_of(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
        side: Side,
    ) -> Vec<String> {
        let now = unix_time(now);
        let (own, others) = (&chain[0], &chain[1..]);
        let names = match describe(own) {
            Ok(read) => read.names,
            Err(fault) => return vec![fault],
        };
        let mut faults = Vec::new();
        match side {
            Side::Client => faults.extend(
                self.client_verifier()
                    .and_then(|verifier| {
                        let verified = verifier.verify_client_cert(own, others, now);
                        verified.map(|_| ()).map_err(|error| of_own(&error, "client"))
                    })
                    .err(),
            ),
            Side::Server => {
                // Of a wildcard's hosts one is asked for.
                let hosts = names.iter().map(|name| match name.strip_prefix("*.") {
                    Some(domain) => format!("any.{domain}"),
                    None => name.clone(),
                });
                let hosts: Vec<ServerName<'_>> =
                    hosts.filter_map(|host| ServerName::try_from(host).ok()).collect();
                if hosts.is_empty() {
                    faults.push("it names no host, as a server's does".into());
                }
                let verifier = self.server_verifier();
                for host in &hosts {
                    let verified = verifier.as_ref().map_err(Clone::clone).and_then(|verifier| {
                        let verified = verifier.verify_server_cert(own, others, host, &[], now);
                        verified.map(|_| ()).map_err(|error| of_own(&error, "server"))
                    });
                    faults.extend(verified.err());
                }
            }
        }
        faults.dedup();
        faults
    }

    /// Whether another end would be shown and asked for the same, revoked certificates left out.
    pub(super) fn shows_the_same(&self, other: &Self) -> bool {
        self.chain() == other.chain() && self.authorities == other.authorities
    }

    /// Decides about clients.
    pub(super) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        // One that no list speaks of is refused as soon as there is a list: it has to be the CA's.
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .with_crls(self.crls.iter().cloned())
            .only_check_end_entity_revocation()
            .build()
            .map_err(|error| error.to_string())
    }

    /// Decides about servers.
    pub(super) fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, String> {
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .with_crls(self.crls.iter().cloned())
            .only_check_end_entity_revocation()
            .build()
            .map_err(|error| error.to_string())
    }

    /// What a port is served with that speaks `protocol`.
    pub(super) fn server(
        &self,
        verifier: &Arc<dyn ClientCertVerifier>,
        protocol: &[u8],
    ) -> Result<Arc<ServerConfig>, String> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(Arc::clone(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.own))));
        config.alpn_protocols = vec![protocol.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What gRPC connections are made with.
    pub(super) fn client(
        &self,
        verifier: &Arc<WebPkiServerVerifier>,
    ) -> Result<Arc<ClientConfig>, String> {
        let own = Arc::new(SingleCertAndKey::from(Arc::clone(&self.own)));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(Arc::clone(verifier))
            .with_client_cert_resolver(own);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// The key is left out.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.identity)
    }
}

/// Whom a client wants to find at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ExpectedServer {
    /// Any server of the CA that has the host's name.
    #[default]
    Any,
    /// A node.
    Node,
    /// The node of this name.
    NodeNamed(Arc<str>),
}

/// What a program makes TLS connections with. Clones share it; a node's is renewed with its files.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ArcSwap<ClientConfig>>,
    expected: ExpectedServer,
    /// A node's, as its files change.
    renewed: Option<watch::Receiver<Arc<Generation>>>,
}

impl ClientTls {
    /// Of a program that runs for a while: what is given is not read again.
    ///
    /// # Errors
    /// What rustls says.
    pub fn new(credentials: &Credentials) -> Result<Self, String> {
        let config = credentials.client(&credentials.server_verifier()?)?;
        let config = Arc::new(ArcSwap::new(config));
        Ok(Self { config, expected: ExpectedServer::Any, renewed: None })
    }

    pub(super) fn renewed(
        config: Arc<ArcSwap<ClientConfig>>,
        renewed: watch::Receiver<Arc<Generation>>,
    ) -> Self {
        Self { config, expected: ExpectedServer::Any, renewed: Some(renewed) }
    }

    /// The same, for connections that are to find this at the other end.
    #[must_use]
    pub fn expecting(&self, expected: ExpectedServer) -> Self {
        Self { expected, ..self.clone() }
    }

    /// What the next connection is made with.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.load_full()
    }

    /// Resolves, with the reason, when a server that was let in would not be any more: its certificate
    /// expires, or the files of this node have changed and it is revoked or of a CA that is not trusted.
    /// Never, where the files are not read again. Holds its own copy of what was `shown`.
    pub fn no_more(
        &self,
        name: ServerName<'static>,
        shown: &[CertificateDer<'_>],
    ) -> impl Future<Output = String> + Send + use<> {
        let chain: Vec<_> = shown.iter().map(|one| one.clone().into_owned()).collect();
        let renewed = self.renewed.clone();
        async move {
            let (Some(mut renewed), Some(own)) = (renewed, chain.first()) else {
                return std::future::pending().await;
            };
            let expires = describe(own).map_or(0, |own| own.not_after.0);
            let now = UnixTime::now().as_secs();
            let left = u64::try_from(expires / 1000).unwrap_or(0).saturating_sub(now);
            let mut expired = pin!(tokio::time::sleep(Duration::from_secs(left)));
            loop {
                let judged = renewed.borrow_and_update().trusts(&chain, &name, UnixTime::now());
                if let Err(why) = judged {
                    return why;
                }
                tokio::select! {
                    changed = renewed.changed() => if changed.is_err() {
                        return std::future::pending().await;
                    },
                    () = &mut expired => return "its certificate has expired".into(),
                }
            }
        }
    }

    /// Whether the other end is who was looked for, by the certificate that it has shown, which is
    /// known to be the CA's and the host's.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(&self, shown: Option<&[CertificateDer<'_>]>) -> Result<(), String> {
        let wanted = match &self.expected {
            ExpectedServer::Any => return Ok(()),
            ExpectedServer::Node => None,
            ExpectedServer::NodeNamed(name) => Some(name),
        };
        let shown = shown.and_then(<[_]>::first).ok_or("it shows no certificate")?;
        let Identity { peer, .. } = Identity::of(shown).map_err(|error| error.to_string())?;
        let Some(peer) = peer else {
            return Err("its certificate is not a node's (no duramen://peer/NAME)".into());
        };
        match wanted {
            Some(name) if *name != peer => Err(format!(
                "its certificate is that of the node {}, and {name} was looked for",
                peer.escape_debug()
            )),
            _ => Ok(()),
        }
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.expected == other.expected
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.expected)
    }
}
