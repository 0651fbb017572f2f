//! The door of a port: who asks (a certificate, a token, another node), and whether the gate lets it
//! pass. What a port's methods need is in one table for each protocol; whatever is refused here is
//! noted for the audit.

use super::denials::Denials;
use super::sources::Sources;
use crate::access::{
    AUDIT_TOPIC, Action, AuditCounts, AuditNote, AuditSink, Denied, Gate, KeyMark, Pass, Proven,
    TokenKeys, nameable,
};
use crate::cluster::OnBehalf;
use crate::model::{Caller, Clock, Proof, Timestamp};
use crate::observe::metrics::catalogue as of;
use crate::observe::metrics::{Protocol, Snapshot};
use crate::wire::peer::PeerProof;
use arc_swap::ArcSwapOption;
use http::{Extensions, HeaderMap, header};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Tokens remembered as good, so that their signatures are not checked for each call.
const TOKENS_MAX: usize = 4096;

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Nothing: whoever looks whether the node is there.
    Nothing,
    /// To be known by name.
    Known,
    /// To be a node of the cluster.
    Node,
    /// This, on what is no topic's.
    Whole(Action),
    /// This on the topic that the request names: its handler checks.
    Topic(Action),
}

/// The keys of tokens, as they are at present.
pub type TokenShelf = Arc<ArcSwapOption<TokenKeys>>;

/// See the module.
#[derive(Debug)]
pub struct Door {
    gate: Gate,
    tokens: TokenShelf,
    proof: PeerProof,
    clock: Arc<dyn Clock>,
    audit: Option<Arc<dyn AuditSink>>,
    good: Mutex<Good>,
    failures: Mutex<Sources>,
    denials: Denials,
}

/// Tokens that were good with these keys.
#[derive(Debug, Default)]
struct Good {
    /// Held, so that no other keys can come to lie in their place.
    keys: Option<Arc<TokenKeys>>,
    proven: HashMap<Box<str>, Proven>,
}

impl Door {
    /// With this gate and these keys; `proof` is what nodes show each other.
    pub fn new(
        gate: Gate,
        tokens: TokenShelf,
        proof: PeerProof,
        clock: Arc<dyn Clock>,
        audit: Option<Arc<dyn AuditSink>>,
    ) -> Arc<Self> {
        let (good, failures, denials) = (Mutex::default(), Mutex::default(), Denials::default());
        Arc::new(Self { gate, tokens, proof, clock, audit, good, failures, denials })
    }

    /// One that everybody passes.
    pub fn open(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::new(Gate::default(), TokenShelf::default(), PeerProof::default(), clock, None)
    }

    /// What this node shows others.
    pub fn proof(&self) -> &PeerProof {
        &self.proof
    }

