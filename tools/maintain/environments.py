"""What the tools share that work in throw-away environments."""

from __future__ import annotations
import os
import shutil
import subprocess
from pathlib import Path


def interpreter(version: str) -> str | None:
    """A Python of a version that runs: pyenv's newest, else that on the path."""
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    newest = max(map(str, pyenv.glob(f'{version}.*/bin/python')), default=None)
    for found in (newest, shutil.which(f'python{version}')):
        if found and subprocess.run([found, '--version'], capture_output=True).returncode == 0:
            return found
    return None


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ['nothing was printed'])[-1]
