//! Measures a node.

use super::Failure;
use super::exit::Class;

/// Arguments of `duramen bench`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Measures a node.
///
/// # Errors
/// Always, for now: there is nothing to measure with.
pub fn run(_: Args) -> Result<(), Failure> {
    Err(Failure::new(Class::Runtime, "this build has no benchmark"))
}
