#!/usr/bin/env bash
# RetinaNet-R18 learns circuit boards from 120 real photos on the CPU, with FusedFocalLoss, and is tested on 29 others.
#
#   bash tools/demo.sh [--seed N]      (or SEED=N bash tools/demo.sh; default 0)
set -euo pipefail
cd "$(dirname "$0")/.."

seed=${SEED:-0}
while [ $# -gt 0 ]; do
  case $1 in
    --seed) seed=${2:?--seed needs a number}; shift 2 ;;
    --seed=*) seed=${1#*=}; shift ;;
    *) echo "usage: bash tools/demo.sh [--seed N]; what is '$1'?" >&2; exit 2 ;;
  esac
done
[[ $seed =~ ^[0-9]+$ ]] || { echo "the seed must be a whole number, not '$seed'" >&2; exit 2; }

bash tools/setup_env.sh

python=.venv/bin/python
config=configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py
data=tests/data/boards
work=work_dirs/demo_seed$seed
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
mkdir -p "$work"
step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

step "training on $data, seed $seed"
start=$SECONDS
"$python" tools/train.py $config --work-dir "$work" --cfg-options randomness.seed="$seed" 2>&1 | tee "$work/train.log"
seconds=$((SECONDS - start))

step "testing"
"$python" tools/test.py $config "$(cat "$work/last_checkpoint")" --work-dir "$work/test" --out "$work/predictions.pkl" \
  2>&1 | tee "$work/test.log"

step "results"
"$python" tools/coco_table.py "$work/test" --out "$work/coco_table.md"
"$python" tools/plot_training.py "$work" --out "$work/loss_curve.png" \
  --title "RetinaNet-R18 with FusedFocalLoss, 120 photos of boards, seed $seed" >/dev/null
"$python" tools/draw_detections.py "$work/predictions.pkl" $data/val.json --out "$work/detections.png" \
  --title "Validation photos, seed $seed: true and predicted boxes" >/dev/null

cat <<END

Trained in $seconds s. Made:
  $work/train.log        the log
  $work/coco_table.md    the COCO table, as above
  $work/loss_curve.png   losses and validation AP50 during training
  $work/detections.png   validation photos with true and predicted boxes

To train with another loss, change one line of $config:
$(grep -n "type='FusedFocalLoss'" $config)
END
