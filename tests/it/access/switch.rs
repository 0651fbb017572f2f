// Who puts the policy in force is not shut out by it; what decides at a node is told; and the way back in.

use super::Issuer;
use crate::harness::binary::{self, Binary};
use duramen::testing::{TestNode, until};
use std::path::Path;

/// `duramen acl` at a node, as somebody or nobody; the exit code and all that it tells.
fn acl(issuer: &Issuer, rpc: &str, who: Option<&str>, words: &[&str]) -> (i32, String) {
    let token = who.map(|who| issuer.token(who)).unwrap_or_default();
    let mut all = vec!["acl"];
    all.extend(words);
    all.extend(["--addr", rpc, "--table"]);
    if who.is_some() {
        all.extend(["--token", &token]);
    }
    let output = binary::run(&all, b"");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), told.concat())
}

#[test]
fn whoever_would_be_shut_out_does_not_put_the_policy_in_force() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let keys = issuer.keys_file().display().to_string();
    let node = Binary::start_with(directory.path(), &["--token-keys-file", &keys]);
    let acl = |who, words: &[&str]| acl(&issuer, &node.rpc, who, words);
    until("there is a cluster", || acl(None, &["add", "root", "*", "*"]).0 == 0);
    let (status, told) = acl(None, &["on"]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("proves no name") && told.contains("--token-file"), "{told}");
    let (status, told) = acl(Some("mallory"), &["on"]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("mallory would be shut out"), "{told}");
    assert!(told.contains("duramen acl add NAME '*' admin"), "{told}");
    let (_, told) = acl(None, &["list"]);
    assert!(told.contains("not in force; at this node everybody may do everything"), "{told}");
    let (_, told) = acl(None, &["explain", "bob", "produce", "log"]);
    assert!(told.contains("it passes: access control is off"), "{told}");
    let (status, told) = acl(Some("root"), &["on"]);
    assert_eq!(status, 0, "{told}");
    assert!(told.contains(", in force; at this node the policy decides"), "{told}");
    let (status, told) = acl(Some("root"), &["add", "ada", "orders", "admin"]);
    assert_eq!((status, told.contains("write '*' in place of orders")), (64, true), "{told}");
}

#[test]
fn where_no_administrator_is_left_a_nodes_settings_let_one_in() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let keys = issuer.keys_file().display().to_string();
    let flags = ["--token-keys-file", &keys];
    let start = |path: &Path| Binary::start_with(path, &flags);
    let node = start(directory.path());
    let as_root = |node: &Binary, words: &[&str]| acl(&issuer, &node.rpc, Some("root"), words);
    until("there is a cluster", || as_root(&node, &["add", "root", "*", "*"]).0 == 0);
    assert_eq!(as_root(&node, &["on"]).0, 0);
    // Somebody has admin, and nobody has a proof of that name.
    let policy = directory.path().join("policy.csv");
    std::fs::write(&policy, "p, ghost, *, *\n").unwrap();
    assert_eq!(as_root(&node, &["load", &policy.display().to_string()]).0, 0);
    assert_eq!(as_root(&node, &["list"]).0, 77);
    node.kill();

    let node = Binary::start_in(directory.path(), &flags, ("DURAMEN_ACCESS_ADMINS", "olga"));
    let as_olga = |words: &[&str]| acl(&issuer, &node.rpc, Some("olga"), words);
    until("the way back in is open", || as_olga(&["add", "root", "*", "*"]).0 == 0);
    let (_, told) = as_olga(&["explain", "olga", "admin"]);
    assert!(told.contains("by the policy: denied"), "{told}");
    assert!(told.contains("it passes: access.admins has olga"), "{told}");
    node.kill();

    let node = start(directory.path());
    until("root is let in again", || as_root(&node, &["list"]).0 == 0);
    assert_eq!(acl(&issuer, &node.rpc, Some("olga"), &["list"]).0, 77);
}

#[test]
fn what_a_node_goes_by_is_told_also_where_the_policy_is_not_in_force() {
    let issuer = Issuer::new();
    let keys = issuer.keys_file();
    let enabled = TestNode::builder().settings(move |settings| {
        settings.access.token_keys_file = Some(keys.clone());
        settings.access.enabled = true;
        settings.access.admins = vec!["root".into()];
    });
    let enabled = enabled.start();
    let rpc = enabled.rpc_addr().to_string();
    let mut told = String::new();
    until("there is a cluster", || {
        let (status, text) = acl(&issuer, &rpc, Some("root"), &["list"]);
        told = text;
        status == 0 && told.contains("the policy")
    });
    assert!(
        told.contains(
            "not in force; at this node the policy decides all the same (access.enabled)"
        ),
        "{told}"
    );

    const MODEL: &str = "[request_definition]\nr = sub, obj, act\n[policy_definition]\n\
        p = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\n\
        m = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n";
    let files = tempfile::tempdir().unwrap();
    let (model, policy) = (files.path().join("model.conf"), files.path().join("policy.csv"));
    std::fs::write(&model, MODEL).unwrap();
    std::fs::write(&policy, "p, root, *, admin\n").unwrap();
    let keys = issuer.keys_file();
    let node = TestNode::builder().settings(move |settings| {
        settings.access.token_keys_file = Some(keys.clone());
        settings.access.model_file = Some(model.clone());
        settings.access.policy_file = Some(policy.clone());
    });
    let node = node.start();
    let rpc = node.rpc_addr().to_string();
    let (status, told) = acl(&issuer, &rpc, Some("root"), &["list"]);
    assert_eq!(status, 0, "{told}");
    assert!(
        told.contains("not in force; at this node the policy in its own files decides"),
        "{told}"
    );
    let (_, told) = acl(&issuer, &rpc, Some("root"), &["explain", "bob", "produce"]);
    assert!(told.contains("own files do not permit it"), "{told}");
}
