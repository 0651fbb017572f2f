//! What it costs to decide whether somebody may do something, by a policy as large as one may be: on
//! a stream that was let pass before, of a name that was never asked about, and by an operator's
//! files.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench ends at the first failure")]

use criterion::{Criterion, criterion_group, criterion_main};
use duramen::access::{Action, Gate, Judge, Law, Laws, Pass, Policy, RULES_MAX};
use duramen::model::{Caller, Proof};
use std::fmt::Write;
use std::hint::black_box;

const BOOK_MODEL: &str = "
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
";
const ROLES: usize = 20;
const RULES_OF_A_ROLE: usize = 40;

/// Twenty roles of forty rules; whoever asks plays the last, and one of its rules is a prefix.
fn policy() -> Policy {
    let mut text =
        String::from("p, *, secret-*, *, deny\ng, ada, role:19\np, role:19, orders-*, *\n");
    for role in 0..ROLES {
        for rule in 0..RULES_OF_A_ROLE {
            writeln!(text, "p, role:{role:02}, t{role}-{rule}-*, produce").unwrap();
        }
    }
    for name in 0..RULES_MAX - ROLES * RULES_OF_A_ROLE - 3 {
        writeln!(text, "g, name-{name}, role:{:02}", name % ROLES).unwrap();
    }
    text.parse().unwrap()
}

/// As many rules as there may be, all of one subject: nothing is slower.
fn all_of_one() -> Policy {
    let rule = |at| format!("p, ada, t{at}-*, produce\n");
    let others = (1..RULES_MAX).map(rule).collect::<String>();
    format!("p, ada, orders-*, *\n{others}").parse().unwrap()
}

fn caller(name: &str) -> Caller {
    Caller { subject: Some(name.into()), proof: Proof::Token, peer: None }
}

fn of(judge: Judge) -> Gate {
    Gate::new(Laws { cluster: Law::Judge(judge), ..Laws::default() })
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("access");
    let ada = caller("ada");
    let gate = of(Judge::of(&policy()).unwrap());
    let open = Gate::default();
    group.bench_function("off", |bencher| {
        bencher
            .iter(|| open.check(black_box(&ada), Action::Produce, black_box("orders-1")).unwrap());
    });
    group.bench_function("on a stream, asked before", |bencher| {
        let mut pass = Pass::new(gate.clone());
        bencher.iter(|| pass.check(black_box(&ada), Action::Produce, "orders-1").unwrap());
    });
    let mut name = String::new();
    let mut at = 0_u64;
    for (policy, what) in [(policy(), "20 roles"), (all_of_one(), "all rules one subject's")] {
        let gate = of(Judge::of(&policy).unwrap());
        group.bench_function(format!("a name never asked about, {what}"), |bencher| {
            bencher.iter(|| {
                at += 1;
                name.clear();
                write!(name, "orders-{at}").unwrap();
                gate.check(&ada, Action::Produce, &name).unwrap();
            });
        });
        group.bench_function(format!("refused, {what}"), |bencher| {
            bencher.iter(|| gate.check(&ada, Action::Produce, black_box("bills")).unwrap_err());
        });
    }
    let rules: String = (1..RULES_MAX).map(|at| format!("p, name-{at}, *, produce\n")).collect();
    let files = Judge::of_files(BOOK_MODEL, &format!("{rules}p, ada, *, produce\n")).unwrap();
    let gate = of(files);
    group.bench_function("by files, a name never asked about", |bencher| {
        bencher.iter(|| {
            at += 1;
            name.clear();
            write!(name, "orders-{at}").unwrap();
            gate.check(&ada, Action::Produce, &name).unwrap();
        });
    });
    let judge = || Judge::of(black_box(&policy())).unwrap();
    group.bench_function("a policy is read", |bencher| bencher.iter(judge));
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
