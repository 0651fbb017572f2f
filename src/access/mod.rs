//! Who may do what: policies, the judgement of a request, tokens that prove a name, and the chain
//! of the audit log. Pure: texts and times are arguments, decisions come out.
//!
//! Whatever is not known is denied: no policy, a broken one, one that this node has not heard of
//! yet, a subject without a name.

mod action;
mod audit;
mod csv;
mod gate;
mod judge;
mod policy;
mod token;

pub use action::{Action, Actions};
pub use audit::{
    AUDIT_TOPIC, AuditCounts, AuditEntry, AuditFault, AuditNote, AuditSink, Chain, verify_line,
};
pub use gate::{Denied, Gate, Law, Laws, Pass, nameable};
pub use judge::{BrokenPolicy, Judge};
pub use policy::{
    ANYONE, Effect, Membership, Policy, PolicyError, ROLE_PREFIX, RULES_MAX, Rule, is_subject,
};
pub use token::{
    KeyKind, KeyMark, Proven, Secret, TokenError, TokenKeys, TokenKeysError, TokenTerms, new_token,
};

#[cfg(test)]
mod tests;
