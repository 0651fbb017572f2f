# Commands of the house. `just verify` before every review.

default: verify

# Format, lints, tests, documentation, dependencies.
verify:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo test --locked
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
    cargo deny check bans licenses sources

# A node with defaults.
run:
    cargo run --release

# The speed claims, with their floors, interleaved.
bench *ARGS:
    cargo run --release -- bench --baseline {{ARGS}}

# The micro-benchmarks of the cores.
bench-cores:
    cargo bench

# A fuzz target (docs/testing.md) for so many seconds; without a name the list of them.
fuzz TARGET="" SECONDS="60":
    bash .ci/fuzz {{TARGET}} {{SECONDS}}

# What CI does at night: each fuzz target for a minute, hostile clients.
nightly:
    bash .ci/nightly

# All that CI does, from a clean clone.
ci:
    bash .ci/run
