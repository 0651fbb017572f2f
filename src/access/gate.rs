//! The gate that every request passes: the policies that are in force on this node. Replaced whole
//! when one of them changes; whoever holds an answer compares one number to know whether it still
//! counts.

use super::action::Action;
use super::audit::AUDIT_TOPIC;
use super::judge::Judge;
use super::policy::{ANYONE, SUBJECT_BYTES_MAX, TOPIC_BYTES_MAX, is_subject};
use crate::model::{Caller, Disposition};
use arc_swap::ArcSwap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Decisions remembered by one stream.
const PASS_MAX: usize = 8;

/// A source of decisions.
#[derive(Debug, Default)]
pub enum Law {
    /// It forbids nothing.
    #[default]
    Off,
    /// It decides.
    Judge(Judge),
    /// It cannot decide, for this reason: everything is denied.
    Broken(String),
    /// It is not known here yet whether and how it decides: everything is denied until then.
    Unknown(String),
}

/// What is in force on a node. A request must be permitted by each.
#[derive(Debug, Default)]
pub struct Laws {
    /// The policy of the cluster.
    pub cluster: Law,
    /// The generation of the cluster's policy that this is made from.
    pub generation: u64,
    /// The policy in files of this node.
    pub files: Law,
    /// Subjects that may do everything here by the node's settings, also where a policy is broken.
    pub admins: BTreeSet<String>,
}

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody knows who asks.
    #[error("{0}")]
    Unauthenticated(String),
    /// It is known who asks, and that is not enough.
    #[error(
        "{subject} not permitted to {action} to {object}{}",
        reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"))
    )]
    Forbidden {
        /// Who asks, fit to be shown.
        subject: String,
        /// What was asked.
        action: Action,
        /// A topic, or `*`.
        object: String,
        /// What is wrong with the policy, where that is why.
        reason: Option<String>,
    },
    /// A node proved that it is one, and asks for what clients do.
    #[error(
        "the certificate is a node's, and says nothing of a client; use a client's (duramen tls \
         client NAME), or one that is both (duramen tls node NAME --client)"
    )]
    OnlyNode,
    /// Only nodes may ask for this, and the certificate is not a node's.
    #[error(
        "only nodes may call this, and the certificate is that of {subject}, no node's: it has to say \
         duramen://peer/NAME (duramen tls node NAME)"
    )]
    NotNode {
        /// Who asks, fit to be shown.
        subject: String,
    },
    /// Too many tokens from there proved nothing.
    #[error("too many attempts to authenticate failed; try again later")]
    TooOften {
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// This node cannot tell yet.
    #[error("this node cannot tell yet what {subject} may do: {reason}; ask again")]
    NotKnownYet {
        /// Who asks, fit to be shown.
        subject: String,
        /// What it waits for.
        reason: String,
    },
}

impl Denied {
    /// Who must act: always the caller.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }

    /// A request of nobody over a connection that proves nothing, in the book's words.
    pub fn nobody() -> Self {
        Self::Unauthenticated("no transport security being used".into())
    }

    /// The same refusal as the book's server has it, which knows one log only.
    #[must_use]
    pub fn of_the_book(mut self) -> Self {
        if let Self::Forbidden { object, .. } = &mut self {
            super::policy::ANYONE.clone_into(object);
        }
        self
    }
}

#[derive(Debug, Default)]
struct State {
    laws: Laws,
    is_open: bool,
}

impl Laws {
    /// Whether everything is permitted to everybody.
    fn are_off(&self) -> bool {
        matches!((&self.cluster, &self.files), (Law::Off, Law::Off))
    }

    fn has_admin(&self, subject: &str) -> bool {
        self.admins.contains(subject) && is_subject(subject)
    }

    fn decide(&self, subject: &str, action: Action, object: &str) -> bool {
        [&self.cluster, &self.files].into_iter().all(|law| match law {
            Law::Off => true,
            Law::Judge(judge) => judge.permits(subject, action, object),
            Law::Broken(_) | Law::Unknown(_) => false,
        })
    }
}

/// As much of what a request is about as could be a topic's name. The rest of a longer one, which no
/// topic has, is neither kept nor repeated.
pub fn nameable(object: &str) -> &str {
    &object[..object.floor_char_boundary(TOPIC_BYTES_MAX)]
}

