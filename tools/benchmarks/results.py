"""Committed CSV files of results, and what a row says about where it came from."""

import csv
import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / 'tools/results/benchmark.csv'
ACCURACY = ROOT / 'tools/results/accuracy.csv'
BYTES = ROOT / 'tools/results/bytes.csv'
KERNELS = ROOT / 'tools/results/kernels.csv'
VARIANTS = ROOT / 'tools/results/variants.csv'
MAPS = ROOT / 'tools/results/maps.csv'
TRAINING = ROOT / 'tools/results/training.csv'
TRITON_VERSIONS = ROOT / 'tools/results/triton_versions.csv'


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def update(path: Path, rows: Sequence[dict], key: Sequence[str]) -> None:
    """Writes rows into a CSV: one with the same key is replaced in its place, another appended."""
    merged = {tuple(row[k] for k in key): row for row in (read(path) if path.exists() else [])}
    merged |= {tuple(str(row[k]) for k in key): row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    with temporary.open('w', newline='') as file:
        columns = dict.fromkeys(name for row in merged.values() for name in row)
        writer = csv.DictWriter(file, list(columns), lineterminator='\n')
        writer.writeheader()
        writer.writerows(merged.values())
    temporary.replace(path)


def provenance(device: str) -> dict[str, str]:
    """The columns machine, torch, triton and commit."""
    return {
        'machine': torch.cuda.get_device_name() if device == 'cuda' else _cpu(),
        'torch': torch.__version__,
        'triton': importlib.import_module('triton').__version__ if importlib.util.find_spec('triton') else '',
        'commit': _commit(),
    }


def _cpu() -> str:
    names = [line.split(':', 1)[1].strip() for line in _lines('/proc/cpuinfo') if line.startswith('model name')]
    name = names[0] if names else 'CPU'
    threads = torch.get_num_threads()
    return f'{name}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread{"s" * (threads > 1)}'


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _commit() -> str:
    """The short hash, with a + where the package differs from it."""
    commit = _git('rev-parse', '--short', 'HEAD')
    return commit + '+' * bool(_git('status', '--porcelain', '--', 'focal_plugin')) if commit else 'none'


def _git(*command: str) -> str:
    done = subprocess.run(['git', '-C', ROOT, *command], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ''
