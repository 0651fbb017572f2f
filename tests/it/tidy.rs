// The house rules that a program can check: who may know whom, and what every file owes its
// reader. No exceptions list: where a rule does not fit, the code moves or the rule does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may name. `ARCHITECTURE.md` draws it.
const BORDERS: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("log", &["model"]),
    ("raft", &["model"]),
    ("observe", &["model"]),
    ("access", &["model"]),
    ("cluster", &["model", "access"]),
    ("guards", &["model"]),
    ("wire", &["model", "guards"]),
    ("ops", &["model", "observe", "access"]),
    ("supervision", &["model", "observe"]),
    ("actors", &["model", "observe", "log", "raft", "cluster", "guards", "wire", "supervision"]),
    ("frontends", &["model", "observe", "access", "cluster", "guards", "wire", "actors"]),
    (
        "node",
        &[
            "model",
            "observe",
            "log",
            "raft",
            "access",
            "cluster",
            "guards",
            "wire",
            "ops",
            "supervision",
            "actors",
            "frontends",
        ],
    ),
    (
        "testing",
        &[
            "model",
            "observe",
            "log",
            "raft",
            "access",
            "cluster",
            "guards",
            "wire",
            "ops",
            "supervision",
            "actors",
            "frontends",
            "node",
        ],
    ),
    (
        "cli",
        &[
            "model", "observe", "log", "access", "cluster", "guards", "wire", "ops", "actors",
            "node",
        ],
    ),
];

/// External crates that only some rooms may name.
const KEPT_TO: [(&str, &[&str]); 13] = [
    ("actix", &["supervision", "actors", "node", "cli"]),
    ("actix_rt", &["supervision", "actors", "node", "cli", "testing"]),
    ("raft", &["raft"]),
    ("memmap2", &["log"]),
    ("tonic", &["wire", "frontends", "cli"]),
    ("axum", &["frontends"]),
    ("rustls", &["guards", "wire", "frontends"]),
    ("tokio_rustls", &["wire", "frontends"]),
    ("x509_parser", &["guards"]),
    ("rcgen", &["guards"]),
    ("ring", &["guards", "access", "wire", "testing"]),
    ("casbin", &["access"]),
    ("jsonwebtoken", &["access"]),
];

const LINES_MAX: usize = 600;

#[derive(Debug)]
struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 40, "only {} sources found below {}", found.len(), root.display());
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.strip_prefix(root).unwrap().to_path_buf();
            let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
            let room = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path: inside, room, text });
        }
    }
}

/// The rooms named by `crate::room` and `use crate::{room::…, room}` in code, comments left out.
fn rooms_named(text: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + "crate::".len()..];
            let word: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(!word.is_empty(), "line {}: name the room right behind crate::", number + 1);
            named.push((number + 1, word));
        }
    }
    named
}

#[test]
fn every_room_knows_only_those_below_it() {
    let borders: BTreeMap<&str, &[&str]> = BORDERS.into_iter().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        if source.room == "lib" || source.room == "main" {
            continue;
        }
        let Some(allowed) = borders.get(source.room.as_str()) else {
            wrong.push(format!("{}: no such room in the table", source.path.display()));
            continue;
        };
        for (line, room) in rooms_named(&source.text) {
            if room != source.room && !allowed.contains(&room.as_str()) {
                wrong.push(format!(
                    "{}:{line}: {} may not know {room}",
                    source.path.display(),
                    source.room
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn front_ends_see_neither_the_log_nor_raft() {
    for source in sources().iter().filter(|source| source.room == "frontends") {
        for (line, room) in rooms_named(&source.text) {
            assert!(room != "log" && room != "raft", "{}:{line}", source.path.display());
        }
    }
}

#[test]
fn engines_and_protocols_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, rooms) in KEPT_TO {
            let uses = source.text.lines().enumerate().find(|(_, line)| {
                let code = line.split("//").next().unwrap_or_default().trim_start();
                code.starts_with(&format!("use {name}::"))
                    || code.starts_with(&format!("pub use {name}::"))
                    || code.contains(&format!(" {name}::"))
                        && !code.contains(&format!("::{name}::"))
            });
            if let Some((line, text)) = uses
                && !rooms.contains(&source.room.as_str())
            {
                wrong.push(format!("{}:{}: {name}: {text}", source.path.display(), line + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_why_it_exists_and_stays_readable() {
    let mut wrong = Vec::new();
    for source in sources() {
        let is_test = source.path.components().any(|part| part.as_os_str() == "tests")
            || source.path.ends_with("tests.rs");
        if !is_test && !source.text.starts_with("//!") {
            wrong.push(format!("{}: no //! header", source.path.display()));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}", source.path.display()));
        }
        for name in ["utils", "util", "common", "helpers", "manager", "misc"] {
            if source.path.file_stem().is_some_and(|stem| stem == name) {
                wrong.push(format!("{}: says nothing", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_kept_to_the_disk_and_two_words_to_the_allocator() {
    for source in sources() {
        let has_unsafe = source.text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn")
        });
        if has_unsafe {
            let is_allowed =
                source.path.starts_with("log/disk") || source.path.ends_with("cli/allocator.rs");
            assert!(is_allowed, "{}", source.path.display());
            assert!(source.text.contains("// SAFETY:"), "{}", source.path.display());
        }
    }
}

#[test]
fn the_release_profile_unwinds() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    assert!(!manifest.contains("panic = \"abort\""), "supervision contains panics by unwinding");
}

#[test]
fn the_border_check_sees_a_trespass() {
    let named =
        rooms_named("use crate::log::Log; // crate::raft in a comment\nlet x = crate::node::Node;");
    let rooms: Vec<&str> = named.iter().map(|(_, room)| room.as_str()).collect();
    assert_eq!(rooms, ["log", "node"]);
}
