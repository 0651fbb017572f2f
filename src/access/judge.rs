//! Judges by a policy. Our own is decided by an index of its rules, in microseconds however many there
//! are: whoever may a prefix can ask about names without end. A model and a policy as files that an
//! operator brings, such as the book's, casbin decides; a property test holds the two together.
//!
//! casbin answers some odd questions with yes, or with a panic: an empty policy is matched by empty
//! requests, an unknown effect panics, a line with too few fields is an error only when it is
//! reached. All of that is sorted out before it is asked, and an error is a no.

use super::action::{Action, Actions};
use super::csv;
use super::policy::{ANYONE, Effect, Policy, covers, is_subject};
use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, MemoryAdapter, Model};
use futures_util::FutureExt;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// What casbin can do; it panics on others.
const EFFECTS: [&str; 3] = [
    "some(where (p_eft == allow))",
    "some(where (p_eft == allow)) && !some(where (p_eft == deny))",
    "priority(p_eft) || deny",
];
const MODEL_BYTES_MAX: usize = 64 << 10;
/// Judgements of casbin that are remembered; more: they are all forgotten.
const REMEMBERED_MAX: usize = 4 << 10;
/// Words and signs of a matcher; the book's has 28.
const MATCHER_PARTS_MAX: usize = 200;
/// Brackets that are open at a time in one.
const MATCHER_DEPTH_MAX: usize = 16;

/// Why nothing can be decided by a policy: everything is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokenPolicy(pub String);

/// Decides by one policy.
#[derive(Debug)]
pub enum Judge {
    /// By our own rules.
    Own(Index),
    /// By an operator's files.
    Files(Files),
}

/// The rules of our own by the subject that they name, and who plays which roles.
#[derive(Debug)]
pub struct Index {
    rules: HashMap<String, Vec<(String, Actions, Effect)>>,
    roles: HashMap<String, Vec<String>>,
}

/// What casbin is asked.
pub struct Files {
    enforcer: Box<Enforcer>,
    is_empty: bool,
    /// Requests are about `*` whatever they are about, as in the book: subject and action are all that
    /// tells them apart.
    remembered: Mutex<HashMap<(Box<str>, Action), bool>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("is_empty", &self.is_empty).finish_non_exhaustive()
    }
}

fn broken(what: &str, error: impl fmt::Display) -> BrokenPolicy {
    BrokenPolicy(format!("{what}: {error}"))
}

/// Nothing is waited for: model and policy are in memory.
fn at_once<T>(
    what: &str,
    work: impl Future<Output = casbin::Result<T>>,
) -> Result<T, BrokenPolicy> {
    let done = catch_unwind(AssertUnwindSafe(|| work.now_or_never()));
    match done {
        Ok(Some(Ok(done))) => Ok(done),
        Ok(Some(Err(error))) => Err(broken(what, error)),
        Ok(None) => Err(broken(what, "it would have to be waited for")),
        Err(_) => Err(broken(what, "it makes no sense to casbin")),
    }
}

impl Judge {
    /// By rules of our own.
    ///
    /// # Errors
    /// [`BrokenPolicy`]: they cannot stand together.
    pub fn of(policy: &Policy) -> Result<Self, BrokenPolicy> {
        policy.check().map_err(|error| BrokenPolicy(error.to_string()))?;
        let (mut rules, mut roles) = (HashMap::new(), HashMap::new());
        for rule in &policy.rules {
            let of_subject: &mut Vec<_> = rules.entry(rule.subject.clone()).or_default();
            of_subject.push((rule.object.clone(), rule.action, rule.effect));
        }
        for member in &policy.members {
            let played: &mut Vec<_> = roles.entry(member.subject.clone()).or_default();
            played.push(member.role.clone());
        }
        Ok(Self::Own(Index { rules, roles }))
    }

