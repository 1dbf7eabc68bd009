#!/usr/bin/env bash
# RetinaNet-R18 learns circuit boards from 120 real photos on the CPU, with FusedFocalLoss, and is tested on 29 others.
# --masks: CondInst-R18 learns the masks of 14 photos of COCO by heart, with FusedMaskFocalLoss too, and is shown on the same.
# --classes 13204: FCOS-R18 tells the four kinds of boards among so many classes, with cut=True, and the memory that mmdet's
# head takes for that is measured or, of more classes than fit, computed.
#
#   bash tools/demo.sh [--masks | --classes N] [--seed N]      (or SEED=N bash tools/demo.sh; default 0)
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { echo "usage: bash tools/demo.sh [--masks | --classes N] [--seed N]; what is '$1'?" >&2; exit 2; }

seed=${SEED:-0}
classes=
name=demo
drawn=()
config=configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py
data=tests/data/boards
trained="RetinaNet-R18 with FusedFocalLoss, 120 photos of boards"
shown="Validation photos, seed SEED: true and predicted boxes"
while [ $# -gt 0 ]; do
  case $1 in
    --seed) seed=${2:?--seed needs a number}; shift 2 ;;
    --seed=*) seed=${1#*=}; shift ;;
    --masks)
      [ $name = demo ] || usage "$1"
      name=demo_masks
      config=configs/condinst/condinst_r18_fpn_coco-mini_fused-mask-focal.py
      data=tests/data/coco_mini
      trained="CondInst-R18 with FusedFocalLoss and FusedMaskFocalLoss, 14 photos learnt by heart"
      shown="The photos it was trained on, seed SEED: true and predicted masks"
      shift ;;
    --classes)
      [ $name = demo ] || usage "$1"
      classes=${2:?--classes needs a number}
      name=demo_$classes
      config=configs/cut/fcos_r18_fpn_boards_fused-head-cut.py
      trained="FCOS-R18 with FusedFocalLoss and cut=True, $classes classes, 120 photos of boards"
      drawn=(--as-many)  # among so many classes scores stay low
      shift 2 ;;
    *) usage "$1" ;;
  esac
done
[[ $seed =~ ^[0-9]+$ ]] || { echo "the seed must be a whole number, not '$seed'" >&2; exit 2; }
[[ $classes =~ ^[0-9]*$ ]] || { echo "the classes must be a whole number, not '$classes'" >&2; exit 2; }

bash tools/setup_env.sh

python=.venv/bin/python
work=work_dirs/${name}_seed$seed
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore CUDA_VISIBLE_DEVICES=  # mmcv has no CUDA ops in .venv
mkdir -p "$work"
step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

run=$config
if [ "$classes" ]; then
  "$python" -m tools.training.many_classes $config "$work/data" --classes "$classes"
  run=$work/data/config.py data=$work/data
fi

step "training on $data, seed $seed"
start=$SECONDS
"$python" -m tools.training.peak "$work/peak" "$python" tools/train.py "$run" --work-dir "$work" \
  --cfg-options randomness.seed="$seed" 2>&1 | tee "$work/train.log"
seconds=$((SECONDS - start))

step "testing"
"$python" tools/test.py "$run" "$(cat "$work/last_checkpoint")" --work-dir "$work/test" --out "$work/predictions.pkl" \
  2>&1 | tee "$work/test.log"

step "results"
"$python" -m tools.plots.coco_table "$work/test" --out "$work/coco_table.md"
"$python" -m tools.plots.training "$work" --out "$work/loss_curve.png" \
  --title "$trained, seed $seed" >/dev/null
"$python" -m tools.plots.detections "$work/predictions.pkl" $data/val.json --out "$work/detections.png" \
  --title "${shown/SEED/$seed}" ${drawn[@]+"${drawn[@]}"} >/dev/null

if [ "$classes" ]; then
  step "the most memory that a training held"
  "$python" -m tools.training.many_classes $config "$work/data" --classes "$classes" --compare "$(cat "$work/peak")"
fi

cat <<END

Trained in $seconds s. Made:
  $work/train.log        the log
  $work/coco_table.md    the COCO table, as above
  $work/loss_curve.png   losses during training, and AP50 where photos are left to validate on
  $work/detections.png   ${shown/SEED/$seed}

To train with another loss, change a line of $config:
$(grep -n "type='Fused.*Loss'" $config)
END
