//! A policy: rules over topics and who plays which role. What may stand in it is checked here, for
//! it lives on every node for ever, and is written into a text whose commas and lines have meaning.

use super::action::{Action, Actions};
use super::audit::AUDIT_TOPIC;
use crate::model::Disposition;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Rules and memberships in one policy.
pub const RULES_MAX: usize = 1_000;
/// What the name of a role is written behind, so that no certificate can carry a role's name.
pub const ROLE_PREFIX: &str = "role:";
/// Everybody who has proved a name; also every object.
pub const ANYONE: &str = "*";
pub(super) const SUBJECT_BYTES_MAX: usize = 255;
pub(super) const TOPIC_BYTES_MAX: usize = 249;

/// Whether a rule gives or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It gives.
    Allow,
    /// It takes, whatever others give.
    Deny,
}

impl Effect {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A name, `role:NAME`, or `*` for whoever has proved a name.
    pub subject: String,
    /// A topic, the beginning of topics' names and `*` (`orders-*`), or `*`: also what is no topic's.
    pub object: String,
    /// What it is about.
    pub action: Actions,
    /// Gives or takes.
    pub effect: Effect,
}

/// Somebody plays a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Who: a name, never a role.
    pub subject: String,
    /// `role:NAME`.
    pub role: String,
}

/// Rules and roles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Without an order: a rule that takes wins wherever it stands.
    #[serde(default)]
    pub rules: BTreeSet<Rule>,
    /// Who plays which role.
    #[serde(default)]
    pub members: BTreeSet<Membership>,
}

/// Why something cannot stand in a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub(super) String);

impl PolicyError {
    /// Who must act: whoever wrote it.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// Whether this can be the name of somebody: one line, short, and nothing that a policy's text or a
/// rule gives another meaning.
pub fn is_subject(name: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&name.len())
        && name != ANYONE
        && !name.starts_with(ROLE_PREFIX)
        && is_field(name)
}

/// What stands in one field of a policy's text, and comes out of it as it went in.
fn is_field(text: &str) -> bool {
    let is_odd = |c: char| c.is_control() || matches!(c, ',' | '"' | '#' | '\u{2028}' | '\u{2029}');
    text.trim() == text && !text.contains(is_odd)
}

fn is_role(text: &str) -> bool {
    let name = text.strip_prefix(ROLE_PREFIX);
    name.is_some_and(|name| is_subject(name) && text.len() <= SUBJECT_BYTES_MAX)
}

fn is_object(text: &str) -> bool {
    let name = text.strip_suffix(ANYONE).unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && name.len() <= TOPIC_BYTES_MAX && name.bytes().all(allowed)
}

/// Whether a rule's object covers what a request is about; `*` in a request: no topic's.
pub(super) fn covers(rule: &str, asked: &str) -> bool {
    match rule.strip_suffix(ANYONE) {
        Some("") => true,
        Some(beginning) => asked != ANYONE && asked.starts_with(beginning),
        None => rule == asked,
    }
}

impl Rule {
    /// Whether it can stand in a policy.
    ///
    /// # Errors
    /// [`PolicyError`], for whoever wrote it.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.subject != ANYONE && !is_subject(&self.subject) && !is_role(&self.subject) {
            return Err(odd_subject(&self.subject));
        }
        if !is_object(&self.object) {
            return Err(PolicyError(format!(
                "{:?} is no object: give a topic, the beginning of topics' names and * (orders-*), \
                 or *",
                shown(&self.object)
            )));
        }
        Ok(())
    }

    /// Whether anything is ever asked that the rule speaks of. One that is stored already does no harm:
    /// whoever writes a new one is told.
    ///
    /// # Errors
    /// [`PolicyError`], for whoever wrote it.
    pub fn check_applies(&self) -> Result<(), PolicyError> {
        if self.object == AUDIT_TOPIC {
            return Err(PolicyError(format!(
                "\"{self}\" would never count: {AUDIT_TOPIC} is read by whoever may observe '*' and \
                 written by nodes only"
            )));
        }
        let action = match self.action {
            Actions::One(action) if !action.is_of_topics() && self.object != ANYONE => action,
            _ => return Ok(()),
        };
        Err(PolicyError(format!(
            "\"{self}\" would never count: {action} is about the node and the cluster, and no \
             topic's; write '*' in place of {}",
            self.object
        )))
    }
}

