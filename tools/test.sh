#!/usr/bin/env bash
# Sets up .venv and runs the tests, pytest's arguments passed on; --all adds what takes longer.
#
# Twice pytest, because Triton decides at import whether it interprets or compiles; a file at a time on each of up to 4 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh

kernels='triton and not slow' rest='not slow'
if [ "${1:-}" = --all ]; then
  kernels=triton rest=
  shift
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export OMP_WAIT_POLICY=passive  # threads that spin while they wait would take a core from the other files
cores=$(nproc)
run() { .venv/bin/python -m pytest -q -n $((cores < 4 ? cores : 4)) --dist loadfile "$@"; }
echo '== formatter and linter'
.venv/bin/ruff format --check .
.venv/bin/ruff check .
echo '== tests of the Triton kernels, interpreted'
# Status 5: the tests that were asked for are none of the kernels'.
TRITON_INTERPRET=1 run -m "$kernels" "$@" || [ $? -eq 5 ]
echo '== tests'
run -m "$rest" "$@"
