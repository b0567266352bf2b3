#!/usr/bin/env bash
# Makes a Python environment in target/ from a list of packages in training/: the trainer's, target/venv, without arguments.
# Does nothing when it is up to date. usage: training/setup_python.sh [REQUIREMENTS ENVIRONMENT]
set -euo pipefail

fail() { echo "setup_python: $*" >&2; exit 1; }

list=${1:-requirements.txt}
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/target/${2:-venv}
wanted=$root/training/$list
if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$venv/requirements.txt"; then
  exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing: install it (Debian: apt install python3 python3-venv)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is $(python3 --version), 3.11 or later is needed"
mkdir -p "$root/target"
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv" || fail "cannot make $venv (Debian: apt install python3-venv)"
echo "setup_python: installing the packages of training/$list"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted" || fail "pip failed: is a Python package index reachable?"
cp "$wanted" "$venv/requirements.txt"
echo "setup_python: $venv"
