//! The `duramen` binary: see `duramen --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    duramen::cli::run()
}
