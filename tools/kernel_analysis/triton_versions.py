"""Which versions of Triton compile the kernels, and compile them right: run by hand, with network and no GPU.

    python -m tools.kernel_analysis.triton_versions 3.0.0 3.6.0 3.9.0

For each version, in a throw-away folder before this environment's packages: how many of the forward and backward kernels
of every variant in fp32 and bf16 compile for each architecture, of 80, 3 and 365 classes, with the arguments that the
package launches them with; how many calls of tests/gpu/test_any_two.py are right in which any two of variant, dtype,
layout, number of classes and extra meet, compiled for sm_80 and sm_90 and executed in software; and what the self-test of
the Triton backend says, interpreted on the CPU. Nothing runs on a GPU. The rows go to
tools/results/triton_versions.csv, where those of the same version and architecture are replaced.
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

import torch

from tools.benchmarks.results import ROOT, TRITON_VERSIONS, provenance, table, update
from tools.kernel_analysis.gpus import ARCHS
from tools.maintain.environments import last_line

# Interpreters before 3.9 take arrays of one element for numbers, which NumPy 2.4 refuses.
NUMPY = 'numpy<2.4'
VERSIONS = ['3.0.0', '3.1.0', '3.2.0', '3.4.0', '3.6.0', '3.9.0']
IN_SOFTWARE = ('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', 'triton', 'tests/gpu/test_any_two.py')
SELF_TEST = """
import torch
from focal_plugin.kernels.triton import selftest
try:
    selftest.require(torch.empty(1))
    print('passes')
except RuntimeError as error:
    print(error)
"""


def installed(folder: Path, version: str) -> Path:
    """A folder that has this Triton, to be put before this environment's packages."""
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--target', folder]
    subprocess.run([*pip, f'triton=={version}', NUMPY], check=True, stderr=subprocess.DEVNULL)
    return folder


def run(folder: Path, *arguments: Any, interpret: bool = False) -> subprocess.CompletedProcess:
    """A Python process that has the folder's Triton, and caches there what it compiles."""
    variables = {'PYTHONPATH': os.pathsep.join(map(str, (folder, ROOT))), 'TRITON_CACHE_DIR': str(folder / 'cache')}
    variables |= {'TRITON_INTERPRET': str(int(interpret))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=os.environ | variables, cwd=ROOT, capture_output=True, text=True)


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


def right(output: str) -> str:
    """How many tests of a run of pytest passed, of how many."""
    found = Counter({what: int(count) for count, what in re.findall(r'(\d+) (passed|failed|error)', output)})
    return f'{found["passed"]} of {found.total()}'


def of_version(version: str, archs: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a version, one per architecture."""
    commit = provenance('cpu')['commit']
    with tempfile.TemporaryDirectory() as made:
        folder = installed(Path(made), version)
        tested = run(folder, '-c', SELF_TEST, interpret=True)
        columns = {
            'executed in software': right(run(folder, *IN_SOFTWARE).stdout),
            'self-test, interpreted': last_line(tested.stderr if tested.returncode else tested.stdout),
            'commit': commit,
        }
        rows = []
        for arch in archs:
            done = run(folder, '-m', 'tools.kernel_analysis.launches', arch)
            compiled = counted(done.stdout, last_line(done.stderr) if done.returncode else None)
            rows.append({'triton': version, 'torch': torch.__version__, 'arch': arch, **compiled, **columns})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('versions', nargs='*', default=VERSIONS, metavar='VERSION')
    parser.add_argument('--arch', nargs='+', choices=ARCHS, default=['sm_80', 'sm_90', 'gfx942'], metavar='ARCH')
    parser.add_argument('--csv', type=Path, default=TRITON_VERSIONS, metavar='FILE', help='default: %(default)s')
    args = parser.parse_args()
    rows, missing = [], []
    for version in args.versions:
        try:
            found = of_version(version, args.arch)
        except subprocess.CalledProcessError as error:
            print(f'no Triton {version}: {error}', file=sys.stderr)
            missing.append(version)
            continue
        update(args.csv, found, key=('triton', 'arch'))
        rows += found
    if rows:
        print(table(rows))
    return 1 if missing else 0


if __name__ == '__main__':
    sys.exit(main())
