//! Who may do what, as the cluster agrees on it: the policy, and whether it is in force.

use super::command::{Command, Rejection, RejectionKind};
use crate::access::{Denied, Policy, PolicyError};
use crate::model::Caller;
use serde::{Deserialize, Serialize};

/// How a refusal to remove what is not there begins.
pub const NOT_HELD: &str = "the policy does not hold that";

/// Access control of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// Grows with every change.
    pub generation: u64,
    /// Whether the policy is in force: everything that it does not permit is denied then.
    pub is_on: bool,
    /// The rules and roles.
    pub policy: Policy,
}

/// A change of who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessChange {
    /// These are in the policy from now on.
    Add(Policy),
    /// These are not any more.
    Remove(Policy),
    /// This is the policy.
    Load(Policy),
    /// It is in force, or not.
    Switch {
        /// Whether it is.
        on: bool,
    },
}

/// Who asked a node for a command that a client may ask for. The node has judged it by the policy that it
/// knew; where the command is applied it is judged again, by the policy of that very place in the log. What
/// nodes do by themselves, and what a node's own settings permit, is on nobody's behalf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnBehalf {
    /// The name that was proved; `None`: none was.
    pub subject: Option<String>,
    /// The policy counts also while it is not in force: the node that was asked goes by it all the same.
    #[serde(default)]
    pub always: bool,
}

impl From<PolicyError> for Rejection {
    fn from(error: PolicyError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl Access {
    /// Whether this command is permitted to whoever asked for it. The same on every node: the rules
    /// alone decide.
    pub(super) fn judge(&self, by: &OnBehalf, command: &Command) -> Result<(), Rejection> {
        let Some((action, object)) = command.needs().filter(|_| self.is_on || by.always) else {
            return Ok(());
        };
        let subject = by.subject.as_deref();
        if subject.is_some_and(|subject| self.policy.permits(subject, action, object)) {
            return Ok(());
        }
        let caller = Caller { subject: subject.map(Into::into), ..Caller::nobody() };
        let (subject, object, reason) = (caller.to_string(), object.to_owned(), None);
        let denied = Denied::Forbidden { subject, action, object, reason };
        Err(Rejection::new(RejectionKind::Denied, denied.to_string()))
    }

    /// Carries out a change.
    pub(super) fn apply(&mut self, change: &AccessChange) -> Result<(), Rejection> {
        let mut next = self.clone();
        match change {
            AccessChange::Add(more) => {
                next.policy.rules.extend(more.rules.iter().cloned());
                next.policy.members.extend(more.members.iter().cloned());
            }
            AccessChange::Remove(less) => {
                let has = &self.policy;
                let is_known =
                    less.rules.is_subset(&has.rules) && less.members.is_subset(&has.members);
                if !is_known {
                    return Err(Rejection::new(
                        RejectionKind::NotFound,
                        format!("{NOT_HELD}; nothing was removed"),
                    ));
                }
                next.policy.rules.retain(|rule| !less.rules.contains(rule));
                next.policy.members.retain(|member| !less.members.contains(member));
            }
            AccessChange::Load(policy) => next.policy = policy.clone(),
            AccessChange::Switch { on } => next.is_on = *on,
        }
        next.policy.check()?;
        if next.is_on && !next.policy.has_admin() {
            return Err(Rejection::new(
                RejectionKind::NotNow,
                "nobody could change the policy any more: give somebody admin first, as in \
                 `duramen acl add NAME '*' admin`; who is denied it has none",
            ));
        }
        if next != *self {
            next.generation += 1;
            *self = next;
        }
        Ok(())
    }
}
