"""Runs the tests that need a GPU, in as many processes as there are cores, up to 16, where pytest-xdist is installed.

    python -m tools.maintain.gpu_tests [what pytest takes]

Most of their time compiles kernels, which Triton keeps: a second run is several times as fast. What needs a package that is
not installed is left out and named.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from tools.benchmarks.results import ROOT

TESTS = (
    'tests/kernels/test_accuracy.py',
    'tests/test_functional.py',
)  # of the loss that tools/benchmarks/losses.py times
MOST_PROCESSES = 16  # each holds half a gigabyte of the GPU's memory before its first tensor


def command(*arguments: str) -> list[str]:
    """What follows `python -m`."""
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    parallel = ['-n', str(processes), '--dist', 'worksteal'] if importlib.util.find_spec('xdist') else []
    return ['pytest', '-m', 'gpu', '-q', *parallel, *arguments]


def tests_pass(seconds: float, tests: Sequence[str] = TESTS) -> bool:
    """Whether none fails in that time; prints what came of them."""
    if importlib.util.find_spec('pytest') is None:
        print('\nthe tests are not run, because pytest is not installed')
        return True
    # -x: as long as it runs, none has failed.
    started = command('-x', *tests)
    print(f'\n{" ".join(started)}', flush=True)
    # A session of its own, so that the processes of xdist end with it.
    with subprocess.Popen(
        [sys.executable, '-m', *started],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            print(f'  none had failed when their {seconds:.0f} s were over')
            return True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    print(*said.splitlines()[-1 if process.returncode == 0 else -40 :], errors, sep='\n')
    return process.returncode == 0


def main(arguments: list[str]) -> None:
    if importlib.util.find_spec('pytest') is None:
        sys.exit('pytest is not installed in this Python: the tests need it')
    os.chdir(ROOT)
    # In this process's place: an interrupt is pytest's own, which then tells what was run.
    os.execv(sys.executable, [sys.executable, '-m', *command(*arguments)])


if __name__ == '__main__':
    main(sys.argv[1:])
