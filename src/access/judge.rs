//! Asks casbin. Its two uses: our own model over a [`Policy`], and a model and a policy as files
//! that an operator brings, such as the book's.
//!
//! casbin answers some odd questions with yes, or with a panic: an empty policy is matched by empty
//! requests, an unknown effect panics, a line with too few fields is an error only when it is
//! reached. All of that is sorted out before it is asked, and an error is a no.

use super::action::Action;
use super::csv;
use super::policy::{ANYONE, Policy, covers, is_subject};
use casbin::function_map::OperatorFunction;
use casbin::rhai::ImmutableString;
use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, MemoryAdapter, Model};
use futures_util::FutureExt;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Our own model. `covers` is a topic by its name, its beginning, or all.
const OWN_MODEL: &str = r#"
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = (r.act == p.act || p.act == "*" && r.act != "peer") && covers(p.obj, r.obj) && (p.sub == "*" || g(r.sub, p.sub))
"#;

/// What casbin can do; it panics on others.
const EFFECTS: [&str; 3] = [
    "some(where (p_eft == allow))",
    "some(where (p_eft == allow)) && !some(where (p_eft == deny))",
    "priority(p_eft) || deny",
];
const MODEL_BYTES_MAX: usize = 64 << 10;

/// Why nothing can be decided by a policy: everything is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokenPolicy(pub String);

/// Decides by one policy.
pub struct Judge {
    enforcer: Box<Enforcer>,
    /// What casbin is asked about, where it is our own: where no rule speaks there is nothing to ask,
    /// and a flood of what nobody may costs little.
    own: Option<Policy>,
    /// Requests are about `*` whatever they are about, as in the book.
    knows_no_objects: bool,
    is_empty: bool,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("is_empty", &self.is_empty).finish_non_exhaustive()
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
    /// By our own model.
    ///
    /// # Errors
    /// [`BrokenPolicy`]: nothing can be decided.
    pub fn of(policy: &Policy) -> Result<Self, BrokenPolicy> {
        policy.check().map_err(|error| BrokenPolicy(error.to_string()))?;
        let rules = policy.rules.iter().map(|rule| {
            let (subject, object) = (rule.subject.clone(), rule.object.clone());
            vec![subject, object, rule.action.to_string(), rule.effect.name().into()]
        });
        let roles = policy.members.iter().map(|member| {
            let (subject, role) = (member.subject.clone(), member.role.clone());
            vec![subject, role]
        });
        let (rules, roles) = (rules.collect(), roles.collect());
        let mut enforcer = enforcer(OWN_MODEL, rules, roles)?;
        let function = OperatorFunction::Arg2(|rule, asked| {
            let rule: ImmutableString = rule.cast();
            let asked: ImmutableString = asked.cast();
            covers(&rule, &asked).into()
        });
        enforcer.add_function("covers", function);
        let enforcer = Box::new(enforcer);
        let (own, is_empty) = (Some(policy.clone()), policy.rules.is_empty());
        Ok(Self { enforcer, own, knows_no_objects: false, is_empty })
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
        definition("m")?;
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
        Ok(Self { enforcer, own: None, knows_no_objects: true, is_empty })
    }

    /// Whether it is permitted. Whatever cannot be decided is not.
    pub fn permits(&self, subject: &str, action: Action, object: &str) -> bool {
        if self.is_empty || !is_subject(subject) || object.is_empty() {
            return false;
        }
        let speaks = |policy: &Policy| !policy.speaking(subject, action, object).is_empty();
        if !self.own.as_ref().is_none_or(speaks) {
            return false;
        }
        let object = self.object_of(object);
        let asked = || self.enforcer.enforce((subject, object, action.name()));
        matches!(catch_unwind(AssertUnwindSafe(asked)), Ok(Ok(true)))
    }

    /// What a request is about, in the eyes of this policy.
    pub fn object_of<'o>(&self, object: &'o str) -> &'o str {
        if self.knows_no_objects { ANYONE } else { object }
    }
}

fn enforcer(
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
