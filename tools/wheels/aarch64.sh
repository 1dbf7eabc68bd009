#!/usr/bin/env bash
# Runs tests with the libraries of the aarch64 wheel in dist/, on a processor that QEMU emulates.
#
#   bash tools/wheels/aarch64.sh [pytest's arguments]
#
# The emulator and Debian's Python for arm64 are unpacked into a folder of the user's cache; nothing is installed. By default the tests
# that hold every variant to float64.
set -euo pipefail
cd "$(dirname "$0")/../.."

wheel=$(ls dist/*_aarch64.whl 2>/dev/null || true)
[ -n "$wheel" ] || { echo 'dist holds no wheel for aarch64: bash tools/build_wheels.sh --no-trial'; exit 1; }
for program in apt-get dpkg; do
  command -v $program >/dev/null || { echo "skipped: needs Debian's $program"; exit 0; }
done
python=${FOCAL_PLUGIN_PYTHON:-$(command -v .venv/bin/python || command -v python3)}
cache=${FOCAL_PLUGIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/focal_plugin}/aarch64

if [ ! -e "$cache/complete" ]; then
  rm -rf "$cache"
  mkdir -p "$cache"/{lists/partial,archives/partial,root,emulator}
  # Debian's lists of the other architecture stay in this folder, and out of the machine's own.
  cat >"$cache/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
Dir::State::lists "$cache/lists";
Dir::State::status "/dev/null";
Dir::Cache::archives "$cache/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Debug::NoLocking "true";
APT::Sandbox::User "";
END
  (cd "$cache/emulator" && apt-get download -qq qemu-user-static && dpkg -x qemu-user-static_*.deb . && rm ./*.deb)
  export APT_CONFIG=$cache/apt.conf
  apt-get -qq update
  apt-get -qq -y --download-only --no-install-recommends install python3 libstdc++6 libgomp1
  for package in "$cache"/archives/*.deb; do dpkg -x "$package" "$cache/root"; done
  unset APT_CONFIG
  # Named with what they need: pip would take the markers of this machine for those of the other.
  "$python" -m pip install -q --target "$cache/packages" --no-deps --only-binary=:all: --implementation cp \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    --python-version "$("$cache"/emulator/usr/bin/qemu-aarch64-static -L "$cache/root" "$cache/root/usr/bin/python3" -c 'import platform; print(platform.python_version())')" \
    torch==2.1.2 filelock fsspec jinja2 markupsafe mpmath networkx sympy typing-extensions 'numpy<2' \
    'pytest>=8' iniconfig packaging pluggy pygments psutil
  touch "$cache/complete"
fi

libraries=$(mktemp -d)
trap 'rm -rf "$libraries"' EXIT
"$python" -m zipfile -e "$wheel" "$libraries"
if [ $# = 0 ]; then
  set -- -k native -m 'not slow' tests/kernels/test_accuracy.py tests/variants/test_variants.py tests/losses/test_softmax_focal.py
fi
FOCAL_PLUGIN_LIBRARIES=$libraries/focal_plugin/kernels/native PYTHONPATH=$cache/packages PYTHONDONTWRITEBYTECODE=1 \
  "$cache/emulator/usr/bin/qemu-aarch64-static" -L "$cache/root" "$cache/root/usr/bin/python3" -m pytest -q -p no:cacheprovider "$@"
