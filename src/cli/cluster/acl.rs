//! `duramen acl`: who may do what in a cluster, over `duramen.v1.Admin`.

use super::{About, Class, Failure};
use crate::access::{Action, Effect, Membership, Policy, ROLE_PREFIX, Rule};
use crate::wire::pb::duramen::v1::change_access_request::Change;
use crate::wire::pb::duramen::v1::{
    AccessState, ChangeAccessRequest, GetAccessRequest, TestAccessRequest, TestAccessResponse,
};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `duramen acl`.
#[derive(Debug, Args)]
pub struct AclArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show the policy, and whether it is in force.
    List(Nothing),
    /// Add a rule (SUBJECT OBJECT ACTIONS), or give somebody a role (SUBJECT role:NAME).
    Add(Line),
    /// Take a rule or a role away again.
    Remove(Line),
    /// Tell whether somebody may do something; exit code 77 where not.
    Test(Case),
    /// Tell which rules decide on it.
    Explain(Case),
    /// Put the policy of a file in place of the one there is: casbin's CSV.
    Load(File),
    /// Put the policy in force: what it does not permit is denied from then on.
    On(Nothing),
    /// Permit everything to everybody.
    Off(Nothing),
}

#[derive(Debug, Args)]
struct Nothing {
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Line {
    /// A name, role:NAME, or * for everybody who has proved a name.
    subject: String,
    /// A topic, the beginning of topics' names and * (orders-*), or *; or the role to give.
    object: String,
    /// produce, consume, create, alter, delete, describe, observe, admin, peer, or *; with commas.
    #[arg(value_delimiter = ',')]
    actions: Vec<String>,
    /// The rule takes, whatever others give.
    #[arg(long)]
    deny: bool,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Case {
    /// Who.
    subject: String,
    /// Does what.
    action: String,
    /// To which topic; *: to what is no topic's.
    #[arg(default_value = "*")]
    object: String,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct File {
    /// The file.
    file: PathBuf,
    #[command(flatten)]
    about: About,
}

fn odd(error: impl Into<String>) -> Failure {
    Failure::new(Class::BadInput, error.into()).advice("see also `duramen acl add --help`")
}

/// The lines of a policy that are meant.
fn policy(line: &Line) -> Result<Policy, Failure> {
    let Line { subject, object, actions, deny, .. } = line;
    let mut policy = Policy::default();
    if object.starts_with(ROLE_PREFIX) && actions.is_empty() {
        policy.members.insert(Membership { subject: subject.clone(), role: object.clone() });
    } else if actions.is_empty() {
        return Err(odd("a rule is SUBJECT OBJECT ACTIONS, a role is SUBJECT role:NAME"));
    }
    for action in actions {
        let effect = if *deny { Effect::Deny } else { Effect::Allow };
        let action = action.parse().map_err(|()| {
            let known = Action::ALL.map(Action::name).join(", ");
            odd(format!("there is no such action; there are {known}, and *"))
        })?;
        let (subject, object) = (subject.clone(), object.clone());
        policy.rules.insert(Rule { subject, object, action, effect });
    }
    policy.check().map_err(|error| odd(error.to_string()))?;
    Ok(policy)
}

fn change(about: &About, change: Change) -> Result<(), Failure> {
    let request = ChangeAccessRequest { change: Some(change) };
    let asked = about.ask(async |admin| admin.change_access(request).await);
    let state = asked.map_err(|failure| match failure.class {
        // What is refused of a policy says itself what to do.
        Class::BadInput | Class::Runtime => Failure { advice: None, ..failure },
        _ => failure,
    })?;
    about.shape.print(&state, as_text)
}

/// Carries out one of them.
pub fn run(args: AclArgs) -> Result<(), Failure> {
    match args.act {
        Act::List(Nothing { about }) => {
            let state = about.ask(async |admin| admin.get_access(GetAccessRequest {}).await)?;
            about.shape.print(&state, as_text)
        }
        Act::Add(line) => change(&line.about, Change::Add(policy(&line)?.to_string())),
        Act::Remove(line) => change(&line.about, Change::Remove(policy(&line)?.to_string())),
        Act::Load(File { file, about }) => load(&file, &about),
        Act::On(Nothing { about }) => change(&about, Change::Switch(true)),
        Act::Off(Nothing { about }) => change(&about, Change::Switch(false)),
        Act::Test(case) => {
            let tested = test(&case)?;
            case.about.shape.print(&tested, verdict)?;
            match tested.permitted {
                true => Ok(()),
                false => Err(Failure::new(
                    Class::Permission,
                    format!("{} may not {} {}", case.subject, case.action, case.object),
                )),
            }
        }
        Act::Explain(case) => {
            let tested = test(&case)?;
            case.about.shape.print(&tested, explained)
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge where the file of a policy is read")]
fn load(file: &std::path::Path, about: &About) -> Result<(), Failure> {
    let what = || format!("cannot read the policy from {}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| Failure::io(what(), &error))?;
    // Told here, with the line, before anybody is asked.
    let policy = text.parse::<Policy>().map_err(|error| {
        let what = format!("{}: {error}; nothing was changed", file.display());
        Failure::new(Class::BadInput, what).advice("lines are as `duramen acl list` prints them")
    })?;
    change(about, Change::Load(policy.to_string()))
}

fn test(case: &Case) -> Result<TestAccessResponse, Failure> {
    let (subject, action) = (case.subject.clone(), case.action.clone());
    let request = TestAccessRequest { subject, action, object: case.object.clone() };
    case.about.ask(async |admin| admin.test_access(request).await)
}

fn as_text(state: &AccessState) -> String {
    let AccessState { on, generation, policy } = state;
    let force = if *on { "in force" } else { "not in force: everybody may do everything" };
    let rules = if policy.is_empty() { "# no rules\n" } else { policy };
    format!("# change {generation}, {force}\n{rules}")
}

fn verdict(tested: &TestAccessResponse) -> String {
    format!("{}\n", if tested.permitted { "permitted" } else { "denied" })
}

fn explained(tested: &TestAccessResponse) -> String {
    let mut text = format!("by the policy: {}", verdict(tested));
    if tested.rules.is_empty() {
        text.push_str("  no rule speaks of it, and what no rule permits is denied\n");
    }
    for rule in &tested.rules {
        writeln!(text, "  {rule}").expect("a string takes any text");
    }
    let now = match tested.refusal.as_str() {
        "" => "it passes".to_owned(),
        refusal => refusal.to_owned(),
    };
    writeln!(text, "at this node, now: {now}").expect("a string takes any text");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        line: Line,
    }

    fn line(words: &[&str]) -> Result<String, String> {
        let words = ["acl"].iter().chain(words);
        let parsed = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        policy(&parsed.line).map(|policy| policy.to_string()).map_err(|failure| failure.error)
    }

    #[test]
    fn rules_and_roles_are_told_apart() {
        let two = line(&["alice", "orders-*", "produce,consume"]).unwrap();
        assert_eq!(two, "p, alice, orders-*, produce, allow\np, alice, orders-*, consume, allow\n");
        assert_eq!(line(&["*", "x", "*", "--deny"]).unwrap(), "p, *, x, *, deny\n");
        assert_eq!(line(&["bob", "role:staff"]).unwrap(), "g, bob, role:staff\n");
        assert!(line(&["bob", "orders"]).is_err());
        assert!(line(&["bob", "orders", "fly"]).unwrap_err().contains("produce, consume"));
        assert!(line(&["a,b", "orders", "produce"]).is_err());
    }
}