    /// By a model and a policy in casbin's own formats, of which every request is about `*`.
    ///
    /// # Errors
    /// [`BrokenPolicy`]: one of them cannot be understood whole.
    pub fn of_files(model: &str, policy: &str) -> Result<Self, BrokenPolicy> {
        if model.len() > MODEL_BYTES_MAX {
            return Err(BrokenPolicy("the model is too long".into()));
        }
        let (mut rules, mut roles) = (Vec::new(), Vec::new());
        for (line, mut fields) in csv::lines(policy).map_err(|error| broken("the policy", error))? {
            let kind = fields.remove(0);
            match kind.as_str() {
                "p" if fields.iter().all(|field| !field.is_empty()) => rules.push((line, fields)),
                "g" if fields.iter().all(|field| !field.is_empty()) => roles.push(fields),
                _ => {
                    let error = format!("line {line} is neither a rule nor a role");
                    return Err(broken("the policy", error));
                }
            }
        }
        let read = at_once("the model", DefaultModel::from_str(model))?;
        let definition = |section: &str| {
            let found = read.get_model().get(section).and_then(|all| all.get(section));
            found.ok_or_else(|| broken("the model", format!("it defines no {section}")))
        };
        let wanted = definition("p")?.tokens.len();
        if definition("r")?.tokens.len() != 3 {
            return Err(broken("the model", "a request is not of subject, object and action"));
        }
        if !is_bounded(&definition("m")?.value) {
            let what = format!(
                "its matcher is not one expression of at most {MATCHER_PARTS_MAX} words and signs, \
                 {MATCHER_DEPTH_MAX} brackets deep, without braces and eval"
            );
            return Err(broken("the model", what));
        }
        if !EFFECTS.contains(&definition("e")?.value.as_str()) {
            return Err(broken("the model", "its effect is none of those that deny by default"));
        }
        if let Some((line, _)) = rules.iter().find(|(_, fields)| fields.len() != wanted) {
            let error = format!("line {line} does not have {wanted} fields behind p");
            return Err(broken("the policy", error));
        }
        if !roles.is_empty() && definition("g").is_err() {
            return Err(broken("the policy", "it has roles, the model knows none"));
        }
        let is_empty = rules.is_empty();
        let rules = rules.into_iter().map(|(_, fields)| fields).collect();
        let enforcer = Box::new(enforcer(model, rules, roles)?);
        Ok(Self::Files(Files { enforcer, is_empty, remembered: Mutex::default() }))
    }

    /// Whether it is permitted. Whatever cannot be decided is not.
    pub fn permits(&self, subject: &str, action: Action, object: &str) -> bool {
        if !is_subject(subject) || object.is_empty() {
            return false;
        }
        match self {
            Self::Own(index) => index.permits(subject, action, object),
            Self::Files(files) => files.permits(subject, action),
        }
    }

    /// What a request is about, in the eyes of this policy.
    pub fn object_of<'o>(&self, object: &'o str) -> &'o str {
        if matches!(self, Self::Files(_)) { ANYONE } else { object }
    }
}

impl Index {
    /// Something gives it, and nothing takes it.
    fn permits(&self, subject: &str, action: Action, object: &str) -> bool {
        let roles = self.roles.get(subject).into_iter().flatten().map(String::as_str);
        let all = [subject, ANYONE].into_iter().chain(roles);
        let mut is_given = false;
        for (rule, actions, effect) in all.filter_map(|one| self.rules.get(one)).flatten() {
            if actions.cover(action) && covers(rule, object) {
                match effect {
                    Effect::Deny => return false,
                    Effect::Allow => is_given = true,
                }
            }
        }
        is_given
    }
}

impl Files {
    fn permits(&self, subject: &str, action: Action) -> bool {
        if self.is_empty {
            return false;
        }
        let asked = (Box::from(subject), action);
        let remembered = || self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered().get(&asked) {
            return *known;
        }
        let judged = || self.enforcer.enforce((subject, ANYONE, action.name()));
        let is_permitted = matches!(catch_unwind(AssertUnwindSafe(judged)), Ok(Ok(true)));
        let mut remembered = remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(asked, is_permitted);
        is_permitted
    }
}

/// Whether a matcher can be worked out: casbin's engine knows loops, and goes down the stack for
/// each part of an expression without an end of its own.
fn is_bounded(matcher: &str) -> bool {
    let (mut parts, mut depth, mut in_word) = (0, 0_usize, false);
    for c in matcher.chars() {
        let is_word = c.is_alphanumeric() || c == '_';
        parts += usize::from(!(c.is_whitespace() || is_word && in_word));
        in_word = is_word;
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' | '}' | ';' | '`' => return false,
            _ => {}
        }
        if depth > MATCHER_DEPTH_MAX || parts > MATCHER_PARTS_MAX {
            return false;
        }
    }
    !matcher.contains("eval")
}

pub(super) fn enforcer(
    model: &str,
    rules: Vec<Vec<String>>,
    roles: Vec<Vec<String>>,
) -> Result<Enforcer, BrokenPolicy> {
    let model = at_once("the model", DefaultModel::from_str(model))?;
    let mut adapter = MemoryAdapter::default();
    at_once("the policy", adapter.add_policies("p", "p", rules))?;
    if !roles.is_empty() {
        at_once("the policy", adapter.add_policies("g", "g", roles))?;
    }
    at_once("the policy", Enforcer::new(model, adapter))
}
