#!/usr/bin/env bash
# Every suite, then the checks of features and models at full size, which run the long suites again at theirs; each figure beside its bar. Then
# what is built only when asked for.
# What misses its bar is told at the end and does not stop the run.
set -uo pipefail
cd "$(dirname "$0")/.."

missed=()
tests/run.sh || missed+=("suites")
for check in features models; do
    TELLTALE_SIZE=full python3 "tests/check_$check.py" || missed+=("$check")
done
# A build of its own, since the feature is off in all others.
cargo test --release --locked -p telltale-service --features object-store --lib mirror || missed+=("object stores")
if ((${#missed[@]})); then
    echo "soak: not all of it holds: ${missed[*]}"
    exit 1
fi
echo "soak: everything holds"
