"""mmdet's own tools/train.py, taken from the installed mmdet; `--help` lists its arguments."""

from training.mmdet_scripts import run

run('train.py')
