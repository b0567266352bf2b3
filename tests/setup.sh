#!/usr/bin/env bash
# Installs what the test suites need beside Rust and Python: promtool, Redis and openssl (Debian), cargo-nextest and cargo-deny (crates.io).
# Idempotent. Everything that is not a system package goes below target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

DENY_VERSION=0.20.2
NEXTEST_VERSION=0.9.143

package() { # command, Debian package
    command -v "$1" >/dev/null && return
    [ "$(id -u)" = 0 ] || { echo "missing: $1; install it with 'sudo apt-get install $2' and run this again" >&2; exit 1; }
    echo "installing $2 for $1"
    if ! apt-get install -y -q --no-install-recommends "$2" >target/apt.log 2>&1; then
        apt-get update -q >>target/apt.log 2>&1
        apt-get install -y -q --no-install-recommends "$2" >>target/apt.log 2>&1 || { tail -5 target/apt.log >&2; exit 1; }
    fi
}

tool() { # cargo subcommand, version
    command -v "cargo-$1" >/dev/null && return
    echo "installing cargo-$1 $2 into target/tools (a few minutes, once)"
    cargo install "cargo-$1" --version "$2" --locked --root target/tools --quiet
}

mkdir -p target
package promtool prometheus
package redis-server redis-server
package redis-cli redis-tools
package openssl openssl
tool nextest "$NEXTEST_VERSION"
tool deny "$DENY_VERSION"
