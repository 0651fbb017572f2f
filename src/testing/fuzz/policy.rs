//! Policies, and models in casbin's format: whatever they say, nobody may do what no rule gives.

use crate::access::{Action, Effect, Gate, Judge, Law, Laws, Policy, is_subject};
use crate::model::{Caller, Proof};

const MODEL: &str = "[request_definition]\nr = sub, obj, act\n[policy_definition]\n\
    p = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\n\
    m = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n";
/// Names that a rule may not have by the way.
const ODD: [&str; 5] = ["mallory", "", "*", "role:w", "a,b"];
const OBJECTS_MAX: usize = 3;

/// Our own policies: a text, and the decisions that follow from it.
pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(policy) = text.parse::<Policy>() else { return };
    assert_eq!(policy.to_string().parse::<Policy>().as_ref(), Ok(&policy), "written and read");
    let judge = Judge::of(&policy).expect("what was taken can be judged by");
    let cluster = Law::Judge(Judge::of(&policy).expect("as before"));
    let gate = Gate::new(Laws { cluster, ..Laws::default() });
    let named = policy.rules.iter().map(|rule| rule.subject.as_str());
    let played = policy.members.iter().map(|member| member.subject.as_str());
    let subjects: Vec<&str> = named.chain(played).take(4).chain(ODD).collect();
    let objects = policy.rules.iter().map(|rule| rule.object.as_str());
    let objects: Vec<&str> = objects.take(OBJECTS_MAX).chain(["log", "*"]).collect();
    let at = bytes.len();
    for (n, subject) in subjects.iter().enumerate() {
        for (m, object) in objects.iter().enumerate() {
            let action = Action::ALL[(at + n + m) % Action::ALL.len()];
            let speaking = policy.speaking(subject, action, object);
            let gives = speaking.iter().any(|rule| rule.effect == Effect::Allow)
                && !speaking.iter().any(|rule| rule.effect == Effect::Deny);
            let is_permitted = judge.permits(subject, action, object);
            assert_eq!(is_permitted, gives, "{subject:?} {action} {object:?}");
            assert!(!is_permitted || is_subject(subject), "{subject:?} is nobody");
            let subject = Some((*subject).into());
            let caller = Caller { subject, proof: Proof::Certificate, peer: None };
            for _ in 0..2 {
                assert_eq!(gate.check(&caller, action, object).is_ok(), is_permitted, "the gate");
            }
        }
    }
    assert!(gate.check(&Caller::nobody(), Action::Consume, "log").is_err(), "nobody passes");
}

/// An operator's files: first the model, and behind a zero the policy. Without a model it is the
/// book's, of which a rule must name all that it gives.
pub(super) fn model(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (model, policy) = text.split_once('\0').unwrap_or(("", text));
    let of_the_book = model.is_empty();
    let model = if of_the_book { MODEL } else { model };
    if let Ok(empty) = Judge::of_files(model, "") {
        for subject in ["alice", "root"].into_iter().chain(ODD) {
            assert!(!empty.permits(subject, Action::Produce, "log"), "by no rule: {subject:?}");
        }
    }
    let Ok(judge) = Judge::of_files(model, policy) else { return };
    for subject in ["alice", "root"].into_iter().chain(ODD) {
        for action in [Action::Produce, Action::Peer] {
            let is_permitted = judge.permits(subject, action, "log");
            assert_eq!(is_permitted, judge.permits(subject, action, "log"), "asked twice");
            assert!(!is_permitted || is_subject(subject), "{subject:?} is nobody");
            let is_named = || {
                let fields = |line: &str| {
                    let field = |field: &str| field.trim().trim_matches('"').to_owned();
                    line.split(',').map(field).collect::<Vec<_>>()
                };
                policy.lines().any(|line| fields(line) == ["p", subject, "*", action.name()])
            };
            assert!(!is_permitted || !of_the_book || is_named(), "{subject} {action}: no rule");
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "p, root, *, *\n",
        "p, alice, orders-*, produce\np, alice, orders-x, produce, deny\n",
        "p, role:w, log, produce\ng, alice, role:w\np, *, log, consume\n",
        "# nobody\n\np, \"bob\", log, consume, allow\n",
        "p, alice, log\n",
        "g, alice, bob\n",
        "p, role:w, *, peer\ng, n1, role:w\np, n1, *, *, deny\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(super) fn model_seeds() -> Vec<Vec<u8>> {
    let roles = MODEL
        .replace("[policy_effect]", "[role_definition]\ng = _, _\n[policy_effect]")
        .replace("r.sub == p.sub", "g(r.sub, p.sub)");
    let texts = [
        "p, root, *, produce\np, root, *, consume\n".to_owned(),
        "p, alice, log, produce\n".to_owned(),
        format!("{MODEL}\0p, root, *, produce\n"),
        format!("{roles}\0p, w, *, produce\ng, alice, w\n"),
        format!(
            "{}\0p, alice, *, produce",
            MODEL.replace("r.obj == p.obj", "keyMatch(r.obj, p.obj)")
        ),
        format!(
            "{}\0p, a, *, b",
            MODEL.replace("r.sub == p.sub &&", "regexMatch(r.sub, p.sub) ||")
        ),
        MODEL.replace("p = sub, obj, act", "p = sub"),
    ];
    texts.map(String::into_bytes).to_vec()
}
