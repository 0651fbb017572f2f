use super::judge::enforcer;
use super::policy::covers;
use super::*;
use crate::model::{Caller, Proof};
use casbin::function_map::OperatorFunction;
use casbin::rhai::ImmutableString;
use casbin::{CoreApi, Enforcer};
use proptest::prelude::*;
use std::sync::Arc;

const BOOK_MODEL: &str = "
# Request definition
[request_definition]
r = sub, obj, act

# Policy definition
[policy_definition]
p = sub, obj, act

# Policy effect
[policy_effect]
e = some(where (p.eft == allow))

# Matchers
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
";
const BOOK_POLICY: &str = "p, root, *, produce\np, root, *, consume\n";

fn caller(name: &str) -> Caller {
    Caller { subject: Some(name.into()), proof: Proof::Certificate, peer: None }
}

fn gate(policy: &str) -> Gate {
    let judge = Judge::of(&policy.parse().unwrap()).unwrap();
    Gate::new(Laws { cluster: Law::Judge(judge), ..Laws::default() })
}

fn may(gate: &Gate, who: &str, action: Action, object: &str) -> bool {
    gate.check(&caller(who), action, object).is_ok()
}

// -- the book's files

#[test]
fn the_books_model_and_policy_work_unchanged() {
    let judge = Judge::of_files(BOOK_MODEL, BOOK_POLICY).unwrap();
    let gate = Gate::new(Laws { files: Law::Judge(judge), ..Laws::default() });
    assert!(may(&gate, "root", Action::Produce, "log"));
    assert!(may(&gate, "root", Action::Consume, "log"));
    assert!(!may(&gate, "root", Action::Admin, "*"), "what no line says is denied");
    let denied = gate.check(&caller("nobody"), Action::Produce, "log").unwrap_err();
    assert_eq!(denied.to_string(), "nobody not permitted to produce to *");
    let denied = gate.check(&Caller::nobody(), Action::Produce, "log").unwrap_err();
    assert_eq!(denied, Denied::Unauthenticated("no transport security being used".into()));
}

#[test]
fn where_it_is_not_known_yet_who_may_do_what_nobody_is_asked_to_come_again() {
    let reason = || Law::Unknown("it waits".into());
    let gate = Gate::new(Laws { cluster: reason(), ..Laws::default() });
    let again = |denied: Result<(), Denied>| matches!(denied, Err(Denied::NotKnownYet { .. }));
    assert!(again(gate.check(&Caller::nobody(), Action::Produce, "log")));
    assert!(again(gate.check_known(&Caller::nobody())));
    assert!(again(gate.check(&caller("ada"), Action::Produce, "log")));
    assert_eq!(gate.waits_for().as_deref(), Some("it waits"));
    gate.set(Laws::default());
    assert_eq!((gate.waits_for(), gate.check_known(&Caller::nobody())), (None, Ok(())));
}

/// Each ended the process, or never came to an end.
#[test]
fn a_matcher_that_is_no_small_expression_is_refused() {
    let with = |matcher: &str| {
        let (before, _) = BOOK_MODEL.split_once("m = ").unwrap();
        Judge::of_files(&format!("{before}m = {matcher}\n"), "p, root, *, produce")
    };
    let deep = format!("{}true{}", "(".repeat(300), ")".repeat(300));
    let odd = [
        deep,
        format!("{}true", "!".repeat(3_000)),
        vec!["true"; 2_000].join(" == "),
        "eval(\"loop {}\")".to_owned(),
        "if true { loop {} } else { true }".to_owned(),
        "a = 1; true".to_owned(),
    ];
    for matcher in odd {
        let refused = with(&matcher).unwrap_err();
        assert!(refused.0.contains("one expression"), "{refused}");
    }
    let nested = format!("{}r.sub == p.sub{}", "(".repeat(16), ")".repeat(16));
    let judge = with(&nested).unwrap();
    assert!(judge.permits("root", Action::Produce, "log"));
    assert!(!judge.permits("ada", Action::Produce, "log"));
    let flat = vec!["r.sub == p.sub"; 20].join(" && ");
    assert!(with(&flat).unwrap().permits("root", Action::Produce, "log"));
}

