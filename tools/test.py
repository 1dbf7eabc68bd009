"""mmdet's own tools/test.py, taken from the installed mmdet; `--help` lists its arguments."""

from training.mmdet_scripts import run

run('test.py')
