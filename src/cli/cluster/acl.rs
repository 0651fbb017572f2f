//! `duramen acl`: who may do what in a cluster, over `duramen.v1.Admin`.

use super::{About, Class, Failure};
use crate::access::{Action, Effect, Membership, Policy, ROLE_PREFIX, Rule};
use crate::cluster::NOT_HELD;
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
    /// Put it out of force: who may do what is then up to each node's own settings, if they say.
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

/// The lines that are to be added: what would never count is told here, before anybody is asked.
fn new_policy(line: &Line) -> Result<Policy, Failure> {
    let policy = policy(line)?;
    policy.check_applies().map_err(|error| odd(error.to_string()))?;
    Ok(policy)
}

/// The lines of a policy that are meant.
fn policy(line: &Line) -> Result<Policy, Failure> {
    let Line { subject, object, actions, deny, .. } = line;
    let mut policy = Policy::default();
    if object.starts_with(ROLE_PREFIX) && actions.is_empty() {
        if *deny {
            let what = "--deny is of rules: a role is given or taken back, never denied";
            return Err(Failure::new(Class::BadInput, what).advice(
                "`duramen acl remove SUBJECT role:NAME` takes a role back; `duramen acl add SUBJECT \
                 OBJECT ACTIONS --deny` denies",
            ));
        }
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
        _ if failure.cause.as_deref().is_some_and(|cause| cause.contains(NOT_HELD)) => {
            failure.advice("`duramen acl list` shows what it holds")
        }
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
        Act::Add(line) => change(&line.about, Change::Add(new_policy(&line)?.to_string())),
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
    let advice = "a policy's lines are as `duramen acl list --table` prints them";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::io(what(), &error).advice(advice))?;
    // Told here, with the line, before anybody is asked.
    let read = text.parse().and_then(|policy: Policy| policy.check_applies().map(|()| policy));
    let policy = read.map_err(|error| {
        let what = format!("{}: {error}; nothing was changed", file.display());
        Failure::new(Class::BadInput, what).advice(advice)
    })?;
    change(about, Change::Load(policy.to_string()))
}

fn test(case: &Case) -> Result<TestAccessResponse, Failure> {
    let (subject, action) = (case.subject.clone(), case.action.clone());
    let request = TestAccessRequest { subject, action, object: case.object.clone() };
    case.about.ask(async |admin| admin.test_access(request).await)
}

fn as_text(state: &AccessState) -> String {
    let AccessState { on, generation, policy, here } = state;
    let force = if *on { "in force" } else { "not in force" };
    // Which nodes have settings and files of their own is not known to the cluster.
    let here = if here.is_empty() { String::new() } else { format!("; at this node {here}") };
    let rules = if policy.is_empty() { "# no rules\n" } else { policy };
    format!("# change {generation}, {force}{here}\n{rules}")
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
    let now = if tested.refusal.is_empty() { "it passes" } else { &tested.refusal };
    let why = if tested.why.is_empty() { String::new() } else { format!(": {}", tested.why) };
    writeln!(text, "at this node, now: {now}{why}").expect("a string takes any text");
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
        let denied = line(&["bob", "role:staff", "--deny"]).unwrap_err();
        assert!(denied.contains("never denied"), "{denied}");
        let nested = line(&["role:a", "role:b"]).unwrap_err();
        assert!(nested.contains("roles are played by names, not by other roles"), "{nested}");
        assert!(line(&["bob", "orders"]).is_err());
        assert!(line(&["bob", "orders", "fly"]).unwrap_err().contains("produce, consume"));
        assert!(line(&["a,b", "orders", "produce"]).is_err());
    }

    #[test]
    fn a_rule_that_would_never_count_is_not_added_and_can_be_removed() {
        let parsed = Command::try_parse_from(["acl", "ada", "orders", "admin"]).unwrap();
        let refused = new_policy(&parsed.line).unwrap_err();
        assert_eq!(refused.class, Class::BadInput);
        assert!(refused.error.contains("write '*' in place of orders"), "{refused}");
        assert_eq!(policy(&parsed.line).unwrap().to_string(), "p, ada, orders, admin, allow\n");
        let parsed = Command::try_parse_from(["acl", "ada", "*", "admin"]).unwrap();
        assert!(new_policy(&parsed.line).is_ok());
    }

    #[test]
    fn whether_everybody_may_do_everything_is_for_a_node_to_say() {
        let state = |on, here: &str| {
            as_text(&AccessState { on, generation: 3, policy: String::new(), here: here.into() })
        };
        assert_eq!(state(false, ""), "# change 3, not in force\n# no rules\n");
        assert_eq!(
            state(true, "the policy decides"),
            "# change 3, in force; at this node the policy decides\n# no rules\n"
        );
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a file of the test, not the log's")]
    fn what_is_no_policy_is_bad_input_as_a_file_that_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let about = || Command::try_parse_from(["acl", "a", "b", "c"]).unwrap().line.about;
        let loaded = |text: Option<&[u8]>| {
            let file = directory.path().join("policy.csv");
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            load(&file, &about()).unwrap_err()
        };
        assert_eq!(loaded(None).class, Class::BadInput);
        for (text, told) in [
            (&b"p, ada, *, \xff"[..], "cannot read the policy"),
            (b"p, ada", "line 1"),
            (b"p, ada, orders, admin", "would never count"),
        ] {
            let failure = loaded(Some(text));
            assert_eq!(failure.class, Class::BadInput, "{failure}");
            assert!(failure.error.contains(told), "{failure}");
        }
    }
}
