"""mmdet's own tools/train.py, taken from the installed mmdet; `--help` lists its arguments."""

from mmdet_script import run

run('train.py')
