#!/usr/bin/env bash
# Sets up .venv and runs the tests, pytest's arguments passed on; --all adds what takes longer.
#
# Three times pytest, because Triton decides at import whether it interprets or compiles, and autograd at the first backward
# which devices there are; a file at a time on each of up to 4 cores. With --all a fourth time: whatever a GPU would be asked of
# the cuda backend, in software.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh

quick=' and not slow'
if [ "${1:-}" = --all ]; then
  quick=
  shift
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export OMP_WAIT_POLICY=passive  # threads that spin while they wait would take a core from the other files
cores=$(nproc)
ran=
failed=0
run() {  # a part whose tests fail does not keep the others from running
  local status=0
  .venv/bin/python -m pytest -q -n $((cores < 4 ? cores : 4)) --dist loadfile "$@" || status=$?
  case $status in
    0) ran=yes ;;
    1) failed=1 ;;
    5) ;;  # the tests that were asked for are none of these
    *) exit $status ;;
  esac
}
echo '== formatter and linter'
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/clang-format --dry-run --Werror focal_plugin/kernels/native/*.{h,cpp} focal_plugin/kernels/cuda/*.{h,cu} focal_plugin/math/*.h
echo '== types'
.venv/bin/python -m mypy
.venv/bin/python -m mypy $(ls focal_plugin/*.pyi focal_plugin/*/*.pyi | sed 's/i$//')  # what stubs hide
echo '== tests of the Triton kernels, interpreted'
TRITON_INTERPRET=1 run -m "triton$quick" "$@"
if [ -z "$quick" ]; then
  echo '== tests of the CUDA kernels, in software'
  FOCAL_SOFTWARE=1 run -m software "$@"
fi
echo '== tests on a stand-in for a GPU'
run -m "stand_in$quick" --dist load "$@"  # most of them are in one file
echo '== tests'
run -m "not stand_in$quick" "$@"
[ $failed = 0 ] || exit 1
[ -n "$ran" ] || exit 5
