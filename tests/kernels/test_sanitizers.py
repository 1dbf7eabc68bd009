"""The native library of this processor, built with AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from focal_plugin.kernels.native import loader

ROOT = Path(__file__).parents[2]
# Every loop, layout, weight and kind of target, and random calls.
TESTS = (
    'tests/campaign/test_campaign.py',
    'tests/kernels/test_one_pass.py',
    'tests/kernels/test_score_slot.py',
    'tests/losses/test_mask_focal.py',
    'tests/losses/test_softmax_focal.py',
    'tests/test_rows.py',
)
PAST_THE_END = """
import ctypes
import torch
from focal_plugin.kernels.native import loader
from focal_plugin.kernels.native.call import Call

pred, target = torch.zeros(1000), torch.zeros(1001)
call = Call(dims=1, threads=1, scale=1.0, exponent=2)
call.size[0] = 1001
call.input.set(pred)
call.target.set(target)
loader.entry_point('quality_focal')(ctypes.byref(call), loader.variant('quality_focal'))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def sanitized(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that runs the library built with sanitizers."""
    if loader.path() is None or shutil.which('g++') is None:
        pytest.skip('needs g++')
    # AddressSanitizer has to be loaded before anything else, and what it replaces in C++ with it.
    runtimes = [
        subprocess.check_output(['g++', f'-print-file-name={name}'], text=True).strip()
        for name in ('libasan.so', 'libstdc++.so')
    ]
    if not all(map(os.path.isabs, runtimes)):
        pytest.skip('needs the AddressSanitizer of g++')
    folder = tmp_path_factory.mktemp('sanitized')
    built = subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_ext', f'--build-lib={folder}', f'--build-temp={folder / "temp"}'],
        env=os.environ | {'CXX': 'g++', 'FOCAL_PLUGIN_SANITIZE': loader.path().name.split('.')[0].removeprefix('lib_')},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    library = folder / 'focal_plugin/kernels/native' / loader.path().name
    assert library.exists(), built.stderr
    return os.environ | {
        'FOCAL_PLUGIN_LIBRARIES': str(library.parent),
        'LD_PRELOAD': ' '.join(runtimes),
        'ASAN_OPTIONS': 'detect_leaks=0',  # Python keeps much to its end
        'UBSAN_OPTIONS': 'print_stacktrace=1',
    }


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_read_past_the_end_is_found(sanitized):
    run = python(sanitized, '-c', PAST_THE_END)
    assert 'AddressSanitizer: heap-buffer-overflow' in run.stderr, run.stderr


def test_the_tests_of_the_native_kernels_find_nothing(sanitized):
    chosen = ('-m', 'not slow and not triton and not stand_in', *TESTS)
    run = python(sanitized, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *chosen)
    assert run.returncode == 0, f'{run.stdout[-4000:]}\n{run.stderr[-8000:]}'
