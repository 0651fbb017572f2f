//! Who may do what, as the cluster agrees on it: the policy, and whether it is in force.

use super::command::{Rejection, RejectionKind};
use crate::access::{Policy, PolicyError};
use serde::{Deserialize, Serialize};

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

impl From<PolicyError> for Rejection {
    fn from(error: PolicyError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl Access {
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
                        "the policy does not hold that: `duramen acl list` shows what it holds; \
                         nothing was removed",
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
                 `duramen acl add NAME '*' admin`",
            ));
        }
        if next != *self {
            next.generation += 1;
            *self = next;
        }
        Ok(())
    }
}
