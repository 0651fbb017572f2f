//! HTTP: the book's first chapter on `/`, records as JSON on `/v1`, and whether the node is well.

mod body;
mod book;
mod door;
mod error;
mod health;
pub(crate) mod hostile;
mod json;
mod measured;
mod observe;
mod records;
mod serve;

pub use serve::{HttpFrontend, HttpLimits};
