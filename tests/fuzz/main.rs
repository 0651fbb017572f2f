//! The fuzz targets without a fuzzer, on every change: the inputs that are kept, and mutations of
//! them that are the same each time. `docs/testing.md`, "Fuzzing".

#![allow(clippy::disallowed_methods, reason = "tests use real files and clocks")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs)]

mod meter;

use duramen::model::Chance;
use duramen::testing::fuzz::{TARGETS, Target, target};
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[global_allocator]
static METER: meter::Meter = meter::Meter;

/// Mutations of each target's inputs, over all of them.
const MUTATIONS: u64 = 1_500;
/// Of those that plan a cluster or open a log each time.
const MUTATIONS_OF_SLOW: u64 = 150;
const SLOW: [&str; 4] = ["index", "recovery", "placement", "model"];
const SEED_VARIABLE: &str = "DURAMEN_SEED";
/// No file of a corpus is longer, so that a person can look at it.
const FILE_BYTES_MAX: usize = 4096;
const CORPUS_BYTES_MAX: usize = 300 << 10;

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

/// The kept inputs of a target, by name.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus_of(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

/// Runs a target once; what went wrong, and the input, where something did.
fn fault_of(target: &Target, input: &[u8]) -> Option<String> {
    let mut outcome = Ok(());
    let most_bytes = meter::most_bytes(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    });
    let bytes_max = target.memory_bytes_max(input.len());
    if outcome.is_ok() && most_bytes <= bytes_max {
        return None;
    }
    let mut hex = String::new();
    input.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
    let what = match outcome {
        Ok(()) => format!("{most_bytes} bytes of memory where {bytes_max} are allowed"),
        Err(_) => "a panic; its text is above".into(),
    };
    Some(format!("target {}, input of {} bytes {hex}: {what}", target.name, input.len()))
}

fn mutated(from: &[(String, Vec<u8>)], chance: &mut Chance) -> Vec<u8> {
    let pick = |chance: &mut Chance| &from[chance.below(from.len() as u64) as usize].1;
    let mut input = pick(chance).clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len() as u64 + 1) as usize;
        let number = chance.next_u64();
        let odd = [0, 1, 0x7f, 0x80, 0xff, number as u8][chance.below(6) as usize];
        match chance.below(7) {
            0 => input.truncate(at),
            1 => input.insert(at, odd),
            2 if at < input.len() => drop(input.remove(at)),
            3 => {
                let other = pick(chance);
                let from = chance.below(other.len() as u64 + 1) as usize;
                let piece = other[from..].iter().take(1 + (number % 64) as usize);
                let piece: Vec<u8> = piece.copied().collect();
                input.splice(at..at, piece);
            }
            4 if at < input.len() => input[at] ^= 1 << (number % 8),
            5 => {
                let end = input.len().min(at + [1, 2, 4, 8][(number % 4) as usize]);
                input[at..end].fill(odd);
            }
            _ if at < input.len() => input[at] = odd,
            _ => {}
        }
    }
    input
}

/// The number that an environment variable sets, where it is set.
fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.trim().parse().unwrap())
}

fn replay(target: &Target) {
    let seed = number_of(SEED_VARIABLE).unwrap_or(1);
    let kept = corpus(target.name);
    // What is made once and kept, as keys are, is nobody's allocation.
    (target.run)(&kept[0].1);
    for (file, input) in &kept {
        if let Some(fault) = fault_of(target, input) {
            panic!("{}: {fault}", corpus_of(target.name).join(file).display());
        }
    }
    let mut chance = Chance::new(seed);
    let is_slow = SLOW.contains(&target.name);
    let mutations = if is_slow { MUTATIONS_OF_SLOW } else { MUTATIONS };
    for number in 0..number_of("DURAMEN_FUZZ_MUTATIONS").unwrap_or(mutations) {
        let input = mutated(&kept, &mut chance);
        if let Some(fault) = fault_of(target, &input) {
            panic!("mutation {number} with {SEED_VARIABLE}={seed}: {fault}");
        }
    }
}

macro_rules! replays {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            replay(target(stringify!($name)).unwrap());
        })+

        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let tested = [$(stringify!($name)),+];
            let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(known, tested, "the table, and the tests");
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
            for name in tested {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}: no binary");
                let body = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
                assert!(body.contains(&format!("\"{name}\"")), "{name}: another target's binary");
            }
        }
    };
}

replays!(batch frame index recovery store catalogue placement peer files http settings policy model
    token certificate);

#[test]
fn a_target_that_panics_or_takes_too_much_is_found_and_named() {
    let planted = Target {
        name: "planted",
        run: |input| assert!(!input.starts_with(b"bug"), "planted"),
        seeds: Vec::new,
        memory_bytes: 4096,
        memory_per_byte: 1,
    };
    assert_eq!(fault_of(&planted, b"fine"), None);
    let told = fault_of(&planted, b"bug").unwrap();
    assert!(told.contains("planted") && told.contains("627567"), "{told}");
    let hungry = Target { run: |input| drop(vec![0_u8; 1024 * input.len()]), ..planted };
    assert_eq!(fault_of(&hungry, b"abc"), None);
    let told = fault_of(&hungry, b"abcdef").unwrap();
    assert!(told.contains("6144 bytes of memory where 4102"), "{told}");
}

#[test]
fn mutations_reach_what_is_a_few_bytes_away() {
    let kept = vec![("seed".to_owned(), b"bag".to_vec())];
    let mut chance = Chance::new(1);
    let found = (0..20_000).any(|_| {
        let input = mutated(&kept, &mut chance);
        input.len() > 3 && input.starts_with(b"ba") && input.contains(&0xff)
    });
    assert!(found, "no mutation did what it is for");
}

#[test]
fn corpora_are_small_enough_to_be_kept() {
    let mut total = 0;
    for target in TARGETS {
        for (file, input) in corpus(target.name) {
            assert!(input.len() <= FILE_BYTES_MAX, "{}/{file}: {} bytes", target.name, input.len());
            total += input.len();
        }
    }
    assert!(total <= CORPUS_BYTES_MAX, "{total} bytes in all");
}

/// `cargo test --test fuzz -- --ignored write`: makes the inputs to begin with again. What a fuzzer
/// found (`found-…`) stays.
#[test]
#[ignore = "writes into the repository"]
fn write_the_inputs_to_begin_with() {
    for target in TARGETS {
        let directory = corpus_of(target.name);
        fs::create_dir_all(&directory).unwrap();
        for (file, _) in corpus(target.name) {
            if file.starts_with("seed-") {
                fs::remove_file(directory.join(file)).unwrap();
            }
        }
        for (number, input) in (target.seeds)().into_iter().enumerate() {
            fs::write(directory.join(format!("seed-{number:02}")), input).unwrap();
        }
    }
}
