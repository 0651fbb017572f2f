// The first real input: a text file of more than 10 MB through the real binary, `kill -9` in the
// middle, and every line back in order, byte for byte.

use crate::harness::binary::{Binary, EXE, run};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BYTES_MIN: usize = 12_000_000;

/// The Rust sources of our dependencies, which every machine that builds this has: real text, with
/// empty lines, long lines, tabs and non-ASCII bytes.
fn real_text() -> Vec<u8> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("a home directory")).join(".cargo")
    });
    let mut text = Vec::new();
    gather(&home.join("registry").join("src"), &mut text);
    assert!(text.len() >= BYTES_MIN, "only {} bytes of sources found", text.len());
    text
}

fn gather(directory: &Path, text: &mut Vec<u8>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if text.len() >= BYTES_MIN {
            return;
        }
        if path.is_dir() {
            gather(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.extend(std::fs::read(&path).unwrap());
            if !text.ends_with(b"\n") {
                text.push(b'\n');
            }
        }
    }
}

#[test]
fn a_real_file_survives_a_kill_in_the_middle_line_by_line() {
    let text = real_text();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");

    // Feed it through a pipe that stays open, so that the kill is in the middle however fast it is.
    let node = Binary::start(&data_dir);
    let mut producer = Command::new(EXE)
        .args(["produce", "log", "-f", "-", "--deadline", "1s", "--rpc-addr", &node.rpc])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = producer.stdin.take().unwrap();
    let half = text.len() / 2;
    pipe.write_all(&text[..half]).unwrap();
    while node.high_watermark() < lines.len() as u64 / 8 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let seen = node.high_watermark();
    node.kill();
    let _ = pipe.write_all(&text[half..]);
    drop(pipe);
    let output = producer.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "the producer says that it could not finish");
    assert!(told.contains("error:") && told.contains("try:"), "{told}");

    // What is stored is a prefix of the file: go on from there.
    let node = Binary::start(&data_dir);
    let stored = node.high_watermark();
    assert!(stored >= seen, "{seen} were committed before the kill, {stored} after it");
    let rest: usize = lines[..stored as usize].iter().map(|line| line.len()).sum();
    let output = run(&["produce", "log", "-f", "-", "--rpc-addr", &node.rpc], &text[rest..]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    assert_eq!(node.high_watermark(), lines.len() as u64);
    let read = ["consume", "log", "-o", "start", "--format", "raw", "--rpc-addr", &node.rpc];
    let output = run(&read, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), text.len());
    assert!(output.stdout == text, "the file comes back byte for byte");
    assert_eq!(node.stop("TERM").code(), Some(0));

    // And after a stop in order, once more.
    let node = Binary::start(&data_dir);
    let tail = ["consume", "log", "-o", "-3", "--format", "raw", "--rpc-addr", &node.rpc];
    let output = run(&tail, b"");
    assert_eq!(output.stdout, lines[lines.len() - 3..].concat());
}