#[test]
fn files_that_are_empty_cut_off_or_odd_permit_nothing_and_say_so() {
    let odd: [(&str, &str); 12] = [
        ("", BOOK_POLICY),
        ("[request_definition]\nr = sub, obj, act\n", BOOK_POLICY),
        (&BOOK_MODEL[..BOOK_MODEL.len() - 40], BOOK_POLICY),
        (&BOOK_MODEL.replace("sub, obj, act", "sub, obj"), BOOK_POLICY),
        (&BOOK_MODEL.replace("some(where", "any(where"), BOOK_POLICY),
        (&BOOK_MODEL.replace("some(where (p.eft == allow))", "!some(where (p.eft == deny))"), ""),
        (BOOK_MODEL, "p, root, *"),
        (BOOK_MODEL, "p, root, *, produce\np, root, *, con\np, ro"),
        (BOOK_MODEL, "p, root, *, produce, allow, and, more"),
        (BOOK_MODEL, "root, *, produce"),
        (BOOK_MODEL, "p, \"root, *, produce"),
        (BOOK_MODEL, "p, root, , produce"),
    ];
    for (model, policy) in odd {
        match Judge::of_files(model, policy) {
            Err(error) => assert!(!error.0.is_empty()),
            // A model cut off within its matcher may still be one; what it permits is nothing.
            Ok(judge) => {
                for action in Action::ALL {
                    assert!(!judge.permits("nobody", action, "*"), "{model}\n{policy}");
                }
            }
        }
    }
    let empty = Judge::of_files(BOOK_MODEL, "\n# nothing\n").unwrap();
    assert!(!empty.permits("root", Action::Produce, "*"));
    let gate = Gate::new(Laws { files: Law::Broken("it is cut off".into()), ..Laws::default() });
    let denied = gate.check(&caller("root"), Action::Produce, "log").unwrap_err();
    assert!(denied.to_string().contains("it is cut off"), "{denied}");
}

#[test]
fn names_that_try_to_be_a_rule_are_nobody() {
    let judge = Judge::of_files(BOOK_MODEL, BOOK_POLICY).unwrap();
    let own =
        gate("p, root, *, *\np, role:admins, *, *\ng, root, role:admins\np, *, open, consume");
    for hostile in [
        "",
        "*",
        "root\n",
        "x, *, produce\np, x",
        "root, *",
        "\"root\"",
        "role:admins",
        " root",
        "root ",
        "#root",
        "root\u{2028}",
        "r.sub == p.sub",
        "root\" || true || \"",
    ] {
        for action in Action::ALL {
            assert!(!judge.permits(hostile, action, "*"), "{hostile:?}");
            assert!(!may(&own, hostile, action, "log"), "{hostile:?}");
        }
    }
    // The control: a name like any other gets what everybody gets.
    assert!(may(&own, "rööt", Action::Consume, "open"));
    assert!(!may(&own, "rööt", Action::Consume, "öpen"), "and objects of all letters");
}

// -- our own model

#[test]
fn topics_are_named_by_name_beginning_or_all() {
    let gate = gate("p, alice, orders, produce\np, bob, orders-*, produce\np, carol, *, produce");
    for (who, object, expected) in [
        ("alice", "orders", true),
        ("alice", "orders-1", false),
        ("alice", "*", false),
        ("bob", "orders-1", true),
        ("bob", "orders-", true),
        ("bob", "orders", false),
        ("bob", "*", false),
        ("carol", "anything", true),
        ("carol", "*", true),
        ("dave", "orders", false),
    ] {
        assert_eq!(may(&gate, who, Action::Produce, object), expected, "{who} {object}");
        assert!(!may(&gate, who, Action::Consume, object), "{who} {object}");
    }
}