    /// Finds out who asks: by the connection, or by a token where one is shown.
    ///
    /// # Errors
    /// A token that proves nothing, where that matters.
    pub fn ask(
        self: &Arc<Self>,
        headers: &HeaderMap,
        connection: &Caller,
        peer: SocketAddr,
        (protocol, call): (Protocol, &str),
    ) -> Result<Asker, Denied> {
        let mut asker = Asker {
            door: Some(Arc::clone(self)),
            caller: connection.clone(),
            token: None,
            is_node: match connection.proof {
                // The key that nodes share says less than a certificate, and counts for nothing beside it.
                Proof::Certificate => connection.peer.is_some(),
                _ => self.proof.is_shown(headers),
            },
            is_secured: connection.proof == Proof::Certificate,
            is_client: connection.peer.is_none() || connection.subject.is_some(),
            from: Arc::new((peer, protocol, call.into())),
        };
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            match self.proven(shown.as_bytes(), peer.ip()) {
                Ok(Proven { subject, until, key }) => {
                    asker.caller =
                        Caller { subject: Some(subject), proof: Proof::Token, peer: None };
                    asker.token = Some((until, key));
                }
                Err(denied) => {
                    if !matches!(denied, Denied::TooOften { .. }) {
                        self.denials.failed_token(protocol);
                    }
                    // Nothing is asked of anybody: what does not prove anything does no harm.
                    if !self.gate.is_open() {
                        return Err(asker.refused(denied, "authenticate"));
                    }
                }
            }
        }
        Ok(asker)
    }

    fn proven(&self, shown: &[u8], source: IpAddr) -> Result<Proven, Denied> {
        let odd = |what: &str| Denied::Unauthenticated(what.into());
        let keys = self.tokens.load();
        let keys = keys.as_ref().ok_or_else(|| odd("this node takes no tokens"))?;
        let token = std::str::from_utf8(shown).ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let Some(token) = token else {
            self.may_fail(source)?;
            self.failures().failed(source, self.clock.monotonic());
            return Err(odd("the authorization is not \"Bearer TOKEN\""));
        };
        let now = self.clock.wall();
        let are_these = |known: &Option<Arc<TokenKeys>>| {
            known.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys))
        };
        {
            let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            if !are_these(&good.keys) {
                *good = Good { keys: Some(Arc::clone(keys)), proven: HashMap::new() };
            }
            if let Some(proven) = good.proven.get(token).filter(|proven| now < proven.until) {
                return Ok(proven.clone());
            }
        }
        self.may_fail(source)?;
        match keys.verify(token, now) {
            Ok(proven) => {
                let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
                if good.proven.len() >= TOKENS_MAX {
                    good.proven.clear();
                }
                if are_these(&good.keys) {
                    good.proven.insert(token.into(), proven.clone());
                }
                Ok(proven)
            }
            Err(error) => {
                self.failures().failed(source, self.clock.monotonic());
                Err(Denied::Unauthenticated(error.to_string()))
            }
        }
    }

    /// Whether this source may still try.
    fn may_fail(&self, source: IpAddr) -> Result<(), Denied> {
        let now = self.clock.monotonic();
        match self.failures().wait(source, now) {
            Duration::ZERO => Ok(()),
            retry_after => Err(Denied::TooOften { retry_after }),
        }
    }

    fn failures(&self) -> MutexGuard<'_, Sources> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it turned away.
    pub fn denials(&self) -> &Denials {
        &self.denials
    }

    /// Adds what is counted here to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot) {
        self.denials.read(snapshot);
        let (remembered, forgotten) = {
            let failures = self.failures();
            (failures.remembered(), failures.forgotten())
        };
        let AuditCounts { written, lost } =
            self.audit.as_ref().map(|audit| audit.counts()).unwrap_or_default();
        for (family, labels, value) in [
            (&of::FAILING_SOURCES, &[][..], remembered as f64),
            (&of::FORGOTTEN_SOURCES, &[], forgotten as f64),
            (&of::POLICY_GENERATION, &[], self.gate.in_force() as f64),
            (&of::ENFORCED, &[], f64::from(!self.gate.is_open())),
            (&of::AUDIT_LINES, &["written"], written as f64),
            (&of::AUDIT_LINES, &["lost"], lost as f64),
        ] {
            snapshot.number(family, labels, value);
        }
    }
}

/// Whoever makes a request, and how it is judged. Travels in the request's extensions.
#[derive(Debug, Clone)]
pub struct Asker {
    /// `None`: the process itself.
    door: Option<Arc<Door>>,
    caller: Caller,
    /// When the token's time is over, and by which key it is one.
    token: Option<(Timestamp, KeyMark)>,
    /// Another node of the cluster: what it passes on is somebody else's.
    is_node: bool,
    /// The connection shows certificates: it is they that say who is a node.
    is_secured: bool,
    /// Not only a node: a node's certificate says nothing of a client, whatever token comes with it.
    is_client: bool,
    /// From where, by which port, and which call.
    from: Arc<(SocketAddr, Protocol, Box<str>)>,
}

