"""Python in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