#[test]
fn a_rule_that_takes_wins_wherever_it_stands() {
    let gate = gate(
        "p, *, secret-*, *, deny\np, role:staff, *, *\ng, alice, role:staff\np, alice, secret-1, \
         consume, allow",
    );
    assert!(may(&gate, "alice", Action::Consume, "open"));
    assert!(!may(&gate, "alice", Action::Consume, "secret-1"));
    assert!(!may(&gate, "bob", Action::Consume, "open"), "who is unknown is denied");
}

#[test]
fn everything_does_not_include_being_a_node() {
    let gate = gate("p, admin, *, *\np, n1, *, peer");
    assert!(may(&gate, "admin", Action::Admin, "*"));
    assert!(!may(&gate, "admin", Action::Peer, "*"));
    assert!(may(&gate, "n1", Action::Peer, "*"));
}

#[test]
fn the_text_of_a_policy_is_read_strictly_and_written_as_it_is_read() {
    let text =
        "p, alice, orders-*, consume, allow\np, role:staff, *, *, deny\ng, bob, role:staff\n";
    let policy: Policy = text.parse().unwrap();
    assert_eq!(policy.to_string(), text);
    for odd in [
        "p, alice, orders",
        "p, alice, orders, fly",
        "p, alice, or*ders, consume",
        "p, alice, orders/../x, consume",
        "p, al\"ice, orders, consume",
        "p, alice, orders, consume, maybe",
        "p, alice, orders, consume, allow, allow",
        "g, alice, staff",
        "g, role:a, role:b",
        "g, *, role:a",
        "x, alice, orders, consume",
        "p, , orders, consume",
        "p2, alice, orders, consume",
    ] {
        assert!(odd.parse::<Policy>().is_err(), "{odd}");
    }
    let many: String = (0..=RULES_MAX).map(|i| format!("p, s{i}, *, consume\n")).collect();
    assert!(many.parse::<Policy>().is_err());
}

#[test]
fn a_change_of_the_laws_is_seen_by_whoever_has_a_pass() {
    let gate = gate("p, alice, log, produce");
    let mut pass = Pass::new(gate.clone());
    let alice = caller("alice");
    assert!(pass.check(&alice, Action::Produce, "log").is_ok());
    let before = gate.generation();
    gate.set(Laws {
        cluster: Law::Judge(Judge::of(&Policy::default()).unwrap()),
        ..Laws::default()
    });
    assert!(gate.generation() > before);
    assert!(pass.check(&alice, Action::Produce, "log").is_err());
    gate.set(Laws { cluster: Law::Unknown("no catalogue yet".into()), ..Laws::default() });
    let denied = pass.check(&alice, Action::Produce, "log").unwrap_err();
    assert!(matches!(denied, Denied::NotKnownYet { .. }));
    gate.set(Laws::default());
    assert!(pass.check(&Caller::nobody(), Action::Produce, "log").is_ok(), "off");
}

#[test]
fn a_pass_keeps_what_can_be_names_and_no_more() {
    let gate = Gate::default();
    let mut pass = Pass::new(gate);
    let kept = |pass: &Pass| pass.given.iter().map(|given| given.2.len()).sum::<usize>();
    let long = "x".repeat(250);
    for _ in 0..20 {
        assert!(pass.check(&Caller::nobody(), Action::Produce, &long).is_ok(), "nothing is judged");
        assert!(pass.check(&caller(&"s".repeat(256)), Action::Produce, "log").is_ok());
    }
    assert_eq!(kept(&pass), 0);
    for number in 0..20 {
        let name = format!("{number:x<249}");
        assert!(pass.check(&Caller::nobody(), Action::Produce, &name).is_ok());
    }
    assert!((249..=8 * 249).contains(&kept(&pass)), "{}", kept(&pass));
}

#[test]
fn a_refusal_repeats_as_much_of_a_name_as_a_topic_may_have() {
    let gate = gate("p, alice, log, produce");
    let told = |object: &str| {
        gate.check(&caller("alice"), Action::Produce, object).unwrap_err().to_string()
    };
    let longest = "n".repeat(249);
    assert_eq!(told(&longest), format!("alice not permitted to produce to {longest}"));
    assert_eq!(told(&format!("{longest}n")), told(&longest));
    // Not within a character.
    let odd = format!("{}é", "n".repeat(248));
    assert_eq!(nameable(&odd), "n".repeat(248));
}

