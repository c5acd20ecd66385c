# What CI runs, and what a change needs before it is handed in.

# Formatting and lints; a warning is an error.
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# Every test; those that need root run by themselves where the process may.
test:
    cargo test --release

# Write the generated pages and tables anew.
docs:
    UPDATE_DOCS=1 cargo test --release -p kmemlab-trace --test docs
    UPDATE_DOCS=1 cargo test --release -p kmemlab-replay --test docs
    UPDATE_DOCS=1 cargo test --release -p kmemlab-tui --test docs
    UPDATE_DOCS=1 cargo test --release --test suite fidelity

# Record every sample trace anew (as root).
samples:
    cargo build --release --no-default-features --bin kmemlab
    KMEMLAB="${CARGO_TARGET_DIR:-target}/release/kmemlab" bash sample-traces/make/all.sh

# Speed and state of the replay of each sample trace.
bench:
    for trace in sample-traces/*.kmt; do \
        echo "$trace" && cargo run -q --release --no-default-features --bin kmemlab -- \
            replay --json "$trace" | grep -E '"(events_per_second|state_bytes)"'; done