/// What must be permitted for an action: of the audit log's own topic a look is an observer's, how it
/// is made an administrator's, and the rest nobody's (`None`), whatever the policy says.
fn judged_as(action: Action, object: &str) -> Option<(Action, &str)> {
    match action {
        _ if object != AUDIT_TOPIC => Some((action, object)),
        Action::Consume | Action::Describe | Action::Observe => Some((Action::Observe, ANYONE)),
        Action::Create | Action::Admin | Action::Peer => Some((Action::Admin, ANYONE)),
        Action::Produce | Action::Alter | Action::Delete => None,
    }
}

fn denied_to_all(caller: &Caller, action: Action) -> Denied {
    Denied::Forbidden {
        subject: caller.to_string(),
        action,
        object: AUDIT_TOPIC.into(),
        reason: Some("what was noted is written by nodes only".into()),
    }
}

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: ArcSwap<State>,
    generation: AtomicU64,
    news: watch::Sender<u64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Laws::default())
    }
}

impl Gate {
    /// With these laws.
    pub fn new(laws: Laws) -> Self {
        let state = State { is_open: laws.are_off(), laws };
        let (generation, news) = (AtomicU64::new(0), watch::Sender::new(0));
        Self(Arc::new(Shared { state: ArcSwap::from_pointee(state), generation, news }))
    }

    /// Puts other laws in force. Callable from one thread at a time.
    pub fn set(&self, laws: Laws) {
        let generation = self.generation() + 1;
        let is_open = laws.are_off();
        self.0.state.store(Arc::new(State { laws, is_open }));
        // Behind the state: whoever sees the number sees the laws.
        self.0.generation.store(generation, Ordering::Release);
        self.0.news.send_replace(generation);
    }

    /// Grows with every change of what is in force.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The generation of the cluster's policy that decides here.
    pub fn in_force(&self) -> u64 {
        self.0.state.load().laws.generation
    }

    /// As it grows.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// Waits until what is in force is made from this generation of the cluster's policy.
    pub async fn until(&self, generation: u64) {
        let mut news = self.watch();
        let is_in_force = |_: &u64| {
            let laws = &self.0.state.load().laws;
            laws.generation >= generation && !matches!(laws.cluster, Law::Unknown(_))
        };
        // The sender lives in `self`.
        let _ = news.wait_for(is_in_force).await;
    }

    /// Whether everything is permitted to everybody.
    pub fn is_open(&self) -> bool {
        self.0.state.load().is_open
    }

    /// Whether the node's settings let this subject do everything.
    pub fn is_admin(&self, subject: &str) -> bool {
        self.0.state.load().laws.has_admin(subject)
    }

    /// What decides here, for people. `on`: whether the cluster has its policy of this generation in
    /// force.
    pub fn basis(&self, on: bool, generation: u64) -> String {
        let state = self.0.state.load();
        let laws = &state.laws;
        if state.is_open {
            return "everybody may do everything".into();
        }
        let decides = match (state.unknown(), state.broken()) {
            (Some(reason), _) => format!("everything is denied: {reason}"),
            (None, Some(reason)) => format!("everything is denied: {reason}"),
            (None, None) => match (&laws.cluster, &laws.files) {
                (Law::Off, _) => "the policy in its own files decides".into(),
                // Where the newest is not taken over yet, that is why.
                (_, Law::Off) if !on && laws.generation == generation => {
                    "the policy decides all the same (access.enabled)".into()
                }
                (_, Law::Off) => "the policy decides".into(),
                _ => "the policy and that in its own files must both permit".to_owned(),
            },
        };
        let is_any = laws.admins.iter().any(|subject| is_subject(subject));
        if is_any { format!("{decides}; to access.admins all is permitted") } else { decides }
    }

    /// Why this node judges so, where that is not by the rules of the cluster's policy alone.
    pub fn ground(&self, subject: &str, action: Action, object: &str) -> Option<String> {
        let state = self.0.state.load();
        let laws = &state.laws;
        if state.is_open {
            return Some("access control is off".into());
        }
        let judged = judged_as(action, object)?;
        if laws.has_admin(subject) {
            return Some(format!("access.admins has {subject}"));
        }
        let permits = |judge: &Judge| judge.permits(subject, judged.0, judged.1);
        match (&laws.cluster, &laws.files) {
            (Law::Off, Law::Judge(files)) if permits(files) => {
                Some("the policy is not in force, and this node's own files permit it".into())
            }
            (Law::Off | Law::Judge(_), Law::Judge(files)) if !permits(files) => {
                Some("this node's own files do not permit it".into())
            }
            _ if judged != (action, object) => {
                Some(format!("of {object} that is judged as {} of {}", judged.0, judged.1))
            }
            _ => None,
        }
    }

