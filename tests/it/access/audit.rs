// What nodes noted is copied to a topic that nobody else writes, and that shows who made a file anew.

use super::{Issuer, batch, code};
use crate::harness::binary;
use duramen::access::{AUDIT_TOPIC, Chain, verify_line};
use duramen::ops::audit;
use duramen::ops::settings::{Settings, Value};
use duramen::testing::{Cluster, TestNode, block_on, until};
use duramen::wire::client::Target;
use duramen::wire::pb::duramen::v1 as pb;
use std::fs;
use tonic::Code;

const KEY: &str = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";

fn start(issuer: &Issuer) -> Cluster {
    let trusted = issuer.trusted();
    Cluster::start_with(3, move |settings: &mut Settings| {
        trusted(settings);
        settings.gossip.key = Value::read(KEY).expect("a key");
    })
}

/// Whether a node refuses somebody and notes it: one that does not know yet that it is to, passes on what
/// another refuses.
fn is_refused_by(issuer: &Issuer, node: &TestNode, who: &str) -> bool {
    let mut client = issuer.client(node.rpc_addr(), who);
    let refused = block_on(client.produce_once(&Target::topic("log"), batch("x")));
    let own = node.settings().data_dir.join(audit::DIRECTORY).join("current.jsonl");
    let noted = format!("{who} not permitted to produce");
    code(&refused) == Some(Code::PermissionDenied)
        && fs::read_to_string(own).is_ok_and(|text| text.contains(&noted))
}

fn duramen(arguments: &[&str]) -> (Option<i32>, String) {
    let output = binary::run(arguments, b"");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn what_each_node_noted_is_in_the_topic_and_a_file_that_was_made_anew_shows() {
    let issuer = Issuer::new();
    let cluster = start(&issuer);
    issuer.enforce(cluster.node(1).rpc_addr(), "p, olga, *, observe");
    for (_, node) in cluster.nodes() {
        until("mallory is refused by each", || is_refused_by(&issuer, node, "mallory"));
    }
    let address = cluster.node(2).rpc_addr().to_string();
    let token = issuer.token("olga");
    let tail = ["audit", "tail", "--cluster", "-n", "10000", "--addr", &address, "--token", &token];
    until("each node's refusal was copied", || {
        let (_, text) = duramen(&tail);
        (1..=3).all(|node| {
            let by_it = |line: &str| line.starts_with(&format!("n{node} "));
            text.lines()
                .any(|line| by_it(line) && line.contains("mallory not permitted to produce"))
        })
    });
    let verify = |directory: &str| {
        let with = ["--addr", &address, "--token", &token, "--data-dir", directory];
        duramen(&[&["audit", "verify", "--cluster"], &with[..]].concat())
    };
    let place = cluster.node(1).settings().data_dir.clone();
    let directory = place.display().to_string();
    let (status, text) = verify(&directory);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("of this directory are those that n1 copied"), "{text}");

    // Made anew by somebody who can make a chain: its own verification finds nothing.
    let own = place.join(audit::DIRECTORY).join("current.jsonl");
    let (mut chain, mut anew) = (Chain::default(), String::new());
    for line in fs::read_to_string(&own).unwrap().lines() {
        let mut entry = verify_line(&mut None, line).unwrap();
        entry.subject = entry.subject.map(|subject| subject.replace("mallory", "alice"));
        anew += &chain.append(entry);
        anew.push('\n');
    }
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join(audit::DIRECTORY)).unwrap();
    fs::write(elsewhere.path().join(audit::DIRECTORY).join("current.jsonl"), anew).unwrap();
    let forged = elsewhere.path().display().to_string();
    let (status, text) = duramen(&["audit", "verify", "--data-dir", &forged]);
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = verify(&forged);
    assert_eq!(status, Some(74), "{text}");
    assert!(text.contains("is not what n1 copied"), "{text}");
}

