//! The node behind its guards: fresh certificates, a token, and a policy as large as one may be, in
//! which the rule that lets the benchmark in is found late.

use super::BenchError;
use super::process::{Extra, READY_MAX, Reach, Target, connect, empty_home};
use crate::access::{
    Effect, KeyKind, Membership, Policy, RULES_MAX, Rule, Secret, TokenTerms, new_token,
};
use crate::guards::tls::{Authority, ClientTls, Host, TlsFiles, Wanted};
use crate::model::{Clock, SystemClock};
use crate::wire::client::{Bearer, Client, ClientError, ClientOptions};
use crate::wire::pb::duramen::v1 as pb;
use pb::change_access_request::Change;
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// What stands between a client and the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Access control, by a token over a plain connection.
    Access,
    /// TLS both ways and access control: the certificate says who asks.
    Tls,
    /// The same, where a token says who asks.
    TlsToken,
}

impl Guard {
    pub const ALL: [Self; 3] = [Self::Access, Self::Tls, Self::TlsToken];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "acl+token",
            Self::Tls => "tls+acl",
            Self::TlsToken => "tls+acl+token",
        }
    }

    const fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsToken)
    }
}

/// A node behind each guard. Its processes die with this value.
#[derive(Debug)]
pub struct Guarded {
    pub nodes: Vec<(Guard, Target)>,
    _secrets: TempDir,
}

/// Who the benchmark is.
const CLIENT: &str = "bench-client";
const NODE: &str = "bench";
const ROLES: usize = 20;
const RULES_OF_A_ROLE: usize = 40;
const MEMBERS_OF_A_ROLE: usize = 8;
const DAYS: u32 = 2;

impl Guarded {
    /// On empty directories below `parent`, once each lets this benchmark in and nobody else.
    pub async fn start(parent: &Path, durability: &str) -> Result<Self, BenchError> {
        let home = empty_home(parent)?;
        let secrets = Secrets::make(home.path())?;
        let mut nodes = Vec::new();
        for guard in Guard::ALL {
            let extra = secrets.extra(home.path(), guard);
            let node = Target::start_extra(parent, durability, extra).await?;
            close(&node.reach).await?;
            nodes.push((guard, node));
        }
        Ok(Self { nodes, _secrets: home })
    }
}

/// What the benchmark shows.
struct Secrets {
    tls: ClientTls,
    token: Bearer,
}

impl Secrets {
    fn make(dir: &Path) -> Result<Self, BenchError> {
        let odd = |what: String| BenchError::NotReady { what: "guards", why: what };
        let now = SystemClock::new().wall();
        let host = |text: &str| text.parse::<Host>();
        let hosts = vec![host("127.0.0.1").map_err(odd)?, host("localhost").map_err(odd)?];
        let node = Wanted::Node { name: NODE.into(), hosts, also_client: false };
        let client = Wanted::Client { name: CLIENT.into() };
        let made = Authority::new("duramen bench", now, DAYS).and_then(|(authority, ca)| {
            let (node, client) =
                (authority.issue(&node, now, DAYS)?, authority.issue(&client, now, DAYS)?);
            Ok([("ca", ca), ("node", node), ("client", client)])
        });
        for (who, issued) in made.map_err(|error| odd(error.to_string()))? {
            put(&dir.join(format!("{who}.pem")), &issued.certificate)?;
            put(&dir.join(format!("{who}-key.pem")), &issued.key)?;
        }
        let tls = TlsFiles::in_dir(dir, "client").load().map_err(|error| odd(error.to_string()))?;
        let tls = ClientTls::new(&tls).map_err(odd)?;
        let key = Secret::generate(KeyKind::EdDsa, "bench");
        let key = key.map_err(|error| odd(error.to_string()))?;
        put(&dir.join("keys.json"), &key.for_nodes())?;
        let time = Duration::from_secs(u64::from(DAYS) * 86_400);
        let token = new_token(&key, CLIENT, &TokenTerms::default(), now, time);
        let token = token.map_err(|error| odd(error.to_string()))?;
        let token = Bearer::new(&token).ok_or_else(|| odd("no header holds the token".into()))?;
        Ok(Self { tls, token })
    }

