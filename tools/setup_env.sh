#!/usr/bin/env bash
# Sets up .venv with torch, mmengine, mmcv, mmdet and this package (editable), once; a second call returns at once.
# mmcv is built without its CUDA ops, which take an hour and a CUDA toolkit.
#
#   FOCAL_PLUGIN_PYTHON  the Python to make .venv with       (default: python3.11, else python3)
#   FOCAL_PLUGIN_TORCH   what to install as torch            (default: the line in tools/requirements.txt)
#   FOCAL_PLUGIN_CACHE   where the built mmcv wheel is kept  (default: the user's cache folder)
#
# Export FOCAL_PLUGIN_TORCH for tools/test.sh and tools/demo.sh too: they call this, and it installs what is asked for then.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${FOCAL_PLUGIN_PYTHON:-$(command -v python3.11 || command -v python3 || echo python3.11)}
torch=${FOCAL_PLUGIN_TORCH:-$(grep '^torch==' tools/requirements.txt)}
mmcv=$(grep '^mmcv==' tools/requirements.txt)
cache=${FOCAL_PLUGIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/focal_plugin}
stamp=.venv/focal_plugin.stamp
inputs() { cat tools/setup_env.sh tools/requirements.txt setup.cfg setup.py pyproject.toml; echo "$torch"; }
# The sources of the native kernel: an editable install has to rebuild the library when they change.
native() { find focal_plugin -name '*.cpp' -o -name '*.h' | LC_ALL=C sort | xargs cat; }
# What was built of them, for this folder: whoever builds by hand, deletes a library or moves the checkout changes it.
built() { pwd; cat focal_plugin/kernels/native/lib_*.so 2>/dev/null || true; }
digest() { "$1" | sha256sum | cut -d' ' -f1; }
wanted="$(digest inputs) $(digest native)"
[ "$(cat $stamp 2>/dev/null)" = "$wanted $(digest built)" ] && exit 0

step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

if [ "$(cut -d' ' -f1 $stamp 2>/dev/null)" != "${wanted% *}" ]; then
  step "virtual environment: .venv"
  # One without pip was interrupted, or made by a Python that lacks ensurepip.
  .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv .venv
  .venv/bin/python --version
  rm -f $stamp

  step "$torch"
  pip install -q "$torch"

  step "packages"
  grep -vE '^(torch|triton|mmcv|mmengine|mmdet)==' tools/requirements.txt >.venv/requirements.txt
  # torch is named again so that no package may replace it.
  pip install -q -r .venv/requirements.txt "$torch"
  # --no-deps: a GPU build of torch asks for the Triton of its own release.
  pip install -q --no-deps "$(grep '^triton==' tools/requirements.txt)"

  key=$(.venv/bin/python - <<'PY'
import sys, sysconfig, torch
print('-'.join([f'cp{sys.version_info[0]}{sys.version_info[1]}', sysconfig.get_platform(), f'torch{torch.__version__}']))
PY
)
  wheels="$cache/$mmcv-$key"
  wheels=${wheels//==/-}
  if ! ls "$wheels"/mmcv-*.whl >/dev/null 2>&1; then
    step "$mmcv: built from its sources, about 10 minutes on 2 cores; the wheel is kept in $wheels"
    scratch=$(mktemp -d) ticker=
    trap 'kill $ticker 2>/dev/null || true; rm -rf "$scratch"' EXIT
    # mmcv's setup.py imports pkg_resources, which setuptools has dropped; the old one serves this build only.
    pip install -q --target "$scratch/old" 'setuptools<70' wheel
    (while sleep 30 >/dev/null 2>&1; do printf '   ... %s  building mmcv\n' "$(date +%T)"; done) & ticker=$!
    status=0
    # --no-cache-dir: pip would hand out a wheel that it built beside another torch. -g0: debug symbols double the time.
    # No GPU is to be seen: mmcv would build its CUDA ops.
    CUDA_VISIBLE_DEVICES= MMCV_WITH_OPS=1 CFLAGS=-g0 MAX_JOBS=${MAX_JOBS:-$(nproc)} PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$scratch/old" \
      .venv/bin/python -m pip --disable-pip-version-check wheel -q --no-cache-dir --no-build-isolation --no-deps --no-binary mmcv \
      -w "$scratch/wheel" "$mmcv" >"$scratch/log" 2>&1 || status=$?
    kill $ticker 2>/dev/null || true
    if [ $status -ne 0 ]; then tail -n 60 "$scratch/log"; echo "mmcv did not build"; exit $status; fi
    mkdir -p "$wheels"
    wheel=$(ls "$scratch"/wheel/mmcv-*.whl)
    cp "$wheel" "$wheels/half.$$"  # under another name: an interrupted copy must not pass for a wheel
    mv "$wheels/half.$$" "$wheels/${wheel##*/}"
  fi

  step "mmengine, mmcv, mmdet"
  # --no-deps: mmcv and mmengine ask for opencv-python, which needs the system's libGL; requirements.txt brings
  # opencv-python-headless and the rest of what they need.
  pip install -q --no-deps "$wheels"/mmcv-*.whl $(grep -E '^(mmengine|mmdet)==' tools/requirements.txt)
fi

step "focal_plugin (editable)"
FOCAL_PLUGIN_NATIVE=required pip install -q --no-deps -e .
echo "$wanted $(digest built)" >$stamp