#[test]
fn what_was_noted_is_written_by_no_client_also_where_nothing_is_judged() {
    let gate = Gate::default();
    let nobody = Caller::nobody();
    let denied = gate.check(&nobody, Action::Produce, AUDIT_TOPIC).unwrap_err();
    assert!(matches!(denied, Denied::Forbidden { .. }), "{denied:?}");
    assert!(gate.check(&nobody, Action::Consume, AUDIT_TOPIC).is_ok());
    assert!(gate.check(&nobody, Action::Produce, "log").is_ok());
}

#[test]
fn a_policy_has_an_admin_where_somebody_would_pass_as_one() {
    for (policy, has) in [
        ("", false),
        ("p, root, *, *", true),
        ("p, root, *, admin", true),
        ("p, root, log, *", false),
        ("p, *, *, admin", true),
        ("p, role:ops, *, *", false),
        ("p, role:ops, *, *\ng, olga, role:ops", true),
        // A denial wins, whomever it is about.
        ("p, root, *, *\np, *, *, admin, deny", false),
        ("p, root, *, *\np, root, *, admin, deny", false),
        ("p, root, *, *\np, root, *, admin, deny\np, olga, *, *", true),
        ("p, role:ops, *, *\ng, olga, role:ops\np, olga, *, admin, deny", false),
        ("p, role:ops, *, *\ng, olga, role:ops\ng, ada, role:ops\np, olga, *, admin, deny", true),
        ("p, *, *, admin\np, root, *, admin, deny", true),
        ("p, *, *, admin\np, somebody-0, *, admin, deny", true),
        // Of a topic, and of something else.
        ("p, root, *, *\np, *, log, admin, deny\np, *, *, produce, deny", true),
    ] {
        assert_eq!(policy.parse::<Policy>().unwrap().has_admin(), has, "{policy}");
    }
}

#[test]
fn both_policies_must_permit_and_an_admin_by_settings_may_always() {
    let cluster = Judge::of(&"p, alice, *, *\np, bob, *, *".parse().unwrap()).unwrap();
    let files = Judge::of_files(BOOK_MODEL, "p, alice, *, produce").unwrap();
    let admins = ["ops".to_owned()].into();
    let gate = Gate::new(Laws {
        cluster: Law::Judge(cluster),
        files: Law::Judge(files),
        admins,
        generation: 1,
    });
    assert!(may(&gate, "alice", Action::Produce, "log"));
    assert!(!may(&gate, "alice", Action::Consume, "log"));
    assert!(!may(&gate, "bob", Action::Produce, "log"));
    assert!(may(&gate, "ops", Action::Admin, "*"));
}

