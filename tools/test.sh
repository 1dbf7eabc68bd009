#!/usr/bin/env bash
# Sets up .venv and runs the tests, pytest's arguments passed on; --all adds what takes longer.
#
# Two processes, because Triton decides at import whether it interprets or compiles.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh

kernels='triton and not slow' rest='not slow'
if [ "${1:-}" = --all ]; then
  kernels=triton rest=
  shift
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
echo '== formatter and linter'
.venv/bin/ruff format --check .
.venv/bin/ruff check .
echo '== tests of the Triton kernels, interpreted'
# Status 5: the tests that were asked for are none of the kernels'.
TRITON_INTERPRET=1 .venv/bin/python -m pytest -q -m "$kernels" "$@" || [ $? -eq 5 ]
echo '== tests'
.venv/bin/python -m pytest -q -m "$rest" "$@"