    /// Whether requests are judged by the cluster's policy.
    pub fn goes_by_policy(&self) -> bool {
        matches!(self.0.state.load().laws.cluster, Law::Judge(_))
    }

    /// Whether this subject may do it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, caller: &Caller, action: Action, object: &str) -> Result<(), Denied> {
        let state = self.0.state.load();
        let judged = judged_as(action, object);
        if state.is_open {
            // Another node may judge, and a request of nobody that this one passes on is a node's own note
            // to it.
            let is_note = judged.is_none() && action == Action::Produce;
            return if is_note { Err(denied_to_all(caller, action)) } else { Ok(()) };
        }
        let Some(subject) = &caller.subject else { return Err(state.denied_to_nobody()) };
        let (action, object) = judged.ok_or_else(|| denied_to_all(caller, action))?;
        if state.laws.has_admin(subject) {
            return Ok(());
        }
        let is_permitted = state.laws.decide(subject, action, object);
        if is_permitted { Ok(()) } else { Err(state.denied(caller, action, object)) }
    }

    /// Whether it is known who asks, where that must be.
    ///
    /// # Errors
    /// [`Denied::Unauthenticated`], or that this node cannot tell yet.
    pub fn check_known(&self, caller: &Caller) -> Result<(), Denied> {
        let state = self.0.state.load();
        let may_pass = state.is_open || caller.subject.is_some();
        if may_pass { Ok(()) } else { Err(state.denied_to_nobody()) }
    }

    /// What this node waits for before it can tell who may do what; `None` where it can.
    pub fn waits_for(&self) -> Option<String> {
        self.0.state.load().unknown()
    }
}

impl State {
    fn unknown(&self) -> Option<String> {
        let laws = [&self.laws.cluster, &self.laws.files];
        laws.iter().find_map(|law| match law {
            Law::Unknown(reason) => Some(reason.clone()),
            _ => None,
        })
    }

    fn broken(&self) -> Option<String> {
        let laws = [&self.laws.cluster, &self.laws.files];
        laws.iter().find_map(|law| match law {
            Law::Broken(reason) => Some(format!("its policy cannot be used ({reason})")),
            _ => None,
        })
    }

    /// Where it is not known yet whether anything is asked of anybody, that is what nobody hears: it may
    /// pass a moment later.
    fn denied_to_nobody(&self) -> Denied {
        self.unknown().map_or_else(Denied::nobody, |reason| Denied::NotKnownYet {
            subject: Caller::nobody().to_string(),
            reason,
        })
    }

    fn denied(&self, caller: &Caller, action: Action, object: &str) -> Denied {
        let laws = [&self.laws.cluster, &self.laws.files];
        let subject = caller.to_string();
        if let Some(reason) = self.unknown() {
            return Denied::NotKnownYet { subject, reason };
        }
        let reason = self.broken();
        let object = laws.iter().fold(object, |object, law| match law {
            Law::Judge(judge) => judge.object_of(object),
            _ => object,
        });
        Denied::Forbidden { subject, action, object: nameable(object).to_owned(), reason }
    }
}

/// What one stream's caller was permitted lately: as long as nothing changes, a request costs the
/// comparison of a number and of a name.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    generation: u64,
    pub(super) given: Vec<(Option<Arc<str>>, Action, Box<str>)>,
}

impl Clone for Pass {
    fn clone(&self) -> Self {
        Self::new(self.gate.clone())
    }
}

impl Pass {
    /// An empty one.
    pub fn new(gate: Gate) -> Self {
        Self { generation: gate.generation(), gate, given: Vec::new() }
    }

    /// The gate that gives it.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// As [`Gate::check`].
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&mut self, caller: &Caller, action: Action, object: &str) -> Result<(), Denied> {
        let generation = self.gate.generation();
        if self.generation != generation {
            (self.generation, self.given) = (generation, Vec::new());
        }
        let is_it = |given: &(Option<Arc<str>>, Action, Box<str>)| {
            given.1 == action && *given.2 == *object && given.0 == caller.subject
        };
        if self.given.iter().any(is_it) {
            return Ok(());
        }
        self.gate.check(caller, action, object)?;
        let subject_bytes = caller.subject.as_ref().map_or(0, |subject| subject.len());
        if object.len() > TOPIC_BYTES_MAX || subject_bytes > SUBJECT_BYTES_MAX {
            return Ok(());
        }
        if self.given.len() >= PASS_MAX {
            self.given.clear();
        }
        self.given.push((caller.subject.clone(), action, object.into()));
        Ok(())
    }
}