#[test]
fn what_decides_is_told_and_why_where_the_policy_alone_does_not() {
    let judge = |text: &str| Law::Judge(Judge::of(&text.parse().unwrap()).unwrap());
    let files = |text: &str| Law::Judge(Judge::of_files(BOOK_MODEL, text).unwrap());
    let gate = Gate::default();
    let ground = |who: &str, object: &str| gate.ground(who, Action::Consume, object);
    assert_eq!(gate.basis(false, 0), "everybody may do everything");
    assert_eq!(ground("ada", "log").as_deref(), Some("access control is off"));

    let admins = || ["ops".to_owned()].into();
    let cluster = || judge("p, ada, *, consume");
    gate.set(Laws { cluster: cluster(), admins: admins(), generation: 3, ..Laws::default() });
    assert_eq!(gate.basis(true, 3), "the policy decides; to access.admins all is permitted");
    assert!(gate.basis(false, 3).contains("all the same (access.enabled)"));
    assert!(!gate.basis(false, 4).contains("access.enabled"), "it is about to be taken over");
    assert_eq!(ground("ops", "log").as_deref(), Some("access.admins has ops"));
    assert_eq!((ground("ada", "log"), ground("bob", "log")), (None, None), "rules tell");
    assert!(ground("ada", AUDIT_TOPIC).unwrap().ends_with("judged as observe of *"));

    gate.set(Laws { files: files("p, bob, *, consume"), ..Laws::default() });
    assert_eq!(gate.basis(false, 0), "the policy in its own files decides");
    assert!(ground("bob", "log").unwrap().ends_with("own files permit it"));
    assert!(ground("ada", "log").unwrap().ends_with("own files do not permit it"));

    gate.set(Laws { cluster: cluster(), files: files("p, bob, *, consume"), ..Laws::default() });
    assert!(gate.basis(true, 0).ends_with("must both permit"));
    assert!(ground("ada", "log").unwrap().ends_with("own files do not permit it"));
    gate.set(Laws { files: Law::Broken("it is cut off".into()), ..Laws::default() });
    assert!(gate.basis(false, 0).starts_with("everything is denied: "));
    assert_eq!(ground("ada", "log"), None, "the refusal tells");
}

#[test]
fn a_rule_that_would_never_count_can_stand_and_is_told() {
    for (rule, counts) in [
        ("p, ada, orders, admin", false),
        ("p, ada, orders-*, observe, deny", false),
        ("p, n1, orders, peer", false),
        ("p, ada, _audit, consume", false),
        ("p, ada, _audit, *, deny", false),
        ("p, ada, _audit-of-mine, consume", true),
        ("p, ada, *, admin", true),
        ("p, ada, orders, *", true),
        ("p, ada, orders-*, create", true),
    ] {
        let policy: Policy = rule.parse().unwrap();
        assert!(policy.check().is_ok(), "{rule}: one that is stored is read");
        assert_eq!(policy.check_applies().is_ok(), counts, "{rule}");
    }
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("c".to_owned())]
}

fn policies() -> impl Strategy<Value = Policy> {
    let subject = prop_oneof![
        names(),
        Just("*".to_owned()),
        Just("role:x".to_owned()),
        Just("role:y".to_owned())
    ];
    let object = prop_oneof![Just("*"), Just("t*"), Just("t1"), Just("u")];
    let action = prop_oneof![
        Just(Actions::All),
        proptest::sample::select(&Action::ALL[..]).prop_map(Actions::One)
    ];
    let effect = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let rule = (subject, object, action, effect).prop_map(|(subject, object, action, effect)| {
        Rule { subject, object: object.into(), action, effect }
    });
    let member = (names(), prop_oneof![Just("role:x"), Just("role:y")])
        .prop_map(|(subject, role)| Membership { subject, role: role.into() });
    let rules = proptest::collection::btree_set(rule, 0..12);
    let members = proptest::collection::btree_set(member, 0..4);
    (rules, members).prop_map(|(rules, members)| Policy { rules, members })
}

/// Our own rules in casbin's words.
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

