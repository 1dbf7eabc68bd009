#!/usr/bin/env bash
# Builds the wheels and the source distribution into dist/, and tries them.
#
#   bash tools/build_wheels.sh [PYTHON ...]
#
# A wheel serves every Python: one for Linux on x86_64, one for Linux on aarch64, and one without libraries for all others.
# tools/wheels/trial.py tries them in a fresh environment of each PYTHON; --no-trial in their place leaves that out.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${FOCAL_PLUGIN_PYTHON:-$(command -v .venv/bin/python || command -v python3.11 || command -v python3)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }
export PIP_DISABLE_PIP_VERSION_CHECK=1

step "tools"
"$python" -m venv "$scratch/tools"
tools="$scratch/tools/bin"
"$tools/python" -m pip install -q -r tools/wheels/requirements.txt
export ZIG_GLOBAL_CACHE_DIR=$scratch/zig

step "source distribution"
rm -rf dist
"$tools/python" -m build --no-isolation --sdist --outdir dist . >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }

# A wheel from the source distribution, into the folder $1, for the platform $2, by Clang for the target $3.
wheel() {
  printf '#!/bin/sh\nexec "%s" -m ziglang c++ -target %s "$@"\n' "$tools/python" "$3" >"$scratch/compiler"
  chmod +x "$scratch/compiler"
  CC=$scratch/compiler CXX=$scratch/compiler LDFLAGS=-s _PYTHON_HOST_PLATFORM=$2 \
    "$tools/python" -m pip wheel -q --no-build-isolation --no-deps --no-cache-dir -w "$1" dist/*.tar.gz
}
for machine in x86_64 aarch64; do
  step "wheel for Linux on $machine"
  wheel "$scratch/built" "linux-$machine" "$machine-linux-gnu.2.17"
  PATH="$tools:$PATH" "$tools/auditwheel" repair --only-plat --plat auto -w dist "$scratch"/built/*"_$machine.whl"
  "$tools/auditwheel" show dist/*"manylinux_2_17_$machine.whl"
done
step "macOS: that it compiles and links, no more; such a wheel has run nowhere"
wheel "$scratch/macos" macosx-11.0-arm64 aarch64-macos.11.0
ls "$scratch"/macos/*_arm64.whl
step "wheel without libraries"
CC=false CXX=false "$tools/python" -m pip wheel -q --no-build-isolation --no-deps --no-cache-dir -w dist dist/*.tar.gz
ls -l dist
[ "${1:-}" = --no-trial ] && exit 0

step "trials"
"$tools/python" -m tools.wheels.trial "$@"
