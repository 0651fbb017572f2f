// Keys of tokens are changed with the commands alone, and what a command shows is what it was told to.

use crate::harness::binary::{Binary, EXE};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Owner<'d> {
    dir: &'d Path,
    rpc: String,
}

impl Owner<'_> {
    fn run(&self, line: &str, variables: &[(&str, &str)]) -> Output {
        Command::new(EXE)
            .args(line.split_whitespace())
            .env("DURAMEN_RPC_ADDR", &self.rpc)
            .envs(variables.iter().copied())
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn text(&self, line: &str) -> String {
        let output = self.run(line, &[]);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// As an owner does: aside, then in its place.
    fn keys(&self, of: &str) {
        let aside = self.dir.join("aside");
        std::fs::write(&aside, self.text(&format!("token keys --public {of}"))).unwrap();
        std::fs::rename(aside, self.dir.join("keys.json")).unwrap();
    }

    fn token(&self, key: &str, file: &str) {
        let token = self.text(&format!("token new --key {key} --subject root"));
        std::fs::write(self.dir.join(file), token).unwrap();
    }

    fn is_taken(&self, file: &str) -> bool {
        self.run(&format!("topic list --token-file {file}"), &[]).status.success()
    }

    fn until_taken(&self, file: &str, expected: bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.is_taken(file) != expected {
            assert!(std::time::Instant::now() < deadline, "{file}: not {expected}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

const SETTINGS: &str = "[access]\nenabled = true\nadmins = [\"root\"]\n";

#[test]
fn keys_are_changed_with_commands_alone_and_flags_go_before_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut owner = Owner { dir, rpc: String::new() };
    owner.text("token keys --new old.json");
    owner.text("token keys --new new.json");
    assert_eq!(owner.run("token keys --new old.json", &[]).status.code(), Some(73));
    assert_eq!(owner.run("token keys --public old.json old.json", &[]).status.code(), Some(64));
    assert_eq!(owner.run("token keys --public away.json", &[]).status.code(), Some(64));
    for (key, token) in [("old.json", "old.token"), ("new.json", "new.token")] {
        owner.token(key, token);
    }
    owner.keys("old.json");
    let config = dir.join("node.toml");
    std::fs::write(&config, SETTINGS).unwrap();
    let (config, keys) = (config.to_str().unwrap(), dir.join("keys.json"));
    let flags = ["--config", config, "--token-keys-file", keys.to_str().unwrap()];
    let node = Binary::start_with(&dir.join("data"), &flags);
    owner.rpc.clone_from(&node.rpc);

    owner.until_taken("old.token", true);
    assert!(!owner.is_taken("new.token"));
    owner.keys("old.json new.json");
    owner.until_taken("new.token", true);
    assert!(owner.is_taken("old.token"), "both while tokens of the old one live");
    owner.keys("new.json");
    owner.until_taken("old.token", false);
    assert!(owner.is_taken("new.token"));

    let good = std::fs::read_to_string(dir.join("new.token")).unwrap();
    let bad = ("DURAMEN_TOKEN", "made.up.token");
    let file = ("DURAMEN_TOKEN_FILE", "new.token");
    for (line, variables, code) in [
        ("topic list --token-file new.token", &[bad][..], 0),
        ("topic list", &[bad], 77),
        ("topic list", &[file], 0),
        ("topic list", &[file, bad], 77),
        ("topic list", &[("DURAMEN_TOKEN", &good), ("DURAMEN_TOKEN_FILE", "old.token")], 0),
        ("topic list", &[("DURAMEN_TOKEN", ""), file, ("DURAMEN_TLS_DIR", "")], 0),
        ("topic list --token-file new.token --token x", &[], 2),
    ] {
        let output = owner.run(line, variables);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line} {variables:?}: {told}");
    }
}

#[test]
fn a_node_warns_of_keys_that_make_tokens_where_it_needs_none() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let owner = Owner { dir, rpc: "127.0.0.1:0".into() };
    owner.text("token keys --new pair.json");
    owner.text("token keys --new shared.json --kind hs256");
    owner.keys("pair.json");
    std::fs::set_permissions(dir.join("shared.json"), PermissionsExt::from_mode(0o644)).unwrap();
    for (file, expected) in [
        ("pair.json", "the issuer, with the private halves"),
        ("shared.json", "others on this machine can read what makes tokens"),
        ("keys.json", ""),
    ] {
        let checked = owner.run(&format!("serve --dry-run --token-keys-file {file}"), &[]);
        let told = String::from_utf8(checked.stderr).unwrap();
        assert!(checked.status.success(), "{told}");
        let warned = told.lines().filter(|line| line.contains("\"warning\"")).count();
        assert_eq!(warned, usize::from(!expected.is_empty()), "{file}: {told}");
        assert!(told.contains(expected), "{file}: {told}");
    }
}

#[test]
fn a_node_that_starts_warns_of_its_keys_once() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let owner = Owner { dir, rpc: "127.0.0.1:0".into() };
    owner.text("token keys --new pair.json");
    let (config, keys, log) = (dir.join("node.toml"), dir.join("pair.json"), dir.join("log"));
    std::fs::write(&config, SETTINGS).unwrap();
    let [config, keys] = [&config, &keys].map(|file| file.to_str().unwrap());
    let flags = ["--config", config, "--token-keys-file", keys];
    let node =
        Binary::start_logging_to(&dir.join("data"), &flags, std::fs::File::create(&log).unwrap());
    let told = || std::fs::read_to_string(&log).unwrap();
    // What was read at the start has been read again by then.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !told().contains("who may do what is taken over") {
        assert!(std::time::Instant::now() < deadline, "{}", told());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(node);
    let warned = told().lines().filter(|line| line.contains("can make tokens")).count();
    assert_eq!(warned, 1, "{}", told());
}
