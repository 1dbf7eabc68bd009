"""mmdet's own tools/test.py, taken from the installed mmdet; `--help` lists its arguments."""

from mmdet_script import run

run('test.py')
