//! Who may what under faults: who issues tokens, the cluster's policy, and the book's files beside it.

use crate::stage::{Stage, TOPIC};
use duramen::access::{KeyKind, Secret, TokenTerms, new_token};
use duramen::model::{Clock, SystemClock};
use duramen::wire::client::{Bearer, ClientOptions};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Never had a right.
pub const CANARY: &str = "canary";
/// Has one now and then.
pub const MALLORY: &str = "mallory";

const BOOK_MODEL: &str = "[request_definition]\nr = sub, obj, act\n[policy_definition]\n\
    p = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\n\
    m = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n";

/// The tokens of this process' own clients, while access control is on.
static OWN: Mutex<Option<(String, String)>> = Mutex::new(None);

fn own() -> Option<(String, String)> {
    OWN.lock().expect("nobody panics with it").clone()
}

/// What the load and the readers connect with.
pub fn client_options() -> ClientOptions {
    let token = own().and_then(|(_, load)| Bearer::new(&load)).unwrap_or_default();
    ClientOptions { token, ..ClientOptions::default() }
}

/// What the command line is given.
pub fn token_of_root() -> Option<String> {
    own().map(|(root, _)| root)
}

/// Who issues tokens, and the policies: the cluster's, and the book's files beside it.
pub struct Rights {
    directory: PathBuf,
    secret: Secret,
}

/// Nothing is asked of anybody, until there are rights again.
pub fn without_rights() {
    *OWN.lock().expect("nobody panics with it") = None;
}

impl Rights {
    pub fn new(directory: &Path) -> Self {
        let secret = Secret::generate(KeyKind::EdDsa, "k1").expect("a key");
        let rights = Self { directory: directory.to_owned(), secret };
        let key: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
        let public = rights.secret.for_nodes();
        for (name, text) in [("keys.json", &*public), ("gossip.key", &*key), ("m.conf", BOOK_MODEL)]
        {
            std::fs::write(rights.file(name), text).expect("a file for the nodes");
        }
        rights.write_book(&[CANARY]);
        let tokens = (rights.token("root"), rights.token("load"));
        *OWN.lock().expect("nobody panics with it") = Some(tokens);
        rights
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// For all nodes.
    pub fn flags(&self) -> Vec<String> {
        let files = [
            ("--token-keys-file", "keys.json"),
            ("--gossip-key-file", "gossip.key"),
            ("--acl-model-file", "m.conf"),
            ("--acl-policy-file", "book.csv"),
        ];
        let flag = |(flag, name)| [String::from(flag), self.file(name).display().to_string()];
        files.into_iter().flat_map(flag).collect()
    }

    pub fn token(&self, subject: &str) -> String {
        let (now, day) = (SystemClock::new().wall(), Duration::from_secs(24 * 3600));
        new_token(&self.secret, subject, &TokenTerms::default(), now, day).expect("a token")
    }

    /// The book's policy with these subjects beside those that always are in it. Nobody reads half of it.
    pub fn write_book(&self, more: &[&str]) {
        let actions =
            ["produce", "consume", "create", "alter", "delete", "describe", "observe", "admin"];
        let mut text = String::new();
        for subject in ["root", "load", MALLORY].iter().chain(more) {
            for action in actions {
                writeln!(text, "p, {subject}, *, {action}").expect("a text grows");
            }
        }
        let new = self.file("book.new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.file("book.csv")).expect("its place is there");
    }

    /// Puts a policy in place of the cluster's: what it says of the load stays, the rest is ballast.
    pub fn load(&self, stage: &mut Stage, round: u32) {
        let mut text = format!(
            "p, root, *, *\np, load, {TOPIC}, produce\np, load, {TOPIC}, consume\n\
             p, load, {TOPIC}, describe\np, *, secret-*, *, deny\n"
        );
        for number in 0..round % 7 {
            writeln!(text, "p, somebody-{round}, orders-{number}, produce").expect("a text grows");
        }
        let file = self.file("policy.csv");
        std::fs::write(&file, text).expect("a file");
        stage.admin(&["acl", "load", &file.display().to_string()]);
    }

    /// From now on everything is denied that nobody permits.
    pub fn enforce(&self, stage: &mut Stage) {
        self.load(stage, 0);
        stage.admin(&["acl", "on"]);
    }
}
