#!/usr/bin/env bash
# Runs the benches (all, or those named: core models grpc proxy replay redis), prints one table, writes target/bench/summary.json.
# A bar that fails prints as failing and does not stop the run.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet --workspace --lib --bins --tests
target/release/bench "$@"
