//! What people write to start a node: files, variables, flags, single values.

use crate::ops::settings::fields::FIELDS;
use crate::ops::settings::{Flag, Loaded, Settings, Sources, parse_duration, show_duration};
use std::path::PathBuf;

const KINDS: u8 = 4;

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = super::choice(bytes, KINDS) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kind {
        0 => file("node.toml", text),
        1 => file("node.yaml", text),
        2 => value(text),
        _ => duration(text),
    }
}

fn file(name: &str, text: &str) {
    let file = Some((PathBuf::from(name), text.to_owned()));
    let sources = Sources { file, ..Sources::default() };
    match sources.layer() {
        Ok(loaded) => written_again(&loaded),
        Err(error) => {
            let again = sources.layer().expect_err("as before");
            assert_eq!(again.to_string(), error.to_string(), "two looks at the same file");
        }
    }
}

/// What a node was told, written into a file, tells another one the same.
fn written_again(loaded: &Loaded) {
    let mut text = String::new();
    for field in &FIELDS {
        let (section, name) = field.section_and_name();
        let dot = if section.is_empty() { "" } else { "." };
        text += &format!("{section}{dot}{name} = {}\n", field.show_toml(&loaded.settings));
    }
    let file = Some((PathBuf::from("again.toml"), text));
    let again = Sources { file, ..Sources::default() }.layer();
    let again = again.unwrap_or_else(|error| panic!("what was shown cannot be read: {error}"));
    assert!(again.settings == loaded.settings, "{:?}", loaded.changed_keys(&again.settings));
}

/// One value for one key: `KEY=VALUE`, by each of the ways that take texts.
fn value(text: &str) {
    let Some((key, value)) = text.split_once('=') else { return };
    let Some(field) = FIELDS.iter().find(|field| field.key == key) else { return };
    let (mut one, mut other) = (Settings::default(), Settings::default());
    if (field.set)(&mut one, value) {
        let shown = (field.show)(&one);
        assert!((field.set)(&mut other, &shown), "{key} is shown as what it does not take");
        assert!(one == other, "{key} is shown as something else");
    } else {
        assert!(one == other, "{key} was refused, and changed");
    }
    let flags = vec![Flag { name: "--it", key: field.key, value: value.to_owned() }];
    let environment = vec![(field.variable(), value.to_owned())];
    let by_flag = Sources { flags, ..Sources::default() }.layer();
    let by_variable = Sources { environment, ..Sources::default() }.layer();
    match (by_flag, by_variable) {
        (Ok(flag), Ok(variable)) => {
            assert!(flag.settings == variable.settings, "flag and variable, one meaning");
            written_again(&flag);
        }
        (Err(_), Err(_)) => {}
        _ => panic!("{key}: a flag may say what a variable may not, or the other way round"),
    }
}

fn duration(text: &str) {
    if let Some(read) = parse_duration(text) {
        assert_eq!(parse_duration(&show_duration(read)), Some(read), "shown and read again");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts: [(u8, &str); 16] = [
        (0, "data_dir = \"/x\"\n[log]\nbatch_bytes_max = \"1MiB\"\nretention_age = \"7d\"\n"),
        (0, "[log]\nbatch_byte_max = 3\n[nothing]\nx = 1\n"),
        (0, "node.labels = [\"rack=a\", \"zone=b\"]\nrpc.addr = \"localhost:0\"\n"),
        (0, "[logger]\nlevel = \"info,partitions/*/log:trace\"\n"),
        (0, "a = [[[[[[[[[[[[[[[[[[[[[[[[[["),
        (1, "data_dir: /x\nlog:\n  batch_bytes_max: 1MiB\n  retention_age: 7d\n"),
        (1, "rpc-port: 8400\nbind-addr: 127.0.0.1:8401\nstart-join-addrs: [\"127.0.0.1:9401\"]\n"),
        (1, "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n"),
        (1, "--- 1\n--- 2\n"),
        (1, "- - - - - - - - - - - - - - - - -"),
        (2, "log.batch_bytes_max=1.5MiB"),
        (2, "node.labels=rack=a,zone=b"),
        (2, "gossip.key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        (2, "logger.level=info,*/Append:debug"),
        (3, "1h30m"),
        (3, "1.5s"),
    ];
    texts.map(|(kind, text)| super::of_kind(kind, text)).to_vec()
}
