"""Which versions of Triton compile the kernels, found out in throw-away environments: run by hand, with network and no GPU.

    python -m tools.kernel_analysis.triton_versions 3.1.0 3.6.0 3.9.0

For each version and architecture: how many of the forward and backward kernels of every variant in fp32 and bf16 compile,
of 80, 3 and 365 classes, with the arguments that the package launches them with; and what the self-test of the Triton
backend says, interpreted on the CPU. Nothing runs on a GPU. The rows go to tools/results/triton_versions.csv, where those of
the same version and architecture are replaced.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.benchmarks.results import ROOT, TRITON_VERSIONS, provenance, table, update
from tools.kernel_analysis.gpus import ARCHS

# Interpreters before 3.9 take arrays of one element for numbers, which NumPy 2.4 refuses.
NUMPY = 'numpy<2.4'
SELF_TEST = """
import torch
from focal_plugin.kernels.triton import selftest
try:
    selftest.require(torch.empty(1))
    print('passes')
except RuntimeError as error:
    print(error)
"""


def pinned_torch() -> str:
    """The requirement of torch in requirements.txt."""
    return re.search(r'^torch==\S+', (ROOT / 'tools/requirements.txt').read_text(), re.MULTILINE).group()


def environment(folder: Path, version: str) -> Path:
    """The Python of a new environment that has this Triton."""
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    python = folder / 'bin/python'
    # One after the other: torch's GPU builds ask for a Triton of their own.
    for packages in ([pinned_torch(), NUMPY, 'setuptools'], [f'triton=={version}']):
        subprocess.run([python, '-m', 'pip', 'install', '-q', *packages], check=True, stderr=subprocess.DEVNULL)
    return python


def run(python: Path, *arguments: Any, interpret: bool = False) -> subprocess.CompletedProcess:
    """A Python process that sees this package, and caches what it compiles in its environment."""
    variables = {'PYTHONPATH': str(ROOT), 'TRITON_CACHE_DIR': str(python.parents[1] / 'cache')}
    variables |= {'TRITON_INTERPRET': str(int(interpret))}
    return subprocess.run([python, *arguments], env=os.environ | variables, cwd=ROOT, capture_output=True, text=True)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ['no message'])[-1]


def counted(output: str, died: str | None) -> dict[str, Any]:
    """The columns of a run of launches.py, from the lines it wrote; died: what it said when it did before its end."""
    lines = [json.loads(line) for line in output.splitlines()]
    errors = Counter(line['error'].splitlines()[0] for line in lines if line['error'])
    failed = [f'{count} x {error}' for error, count in errors.items()]
    return {
        'compiled': len(lines) - errors.total(),
        'kernels': len(lines),
        'failed': '; '.join(failed + ([] if died is None else [f'then the compiler died: {died}'])),
    }


def of_version(version: str, archs: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a version, one per architecture."""
    commit = provenance('cpu')['commit']
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder), version)
        torch = last_line(run(python, '-c', 'import torch; print(torch.__version__)').stdout)
        tested = run(python, '-c', SELF_TEST, interpret=True)
        selftest = last_line(tested.stderr if tested.returncode else tested.stdout)
        rows = []
        for arch in archs:
            done = run(python, '-m', 'tools.kernel_analysis.launches', arch)
            columns = counted(done.stdout, last_line(done.stderr) if done.returncode else None)
            rows.append({'triton': version, 'torch': torch, 'arch': arch, **columns})
    return [row | {'self-test, interpreted': selftest, 'commit': commit} for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('versions', nargs='*', default=['3.1.0', '3.6.0', '3.9.0'], metavar='VERSION')
    parser.add_argument('--arch', nargs='+', choices=ARCHS, default=['sm_80', 'sm_90', 'gfx942'], metavar='ARCH')
    parser.add_argument('--csv', type=Path, default=TRITON_VERSIONS, metavar='FILE', help='default: %(default)s')
    args = parser.parse_args()
    rows, missing = [], []
    for version in args.versions:
        try:
            found = of_version(version, args.arch)
        except subprocess.CalledProcessError as error:
            print(f'no environment with Triton {version}: {error}', file=sys.stderr)
            missing.append(version)
            continue
        update(args.csv, found, key=('triton', 'arch'))
        rows += found
    if rows:
        print(table(rows))
    return 1 if missing else 0


if __name__ == '__main__':
    sys.exit(main())
