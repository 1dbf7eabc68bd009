"""Pictures and tables of losses, benchmarks and training runs, and how the pictures look."""

import sys
from pathlib import Path

import matplotlib

matplotlib.rcParams.update(
    {
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.grid': True,
        'axes.axisbelow': True,
        'grid.alpha': 0.25,
        'legend.frameon': False,
    }
)


def newest(path: Path, pattern: str, what: str) -> Path:
    """The file itself, or the newest one of a work_dir that fits the pattern."""
    if path.is_file():
        return path
    found = sorted(path.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        sys.exit(f'{path}: no {pattern} in it; give {what}, or the file itself')
    return found[-1]
