"""tools/maintain/mmdet_tests.py on a folder of two small tests."""

import subprocess
import sys

import pytest

TOOL = 'tools.maintain.mmdet_tests'
BOTH_WAYS = """
import pytest
from mmdet.models.losses import FocalLoss

@pytest.mark.parametrize('kind', [FocalLoss])
def test_builds(kind):
    assert kind(gamma=1.5).gamma == 1.5

def test_fails():
    raise RuntimeError
"""
ALONE = """
from mmdet.models.losses import FocalLoss

def test_whose():
    assert FocalLoss.__module__.startswith('mmdet.')
"""


@pytest.mark.parametrize('files', [{'test_both.py': BOTH_WAYS}, {'test_both.py': BOTH_WAYS, 'test_alone.py': ALONE}])
@pytest.mark.slow
def test_prints_the_difference(tmp_path, files):
    folder = tmp_path / 'tests/test_models/test_losses'
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    done = subprocess.run([sys.executable, '-m', TOOL, tmp_path], capture_output=True, text=True, check=False)
    printed = done.stdout[done.stdout.index('mmdet alone:') :].splitlines()
    if len(files) == 1:
        assert done.returncode == 0
        assert printed == [
            'mmdet alone:   1 failure, 1 passed',
            'with override: 1 failure, 1 passed',
            'the same outcome of every test',
        ]
    else:
        assert done.returncode == 1
        assert printed == [
            'mmdet alone:   1 failure, 2 passed',
            'with override: 2 failure, 1 passed',
            'tests.test_models.test_losses.test_alone::test_whose: passed, with override failure',
        ]


def test_a_folder_without_tests_is_named(tmp_path):
    done = subprocess.run([sys.executable, '-m', TOOL, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f'{tmp_path} has none of' in done.stderr