impl Asker {
    /// Who made a call. One that came through no door is the process's own.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self {
            door: None,
            caller: Caller::nobody(),
            token: None,
            is_node: false,
            is_secured: false,
            is_client: true,
            from: Arc::new((SocketAddr::from(([0, 0, 0, 0], 0)), Protocol::Grpc, "".into())),
        })
    }

    /// Who it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether something is asked of anybody at all.
    pub fn is_judged(&self) -> bool {
        self.door.as_ref().is_some_and(|door| !door.gate.is_open())
    }

    /// Whether it may ask for what clients do.
    ///
    /// # Errors
    /// [`Denied::OnlyNode`].
    pub fn is_client(&self) -> Result<(), Denied> {
        if self.is_client { Ok(()) } else { Err(self.refused(Denied::OnlyNode, "be a client")) }
    }

    /// Whether what a method needs is there; what its handler checks is not looked at.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn has(&self, needed: Needed) -> Result<(), Denied> {
        match needed {
            Needed::Nothing => Ok(()),
            Needed::Known | Needed::Topic(_) if self.is_node => Ok(()),
            Needed::Known | Needed::Topic(_) => self.is_known(),
            Needed::Whole(action) => self.check(action, crate::access::ANYONE),
            Needed::Node => {
                if self.is_node {
                    return Ok(());
                }
                if self.is_secured {
                    let subject = self.caller.to_string();
                    return Err(self.refused(Denied::NotNode { subject }, "be a node"));
                }
                let has_secret = self.door.as_ref().is_some_and(|door| door.proof.is_set());
                if !has_secret && self.caller.subject.is_none() {
                    return Ok(());
                }
                // Without access control everybody may do everything that a client can, and no client
                // is a node.
                if has_secret && !self.is_judged() {
                    let told = "only nodes may call this, and the caller does not show that it has \
                                the gossip.key of this cluster: give it the same --gossip-key-file";
                    return Err(self.refused(Denied::Unauthenticated(told.into()), "be a node"));
                }
                self.check(Action::Peer, crate::access::ANYONE)
            }
        }
    }

    fn is_known(&self) -> Result<(), Denied> {
        let Some(door) = &self.door else { return Ok(()) };
        let known = self.is_proven().and_then(|()| door.gate.check_known(&self.caller));
        known.map_err(|denied| self.refused(denied, "authenticate"))
    }

    /// Whether the token that was shown, if one was, still proves what it did.
    fn is_proven(&self) -> Result<(), Denied> {
        let Some((door, (until, key))) = self.door.as_ref().zip(self.token.as_ref()) else {
            return Ok(());
        };
        let is_over = door.clock.wall() >= *until;
        let is_trusted = || door.tokens.load().as_ref().is_some_and(|keys| keys.hold(key));
        let told = match () {
            () if is_over => "the token has expired: get a new one",
            () if !is_trusted() => "the token's key is not trusted any more: get a new token",
            () => return Ok(()),
        };
        if door.gate.is_open() { Ok(()) } else { Err(Denied::Unauthenticated(told.into())) }
    }

    /// Whether this may be done.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, action: Action, object: &str) -> Result<(), Denied> {
        let Some(door) = &self.door else { return Ok(()) };
        let judged = self.is_proven().and_then(|()| door.gate.check(&self.caller, action, object));
        judged.map_err(|denied| self.refused(denied, &format!("{action} {}", nameable(object))))
    }

    /// Whether this may be done; nobody is told of a no.
    pub fn may(&self, action: Action, object: &str) -> bool {
        self.door.as_ref().is_none_or(|door| {
            self.is_proven().is_ok() && door.gate.check(&self.caller, action, object).is_ok()
        })
    }

    /// What the door would say to somebody else, who came with a proof.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn would(&self, subject: &str, action: Action, object: &str) -> Result<(), Denied> {
        let caller = Caller { subject: Some(subject.into()), ..Caller::nobody() };
        let gate = self.door.as_ref().map(|door| &door.gate);
        gate.map_or(Ok(()), |gate| gate.check(&caller, action, object))
    }

    /// As [`Gate::ground`]; empty where there is none.
    pub fn ground(&self, subject: &str, action: Action, object: &str) -> String {
        let gate = self.door.as_ref().map(|door| &door.gate);
        gate.and_then(|gate| gate.ground(subject, action, object)).unwrap_or_default()
    }

    /// As [`Gate::basis`]; empty where there is no gate.
    pub fn basis(&self, on: bool, generation: u64) -> String {
        self.door.as_ref().map_or_else(String::new, |door| door.gate.basis(on, generation))
    }

    /// Waits until this generation of the cluster's policy is in force here, at most so long.
    pub async fn until_in_force(&self, generation: u64, time: Duration) {
        if let Some(door) = &self.door {
            // Later it is all the same: the change is made.
            let _ = tokio::time::timeout(time, door.gate.until(generation)).await;
        }
    }

    /// The name that another node is told, to which this is passed on.
    pub fn name(&self) -> &str {
        self.caller.subject.as_deref().unwrap_or_default()
    }

    /// For the requests of a stream. `is_forwarded`: they say on whose behalf they are.
    pub fn pass(&self, is_forwarded: bool) -> StreamPass {
        let given =
            self.door.as_ref().map(|door| (Pass::new(door.gate.clone()), door.gate.watch()));
        StreamPass { asker: self.clone(), given, is_forwarded }
    }

    fn refused(&self, denied: Denied, what: &str) -> Denied {
        if let Some(door) = &self.door {
            door.denials.denied(self.from.1, &denied);
        }
        self.note("denied", what.to_owned(), denied.to_string());
        denied
    }

    /// On whose behalf an act is, for those who judge it again. Nobody's where this node alone is asked:
    /// by its own process, or by an administrator of its settings.
    pub fn on_behalf(&self) -> Option<OnBehalf> {
        let gate = &self.door.as_ref()?.gate;
        let subject = self.caller.subject.as_deref();
        if subject.is_some_and(|subject| gate.is_admin(subject)) {
            return None;
        }
        Some(OnBehalf { subject: subject.map(Into::into), always: gate.goes_by_policy() })
    }

    /// Notes an act that was denied where it was to be applied.
    pub fn was_denied(&self, what: String, outcome: String) {
        self.note("denied", what, outcome);
    }

    /// Notes an administrative act and how it ended.
    pub fn acted(&self, what: String, outcome: String) {
        self.note("act", what, outcome);
    }

    fn note(&self, kind: &'static str, what: String, outcome: String) {
        let Some(audit) = self.door.as_ref().and_then(|door| door.audit.as_ref()) else { return };
        let Caller { subject, peer, .. } = &self.caller;
        // A node without a client's name has that of its certificate.
        let node = || peer.as_ref().map(|name| format!("duramen://peer/{name}"));
        audit.note(AuditNote {
            kind,
            subject: subject.as_ref().map(ToString::to_string).or_else(node),
            peer: self.from.0.ip().to_string(),
            call: self.from.2.to_string(),
            what,
            outcome,
        });
    }
}

