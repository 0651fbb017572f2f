//! The `duramen` binary: see `duramen --help`.

fn main() {}
