#!/usr/bin/env bash
# Every suite, with the runners' own closing lines. TELLTALE_SIZE=full (make soak) runs them at their full sizes.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked -p telltale-service -p telltale-proxy
cargo nextest run --release --workspace --locked --no-fail-fast
cargo test --release --workspace --locked --doc --quiet
python -m pytest -q training tests