/// A second opinion.
fn casbin_of(policy: &Policy) -> Enforcer {
    let rules = policy.rules.iter().map(|rule| {
        let (subject, object) = (rule.subject.clone(), rule.object.clone());
        vec![subject, object, rule.action.to_string(), rule.effect.name().into()]
    });
    let roles = policy.members.iter().map(|member| {
        let (subject, role) = (member.subject.clone(), member.role.clone());
        vec![subject, role]
    });
    let mut enforcer = enforcer(OWN_MODEL, rules.collect(), roles.collect()).unwrap();
    let function = OperatorFunction::Arg2(|rule, asked| {
        let rule: ImmutableString = rule.cast();
        let asked: ImmutableString = asked.cast();
        covers(&rule, &asked).into()
    });
    enforcer.add_function("covers", function);
    enforcer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn our_own_rules_are_judged_as_casbin_judges_them_and_as_they_are_explained(policy in policies()) {
        let read: Policy = policy.to_string().parse().unwrap();
        prop_assert_eq!(&read, &policy);
        let gate = Gate::new(Laws {
            cluster: Law::Judge(Judge::of(&policy).unwrap()),
            ..Laws::default()
        });
        let casbin = (!policy.rules.is_empty()).then(|| casbin_of(&policy));
        let mut pass = Pass::new(gate.clone());
        for who in ["a", "b", "d"] {
            for action in [Action::Produce, Action::Consume, Action::Admin, Action::Peer] {
                for object in ["*", "t", "t1", "u"] {
                    let asked = (who, object, action.name());
                    let expected = casbin.as_ref().is_some_and(|casbin| casbin.enforce(asked).unwrap());
                    prop_assert_eq!(may(&gate, who, action, object), expected, "{} {} {}", who, action, object);
                    let passed = pass.check(&caller(who), action, object).is_ok();
                    prop_assert_eq!(passed, expected);
                    let passed = pass.check(&caller(who), action, object).is_ok();
                    prop_assert_eq!(passed, expected, "remembered");
                    let speaking = policy.speaking(who, action, object);
                    let is_taken = speaking.iter().any(|rule| rule.effect == Effect::Deny);
                    prop_assert_eq!(!is_taken && !speaking.is_empty(), expected, "explained");
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic_or_permit_a_stranger(text in "(p|g|#|,|\\*|\"|[a-c]|\n| |produce){0,60}") {
        if let Ok(policy) = text.parse::<Policy>() {
            prop_assert!(policy.check().is_ok());
            let again: Policy = policy.to_string().parse().unwrap();
            prop_assert_eq!(again, policy);
        }
        if let Ok(judge) = Judge::of_files(BOOK_MODEL, &text) {
            prop_assert!(!judge.permits("stranger", Action::Produce, "*"));
        }
    }
}

// -- audit

fn entry(what: &str) -> AuditEntry {
    AuditEntry {
        number: 0,
        at_ms: 1,
        kind: "denied".into(),
        subject: Some("mallory\n".into()),
        peer: "127.0.0.1:1".into(),
        call: "duramen.v1.Log/Produce".into(),
        what: what.into(),
        outcome: "denied".into(),
        times: 1,
        previous: String::new(),
    }
}

fn read_all(lines: &[String]) -> Result<usize, (usize, AuditFault)> {
    let mut chain = Some(Chain::default());
    for (at, line) in lines.iter().enumerate() {
        verify_line(&mut chain, line).map_err(|fault| (at, fault))?;
    }
    Ok(lines.len())
}

#[test]
fn a_line_that_is_changed_taken_out_or_put_in_shows() {
    let mut chain = Chain::default();
    let lines: Vec<String> = (0..5).map(|i| chain.append(entry(&format!("{i}")))).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')));
    assert_eq!(read_all(&lines), Ok(5));
    let mut changed = lines.clone();
    changed[2] = changed[2].replace("mallory", "alice");
    assert_eq!(read_all(&changed), Err((2, AuditFault::Changed)));
    let mut cut = lines.clone();
    cut.remove(2);
    assert_eq!(read_all(&cut), Err((2, AuditFault::Broken)));
    let mut twice = lines.clone();
    twice.insert(2, lines[1].clone());
    assert_eq!(read_all(&twice), Err((2, AuditFault::Broken)));
    assert_eq!(read_all(&lines[2..]), Err((0, AuditFault::Headless { number: 3 })));
    let mut half = lines;
    half[4].truncate(20);
    assert_eq!(read_all(&half), Err((4, AuditFault::Unreadable)));
}

#[test]
fn a_decision_over_a_full_policy_is_quick_enough_to_make_on_the_way() {
    let text: String = (0..RULES_MAX).map(|i| format!("p, s{i}, t{i}-*, produce\n")).collect();
    let gate = gate(&text);
    let caller = Caller { subject: Some(Arc::from("s999")), proof: Proof::Token, peer: None };
    for at in 0..20 {
        assert!(gate.check(&caller, Action::Produce, &format!("t999-{at}")).is_ok());
    }
}
