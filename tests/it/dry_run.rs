// A dry run ends as the start would that it stands for: with the same error and exit code, and nothing
// is made. Each fault is given to both.

use crate::harness::binary::{run, serve};
use std::fs;
use std::path::Path;
use std::process::Output;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// From the failure's own first line on; lines of the log come before it.
fn failure(output: &Output) -> String {
    let told = told(output);
    let at = told.lines().position(|line| line.starts_with("error: "));
    let at = at.unwrap_or_else(|| panic!("no failure: {told}"));
    told.lines().skip(at).collect::<Vec<_>>().join("\n")
}

fn dry_run(data: &Path, flags: &[&str]) -> Output {
    serve(data, flags).arg("--dry-run").output().unwrap()
}

/// What both say.
fn both_refuse(data: &Path, flags: &[&str], code: i32) -> String {
    let dry = dry_run(data, flags);
    assert!(!data.exists(), "{flags:?}: a dry run made something");
    let start = serve(data, flags).output().unwrap();
    assert_eq!(failure(&dry), failure(&start), "{flags:?}");
    assert_eq!((dry.status.code(), start.status.code()), (Some(code), Some(code)), "{flags:?}");
    fs::remove_dir_all(data).ok();
    failure(&dry)
}

#[test]
fn certificates_keys_and_lists_that_a_start_would_refuse_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (tls, data) = (path("tls"), directory.path().join("data"));
    let made = run(&["tls", "init", "--dir", &tls, "--node-name", "n1"], b"");
    assert!(made.status.success(), "{}", told(&made));
    let sound = dry_run(&data, &["--tls-dir", &tls, "--node-name", "n1"]);
    assert!(sound.status.success() && told(&sound).contains("a node can start"), "{sound:?}");
    assert!(!told(&sound).contains("will not talk"), "{}", told(&sound));
    // Not refused, but a start warns of it.
    let other = dry_run(&data, &["--tls-dir", &tls, "--node-name", "n2"]);
    assert!(other.status.success() && told(&other).contains("will not talk"), "{other:?}");

    let nowhere = path("nowhere");
    let refused = both_refuse(&data, &["--tls-dir", &nowhere], 78);
    assert!(refused.contains("nowhere/ca.pem"), "{refused}");
    let other_key = ["--tls-dir", &tls, "--server-tls-cert-file", &format!("{tls}/node.pem")];
    let of_client = format!("{tls}/client-key.pem");
    let other_key = [&other_key[..], &["--server-tls-key-file", &of_client]].concat();
    let refused = both_refuse(&data, &other_key, 78);
    assert!(refused.contains("client-key.pem"), "{refused}");
    let no_peer = format!("{tls}/other-ca.pem");
    let refused = both_refuse(&data, &["--tls-dir", &tls, "--peer-tls-ca-file", &no_peer], 78);
    assert!(refused.contains("other-ca.pem"), "{refused}");
    let refused = both_refuse(&data, &["--gossip-key-file", &nowhere], 64);
    assert!(refused.contains("the key of gossip"), "{refused}");
    fs::write(format!("{tls}/crl.pem"), "no list").unwrap();
    let refused = both_refuse(&data, &["--tls-dir", &tls], 78);
    assert!(refused.contains("crl.pem"), "{refused}");
}

#[test]
fn files_that_a_node_would_start_without_and_deny_are_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let data = directory.path().join("data");
    let (model, policy, keys) = (path("model.conf"), path("policy.csv"), path("keys.json"));
    for (flags, missing) in [
        (&["--acl-model-file", &model, "--acl-policy-file", &policy][..], "model.conf"),
        (&["--token-keys-file", &keys], "keys.json"),
    ] {
        let dry = dry_run(&data, flags);
        assert_eq!(dry.status.code(), Some(78), "{}", told(&dry));
        let refused = failure(&dry);
        assert!(refused.contains("a node would start") && refused.contains(missing), "{refused}");
    }
    let made = run(&["token", "keys", "--new", &path("secret.json")], b"");
    assert!(made.status.success(), "{}", told(&made));
    fs::write(&keys, run(&["token", "keys", "--public", &path("secret.json")], b"").stdout)
        .unwrap();
    let dry = dry_run(&data, &["--token-keys-file", &keys]);
    assert!(dry.status.success(), "{}", told(&dry));
    assert!(!data.exists());
}