/// An [`Asker`] with what it was permitted lately.
#[derive(Debug)]
pub struct StreamPass {
    asker: Asker,
    given: Option<(Pass, watch::Receiver<u64>)>,
    /// As the call says, whoever makes it.
    is_forwarded: bool,
}

impl Clone for StreamPass {
    fn clone(&self) -> Self {
        self.asker.pass(self.is_forwarded)
    }
}

impl StreamPass {
    /// As [`Asker::check`]; costs next to nothing while nothing changes.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&mut self, action: Action, object: &str) -> Result<(), Denied> {
        let Some((pass, _)) = &mut self.given else { return Ok(()) };
        let asker = &self.asker;
        let judged = asker.is_proven().and_then(|()| pass.check(&asker.caller, action, object));
        judged.map_err(|denied| asker.refused(denied, &format!("{action} {}", nameable(object))))
    }

    /// As [`Asker::has`].
    ///
    /// # Errors
    /// [`Denied`].
    pub fn has(&self, needed: Needed) -> Result<(), Denied> {
        self.asker.has(needed)
    }

    /// The same for a request that names on whose behalf it is, as those do that another node passes
    /// on; of anybody else the name counts for nothing. Gives back who asks.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check_for(
        &mut self,
        named: &str,
        action: Action,
        object: &str,
    ) -> Result<Arc<str>, Denied> {
        // What nodes note themselves is on nobody's behalf. Where nothing is judged, nobody has to show
        // to be a node.
        let is_note = self.is_forwarded
            && named.is_empty()
            && action == Action::Produce
            && object == AUDIT_TOPIC;
        if is_note && (self.asker.is_node || !self.asker.is_judged()) {
            return Ok(named.into());
        }
        if !(self.is_forwarded && self.asker.is_node) {
            self.check(action, object)?;
            return Ok(self.asker.caller.subject.clone().unwrap_or_default());
        }
        let subject: Option<Arc<str>> = (!named.is_empty()).then(|| named.into());
        let caller = Caller { subject: subject.clone(), ..Caller::nobody() };
        let Some((pass, _)) = &mut self.given else { return Ok(subject.unwrap_or_default()) };
        let judged = pass.check(&caller, action, object);
        let on_behalf = || Asker { caller: caller.clone(), ..self.asker.clone() };
        judged.map_err(|denied| {
            on_behalf().refused(denied, &format!("{action} {}", nameable(object)))
        })?;
        Ok(subject.unwrap_or_default())
    }

    /// Resolves when what was permitted must be asked for again: the laws or the keys of tokens changed,
    /// or the token's time is over. Never, where nothing is judged. Whoever is told no, and waits
    /// again, is told at once.
    pub async fn news(&mut self) {
        let Some((_, changes)) = &mut self.given else { return std::future::pending().await };
        let asker = &self.asker;
        let left = asker.token.as_ref().zip(asker.door.as_ref()).map(|((until, _), door)| {
            let left = until.0.saturating_sub(door.clock.wall().0);
            Duration::from_millis(u64::try_from(left).unwrap_or(0))
        });
        let over = async {
            match left {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                Some(_) if asker.is_proven().is_err() => {}
                // Over where nothing is judged: a change of the laws tells.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives in the gate, which is held here.
            _ = changes.changed() => {}
            () = over => {}
        }
    }
}
