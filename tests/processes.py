"""Python in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# At the start of code for `run`: the package as it is without mmdet, whose import takes longer than all else.
WITHOUT_MMDET = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'mmdet' else find(name, *rest)
"""


def run(code: str, **environment) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def side_by_side(calls: Iterable[Sequence[object]]) -> None:
    """Runs calls of Python at once, each a list of arguments; what they write to stderr pytest shows."""
    python = [sys.executable, '-W', 'ignore']
    processes = [subprocess.Popen([*python, *map(str, call)], cwd=ROOT, stdout=subprocess.DEVNULL) for call in calls]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
