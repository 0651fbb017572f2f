//! The integration tests: one binary, one file or folder per promise.

mod frontends;