    fn extra(&self, dir: &Path, guard: Guard) -> Extra {
        let mut extra = Extra::default();
        if guard.has_tls() {
            extra.arguments.extend([OsString::from("--tls-dir"), dir.into()]);
            extra.tls = Some(self.tls.clone());
        }
        if guard != Guard::Tls {
            let keys = dir.join("keys.json");
            extra.arguments.extend([OsString::from("--token-keys-file"), keys.into()]);
            extra.token = self.token.clone();
        }
        extra
    }
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's own files, not the log's")]
fn put(file: &Path, text: &str) -> Result<(), BenchError> {
    use std::io::Write;
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(BenchError::io(format!("cannot write {}", file.display())))
}

/// As many rules and roles as there may be, of many topics and names; what lets the benchmark in is a
/// prefix, given to the last of its roles.
fn policy() -> Policy {
    let rule = |subject: String, object: String, action: &str, effect| {
        let action = action.parse().expect("it is one of the actions");
        Rule { subject, object, action, effect }
    };
    let mut policy = Policy::default();
    policy.rules.insert(rule("*".into(), "secret-*".into(), "*", Effect::Deny));
    // It could not put the policy in force otherwise; records are still let in by the prefix alone.
    policy.rules.insert(rule(CLIENT.into(), "*".into(), "admin", Effect::Allow));
    for team in 0..ROLES {
        let role = format!("role:team-{team:02}");
        for at in 0..RULES_OF_A_ROLE - 1 {
            let action = if at % 2 == 0 { "produce" } else { "consume" };
            let object = format!("team-{team:02}-{at:02}-*");
            policy.rules.insert(rule(role.clone(), object, action, Effect::Allow));
        }
        for at in 0..MEMBERS_OF_A_ROLE {
            let subject = format!("member-{team:02}-{at}");
            policy.members.insert(Membership { subject, role: role.clone() });
        }
        if team + 1 == ROLES {
            policy.rules.insert(rule(role.clone(), "lo*".into(), "*", Effect::Allow));
            policy.members.insert(Membership { subject: CLIENT.into(), role });
        }
    }
    for at in policy.rules.len() + policy.members.len()..RULES_MAX {
        let (subject, object) = (format!("alone-{at:03}"), format!("own-{at:03}-*"));
        policy.rules.insert(rule(subject, object, "*", Effect::Allow));
    }
    policy
}

/// Puts the policy in force, and looks whether it is: a guard that lets everybody in costs nothing.
async fn close(reach: &Reach) -> Result<(), BenchError> {
    let clock = SystemClock::new();
    for change in [Change::Load(policy().to_string()), Change::Switch(true)] {
        loop {
            let Err(error) = ask(reach, change.clone()).await else { break };
            // A node that has just started has no leader yet.
            if clock.monotonic() > READY_MAX {
                return Err(BenchError::NotReady { what: "guards", why: error.to_string() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let other = pb::DescribeRequest { topic: "another".into() };
    match connect(reach).await?.describe(other).await {
        Err(status) if status.code() == tonic::Code::PermissionDenied => Ok(()),
        answered => {
            let what =
                format!("access control is on, and lets pass what no rule permits: {answered:?}");
            Err(BenchError::Broken { what })
        }
    }
}

async fn ask(reach: &Reach, change: Change) -> Result<(), ClientError> {
    let Reach { addr, tls, token } = reach.clone();
    let options = ClientOptions { tls, token, ..ClientOptions::default() };
    let mut admin = Client::connect(&addr, options).await?.admin();
    admin.change_access(pb::ChangeAccessRequest { change: Some(change) }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Action, Judge};

    #[test]
    fn the_policy_is_as_large_as_one_may_be_and_lets_the_benchmark_in_by_a_prefix() {
        let policy = policy();
        assert_eq!(policy.rules.len() + policy.members.len(), RULES_MAX);
        policy.check().unwrap();
        let judge = Judge::of(&policy).unwrap();
        for action in [Action::Produce, Action::Consume, Action::Describe] {
            assert!(judge.permits(CLIENT, action, "log"), "{action}");
            assert!(!judge.permits(CLIENT, action, "another"), "{action}");
            assert!(!judge.permits("somebody", action, "log"), "{action}");
        }
        let place = policy.rules.iter().position(|rule| rule.object == "lo*").unwrap();
        assert!(place * 10 > policy.rules.len(), "{place}: it is not among the first");
    }
}
