"""The tests that tools/benchmark.py runs before it times anything on a GPU."""

import importlib.util
import subprocess
import sys

from _results import ROOT

TESTS = ('tests/test_accuracy.py', 'tests/test_functional.py')  # of the loss that is timed


def tests_pass(seconds: float, tests: tuple[str, ...] = TESTS) -> bool:
    """Whether none fails in that time; prints what came of them."""
    if importlib.util.find_spec('pytest') is None:
        print('\nthe tests are not run, because pytest is not installed')
        return True
    # -x: as long as it runs, none has failed.
    command = ['pytest', '-m', 'gpu', '-x', '-q', *tests]
    print(f'\n{" ".join(command)}', flush=True)
    try:
        done = subprocess.run(
            [sys.executable, '-m', *command], cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        print(f'  none had failed when their {seconds:.0f} s were over')
        return True
    print(*done.stdout.splitlines()[-1 if done.returncode == 0 else -40 :], done.stderr, sep='\n')
    return done.returncode == 0
