#!/usr/bin/env bash
# All that there is to run on a new GPU, in four parts of less than 9 minutes each; leaves one folder to read.
#
#   bash tools/first_gpu.sh [--out FOLDER] [1] [2] [3] [4]      (default: all parts, into work_dirs/first_gpu)
#
#   1  the tests on the GPU (pytest -m gpu, in up to 16 processes where pytest-xdist is installed)
#   2  FusedFocalLoss and its peers (tools/benchmarks/losses.py), and where matplotlib is installed a picture
#   3  where mmdet is installed: every variant, the heads, a training step (tools/benchmarks/variants.py, heads.py, training.py)
#   4  where mmdet is installed: every kernel, class convolution and loss (tools/benchmarks/kernels.py, cut.py)
#
# Takes the Python of the active environment, else that of .venv, and installs nothing. Exit status: 0 all went well, 1 a
# part failed or was not done in time (the other parts are run), 2 there is no GPU, or the arguments are wrong.
set -uo pipefail

usage() { echo "usage: bash tools/first_gpu.sh [--out FOLDER] [1] [2] [3] [4]; what is '$1'?" >&2; exit 2; }
out='' parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --out)
      [ $# -ge 2 ] || { echo '--out needs a folder' >&2; exit 2; }
      out=$(realpath -m -- "$2")
      shift 2 ;;
    1 | 2 | 3 | 4) parts+=("$1"); shift ;;
    *) usage "$1" ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(1 2 3 4)
cd "$(dirname "$0")/.."
out=${out:-work_dirs/first_gpu}

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  python=${VIRTUAL_ENV:-$CONDA_PREFIX}/bin/python
elif [ -x .venv/bin/python ]; then
  python=.venv/bin/python
else
  python=$(command -v python || command -v python3) || { echo 'there is no Python on the PATH' >&2; exit 2; }
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
has() { "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }

has torch || { echo "torch is not installed in $python" >&2; exit 2; }
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "torch sees no GPU here ($python)" >&2; exit 2; }

mkdir -p "$out" || exit 2
summary=$out/summary.txt
say() { echo "$*" | tee -a "$summary"; }
{
  date
  "$python" -m torch.utils.collect_env
  "$python" -m pip list 2>/dev/null | grep -E '^(mm|pytest)'
  echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  nvidia-smi || echo 'there is no nvidia-smi'
} >"$out/machine.txt" 2>&1

trap 'exit 130' INT  # pytest answers to Ctrl-C itself, after which Bash would go on
failed=0
# Runs a tool within what is left of its part, and writes its log, its verdict and what it left out.
run() {
  local name=$1 log=$out/$1.log begun=$SECONDS status
  shift
  say "$name: $*"
  timeout --foreground -s INT -k 20 $((end > SECONDS ? end - SECONDS : 1)) "$python" "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  grep -hE '^ *left out|NOT TIMED|no CUDA graph|NOISY|not installed|^(FAILED|ERROR) |[0-9]+ (passed|failed)' "$log" |
    sed 's/^ */  /' >>"$summary"
  case $status in
    0) say "  well, in $((SECONDS - begun)) s: $log" ;;
    124 | 137) say "  NOT DONE in its time; compiled kernels are kept, so it gets further when started again: $log"; failed=1 ;;
    *) say "  FAILED with status $status, in $((SECONDS - begun)) s: $log"; failed=1 ;;
  esac
}

for part in "${parts[@]}"; do
  end=$((SECONDS + 500))
  say "== part $part ($(date '+%F %T'))"
  case $part in
    1)
      how=(-m gpu -q)
      has xdist && how+=(-n $(($(nproc) < 16 ? $(nproc) : 16)) --dist worksteal)  # each holds half a gigabyte of the GPU
      run tests -m pytest "${how[@]}" ;;
    2)
      run benchmark -m tools.benchmarks.losses --device cuda --minutes 7.5 --out "$out/benchmark.csv"
      has matplotlib && [ -f "$out/benchmark.csv" ] && run picture -m tools.plots.benchmark "$out/benchmark.csv" ;;
    3)
      if has mmdet; then
        run variants -m tools.benchmarks.variants --device cuda --out "$out/variants.csv"
        run heads -m tools.benchmarks.heads --device cuda --out "$out/maps.csv"
        run training -m tools.benchmarks.training --device cuda --out "$out/training.csv"
      else
        say 'left out: the variants, the heads and the training step, because mmdet is not installed'
      fi ;;
    4)
      if has mmdet; then
        run kernels -m tools.benchmarks.kernels --out "$out/kernel_times.csv"
        run cut -m tools.benchmarks.cut --device cuda --out "$out/cut.csv"
      else
        say 'left out: the kernels, class convolution and loss, because mmdet is not installed'
      fi ;;
  esac
done
say "all is in $out"
exit $failed