#[test]
fn lines_that_are_missing_at_an_end_show_and_a_node_that_lost_some_goes_on_copying() {
    let issuer = Issuer::new();
    let mut cluster = start(&issuer);
    issuer.enforce(cluster.node(1).rpc_addr(), "p, olga, *, observe");
    let refuse = |cluster: &Cluster, who: &str, topic: &str| {
        let mut client = issuer.client(cluster.node(1).rpc_addr(), who);
        let refused = block_on(client.produce_once(&Target::topic(topic), batch("x")));
        assert_eq!(code(&refused), Some(Code::PermissionDenied));
    };
    until("mallory is refused", || is_refused_by(&issuer, cluster.node(1), "mallory"));
    (0..6).for_each(|topic| refuse(&cluster, "mallory", &format!("t{topic}")));
    let place = cluster.node(1).settings().data_dir.clone();
    let file = place.join(audit::DIRECTORY).join("current.jsonl");
    let lines = || fs::read_to_string(&file).unwrap_or_default().lines().count() as u64;
    let copied = || audit::copied(&place.join(audit::DIRECTORY));
    until("all was copied", || lines() > 6 && copied() == lines());
    cluster.stop_node(1);
    let (text, last) = (fs::read_to_string(&file).unwrap(), copied());
    assert_eq!(last, lines(), "nothing was noted since");

    let (address, token) = (cluster.node(2).rpc_addr().to_string(), issuer.token("olga"));
    let directory = place.display().to_string();
    let of = ["--data-dir", &directory];
    let at = ["--cluster", "--addr", &address, "--token", &token];
    let verify = || duramen(&[&["audit", "verify"], &of[..]].concat());
    let compare = || duramen(&[&["audit", "verify"], &of[..], &at[..]].concat());
    let found = |(status, text): (Option<i32>, String), what: &str| {
        assert_eq!(status, Some(74), "{text}");
        assert!(text.contains(what), "{text}");
    };
    assert_eq!(verify().0, Some(0));
    assert_eq!(compare().0, Some(0));
    let part =
        |from, to| -> String { text.split_inclusive('\n').skip(from).take(to - from).collect() };
    fs::write(&file, part(2, 9_999)).unwrap();
    found(verify(), "lines are missing before it: it is number 3");
    fs::write(&file, "").unwrap();
    found(verify(), &format!("the log ends with line 0, and line {last} was copied"));
    found(compare(), "no node copied any line");
    fs::write(&file, part(0, 3)).unwrap();
    found(verify(), &format!("the log ends with line 3, and line {last} was copied"));
    let other = |line: u64| format!("the log ends with line 3, and n1 copied line {line}");
    found(compare(), &other(last));
    // Whoever takes out lines may as well say that they were never copied: others hold them.
    audit::set_copied(&place.join(audit::DIRECTORY), 3).unwrap();
    assert_eq!(verify().0, Some(0));
    found(compare(), &other(last));
    audit::set_copied(&place.join(audit::DIRECTORY), last).unwrap();

    cluster.restart(1);
    let tail = [&["audit", "tail", "-n", "10000"], &at[..]].concat();
    until("it says so itself", || {
        let told = format!("lines behind 3 are missing: line {last} was copied");
        duramen(&tail).1.lines().any(|line| line.starts_with("n1 4 ") && line.contains(&told))
    });
    until("eve is refused", || is_refused_by(&issuer, cluster.node(1), "eve"));
    until("what is noted since is copied", || {
        let is_it = |line: &str| line.starts_with("n1 ") && line.contains("eve not permitted");
        duramen(&tail).1.lines().any(is_it)
    });
    found(compare(), &format!("line 4 of n1 comes after line {last}, and is not what it was"));
}

#[test]
fn nobody_but_nodes_writes_the_topic_and_only_observers_see_it() {
    let issuer = Issuer::new();
    let cluster = start(&issuer);
    let address = cluster.node(1).rpc_addr();
    issuer.enforce(address, "p, boss, *, *\np, reader, *, consume\np, reader, *, describe");
    let audit = Target::topic(AUDIT_TOPIC);
    let boss = issuer.client(address, "boss");
    until("there is the topic", || {
        let listed = block_on(boss.admin().list_topics(pb::ListTopicsRequest {}));
        listed.is_ok_and(|listed| listed.topics.iter().any(|topic| topic.name == AUDIT_TOPIC))
    });
    let denied = Some(Code::PermissionDenied);
    for who in ["boss", "root"] {
        for (_, node) in cluster.nodes() {
            let mut client = issuer.client(node.rpc_addr(), who);
            assert_eq!(code(&block_on(client.produce_once(&audit, batch("forged")))), denied);
            let mut admin = client.admin();
            let delete = pb::DeleteTopicRequest { name: AUDIT_TOPIC.into() };
            assert_eq!(code(&block_on(admin.delete_topic(delete))), denied);
            let alter = pb::AlterTopicRequest {
                name: AUDIT_TOPIC.into(),
                settings: Some(pb::TopicSettings {
                    values: [("retention_bytes".to_owned(), "1KiB".to_owned())].into(),
                }),
                ..Default::default()
            };
            assert_eq!(code(&block_on(admin.alter_topic(alter))), denied);
        }
    }
    // Who may delete, may delete another one; who may read everything reads no audit log.
    let made = pb::CreateTopicRequest {
        name: "other".into(),
        partitions: 1,
        replication_factor: 1,
        settings: None,
    };
    block_on(boss.admin().create_topic(made)).unwrap();
    block_on(boss.admin().delete_topic(pb::DeleteTopicRequest { name: "other".into() })).unwrap();
    let seen = |who: &str| {
        let listed =
            block_on(issuer.client(address, who).admin().list_topics(pb::ListTopicsRequest {}));
        listed.unwrap().topics.iter().any(|topic| topic.name == AUDIT_TOPIC)
    };
    assert!(seen("boss") && !seen("reader"));
}