impl Membership {
    /// Whether it can stand in a policy.
    ///
    /// # Errors
    /// [`PolicyError`], for whoever wrote it.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.subject.starts_with(ROLE_PREFIX) || self.subject == ANYONE {
            return Err(PolicyError(format!(
                "{:?} cannot be given a role: roles are played by names, not by other roles nor by \
                 everybody; give it the rules instead",
                shown(&self.subject)
            )));
        }
        if !is_subject(&self.subject) {
            return Err(odd_subject(&self.subject));
        }
        if !is_role(&self.role) {
            return Err(PolicyError(format!(
                "{:?} is no role: write role:NAME; roles are played by names, not by other roles",
                shown(&self.role)
            )));
        }
        Ok(())
    }
}

/// As much of a name from outside as an error may quote.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn odd_subject(subject: &str) -> PolicyError {
    PolicyError(format!(
        "{:?} is no subject: give a name of 1 to {SUBJECT_BYTES_MAX} bytes without commas, quotes, # \
         and control characters, role:NAME, or * for everybody who has proved a name",
        shown(subject)
    ))
}

impl Policy {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.members.is_empty()
    }

    /// Whether all of it may stand together.
    ///
    /// # Errors
    /// [`PolicyError`]: what may not, or that it is too much.
    pub fn check(&self) -> Result<(), PolicyError> {
        let count = self.rules.len() + self.members.len();
        if count > RULES_MAX {
            return Err(PolicyError(format!(
                "{count} rules and roles are too many, a policy has at most {RULES_MAX}: use roles \
                 and prefixes (orders-*)"
            )));
        }
        self.rules.iter().try_for_each(Rule::check)?;
        self.members.iter().try_for_each(Membership::check)
    }

    /// Whether each rule speaks of something that can be asked.
    ///
    /// # Errors
    /// [`PolicyError`]: the first that does not.
    pub fn check_applies(&self) -> Result<(), PolicyError> {
        self.rules.iter().try_for_each(Rule::check_applies)
    }

    /// Whether a rule speaks of this subject, by its name, a role that it plays, or `*`.
    fn is_about(&self, rule: &Rule, subject: &str) -> bool {
        let plays = |role: &str| {
            let membership = Membership { subject: subject.to_owned(), role: role.to_owned() };
            self.members.contains(&membership)
        };
        rule.subject == ANYONE
            || rule.subject == subject
            || rule.subject.starts_with(ROLE_PREFIX) && plays(&rule.subject)
    }

    /// The rules that decide on a request; none: it is denied.
    pub fn speaking(&self, subject: &str, action: Action, object: &str) -> Vec<&Rule> {
        let speaks = |rule: &&Rule| {
            rule.action.cover(action)
                && covers(&rule.object, object)
                && self.is_about(rule, subject)
        };
        if !is_subject(subject) {
            return Vec::new();
        }
        self.rules.iter().filter(speaks).collect()
    }

    /// Whether the rules permit it, as casbin decides by them.
    pub fn permits(&self, subject: &str, action: Action, object: &str) -> bool {
        let speaking = self.speaking(subject, action, object);
        !speaking.is_empty() && speaking.iter().all(|rule| rule.effect == Effect::Allow)
    }

    /// Whether anybody could still change it: somebody who has a name in it, or anybody else.
    pub fn has_admin(&self) -> bool {
        let decides =
            |rule: &&Rule| rule.action.cover(Action::Admin) && covers(&rule.object, ANYONE);
        let deciding: Vec<&Rule> = self.rules.iter().filter(decides).collect();
        let is_admin = |subject: &str| {
            let mut speaking =
                deciding.iter().filter(|rule| self.is_about(rule, subject)).peekable();
            speaking.peek().is_some() && speaking.all(|rule| rule.effect == Effect::Allow)
        };
        let of_rules = deciding.iter().map(|rule| rule.subject.as_str());
        let of_members = self.members.iter().map(|member| member.subject.as_str());
        let named: BTreeSet<&str> =
            of_rules.chain(of_members).filter(|name| is_subject(name)).collect();
        let mut others = (0..).map(|number| format!("somebody-{number}"));
        named.iter().any(|name| is_admin(name))
            || others
                .find(|name| !named.contains(name.as_str()))
                .is_some_and(|name| is_admin(&name))
    }
}

/// As a line of a policy's text.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, object, action, effect } = self;
        write!(f, "p, {subject}, {object}, {action}, {}", effect.name())
    }
}

/// As a line of a policy's text.
impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g, {}, {}", self.subject, self.role)
    }
}

/// As a policy's text: the CSV of casbin.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))?;
        self.members.iter().try_for_each(|member| writeln!(f, "{member}"))
    }
}
