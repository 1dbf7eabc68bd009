"""Committed CSV files of results, and what a row says about where it came from."""

import csv
import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'tools/results'
ACCURACY = RESULTS / 'accuracy.csv'
BENCHMARK = RESULTS / 'benchmark.csv'
BYTES = RESULTS / 'bytes.csv'
CALLS = RESULTS / 'calls.csv'
CUT = RESULTS / 'cut.csv'
HOSTS = RESULTS / 'hosts.csv'
KERNELS = RESULTS / 'kernels.csv'
KERNEL_TIMES = RESULTS / 'kernel_times.csv'
MAPS = RESULTS / 'maps.csv'
STACKS = RESULTS / 'stacks.csv'
STEPS = RESULTS / 'steps.csv'
TRAINING = RESULTS / 'training.csv'
TRITON_VERSIONS = RESULTS / 'triton_versions.csv'
VARIANTS = RESULTS / 'variants.csv'


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[dict]) -> None:
    """The rows with all columns that one of them has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    with temporary.open('w', newline='') as file:
        columns = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, list(columns), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def update(path: Path, rows: Sequence[dict], key: Sequence[str]) -> None:
    """Writes rows into a CSV: one with the same key is replaced in its place, another appended."""
    merged = {tuple(row[k] for k in key): row for row in (read(path) if path.exists() else [])}
    merged |= {tuple(str(row[k]) for k in key): row for row in rows}
    write(path, list(merged.values()))


def table(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, with all columns that one of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ['---'] * len(names), *([str(row.get(name, '')) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join('| ' + ' | '.join(map(str.ljust, line, widths)) + ' |' for line in lines)


def four_digits(number: float) -> str:
    """A figure of a table, of four significant digits and without an exponent: 25340, not 2.534e+04."""
    return f'{float(f"{number:.4g}"):g}'


def provenance(device: str) -> dict[str, str]:
    """The columns machine, torch, triton and commit."""
    return {
        'machine': torch.cuda.get_device_name() if device == 'cuda' else _cpu(),
        'torch': torch.__version__,
        'triton': importlib.import_module('triton').__version__ if importlib.util.find_spec('triton') else '',
        'commit': _commit(),
    }


def _cpu() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), 'CPU')
    threads = torch.get_num_threads()
    return f'{name}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread{"s" * (threads > 1)}'


def _commit() -> str:
    """The short hash, with a + where the package differs from it."""
    commit = _git('rev-parse', '--short', 'HEAD')
    return commit + '+' * bool(_git('status', '--porcelain', '--', 'focal_plugin')) if commit else 'none'


def _git(*command: str) -> str:
    done = subprocess.run(['git', '-C', ROOT, *command], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ''
