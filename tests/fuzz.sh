#!/usr/bin/env bash
# Feeds mutated bytes to every parser of foreign bytes, SECONDS_EACH a target (default 30), beginning with SEED (default: the day's number).
# An input that makes one panic or stall is kept in target/fuzz and can be given again with --input.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet --workspace --lib --bins --tests
target/release/fuzz --seconds "${SECONDS_EACH:-30}" --seed "${SEED:-$(date +%j)}" "$@"
