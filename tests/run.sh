#!/usr/bin/env bash
# Every suite, with the runners' own closing lines. TELLTALE_SIZE=full runs the long ones at their full sizes.
set -euo pipefail
cd "$(dirname "$0")/.."

# One set of units for programs and tests, so that no dependency is compiled twice.
cargo build --release --locked --workspace --lib --bins --tests
cargo nextest run --release --workspace --locked --no-fail-fast
cargo test --release --workspace --locked --doc --quiet
python -m pytest -q training tests
