#!/usr/bin/env bash
# Sets each stack of versions up in a throw-away environment, installs the package there, tests it and trains with it, and
# writes tools/results/stacks.csv. Run by hand, with network; a stack downloads some gigabytes and takes about ten minutes.
#
#   bash tools/maintain/stacks.sh [NAME ...]      (default: all; the names: --help)
set -euo pipefail
cd "$(dirname "$0")/../.."
bash tools/setup_env.sh
exec .venv/bin/python -m tools.maintain.stacks "$@"
