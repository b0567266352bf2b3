#!/usr/bin/env bash
# Regenerates the shipped models: simulate → replay --features → train, into models/default (or the folder given).
# The same seeds give the same digests on one CPU type. Settings: training/config.toml.
# usage: training/train.sh [REPOSITORY]      TELLTALE=path/to/telltale overrides the built binary, TELLTALE_WORK=folder where it works
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
repository=${1:-$root/models/default}
telltale=$(realpath -m "${TELLTALE:-$root/target/release/telltale}")
python=$root/target/venv/bin/python
work=$(realpath -m "${TELLTALE_WORK:-$root/target/train}")

fail() { echo "train: $*" >&2; exit 1; }
[ -x "$telltale" ] || fail "$telltale is absent: run \`make build\`"
"$root/training/setup_ort.sh"
"$root/training/setup_python.sh"
[ -x "$python" ] || fail "$python is absent: run training/setup_python.sh"
mkdir -p "$work"

# Training seeds are apart from those of `make run` and `make eval`.
setting() { "$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))[sys.argv[2]][sys.argv[3]])' "$root/training/config.toml" "$1" "$2"; }
excluded=$("$python" -c 'import sys, tomllib; print(",".join(tomllib.load(open(sys.argv[1], "rb"))["features"]["exclude"]))' "$root/training/config.toml")

echo "train: simulating"
"$telltale" simulate --seed "$(setting simulate seed)" --days "$(setting simulate days)" --customers "$(setting simulate customers)" \
  --intensity all --campaigns "$(setting simulate campaigns)" --variants train --out "$work/traffic.ndjson"
echo "train: replaying"
# From the working folder, where no shipped models stand: features need none.
(cd "$work" && "$telltale" replay traffic.ndjson --mode off --features features.parquet >replay.txt)
rm "$work/traffic.ndjson"

# Built aside, so that a failed run leaves the shipped models as they are.
rm -rf "$work/models"
mkdir -p "$work/models"
PYTHONPATH=$root/training "$python" -m telltale_training --features "$work/features.parquet" --repository "$work/models" \
  --config "$root/training/config.toml"
"$telltale" train --features "$work/features.parquet" --repository "$work/models" --model "$(setting forest name)" \
  --trees "$(setting forest trees)" --sample "$(setting forest sample)" --seed "$(setting forest seed)" --exclude "$excluded"
mkdir -p "$repository"
for model in "$work"/models/*/; do
  name=$(basename "$model")
  rm -rf "${repository:?}/$name"
  cp -R "$model" "$repository/$name"
  # What the repository keeps for itself while it is changed.
  rm -f "$repository/$name/.lock" "$repository/$name/.highest"
done
echo "train: $repository"
