#!/usr/bin/env bash
# Formatting, lints, documentation, the contract and the licences; stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "-- $1"; shift; "$@"; }

step "cargo fmt" cargo fmt --all --check
step "clippy" cargo clippy --release --workspace --all-targets --locked -- -D warnings
step "clippy, object stores" cargo clippy --release --workspace --features telltale-service/object-store --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" step "rustdoc" cargo doc --release --workspace --no-deps --locked --quiet
(cd proto && step "buf lint" buf lint && step "buf breaking" buf breaking --against baseline.binpb)
step "ruff" ruff check training tests
step "ruff format" ruff format --check training tests
step "cargo deny" cargo deny --log-level error check licenses bans sources
