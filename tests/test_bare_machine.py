"""With torch, Triton, NumPy and pytest alone, and no GPU: what runs, and that what is left out is named."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import NEEDED_BY_SOME

ROOT = Path(__file__).parents[1]
INSTALLED = ('torch', 'triton', 'pytest', 'numpy')
WITH_A_GPU = 'import torch\ntorch.cuda.is_available = lambda: True\n'  # which tests there are, is asked before any runs


def with_requirements(names) -> set[str]:
    """The distributions that an installer would bring."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        needed = map(Requirement, importlib.metadata.requires(name) or ())
        waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({'extra': ''})]
    return found


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """Runs Python where nothing else can be imported."""
    packages = tmp_path_factory.mktemp('packages')
    for name in with_requirements(INSTALLED):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {'..', '__pycache__'}:
            (packages / top).symlink_to(distribution.locate_file(top))
    (packages / 'with_a_gpu.py').write_text(WITH_A_GPU)

    def run(*arguments) -> subprocess.CompletedProcess:
        # -S: without site-packages.
        command = [sys.executable, '-S', *map(str, arguments)]
        environment = os.environ | {'PYTHONPATH': str(packages)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    assert run('-c', 'import mmdet').returncode and run('-c', 'import matplotlib').returncode
    return run


@pytest.mark.slow
def test_tests_that_need_nothing_else_are_collected_and_the_others_are_left_out_by_name(start):
    done = start('-m', 'pytest', '-q', '-p', 'with_a_gpu', '-m', 'gpu', '--collect-only')
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    collected = {line.partition('::')[0] for line in done.stdout.splitlines() if '::' in line}
    kept = (
        'test_functional',
        'kernels/test_accuracy',
        'kernels/test_ops',
        'variants/test_variants',
        'variants/test_ends',
    )
    assert {f'tests/{name}.py' for name in kept} <= collected
    left_out = dict(re.findall(r'(tests/\S+\.py) needs (\w+), which is not installed', done.stdout))
    assert left_out['tests/losses/test_losses.py'] == 'mmdet' and left_out['tests/interop/test_mmcv.py'] == 'mmcv'
    assert set(left_out.values()) <= set(NEEDED_BY_SOME) and not collected & set(left_out)


@pytest.mark.slow
def test_a_test_that_imports_mmdet_by_itself_is_left_out_too_and_an_unknown_module_is_an_error(start, tmp_path):
    (tmp_path / 'conftest.py').symlink_to(ROOT / 'tests/conftest.py')
    for name, module in {'known': 'mmdet.models', 'mistaken': 'mmdett'}.items():
        text = f'def test_it():\n    import {module}\n\n\ndef test_other():\n    pass\n'
        (tmp_path / f'test_{name}.py').write_text(text)
    (tmp_path / 'test_mistaken_at_once.py').write_text('import mmdett\n')
    done = start('-m', 'pytest', '-q', '-ra', '--continue-on-collection-errors', tmp_path)
    assert '1 failed, 2 passed, 1 skipped, 1 error' in done.stdout
    assert 'test_known.py needs mmdet, which is not installed' in done.stdout


@pytest.mark.slow
def test_the_benchmark_times_what_is_there(start, tmp_path):
    out = tmp_path / 'benchmark.csv'
    arguments = ('--dtypes', 'float32', '--shapes', '50x3', '--quick', '--out', out)
    names = ('mmdet FocalLoss', "torchvision's formula", 'sigmoid_focal_loss (torch)')
    done = start('-m', 'tools.benchmarks.losses', *arguments, '--contenders', *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'left out: mmdet FocalLoss: mmdet is not installed' in done.stdout
    assert all(name in out.read_text() for name in names[1:])


@pytest.mark.parametrize(
    ('tool', 'status', 'said'),
    [
        ('losses', 2, 'torch sees no GPU here'),
        ('variants', 1, 'mmdet is not installed'),
        ('heads', 1, 'mmdet is not installed'),
        ('training', 1, 'mmdet is not installed'),
    ],
)
def test_what_cannot_run_is_said(start, tool, status, said):
    done = start('-m', f'tools.benchmarks.{tool}', '--device', 'cuda')
    assert done.returncode == status and said in done.stderr and 'Traceback' not in done.stderr
