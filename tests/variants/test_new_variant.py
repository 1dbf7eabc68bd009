"""A variant is six files: made in a copy of the repository, it is found by every test that goes through all variants."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mmdet.registry  # noqa: F401  in which the classes are registered
import pytest

from tools.maintain import new_variant

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(
    '.*', '__pycache__', 'data', 'build', 'dist', '*.egg-info', 'work_dirs', 'shared', '*.so'
)
# Of one instruction set, which is what a processor without others loads. All take minutes to compile.
BUILD = """
import setuptools
whole = setuptools.setup
setuptools.setup = lambda ext_modules, **rest: whole(
    ext_modules=[each for each in ext_modules if each.name.endswith('baseline')], **rest
)
import setup
"""


@pytest.fixture
def start(tmp_path):
    """Runs Python in a copy of the repository; the result is what it printed."""
    copy = tmp_path / 'copy'
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    (copy / 'tests/data').symlink_to(ROOT / 'tests/data')
    environment = os.environ | {'PYTHONPATH': str(copy), 'ATEN_CPU_CAPABILITY': 'default', 'TRITON_INTERPRET': '1'}
    environment.pop('PYTEST_ADDOPTS', None)

    def run(*arguments: str) -> str:
        command = [sys.executable, '-W', 'ignore', *arguments]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout

    run.copy = copy
    return run


@pytest.mark.slow
def test_six_files_make_a_variant(start):
    files = start('-m', 'tools.maintain.new_variant', '--like', 'poly_focal', 'foo_focal').split()
    assert len(files) == 6 and all((start.copy / file).is_file() for file in files)
    for header in (start.copy / 'focal_plugin/math').glob('*.h'):
        if header.stem not in ('foo_focal', 'focal'):  # with which tests compare it
            header.unlink()
    if shutil.which('g++'):
        start('-c', BUILD, '-q', 'build_ext', '--inplace')
    for generator in ('readme_tables', 'stubs'):
        start('-m', f'tools.maintain.{generator}')
    assert '| `FusedFooFocalLoss` | `foo_focal_loss` |' in (start.copy / 'README.md').read_text()
    assert '`FusedFooFocalLoss`' in (start.copy / 'configs/README.md').read_text()
    passed = start(
        '-m', 'pytest', '-q', '-m', 'not slow', '-k',
        'foo_focal or foo-focal or FusedFooFocalLoss or lists_are_complete or every_variant',
        *(f'tests/{each}' for each in ('variants', 'oracle', 'kernels', 'losses', 'heads', 'test_configs.py')),
    )  # fmt: skip
    assert int(re.search(r'(\d+) passed', passed)[1]) > 200  # of every setting, on each backend


@pytest.mark.parametrize(
    ('name', 'like', 'message'),
    [
        ('Foo', 'focal', "'Foo' is no name of a module"),
        ('lambda', 'focal', "'lambda' is no name of a module"),
        ('foo', 'pow_focal', "there is no variant 'pow_focal'; there are asymmetric, "),
        ('poly_focal', 'focal', "'poly_focal' is taken: there is focal_plugin/math/poly_focal.py"),
        ('eager', 'focal', "'eager' is taken: there is focal_plugin/math/eager.py"),
    ],
)
def test_what_is_no_new_name_is_refused(monkeypatch, name, like, message):
    monkeypatch.setattr(sys, 'argv', ['new_variant', '--like', like, name])
    with pytest.raises(SystemExit, match=re.escape(message)):
        new_variant.main()
