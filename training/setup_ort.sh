#!/usr/bin/env bash
# Fetches ONNX Runtime for the scorer: the library out of the Python wheel, checked by its SHA-256, into target/onnxruntime/.
# Does nothing when it is there. Needs python3 with pip (to download only; nothing is installed) and sha256sum.
set -euo pipefail

version=1.31.1
wheel=onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl
sha256=5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f

fail() { echo "setup_ort: $*" >&2; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
target=$root/target/onnxruntime
library=$target/libonnxruntime.so
if [ -f "$library" ] && [ "$(cat "$target/VERSION" 2>/dev/null)" = "$version" ]; then
  exit 0
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "this script knows Linux x86_64 only; install ONNX Runtime $version yourself and set ORT_DYLIB_PATH"
command -v python3 >/dev/null || fail "python3 is missing: install it (Debian: apt install python3 python3-pip python3-venv)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing: install it (Debian: apt install python3-pip)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "setup_ort: downloading ONNX Runtime $version"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp --python-version 3.11 \
  --platform manylinux_2_28_x86_64 --dest "$work" "onnxruntime==$version" || fail "the download failed: is a Python package index reachable?"
[ -f "$work/$wheel" ] || fail "expected $wheel, got: $(ls "$work")"
echo "$sha256  $work/$wheel" | sha256sum --check --status || fail "$wheel has another SHA-256 than $sha256: refused"
python3 - "$work/$wheel" "$work" <<'PY'
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    for name in wheel.namelist():
        if name.startswith("onnxruntime/capi/libonnxruntime.so") or name in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
            wheel.extract(name, sys.argv[2])
PY
mkdir -p "$target"
cp "$work"/onnxruntime/capi/libonnxruntime.so.* "$target/libonnxruntime.so.new"
cp "$work"/onnxruntime/LICENSE "$work"/onnxruntime/ThirdPartyNotices.txt "$target/" 2>/dev/null || true
mv "$target/libonnxruntime.so.new" "$library"
echo "$version" >"$target/VERSION"
echo "setup_ort: $library"
